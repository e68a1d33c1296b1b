//go:build !race

package simulation

// searchSeedsDefault is how many seeds the fault search of the tests tries: with the
// race detector it takes ten times as long, and there is nothing to race.
const searchSeedsDefault = 0
