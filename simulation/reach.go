package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// reach is what the faults make of the cluster: who can reach whom and the origin,
// whose bytes and whose word are good, and since when.
//
// Two nodes are in one component if they are up and no partition parts them.
// Partitions only ever part what they list from all others, so that this is an
// equivalence: nodes that the same partitions list are together.
type reach struct {
	c     *cluster
	nodes []standing
	parts []*parting
	// links holds since when each node has been connected to each, in clusters where
	// all are connected to all; nil in larger ones.
	links []int64
	// origin counts the faults under way that befall it for everybody, originSince
	// is when the last one began or ended, throttledSince the same of those that ask
	// for patience, originTrouble when the first began of those that followed one another.
	origin, throttled                          int
	originSince, throttledSince, originTrouble int64
	// changed is when a node last came, went or had a fault begin or end.
	changed int64
	// liars: some node did serve wrong bytes, or promised what it had not.
	liars bool
}

// standing is how one node stands.
type standing struct {
	component int32
	// since: nothing befell it, it was not parted nor brought back since then.
	since int64
	// sick counts the faults under way that make it of no use, or of little use, to
	// others; offline and throttled those that come between it and the origin.
	sick, offline, throttled                     int
	offlineSince, throttledSince, offlineTrouble int64
	// liar: it served wrong bytes, or promised what it had not, at some time; also
	// one whose disk rotted.
	liar bool
	// banned is when the last ban of it ends.
	banned int64
}

type parting struct {
	fault *scenario.Fault
	nodes []int32
}

// knownAfter is how long nodes have to find out about one another after something
// befell one of them: a silent node is pinged after Config.AskTimeout and passed
// over after as long again, the next coordinator surveys for Config.SettleTimeout;
// the rest is for the messages, which wait for busy CPUs and full links.
const knownAfter = int64(2500 * time.Millisecond)

// never is before all times.
const never = int64(-1 << 62)

func (w *reach) init(c *cluster) {
	w.c, w.nodes, w.originSince, w.throttledSince, w.changed = c, make([]standing, len(c.nodes)), never, never, never
	w.originTrouble = never
	for i := range w.nodes {
		w.nodes[i].since, w.nodes[i].offlineSince, w.nodes[i].throttledSince = never, never, never
		w.nodes[i].offlineTrouble = never
	}
	if len(c.nodes) <= fullMesh {
		w.links = make([]int64, len(c.nodes)*len(c.nodes))
	}
}

func (w *reach) disturb(i int32) { w.nodes[i].since, w.changed = w.c.now, w.c.now }

func (w *reach) linked(n *node, peer chunkindex.NodeID) {
	if o := w.c.nodeOf(&peer); o != nil && w.links != nil {
		since := w.c.now
		if since < startTime {
			since = never
		}
		w.links[int(n.index)*len(w.nodes)+int(o.index)] = since
	}
}

func (w *reach) began(f *scenario.Fault, nodes []int32) {
	for _, i := range nodes {
		w.befell(f, &w.nodes[i], 1)
	}
	if ofOrigin(f) {
		w.befellOrigin(f, 1)
	}
	if f.Kind == scenario.Partition {
		w.parts = append(w.parts, &parting{f, slices.Clone(nodes)})
		w.part()
	}
}

func (w *reach) ended(f *scenario.Fault, nodes []int32) {
	for _, i := range nodes {
		w.befell(f, &w.nodes[i], -1)
	}
	if ofOrigin(f) {
		w.befellOrigin(f, -1)
	}
	if f.Kind == scenario.Partition {
		if k := slices.IndexFunc(w.parts, func(p *parting) bool { return p.fault == f }); k >= 0 {
			w.parts = slices.Delete(w.parts, k, k+1)
		}
		w.part()
	}
}

// ofOrigin reports whether a fault befalls the origin, for everybody.
func ofOrigin(f *scenario.Fault) bool { return len(f.Nodes) == 0 && f.Role == "" }

