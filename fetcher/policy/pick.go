package policy

import (
	"time"
)

// Which chunk is asked of whom. Half of the slots go to what readers wait for, the
// lowest missing chunks; the other half to what the fewest neighbours hold, so that
// there is always something to trade.

// idle reports whether chunk i is missing and nothing is under way for it.
func (b *blob) idle(i int) bool { return !b.have.Has(i) && b.busy[i] == 0 }

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
		looked := 0
		for i := b.have.NextClear(first); i >= 0 && looked < c.cfg.Window; i = b.have.NextClear(i + 1) {
			looked++
			if b.avail[i] == 0 || b.busy[i] != 0 {
				continue
			}
			if !b.wanted(i, c.cfg.ReadAhead) {
				break
			}
			if n := c.pickHolder(b, i, nil); n != nil {
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
	window := c.window[:0]
	for i := b.have.NextClear(0); i >= 0 && len(window) < c.cfg.Window; i = b.have.NextClear(i + 1) {
		if b.busy[i] == 0 && b.avail[i] > 0 && b.wanted(i, c.cfg.ReadAhead) {
			window = append(window, i)
		}
	}
	c.window = window
	for len(window) > 0 {
		best, ties := 0, 0
		for k, i := range window {
			switch fewest := b.avail[window[best]]; {
			case ties == 0 || b.avail[i] < fewest:
				best, ties = k, 1
			case b.avail[i] == fewest:
				if ties++; c.rng.IntN(ties) == 0 {
					best = k
				}
			}
		}
		i := window[best]
		if n := c.pickHolder(b, i, nil); n != nil {
			return i, n
		}
		window[best] = window[len(window)-1]
		window = window[:len(window)-1]
	}
	return -1, nil
}

// pickHolder chooses the neighbour that chunk i is asked of: a near one before a
// far one, then the least busy, as far as this node has made it so. not is left
// out.
func (c *Core) pickHolder(b *blob, i int, not *peer) *neighbour {
	var best *neighbour
	ties, bestFar := 0, 0
	for _, n := range b.neighbours {
		if !n.bits.Has(i) || n.p == not || !b.offers(n, i) || !c.usable(b, n) || !c.free(b, n) {
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

// free reports whether a peer may be asked for one more chunk now.
func (c *Core) free(b *blob, n *neighbour) bool {
	return n.p.transfers < c.cfg.TransfersPerPeer && c.reached(b, n.p.busy)
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
		if n := c.pickHolder(b, t.chunk, t.from); n != nil {
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
