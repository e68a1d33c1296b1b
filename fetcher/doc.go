// Package fetcher obtains a blob: from the store, from other nodes, from the
// origin, in that order, chunk by chunk and from several of them at once.
//
// All readers of a blob share one download, which lives on the fetcher's own
// context and outlives any one of them. What to fetch from whom is decided by
// package policy; this package is its production driver: it owns the goroutine
// that feeds events to the core, carries out the effects on the store, the
// peers and the origin, moves the bytes, and wakes the readers.
//
// It speaks no HTTP to clients, knows nothing of libp2p, and keeps no bytes of
// its own.
package fetcher
