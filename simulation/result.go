package simulation

import (
	"math/bits"
	"slices"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// messageKinds is more than there are.
const messageKinds = 32

// Result says how a run went. Times are virtual.
type Result struct {
	// Makespan is from the first client's start to the last one's end.
	Makespan time.Duration
	// Optimum is T* of the run, as if all clients began at once, the longest of
	//
	//	t (M - 1 + ceil(log2(N+1)))       for N nodes and at most M chunks of 1 MiB for each,
	//	                                  that take t each on the slowest node's link
	//	f + F/u + t (ceil(log2(n+1)) - 1) for each slower link that n nodes share, the origin's,
	//	                                  a zone's or a rack's, of rate u: one copy of the F bytes
	//	                                  that are wanted behind it, from the first client there on
	//	a + B/d                           for each client that was served, which began at a: the B
	//	                                  bytes that its node did not want before
	//
	// Rates are those of payload, without Costs.Overhead.
	//
	// T* is the time of a schedule and no bound that nothing beats: an origin that is faster than a
	// node can send several first chunks at once, and where few nodes want what the others
	// do not, their last chunk has fewer to go to. Chunks of large blobs are longer than 1 MiB, for
	// which T* makes no allowance.
	Optimum time.Duration
	// ChunkTime is t.
	ChunkTime time.Duration
	// Completion and FirstByte are how long each client that was served
	// waited, ascending, from its own start.
	Completion, FirstByte []time.Duration

	// UniqueBytes is the size of all blobs that some client wanted, Wanted what the
	// nodes wanted each for itself. OriginBytes is what the origin sent,
	// OriginDelivered what of it came as whole chunks, PeerBytes what came from
	// peers as whole chunks, StoreBytes what clients found in their node's store,
	// CutBytes what went through in vain because a transfer or a read was given up.
	UniqueBytes, Wanted, OriginBytes, OriginDelivered, PeerBytes, StoreBytes, CutBytes int64
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

	// Unserved counts clients that were not served though their node lived and could
	// reach others or the origin, Killed those whose nodes died for good before, Failures
	// how often a client was told that it cannot have a blob.
	Unserved, Killed int
	Failures         int64
	// WrongReleases counts wrong chunks that were released to a client before
	// the whole was proven, WrongCompletions responses that were completed with
	// one: there must be none. RottenCompletions are those with bytes that were spoiled
	// on a disk after they were proven. HonestBans counts bans of honest nodes.
	WrongReleases, WrongCompletions, RottenCompletions, HonestBans int64
}

// wantedBy says which blobs some client of a node wants.
func (c *cluster) wantedBy(n *node) []bool {
	want := make([]bool, len(c.blobs))
	for _, p := range c.byNode[n.index] {
		for k := 0; ; k++ {
			b, ok := c.wanted(p, k)
			if !ok {
				break
			}
			if b >= 0 {
				want[b] = true
			}
		}
	}
	return want
}

// mulDiv is a * b / c for a product that may not fit.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q)
}

// tally finds out what is wanted in all.
func (c *cluster) tally() {
	c.byNode = make([][]int32, len(c.nodes))
	for i := range c.run.Pulls {
		n := c.run.Pulls[i].Node
		c.byNode[n] = append(c.byNode[n], int32(i))
	}
	unique := make([]bool, len(c.blobs))
	for _, n := range c.nodes {
		for k, w := range c.wantedBy(n) {
			if w {
				unique[k] = true
				c.res.Wanted += c.blobs[k].size
			}
		}
	}
	for k, w := range unique {
		if w {
			c.res.UniqueBytes += c.blobs[k].size
		}
	}
}

// conclude fixes the result as it is when the last client is done.
func (c *cluster) conclude() {
	r := c.res
	r.Optimum, r.ChunkTime = c.optimum()
	r.Trace = uint64(c.trace)
	r.StoreBytes = c.fromStore
	for _, n := range c.nodes {
		r.Sent = append(r.Sent, c.net.links[n.up].bytes)
		r.Received = append(r.Received, c.net.links[n.in].bytes)
	}
	r.OriginSent = c.net.links[c.originUp].bytes
	for i := range c.net.flows {
		f := &c.net.flows[i]
		if !f.active {
			continue
		}
		c.net.settle(f, c.now)
		moved := f.moved()
		r.CutBytes += moved
		if f.origin {
			r.OriginBytes += moved
			r.OriginSent += moved
			r.Received[c.reads.all[f.owner].node] += moved
		} else {
			t := &c.transfers.all[f.owner]
			r.Sent[t.from] += moved
			r.Received[t.to] += moved
		}
	}
	for i := range c.reads.all {
		r.CutBytes += c.reads.all[i].have
	}
	var last time.Duration
	for i := range r.Pulls {
		p := &r.Pulls[i]
		switch {
		case p.Done > 0:
			last = max(last, p.Done)
			r.Completion = append(r.Completion, p.Done-p.Begun)
			r.FirstByte = append(r.FirstByte, max(p.First-p.Begun, 0))
		case c.nodes[p.Node].gone:
			r.Killed++
		case c.cutOff(c.nodes[p.Node]):
			p.Excused = true
		default:
			r.Unserved++
		}
	}
	if last > 0 {
		r.Makespan = last - c.run.Pulls[0].At
	}
	slices.Sort(r.Completion)
	slices.Sort(r.FirstByte)
	end := c.point(c.now)
	end.Egress = r.OriginBytes // has what is under way
	c.series.points = append(c.series.points, end)
	r.Series, r.Links, r.Capacity = c.series.points, end.Links, c.topo.capacity()
}

// cutOff says whether a node is away, or can reach nobody.
func (c *cluster) cutOff(n *node) bool {
	if n.down || n.leaving {
		return true
	}
	if n.offline == 0 && c.suffers(scenario.OriginOutage, n) == nil {
		return false
	}
	return !slices.ContainsFunc(c.nodes, func(o *node) bool { return o != n && !o.down && !parted(n, o) })
}

// Copies is how many copies of what is wanted the origin sent.
func (r *Result) Copies() float64 { return float64(r.OriginBytes) / float64(max(r.UniqueBytes, 1)) }

// Slowdown is the makespan in units of the optimum.
func (r *Result) Slowdown() float64 { return float64(r.Makespan) / float64(max(r.Optimum, 1)) }

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
