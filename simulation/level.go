package simulation

// Sharing that comes close to max-min for the price of the links that a change
// touches. Each link has a level: what it offers any of its flows that can use it,
// such that they, and those that their other links hold below it, fill it. The levels
// of links where nothing changed stay as they are, as in the asynchronous algorithms
// of flow control (Charny, Clark and Jain, Congestion control with explicit rate
// indication, 1995); flows grow only into what all of their links have to spare, so
// that no link ever carries more than its rate.

const (
	// rounds is how far within an instant a change spreads to links that it does not
	// touch.
	rounds = 2
	// A part of 1/worthwhile of a rate is worth a look at another link.
	worthwhile = 8
	// A link with more than manyFlows flows keeps its level, and 1/reserve of its rate for
	// those that come, until less than 1/leastSpare or more than 1/mostSpare is left.
	manyFlows  = 64
	reserve    = 64
	leastSpare = 512
	mostSpare  = 24
)

// spread gives flows new rates around the links that are dirty.
func (w *network) spread(now int64) {
	for round := 0; round < rounds && len(w.dirty) > 0; round++ {
		w.touched, w.dirty = w.dirty, w.touched[:0]
		for _, l := range w.touched {
			k := &w.links[l]
			k.dirty, k.stays, k.waits = false, k.keeps(), false
			if !k.stays {
				w.level(l)
			}
		}
		for _, l := range w.touched {
			if k := &w.links[l]; !k.stays {
				for _, r := range k.flows {
					w.lower(now, r.flow())
				}
			}
		}
		for _, l := range w.touched {
			if k := &w.links[l]; !k.stays {
				for _, r := range k.flows {
					w.raise(now, r.flow())
				}
			}
		}
		for _, i := range w.fresh {
			if w.flows[i].active {
				w.lower(now, i)
				w.raise(now, i)
			}
		}
		w.fresh = w.fresh[:0]
	}
	// What else a change would lead to is let go, save where a flow would starve: that goes
	// on in the next instant.
	kept := w.dirty[:0]
	for _, l := range w.dirty {
		if k := &w.links[l]; k.waits {
			kept = append(kept, l)
		} else {
			k.dirty = false
		}
	}
	w.dirty = kept
}

// keeps reports whether a link has so many flows that one more or less is no reason
// for another level.
func (k *link) keeps() bool {
	if len(k.flows) <= manyFlows || k.rate != k.leveled {
		return false
	}
	room := k.rate - k.load
	return room > k.rate/leastSpare && (!k.tight || room < k.rate/mostSpare)
}

// lower gives a flow less where it has more than its links offer.
func (w *network) lower(now int64, i int32) {
	f := &w.flows[i]
	to := w.offer(f, -1)
	if to >= f.rate {
		return
	}
	w.rate(now, i, to)
	for _, h := range f.over() {
		if k := &w.links[h.link]; k.tight && k.rate-k.load > k.rate/worthwhile {
			w.soil(h.link)
		}
	}
}

// raise gives a flow as much as its links offer and have.
func (w *network) raise(now int64, i int32) {
	f := &w.flows[i]
	to := w.offer(f, -1)
	if to <= f.rate {
		return
	}
	got := to
	for _, h := range f.over() {
		k := &w.links[h.link]
		room := f.rate + max(k.rate-k.load, 0)
		if room < to-to/worthwhile {
			w.soil(h.link)
			k.waits = k.waits || room < to/2
		}
		got = min(got, room)
	}
	w.rate(now, i, got)
}

// offer is what a flow's links, save one, offer it.
func (w *network) offer(f *flow, but int32) int64 {
	if f.most == halted {
		return 0
	}
	r := unbounded
	for _, h := range f.over() {
		if h.link != but {
			r = min(r, w.links[h.link].level)
		}
	}
	if f.most > 0 {
		r = min(r, f.most)
	}
	return r
}

// level finds a link's level from what its flows' other links offer them.
func (w *network) level(l int32) {
	k := &w.links[l]
	n, rate := int64(len(k.flows)), k.rate
	k.leveled = rate
	if n > manyFlows {
		rate -= rate / reserve
	}
	k.tight = false
	if n == 0 || rate == 0 {
		k.level = rate
		return
	}
	w.wants = w.wants[:0]
	var sum, most int64
	for _, r := range k.flows {
		d := w.offer(&w.flows[r.flow()], l)
		w.wants = append(w.wants, d)
		sum += d
		most = max(most, d)
	}
	if sum <= rate {
		k.level = rate - sum + most
		return
	}
	k.tight = true
	k.level = rate / n
	for {
		rest, open := rate, int64(0)
		for _, d := range w.wants {
			if d <= k.level {
				rest -= d
			} else {
				open++
			}
		}
		if open == 0 || rest/open <= k.level {
			break
		}
		k.level = rest / open
	}
	k.level = max(k.level, 1)
}
