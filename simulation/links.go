package simulation

import (
	"fmt"
	"slices"
	"strings"
)

// Sharing says how flows share links.
type Sharing uint8

const (
	// AutoShare is MaxMin for up to 50 nodes and LeveledShare for more.
	AutoShare Sharing = iota
	// EqualShare gives each flow the least of the equal shares of its links. What
	// one flow cannot use is not given to others, which wastes about a seventh of what
	// links could carry in a swarm, and links that all share make it slow.
	EqualShare
	// LeveledShare gives what a flow cannot use to the others of its links,
	// to within one or two percent of MaxMin, at a price that does not grow with the
	// cluster.
	LeveledShare
	// MaxMin gives every flow as much as it can have without less for one that has
	// no more, as TCP does in the long run. It costs time in proportion to all flows
	// whenever one starts or ends: for small clusters.
	MaxMin
)

// exactNodes is up to how many nodes AutoShare is exact.
const exactNodes = 50

var sharingNames = [...]string{"auto", "equal", "leveled", "max-min"}

// String is the name as in reports.
func (s Sharing) String() string { return sharingNames[s] }

// ParseSharing returns the sharing with a name.
func ParseSharing(name string) (Sharing, error) {
	k := slices.Index(sharingNames[:], name)
	if k < 0 {
		return 0, fmt.Errorf("%q is none of %s", name, strings.Join(sharingNames[:], ", "))
	}
	return Sharing(k), nil
}

// For is the sharing in a cluster of so many nodes: s, or what AutoShare stands for.
func (s Sharing) For(nodes int) Sharing {
	switch {
	case s != AutoShare:
		return s
	case nodes <= exactNodes:
		return MaxMin
	default:
		return LeveledShare
	}
}

const (
	nanos = 1_000_000_000
	// A flow is reported when so many bytes have come since, or so much time
	// has gone by.
	progressBytes = 256 << 10
	progressTime  = nanos / 4
	// unbounded is the rate of a link that has no bound of its own, but may get one.
	unbounded = int64(1) << 40
	// halted is the limit of a flow that does not move.
	halted = -1
)

// link is one direction of a connection: of a node, a rack, a zone or the origin.
type link struct {
	rate  int64 // bytes a second of payload; 0: nothing moves
	load  int64 // the sum of its flows' rates
	flows []ref
	dirty bool
	bytes int64 // that went through
	// for LeveledShare: what it offers each flow; whether that is less than one of them
	// could use; the rate that it was found for; whether it keeps its level in the round under way;
	// whether a flow waits for it
	level        int64
	tight        bool
	stays, waits bool
	leveled      int64
	// for MaxMin
	spare  int64
	unsure int64
}

// ref is a flow in a link's list, and which of the flow's links that is.
type ref uint32

func (r ref) flow() int32 { return int32(r >> 3) }

// maxHops is how many links a flow goes over at most: its node's, its rack's and its
// zone's, at either end.
const maxHops = 6

// hop is a link of a flow, and where the flow stands in the link's list.
type hop struct{ link, pos int32 }

// flow is a stream of bytes over some links.
type flow struct {
	hops    [maxHops]hop
	n       uint8 // of them
	path    classes
	origin  bool
	active  bool
	fixed   bool // for MaxMin
	owner   int32
	gen     uint32
	most    int64 // its own limit in bytes a second, 0 none
	rate    int64
	total   int64 // bytes
	left    int64 // byte-nanoseconds a second: bytes times a billion
	said    int64 // bytes that were reported
	saidAt  int64
	settled int64 // when left was right
	due     int64 // the earliest event that is planned for it, 0 none
}

// over returns the flow's links.
func (f *flow) over() []hop { return f.hops[:f.n] }

// network is all links and flows.
type network struct {
	q       *queue
	sharing Sharing
	links   []link
	flows   []flow
	free    []int32
	dirty   []int32
	// overhead is what the wire takes beyond the payload, in millionths of it: links
	// carry that much less.
	overhead int64
	// carried is the payload that flows brought over each class of links.
	carried [LinkClasses]int64
	// for LeveledShare: links in hand, flows that are new or have
	// a new limit, what flows could use
	touched, fresh []int32
	wants          []int64
	// for MaxMin
	rated, limited []int32
}

// addLink adds a link that carries rate bytes a second.
func (w *network) addLink(rate int64) int32 {
	rate = w.payload(rate)
	w.links = append(w.links, link{rate: rate, level: rate})
	return int32(len(w.links) - 1)
}

// payload is the part of a rate that the overhead leaves.
func (w *network) payload(rate int64) int64 {
	if w.overhead == 0 || rate <= 0 {
		return rate
	}
	return max(mulDiv(rate, 1_000_000, 1_000_000+w.overhead), 1)
}