func (w *reach) befell(f *scenario.Fault, s *standing, d int) {
	s.since, w.changed = w.c.now, w.c.now
	switch f.Kind {
	case scenario.Crash, scenario.Drain, scenario.Partition:
	case scenario.Offline, scenario.OriginError, scenario.OriginReset, scenario.OriginStall, scenario.OriginOutage, scenario.ExpiredToken:
		if s.offline == 0 && w.c.now >= s.offlineSince+breakerMost {
			s.offlineTrouble = w.c.now
		}
		s.offline += d
		s.offlineSince = w.c.now
	case scenario.OriginThrottle:
		s.throttled += d
		s.throttledSince = w.c.now
	case scenario.Rot, scenario.Corrupt, scenario.Forge, scenario.Lie:
		s.liar, w.liars = true, true
	default:
		s.sick += d
	}
}

func (w *reach) befellOrigin(f *scenario.Fault, d int) {
	if f.Kind == scenario.OriginThrottle {
		w.throttled += d
		w.throttledSince = w.c.now
		return
	}
	if w.origin == 0 && w.c.now >= w.originSince+breakerMost {
		w.originTrouble = w.c.now
	}
	w.origin += d
	w.originSince = w.c.now
}

// part finds the components anew. All nodes that a partition lists, or that are
// left on the other side of it, may have lost or found each other.
func (w *reach) part() {
	numbers := map[string]int32{}
	var key []byte
	for i := range w.nodes {
		key = key[:0]
		for k, p := range w.parts {
			if slices.Contains(p.nodes, int32(i)) {
				key = fmt.Appendf(key, "%d,", k)
			}
		}
		n, ok := numbers[string(key)]
		if !ok {
			n = int32(len(numbers))
			numbers[string(key)] = n
		}
		w.nodes[i].component, w.nodes[i].since = n, w.c.now
	}
}

// banned notes that some node bans another.
func (w *reach) banned(e *policy.Effect) {
	if o := w.c.nodeOf(&e.Peer); o != nil {
		w.nodes[o.index].banned = max(w.nodes[o.index].banned, int64(e.At))
	}
}

// counts reports whether what a node o holds, or does, counts for n: whether both
// are up, can reach each other, have had the time to know it, and nothing is wrong
// with o. For one that was found lying nothing does, as long as somebody bans it: who does
// neither serves it nor tells it who has what, and whether it meets others is
// chance.
func (w *reach) counts(n, o *node) bool {
	a, b := &w.nodes[n.index], &w.nodes[o.index]
	if n.down || o.down || a.component != b.component || b.liar || b.sick > 0 || a.sick > 0 || w.c.now < max(a.since, b.since)+knownAfter || a.liar && w.c.now < a.banned {
		return false
	}
	if w.links == nil {
		return len(n.peers) > 0
	}
	return n.isLinked(o.index) && w.c.now >= w.links[int(n.index)*len(w.nodes)+int(o.index)]+knownAfter
}

// How long after an origin's trouble a node may not have tried again: back-off
// doubles up to 16 times Config.RetryOrigin, and one that asks for patience is left
// alone for 30 s at most, on a peer's word too. Before that the node's circuit breaker may
// have to close: each opening is at most twice the one before, and all vary by a fifth. So
// the last one that began in the trouble is at most half as long again as the trouble, and
// a second, and never longer than breakerMost.
const (
	originRetry    = int64(5 * time.Second)
	originPatience = int64(31 * time.Second)
	breakerMost    = breakerLongest * 6 / 5
)

// breakerPause is how long breakers may be open after trouble that lasted from one
// moment to another.
func breakerPause(from, to int64) int64 {
	if from == never {
		return 0
	}
	return min(breakerMost, (to-from)*3/2+breakerFirst*6/5)
}

// hasOrigin reports whether a node could read from the origin now, and knows it.
func (w *reach) hasOrigin(n *node) bool {
	s := &w.nodes[n.index]
	now := w.c.now
	tries := max(s.offlineSince+breakerPause(s.offlineTrouble, s.offlineSince), w.originSince+breakerPause(w.originTrouble, w.originSince)) + originRetry
	return !n.down && s.offline == 0 && w.origin == 0 && s.throttled == 0 && w.throttled == 0 &&
		now >= tries && now >= max(s.throttledSince, w.throttledSince)+originPatience
}
