package simulation

import (
	"math/bits"
	"slices"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
)

// messageKinds is more than there are.
const messageKinds = 32

// Result says how a run went. Times are virtual.
type Result struct {
	// Makespan is from the first client's start to the last one's end.
	Makespan time.Duration
	// Optimum is T* of the run: t (M-1 + ceil(log2(N+1))) for M chunks of 1 MiB
	// that take t each on a node's link, and where the origin's link is slower, its
	// time for all bytes and t (ceil(log2(N+1)) - 1).
	Optimum time.Duration
	// ChunkTime is t.
	ChunkTime time.Duration
	// Completion and FirstByte are how long each client that was served
	// waited, ascending, from its own start.
	Completion, FirstByte []time.Duration

	// UniqueBytes is the image's size, OriginBytes what the origin sent,
	// OriginDelivered what of it came as whole chunks, PeerBytes what came from
	// peers as whole chunks, CutBytes what went through in vain because a
	// transfer or a read was given up.
	UniqueBytes, OriginBytes, OriginDelivered, PeerBytes, CutBytes int64
	// Sent and Received are the bytes that went through each node's links,
	// OriginSent those through the origin's.
	Sent, Received []int64
	OriginSent     int64

	// OriginRequests, Throttled, Transfers, Lookups and Provides count what the
	// cores asked for; Throttled the requests that the origin answered 429.
	OriginRequests, Throttled, Transfers, Lookups, Provides int64
	// Messages counts what was sent, by kind, Metrics the cores' counters.
	Messages [messageKinds]int64
	Metrics  [policy.MetricCount]int64

	// Recovery is the longest that it took after a node was killed until another
	// asked the origin for what it was reading, and until grants were given
	// again where it gave them. What never went on is not in it, nor what nobody
	// needed any more.
	Recovery time.Duration

	// Partial: the run was ended from outside.
	Partial bool
	// Pulls says how each pull of the run went, in its order; Series is the course of it.
	Pulls  []PullResult
	Series []Point
	// Links are the bytes that went over each class of links, Capacity what all
	// of the class could have carried a second.
	Links, Capacity [LinkClasses]int64
	// ManifestRequests is how many of OriginRequests were for manifests.
	ManifestRequests int64
	// Invariants are the rules that were checked.
	Invariants []Invariant
	// Wall is how long the run took in real time.
	Wall time.Duration

	// Events and Steps count what happened, and how often a core was asked.
	Events, Steps int64
	// Trace is a hash of all that cores were told, and when.
	Trace uint64

	// Unserved counts clients that were not served though their node lived,
	// Killed the nodes that stayed dead before their clients were done, Failures how
	// often a client was told that it cannot have a blob. Refused holds the
	// status that each node's client ended with, 0 for none.
	Unserved, Killed int
	Failures         int64
	Refused          []int
	// WrongReleases counts wrong chunks that were released to a client before
	// the whole was proven, WrongCompletions responses that were completed with
	// one: there must be none. HonestBans counts bans of honest nodes.
	WrongReleases, WrongCompletions, HonestBans int64
}

// optimum is T* for a run.
func (cfg *Config) optimum() (whole, chunk time.Duration) {
	t := int64(1<<20) * nanos / cfg.Down
	m := (cfg.Size + 1<<20 - 1) >> 20
	rounds := int64(bits.Len(uint(cfg.Nodes))) // ceil(log2(n+1))
	if cfg.Origin < cfg.Down {
		return time.Duration(mulDiv(cfg.Size, nanos, cfg.Origin) + t*(rounds-1)), time.Duration(t)
	}
	return time.Duration(t * (m - 1 + rounds)), time.Duration(t)
}

// mulDiv is a * b / c for a product that may not fit.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q)
}

func (c *cluster) finish() {
	r := c.res
	r.Optimum, r.ChunkTime = c.cfg.optimum()
	r.UniqueBytes = c.cfg.Size
	r.Trace = uint64(c.trace)
	for i := range c.net.flows {
		if f := &c.net.flows[i]; f.active {
			moved := c.net.end(c.now, int32(i))
			r.CutBytes += moved
			if f.origin {
				r.OriginBytes += moved
			}
		}
	}
	var last int64
	for _, n := range c.nodes {
		r.Sent = append(r.Sent, c.net.links[n.up].bytes)
		r.Received = append(r.Received, c.net.links[n.in].bytes)
		r.Refused = append(r.Refused, n.failed)
		switch {
		case n.done != 0:
			last = max(last, n.done)
			r.Completion = append(r.Completion, time.Duration(n.done-n.begun))
			r.FirstByte = append(r.FirstByte, time.Duration(n.first-n.begun))
		case n.down:
			r.Killed++
		default:
			r.Unserved++
		}
	}
	if last > 0 {
		r.Makespan = time.Duration(last - startTime)
	}
	r.OriginSent = c.net.links[c.originUp].bytes
	slices.Sort(r.Completion)
	slices.Sort(r.FirstByte)
}

// Copies is how many copies of the image the origin sent.
func (r *Result) Copies() float64 { return float64(r.OriginBytes) / float64(r.UniqueBytes) }

// Slowdown is the makespan in units of the optimum.
func (r *Result) Slowdown() float64 { return float64(r.Makespan) / float64(r.Optimum) }

// MessageCount is how many messages were sent.
func (r *Result) MessageCount() int64 {
	var n int64
	for _, k := range r.Messages {
		n += k
	}
	return n
}

// Percentile is the value in an ascending list below which p percent lie, 0 of
// an empty one.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min((len(sorted)*p+99)/100, len(sorted))-1]
}
