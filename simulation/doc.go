// Package simulation drives the policy of package fetcher/policy, the very code
// that nodes run, for whole clusters in one process and in virtual time: it
// shows within seconds what a rule costs, in time, in bytes from the origin and
// in messages.
//
// It is a flow-level model: bytes are streams that share links, not packets; a
// chunk is a symbol and not a payload, so that a wrong byte is a fact. There is
// no clock in it and no floating point where an order is decided, and goroutines only have
// cores take their steps: a run is a function of its [scenario.Run] and of the [Options], on
// every machine, and [Result.Trace] tells two runs apart.
//
// What it has of the world, and where that is:
//
//   - Links of nodes, racks, zones and the origin, and how flows share them: links.go.
//   - The time that messages, requests and answers take: latency, queues of full links,
//     what waits in a connection's buffers, lost packets, the receiver's CPU: messages.go.
//   - The DHT as delays that were measured, views that lack members, and records that
//     take a while to be found and outlive their nodes: dht.go.
//   - The store: a disk that writes one chunk after the other, what a crash of the
//     machine takes from it, rot, a disk that is full: disk.go, crash.go, wrong.go.
//   - The origin, its rate limits and its faults, and the client with which nodes ask it:
//     origin.go, originclient.go.
//   - Partitions and when connections break over them, clocks that are off: partition.go,
//     clock.go.
//   - Clients that pull images and ask again: client.go, bypass.go.
//
// How it goes on: one event after the other in cluster.go and dispatch.go, for large clusters in
// windows of time in windows.go and crew.go.
//
// What it is not: a model of TCP (a flow has its share of a link at once and a loss
// bounds its rate; there is no slow start), of tags, credentials of clients and other
// questions that package fetcher decides outside of the policy, or of CPUs beyond
// control messages and a constant cost for each MiB.
package simulation
