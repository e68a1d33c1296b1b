// Package plan answers an operator's question with arithmetic alone: how long does a
// rollout take, and what does it ask of the registry, with Peercache and without? The
// formulas are those of fluids and of slotted time: what no schedule beats, or a
// schedule reaches that knows everything. What the nodes really do with what they know
// is package simulation's business; the distance between the two is what a plan shows.
package plan

import (
	"math/bits"
	"time"
)

const (
	chunk  = 1 << 20  // what a node passes on at the earliest, of all but the head
	stripe = 16 << 20 // what one request to the registry covers
)

// Question is a rollout: every node pulls all images at once, and none has anything.
// Rates are bytes a second.
type Question struct {
	Nodes int
	// Images are their sizes in bytes. Each is one of Layers layers of equal size.
	Images []int64
	Layers int
	// Up and Down are the rates of each node's link, Origin that of the registry's.
	Up, Down, Origin int64
	// Zones share the nodes evenly; ZoneLink is the rate of each one's link to the
	// others and to the registry, 0 without a bound. Paid: what goes over it is paid for.
	Zones    int
	ZoneLink int64
	Paid     bool
	Limit    Limit
	// Overhead is what the wire takes beyond the payload, in parts in a million of it, as in
	// a scenario's costs.overhead: rates are those of links, and times those of payload.
	Overhead int
}

// Limit is a registry's rate limit: so many requests in each window; none without
// Requests. Manifests: only those for manifests count. PerNode: each node has its own.
type Limit struct {
	Requests           int
	Window             time.Duration
	Manifests, PerNode bool
}

// Answer is what a rollout takes.
type Answer struct {
	// Time is until the last node has everything. Wait is the part of it for which the
	// rate limit makes the last one wait. Because says what the rest is bound by.
	Time, Wait time.Duration
	Because    string
	// Bytes are what the registry sends, Requests what it answers, Manifests those of
	// them that are for manifests.
	Bytes, Requests, Manifests int64
	// Paid are the bytes over paid links.
	Paid int64
}

// What bounds a rollout.
const (
	ByOrigin   = "the registry's link"
	ByNodes    = "the nodes' links"
	ByZones    = "the zones' links"
	ByUploads  = "what the nodes can send"
	ByPassing  = "the nodes' links, and passing it on"
	ByOriginUp = "the registry's link, and passing it on"
)

// Size is that of all images together.
func (q *Question) Size() int64 {
	var sum int64
	for _, n := range q.Images {
		sum += n
	}
	return sum
}

// Without is the rollout without Peercache: each node asks the registry for each manifest
// and each layer, and all share its link evenly, as N flows over one link do:
//
//	T = max(F/d, F/z n, N F/u)
//
// for N nodes, n of them in a zone, F bytes, links d of nodes, z of zones and u of the registry. Where
// all count for one limit of R requests in each window of W, the last of n requests waits
// for (ceil(n/R) - 1) W, and its node pulls after that with as many others as had
// to wait for the same window.
func (q *Question) Without() Answer {
	n, f := int64(q.Nodes), q.Size()
	images := int64(len(q.Images))
	a := Answer{Bytes: n * f, Manifests: n * images, Requests: n * images * int64(1+q.Layers)}
	if q.Paid {
		a.Paid = n * f
	}
	// How many pull in the last window.
	last := n
	if q.Limit.Requests > 0 {
		each := images // requests of a node that count
		if !q.Limit.Manifests {
			each *= int64(1 + q.Layers)
		}
		asking := n * each
		if q.Limit.PerNode {
			asking = each
		}
		windows := ceil(asking, int64(q.Limit.Requests)) - 1
		a.Wait = mulDiv(windows, int64(q.Limit.Window), 1)
		if windows > 0 && !q.Limit.PerNode {
			last = max(1, ceil(asking-windows*int64(q.Limit.Requests), each))
		}
	}
	a.Time, a.Because = longest(
		bound{q.span(f, q.Down), ByNodes}, bound{q.span(ceil(last, q.zones())*f, q.ZoneLink), ByZones}, bound{q.span(last*f, q.Origin), ByOrigin})
	a.Time = add(a.Time, a.Wait)
	return a
}

