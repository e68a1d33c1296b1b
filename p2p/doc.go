// Package p2p finds the other nodes of a cluster and moves bytes between them.
//
// It owns one libp2p host (TCP, TLS 1.3, yamux) with a persisted Ed25519
// identity, a Kademlia DHT under a prefix of its own on which digests are
// provided and found, and three protocols of its own:
//
//   - control: one long-lived stream for each pair of nodes that carries
//     ordered frames in both directions and tells a dead peer from a quiet one;
//   - range: "these bytes of that blob", the bulk of all traffic;
//   - call: a small question and its small answer.
//
// It keeps the node connected: bootstrap sources are tried quickly and for
// ever, and the addresses of peers met before survive a restart.
//
// It decides nothing about content: what is served, fetched, believed or
// announced is the business of the [Handler] and of the callers. It verifies
// who a peer is, not whether its bytes are right. It holds no blob, and it does
// not decide who may join.
package p2p
