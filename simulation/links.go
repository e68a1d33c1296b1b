package simulation

// Sharing says how flows share links.
type Sharing uint8

const (
	// EqualShare gives each flow the least of the equal shares of its links. What
	// one flow cannot use is not given to others: cheap, and a little pessimistic.
	EqualShare Sharing = iota
	// MaxMin gives what a flow cannot use to the others, as TCP does in the long
	// run. It costs time in proportion to all flows whenever one starts or ends: for
	// small clusters.
	MaxMin
)

const (
	nanos = 1_000_000_000
	// A flow is reported when so many bytes have come since, or so much time
	// has gone by.
	progressBytes = 256 << 10
	progressTime  = nanos / 4
)

// link is one direction of a node's, or of the origin's, connection.
type link struct {
	rate  int64 // bytes a second
	flows []int32
	dirty bool
	bytes int64 // that went through
	// for MaxMin
	spare  int64
	unsure int64
}

// flow is a stream of bytes from one link to another.
type flow struct {
	from, to       int32 // links
	fromPos, toPos int32 // where it stands in their lists
	most           int64 // its own limit in bytes a second, 0 none
	rate           int64
	total          int64 // bytes
	left           int64 // byte-nanoseconds a second: bytes times a billion
	said           int64 // bytes that were reported
	saidAt         int64
	settled        int64 // when left was right
	due            int64 // the earliest event that is planned for it, 0 none
	gen            uint32
	owner          int32
	origin         bool
	active, fixed  bool
}

// network is all links and flows.
type network struct {
	q       *queue
	sharing Sharing
	links   []link
	flows   []flow
	free    []int32
	dirty   []int32
	rated   []int32 // links, for MaxMin
}

func (w *network) addLink(rate int64) int32 {
	w.links = append(w.links, link{rate: rate})
	return int32(len(w.links) - 1)
}

// start begins a flow of total bytes. Its rate is known at the end of the
// instant.
func (w *network) start(now int64, from, to int32, total, most int64, owner int32, origin bool) int32 {
	var i int32
	if n := len(w.free); n > 0 {
		i = w.free[n-1]
		w.free = w.free[:n-1]
	} else {
		w.flows = append(w.flows, flow{})
		i = int32(len(w.flows) - 1)
	}
	f := &w.flows[i]
	*f = flow{from: from, to: to, most: most, total: total, left: total * nanos, saidAt: now, settled: now,
		gen: f.gen + 1, owner: owner, origin: origin, active: true,
		fromPos: int32(len(w.links[from].flows)), toPos: int32(len(w.links[to].flows))}
	w.links[from].flows = append(w.links[from].flows, i)
	w.links[to].flows = append(w.links[to].flows, i)
	w.soil(from)
	w.soil(to)
	return i
}

// next has a flow go on with another total bytes.
func (w *network) next(now int64, i int32, total int64) {
	f := &w.flows[i]
	w.links[f.from].bytes += f.total
	w.links[f.to].bytes += f.total
	f.total, f.left, f.said, f.saidAt, f.settled = total, total*nanos, 0, now, now
	w.plan(i)
}

// end takes a flow away and returns how many of its bytes went through.
func (w *network) end(now int64, i int32) int64 {
	f := &w.flows[i]
	w.settle(f, now)
	moved := f.moved()
	w.links[f.from].bytes += moved
	w.links[f.to].bytes += moved
	w.unlist(f.from, f.fromPos)
	w.unlist(f.to, f.toPos)
	w.soil(f.from)
	w.soil(f.to)
	f.active = false
	w.free = append(w.free, i)
	return moved
}

// unlist takes the flow at pos from a link's list. A flow never has the same link
// at both ends, so that the link says which position is meant.
func (w *network) unlist(l, pos int32) {
	list := w.links[l].flows
	last := list[len(list)-1]
	list[pos] = last
	if f := &w.flows[last]; f.from == l {
		f.fromPos = pos
	} else {
		f.toPos = pos
	}
	w.links[l].flows = list[:len(list)-1]
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
		f.due = at
		w.q.push(at, evFlow, 0, f.gen, uint64(i))
	}
}

// flush gives flows their new rates where flows have come or gone.
func (w *network) flush(now int64) {
	if len(w.dirty) == 0 {
		return
	}
	if w.sharing == MaxMin {
		w.fill(now)
	} else {
		for _, l := range w.dirty {
			for _, i := range w.links[l].flows {
				w.rate(now, i, w.equalShare(&w.flows[i]))
			}
		}
	}
	for _, l := range w.dirty {
		w.links[l].dirty = false
	}
	w.dirty = w.dirty[:0]
}

func (w *network) equalShare(f *flow) int64 {
	from, to := &w.links[f.from], &w.links[f.to]
	r := min(from.rate/int64(len(from.flows)), to.rate/int64(len(to.flows)))
	if f.most > 0 {
		r = min(r, f.most)
	}
	return max(r, 1)
}

func (w *network) rate(now int64, i int32, r int64) {
	f := &w.flows[i]
	if f.rate == r {
		return
	}
	w.settle(f, now)
	f.rate = r
	w.plan(i)
}

// fill is progressive filling: the link with the least share for each of its
// flows fixes theirs, and what is left is shared by the others.
func (w *network) fill(now int64) {
	w.rated = w.rated[:0]
	var limited []int32
	for l := range w.links {
		k := &w.links[l]
		if len(k.flows) == 0 {
			continue
		}
		k.spare, k.unsure = k.rate, int64(len(k.flows))
		w.rated = append(w.rated, int32(l))
		for _, i := range k.flows {
			f := &w.flows[i]
			f.fixed = false
			if f.most > 0 && f.from == int32(l) {
				limited = append(limited, i)
			}
		}
	}
	fix := func(i int32, r int64) {
		f := &w.flows[i]
		if f.fixed {
			return
		}
		f.fixed = true
		for _, l := range [2]int32{f.from, f.to} {
			w.links[l].spare -= r
			w.links[l].unsure--
		}
		w.rate(now, i, max(r, 1))
	}
	for {
		least, share := int32(-1), int64(0)
		kept := w.rated[:0]
		for _, l := range w.rated {
			k := &w.links[l]
			if k.unsure == 0 {
				continue
			}
			kept = append(kept, l)
			if s := k.spare / k.unsure; least < 0 || s < share {
				least, share = l, s
			}
		}
		w.rated = kept
		if least < 0 {
			return
		}
		again := false
		for _, i := range limited {
			if f := &w.flows[i]; !f.fixed && f.most <= share {
				fix(i, f.most)
				again = true
			}
		}
		if again {
			continue
		}
		for _, i := range w.links[least].flows {
			fix(i, share)
		}
	}
}