// Least is what no schedule at all beats, with Peercache or anything else that sends
// whole bytes (Kumar and Ross, "Peer-Assisted File Distribution: The Minimum Distribution
// Time", 2006):
//
//	T >= max(F/d, F/u, F/z, N F / (N s + u))
//
// with what nodes can send, s.
func (q *Question) Least() (time.Duration, string) {
	n, f := int64(q.Nodes), q.Size()
	bounds := []bound{{q.span(f, q.Down), ByNodes}, {q.span(f, q.Origin), ByOrigin}, {q.span(f, q.ZoneLink), ByZones}}
	if q.Up > 0 && q.Origin > 0 {
		bounds = append(bounds, bound{mulDiv(q.wire(f), n*int64(time.Second), n*q.Up+q.Origin), ByUploads})
	}
	return longest(bounds...)
}

// With is the best that nodes which pass on whole chunks can do, T*. A chunk of 1 MiB takes t on a
// node's link; those that have it double in each t, so that the last chunk reaches
// N nodes ceil(log2(N+1)) after its turn came (Mundinger, Weber and Weiss, "Optimal Scheduling of
// Peer-to-Peer File Dissemination", 2008, for equal links and M chunks):
//
//	T* = t (M - 1 + ceil(log2(N+1)))        u >= d
//	T* = F/u + t (ceil(log2(N+1)) - 1)      u < d
//
// Where the links of zones or what nodes can send are less, their bound takes the place of F/u. A
// registry that is faster than a node may beat T* a little, since it may send
// several first chunks at once: only [Question.Least] is never beaten.
//
// The registry sends one copy, in stripes of 16 MiB at most, and each manifest once. That goes over
// the link of one zone; into each other zone goes a copy over two, the link that it leaves by and
// the one that it comes by.
func (q *Question) With() Answer {
	f, images := q.Size(), int64(len(q.Images))
	a := Answer{Bytes: f, Manifests: images, Requests: images + q.stripes()}
	if q.Paid {
		a.Paid = f * (2*q.zones() - 1)
	}
	least, because := q.Least()
	rounds := int64(bits.Len(uint(q.Nodes))) // ceil(log2(n+1))
	// turns is how long a node's link takes for so many chunks.
	turns := func(chunks int64) time.Duration { return mulDiv(int64(q.span(chunk, q.Down)), chunks, 1) }
	switch {
	case because == ByNodes || because == ByUploads && q.Up >= q.Down:
		a.Time, a.Because = turns(ceil(f, chunk)-1+rounds), ByPassing
	case because == ByOrigin:
		a.Time, a.Because = add(least, turns(rounds-1)), ByOriginUp
	default:
		a.Time, a.Because = add(least, turns(rounds-1)), because
	}
	if r := q.Limit.Requests; r > 0 {
		asking := a.Requests
		if q.Limit.Manifests {
			asking = a.Manifests
		}
		if !q.Limit.PerNode {
			a.Wait = mulDiv(ceil(asking, int64(r))-1, int64(q.Limit.Window), 1)
		}
	}
	a.Time = add(a.Time, a.Wait)
	return a
}

// stripes is how many requests one copy takes.
func (q *Question) stripes() int64 {
	var n int64
	for _, image := range q.Images {
		left := image
		for k := range int64(q.Layers) {
			layer := left / (int64(q.Layers) - k)
			left -= layer
			n += max(1, ceil(layer, stripe))
		}
	}
	return n
}

func (q *Question) zones() int64 { return int64(max(q.Zones, 1)) }

type bound struct {
	time time.Duration
	name string
}

// longest is the greatest of some bounds, the first among equals.
func longest(all ...bound) (time.Duration, string) {
	most := all[0]
	for _, b := range all[1:] {
		if b.time > most.time {
			most = b
		}
	}
	return most.time, most.name
}

// span is how long n bytes of payload take on a link of a rate, 0 without a bound.
func (q *Question) span(n, rate int64) time.Duration {
	if rate <= 0 {
		return 0
	}
	return mulDiv(q.wire(n), int64(time.Second), rate)
}

// wire is how many bytes a link carries for n bytes of payload.
func (q *Question) wire(n int64) int64 {
	return int64(mulDiv(n, 1_000_000+int64(q.Overhead), 1_000_000))
}

// forever is the longest time there is.
const forever = time.Duration(1<<63 - 1)

func add(a, b time.Duration) time.Duration {
	if a > forever-b {
		return forever
	}
	return a + b
}

// mulDiv is a b / c, at most forever.
func mulDiv(a, b, c int64) time.Duration {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return forever
	}
	v, _ := bits.Div64(hi, lo, uint64(c))
	return time.Duration(min(v, uint64(forever)))
}

func ceil(a, b int64) int64 { return (a + b - 1) / b }
