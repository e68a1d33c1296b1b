// Package policy decides how a node obtains blobs: whom it asks, who reads
// which bytes from the origin, which chunk moves next and from whom, when bytes
// may be released to a client, and who is to blame when bytes are wrong.
//
// It is a pure core. [Core.Step] takes one event and appends the effects that
// follow from it. There is no I/O in it, no goroutine, no clock, no global
// randomness, no dependence on the order of a map and no floating point: time
// is an integer number of nanoseconds, data an integer number of bytes, and the
// same events with the same seed give the same effects on every machine. The
// production driver (package fetcher), the in-memory driver of the tests and the
// simulator all run this code.
//
// It never sees a payload. A driver moves the bytes, hashes them and reports
// the sums.
//
// DESIGN.md holds the closed tables of events, effects and messages, and the
// worked sequences; each of those is a test in this package.
package policy