// start begins a flow of total bytes. Its rate is known at the end of the
// instant.
func (w *network) start(now int64, p path, total, most int64, owner int32, origin bool) int32 {
	var i int32
	if n := len(w.free); n > 0 {
		i = w.free[n-1]
		w.free = w.free[:n-1]
	} else {
		w.flows = append(w.flows, flow{})
		i = int32(len(w.flows) - 1)
	}
	f := &w.flows[i]
	*f = flow{n: p.n, path: p.classes, most: w.payload(most), total: total, left: total * nanos, saidAt: now, settled: now,
		gen: f.gen + 1, owner: owner, origin: origin, active: true}
	for h, l := range p.links[:p.n] {
		k := &w.links[l]
		f.hops[h] = hop{l, int32(len(k.flows))}
		k.flows = append(k.flows, ref(i)<<3|ref(h))
		w.soil(l)
	}
	w.fresh = append(w.fresh, i)
	return i
}

// next has a flow go on with another total bytes.
func (w *network) next(now int64, i int32, total int64) {
	f := &w.flows[i]
	w.count(f, f.total)
	f.total, f.left, f.said, f.saidAt, f.settled = total, total*nanos, 0, now, now
	w.plan(i)
}

// end takes a flow away and returns how many of its bytes went through.
func (w *network) end(now int64, i int32) int64 {
	f := &w.flows[i]
	w.settle(f, now)
	moved := f.moved()
	w.count(f, moved)
	for _, h := range f.over() {
		k := &w.links[h.link]
		last := k.flows[len(k.flows)-1]
		k.flows[h.pos] = last
		w.flows[last>>3].hops[last&7].pos = h.pos
		k.flows = k.flows[:len(k.flows)-1]
		k.load -= f.rate
		w.soil(h.link)
	}
	f.active = false
	w.free = append(w.free, i)
	return moved
}

func (w *network) count(f *flow, bytes int64) {
	for _, h := range f.over() {
		w.links[h.link].bytes += bytes
	}
	for class, times := range f.path {
		w.carried[class] += bytes * int64(times)
	}
}

// setRate changes what a link carries.
func (w *network) setRate(l int32, rate int64) {
	w.links[l].rate = w.payload(rate)
	w.soil(l)
}

// setCap changes a flow's own limit.
func (w *network) setCap(i int32, most int64) {
	f := &w.flows[i]
	f.most = w.payload(most)
	for _, h := range f.over() {
		w.soil(h.link)
	}
	w.fresh = append(w.fresh, i)
}

func (w *network) soil(l int32) {
	if !w.links[l].dirty {
		w.links[l].dirty = true
		w.dirty = append(w.dirty, l)
	}
}

func (f *flow) moved() int64 { return f.total - (f.left+nanos-1)/nanos }

func (w *network) settle(f *flow, now int64) {
	// An event is planned no later than the end of the flow, so that this
	// does not overflow.
	f.left = max(0, f.left-f.rate*(now-f.settled))
	f.settled = now
}

// plan sees to it that something happens when the flow comes to its next
// milestone. An event that comes too early is harmless: it plans the next.
func (w *network) plan(i int32) {
	f := &w.flows[i]
	if f.rate == 0 {
		return
	}
	goal := min(f.total, (f.moved()/progressBytes+1)*progressBytes)
	need := f.left - (f.total-goal)*nanos
	at := f.settled + (need+f.rate-1)/f.rate
	at = min(at, max(f.saidAt+progressTime, f.settled+1))
	if f.due == 0 || at < f.due {
		f.due = w.q.push(at, evFlow, 0, f.gen, uint64(i))
	}
}

// flush gives flows their new rates where flows have come or gone.
func (w *network) flush(now int64) {
	if len(w.dirty) == 0 {
		return
	}
	switch w.sharing {
	case LeveledShare:
		w.spread(now)
		return
	case MaxMin:
		w.fill(now)
	default:
		for _, l := range w.dirty {
			for _, r := range w.links[l].flows {
				i := r.flow()
				w.rate(now, i, w.equalShare(&w.flows[i]))
			}
		}
	}
	for _, l := range w.dirty {
		w.links[l].dirty = false
	}
	w.dirty, w.fresh = w.dirty[:0], w.fresh[:0]
}

// equalShare is the least of the shares of the flow's links.
func (w *network) equalShare(f *flow) int64 {
	if f.most == halted {
		return 0
	}
	r := unbounded
	for _, h := range f.over() {
		k := &w.links[h.link]
		r = min(r, share(k.rate, int64(len(k.flows))))
	}
	if f.most > 0 {
		r = min(r, f.most)
	}
	return r
}

// share is a part of n of a rate: at least 1, lest a link that is slower than a
// byte a second for each of its flows never carry anything.
func share(rate, n int64) int64 {
	if rate == 0 {
		return 0
	}
	return max(rate/n, 1)
}

func (w *network) rate(now int64, i int32, r int64) {
	f := &w.flows[i]
	if f.rate == r {
		return
	}
	w.settle(f, now)
	for _, h := range f.over() {
		w.links[h.link].load += r - f.rate
	}
	f.rate = r
	w.plan(i)
}
