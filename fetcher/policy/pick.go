package policy

import (
	"time"
)

// Which chunk is asked of whom. Half of the slots go to what readers wait for, the
// lowest missing chunks; the other half to what the fewest neighbours hold, so that
// there is always something to trade.

// idle reports whether chunk i is missing and nothing is under way for it.
func (b *blob) idle(i int) bool { return !b.have.Has(i) && b.busy[i] == 0 }

// findFree makes c.free the neighbours that may be asked now for some chunk that is
// missing, and c.within what they have of those that one may choose from: the lowest
// [Config.Window] missing ones that somebody has, and as many ahead of each reader. It
// reports whether there are any. Almost always there are none: everybody is busy.
func (c *Core) findFree(b *blob) bool {
	c.findWindow(b)
	c.free = c.free[:0]
	if c.window.Count() == 0 {
		return false
	}
	c.within.Reset(b.n)
	c.wakeWhenFree(b)
	for k, free := range b.free {
		if free > c.now && (free == never || b.due != 0 && b.due <= free) {
			continue // and b is looked at again before it is free
		}
		row := b.row(k)
		if !c.window.Meets(row) || !c.reached(b, free) || !c.canUse(b, k) {
			continue
		}
		c.free = append(c.free, int32(k))
		if c.byZone && c.isFar(b.neighbours[k]) {
			c.offer(b.neighbours[k])
			continue
		}
		c.within.Join(row)
	}
	c.within.Intersect(c.window)
	return len(c.free) > 0
}

// wakeWhenFree asks for b to be looked at again when the first of those who are busy is
// free, if it has anything of c.window. It only saves findFree looking at most of the
// others.
func (c *Core) wakeWhenFree(b *blob) {
	first := -1
	least := never
	for k, free := range b.free {
		if free > c.now && free < least {
			first, least = k, free
		}
	}
	if first >= 0 && c.window.Meets(b.row(first)) {
		b.wake(b.free[first])
	}
}

func (c *Core) findWindow(b *blob) {
	w := &c.window
	w.Reset(b.n)
	w.Union(b.offered)
	w.Subtract(b.taken)
	c.withhold(b, w)
	if !b.whole && !b.small {
		for i := w.Next(0); i >= 0; i = w.Next(i + 1) {
			if !b.wanted(i, c.cfg.ReadAhead) {
				w.Clear(i)
			}
		}
	}
	if w.Count() <= c.cfg.Window {
		return
	}
	all := &c.beyond
	all.Reset(b.n)
	all.Union(*w)
	w.Truncate(c.cfg.Window)
	for _, r := range b.readers {
		if r.pos >= b.size {
			continue
		}
		first, end := b.layout.At(r.pos), b.n
		if last := b.have.NthClear(first, c.cfg.Window); last >= 0 {
			end = last + 1
		}
		w.UnionIn(*all, first, end)
	}
}

// missingIn is how many of the chunks [first, end) are not stored.
func (b *blob) missingIn(first, end int) int { return end - first - b.have.CountIn(first, end) }

// pickUrgent chooses the lowest missing chunk ahead of a reader, the readers
// taking turns.
func (c *Core) pickUrgent(b *blob) (int, *neighbour) {
	for range b.readers {
		b.turn = (b.turn + 1) % len(b.readers)
		r := b.readers[b.turn]
		if r.pos >= b.size && !b.small {
			continue
		}
		first := 0
		if !b.small {
			first = b.layout.At(r.pos)
		}
		for i := c.within.Next(first); i >= 0 && b.missingIn(first, i) < c.cfg.Window; i = c.within.Next(i + 1) {
			if n := c.pickHolder(b, i, c.free, nil); n != nil {
				return i, n
			}
		}
	}
	return -1, nil
}

// pickRare chooses among the lowest missing chunks the one that the fewest
// neighbours hold, at random among equals: where everybody breaks ties alike,
// everybody fetches the same chunk and has nothing to trade.
func (c *Core) pickRare(b *blob) (int, *neighbour) {
	for {
		best, ties := -1, 0
		for i := c.within.Next(0); i >= 0; i = c.within.Next(i + 1) {
			switch {
			case best < 0 || b.avail[i] < b.avail[best]:
				best, ties = i, 1
			case b.avail[i] == b.avail[best]:
				if ties++; c.rng.IntN(ties) == 0 {
					best = i
				}
			}
		}
		if best < 0 {
			return -1, nil
		}
		if n := c.pickHolder(b, best, c.free, nil); n != nil {
			return best, n
		}
		c.within.Clear(best)
	}
}

// pickHolder chooses which of some neighbours, all of whom may be asked, chunk i is
// asked of: a near one before a far one, then the least busy, as far as this node has
// made it so. not is left out.
func (c *Core) pickHolder(b *blob, i int, among []int32, not *peer) *neighbour {
	var best *neighbour
	ties, bestFar := 0, 0
	for _, k := range among {
		if !b.rowHas(int(k), i) {
			continue
		}
		n := b.neighbours[k]
		if n.p == not || !b.offers(n, i) || c.byZone && c.isFar(n) && !c.far.Has(i) {
			continue
		}
		far := c.cfg.Label.distance(n.p.label)
		switch {
		case best == nil || far < bestFar || far == bestFar && n.p.transfers < best.p.transfers:
			best, bestFar, ties = n, far, 1
		case far == bestFar && n.p.transfers == best.p.transfers:
			if ties++; c.rng.IntN(ties) == 0 {
				best = n
			}
		}
	}
	return best
}

// isFree reports whether a peer may be asked for one more chunk now.
func (c *Core) isFree(b *blob, n *neighbour) bool {
	free := b.free[n.place]
	return free != never && c.reached(b, free)
}

// pickSecond chooses a chunk that is on its way, but from somebody who will take
// much longer than others do, to be fetched from another one as well; whichever
// comes first counts. Of the bytes received, a hundredth may be spent so.
func (c *Core) pickSecond(b *blob) (int, *neighbour) {
	usual := c.transferTimes.median(b.cost())
	if b.small || usual == 0 {
		return -1, nil
	}
	for _, t := range b.live {
		if t.second || c.doubled(b, t) {
			continue
		}
		_, length := b.layout.Chunk(t.chunk)
		elapsed := time.Duration(c.now - t.started)
		if !c.reached(b, t.started.Add(max(2*usual, minSecond))) {
			continue
		}
		rest := 2 * elapsed
		if t.got > 0 {
			rest = time.Duration(int64(elapsed) >> 10 * ((length - t.got) >> 10) / max(t.got>>10, 1) << 10)
		}
		if rest <= 2*usual {
			b.wake(c.now.Add(usual))
			continue
		}
		if c.seconds+length > c.all/100+secondsFree {
			return -1, nil
		}
		c.free = c.free[:0]
		for k, n := range b.neighbours {
			if n.bits.Has(t.chunk) && c.usable(b, n) && c.isFree(b, n) {
				c.free = append(c.free, int32(k))
			}
		}
		if n := c.pickHolder(b, t.chunk, c.free, t.from); n != nil {
			c.seconds += length
			c.count(CountSecond, 1)
			return t.chunk, n
		}
	}
	return -1, nil
}

func (c *Core) doubled(b *blob, t *transfer) bool {
	for _, o := range b.live {
		if o != t && o.chunk == t.chunk {
			return true
		}
	}
	return false
}

const (
	// minSecond is how long any transfer is given.
	minSecond = 100 * time.Millisecond
	// secondsFree may be spent on second transfers before anything was received.
	secondsFree = 8 << 20
)
