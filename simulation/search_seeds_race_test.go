//go:build race

package simulation

const searchSeedsDefault = 2
