// Package simulation drives the policy of package fetcher/policy, the very code
// that nodes run, for whole clusters in one process and in virtual time: it
// shows within seconds what a rule costs, in time, in bytes from the origin and
// in messages.
//
// It is a flow-level model: bytes are streams that share links, not packets; a
// chunk is a symbol and not a payload, so that a wrong byte is a fact. There is
// no clock in it, no goroutine and no floating point where an order is decided:
// a run is a function of its [Config], on every machine, and [Result.Trace]
// tells two runs apart.
//
// What it is not: a model of TCP (no slow start, no loss, no queues), of CPUs or
// of disks beyond a constant cost for each MiB.
package simulation
