// Package chunkindex maps a blob to verifiable chunks.
//
// It is the vocabulary that the other packages share: how a blob is cut
// ([Layout]), which chunks of it somebody holds ([Bitfield]), what a chunk
// hashes to and who says so ([Claim]), how far bytes are known to be right
// ([Level]), who a node is ([NodeID]) and what a digest is called on the DHT
// ([CID]).
//
// It is pure: no I/O, no clock, no goroutine, no policy, and it imports no
// other package of this module. Everything that it decodes comes from other
// machines and is treated as hostile: decoders never panic, never allocate more
// than the input's own length warrants, and reject what they would not have
// encoded themselves.
package chunkindex
