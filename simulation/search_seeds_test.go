//go:build !race

package simulation

// searchSeedsDefault is how many seeds the fault search tries in a plain go test; make
// test-faults tries 200. With the race detector each takes ten times as long, and
// there is little to race.
const searchSeedsDefault = 12
