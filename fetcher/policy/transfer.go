package policy

import (
	"github.com/peercache/peercache/chunkindex"
)

// transfer is one chunk on its way from a peer.
type transfer struct {
	id     ID
	b      *blob
	from   chunkindex.NodeID
	chunk  int
	last   Time // when a byte last came
	cost   int64
	urgent bool
	dead   bool
}

// usable reports whether chunks may be asked of a neighbour now. One that had a
// part in a refuted blob is not asked for it again while the origin answers.
func (c *Core) usable(b *blob, n *neighbour) bool {
	return c.alive(n.id) && c.reached(b, n.avoid) && !(b.suspected(n.id) && c.usableSource(b) != nil)
}

// servable reports whether some neighbour can serve chunk i now.
func (c *Core) servable(b *blob, i int) bool {
	for _, n := range b.neighbours {
		if n.bits.Has(i) && c.usable(b, n) {
			return true
		}
	}
	return false
}

// promised reports whether some neighbour says that it has chunk i and has not
// failed too often.
func (c *Core) promised(b *blob, i int) bool {
	for _, n := range b.neighbours {
		if n.bits.Has(i) && c.alive(n.id) && n.faults < 3 {
			c.reached(b, n.avoid)
			return true
		}
	}
	return false
}

// wanted reports whether chunk i is wanted: a part of the readers' ranges and
// their read-ahead, or anything if the whole blob is.
func (b *blob) wanted(i int, ahead int64) bool {
	if b.whole || b.small {
		return true
	}
	off, n := b.layout.Chunk(i)
	for _, r := range b.readers {
		end := r.pos + ahead
		if r.end >= 0 {
			end = min(end, r.end)
		}
		if off < end && off+n > r.pos {
			return true
		}
	}
	return false
}

// fetchPeers keeps the transfers busy.
func (c *Core) fetchPeers(b *blob) {
	for _, t := range c.sortedTransfers(b) {
		if c.reached(b, t.last.Add(c.cfg.TransferStall)) {
			c.count(CountStall, 1)
			c.avoid(b, t.from, 1)
			c.cancelTransfer(t)
		}
	}
	if !b.wanting() || len(b.neighbours) == 0 {
		return
	}
	for len(c.transfers) < c.cfg.Transfers &&
		(c.inFlight == 0 || c.inFlight+b.cost() <= c.cfg.InFlightBytes) {
		urgent, rare := 0, 0
		for _, t := range c.transfers {
			if t.b == b && t.urgent {
				urgent++
			} else if t.b == b {
				rare++
			}
		}
		i, n, wasUrgent := -1, (*neighbour)(nil), urgent <= rare
		if wasUrgent {
			i, n = c.pickUrgent(b)
		}
		if n == nil {
			wasUrgent = false
			if i, n = c.pickRare(b); n == nil {
				return
			}
		}
		c.startTransfer(b, i, n, wasUrgent)
	}
}

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
			if !b.wanted(i, c.cfg.ReadAhead) {
				break
			}
			if b.idle(i) {
				if n := c.pickHolder(b, i); n != nil {
					return i, n
				}
			}
		}
	}
	return -1, nil
}

// pickRare chooses among the lowest missing chunks the one that the fewest
// neighbours hold, at random among equals: where everybody breaks ties alike,
// everybody fetches the same chunk and has nothing to trade.
func (c *Core) pickRare(b *blob) (int, *neighbour) {
	best, fewest, ties, looked := -1, 0, 0, 0
	for i := b.have.NextClear(0); i >= 0 && looked < c.cfg.Window; i = b.have.NextClear(i + 1) {
		if !b.wanted(i, c.cfg.ReadAhead) || !b.idle(i) {
			continue
		}
		looked++
		holders, free := 0, false
		for _, n := range b.neighbours {
			if n.bits.Has(i) && c.usable(b, n) {
				holders++
				free = free || c.free(n)
			}
		}
		switch {
		case !free:
		case best < 0 || holders < fewest:
			best, fewest, ties = i, holders, 1
		case holders == fewest:
			if ties++; c.rng.IntN(ties) == 0 {
				best = i
			}
		}
	}
	if best < 0 {
		return -1, nil
	}
	return best, c.pickHolder(b, best)
}

// free reports whether a peer may be asked for one more chunk.
func (c *Core) free(n *neighbour) bool {
	return c.peers[n.id].transfers < c.cfg.TransfersPerPeer
}

// pickHolder chooses the neighbour that chunk i is asked of: the least busy.
func (c *Core) pickHolder(b *blob, i int) *neighbour {
	var best *neighbour
	ties := 0
	for _, n := range b.neighbours {
		if !n.bits.Has(i) || !c.usable(b, n) || !c.free(n) {
			continue
		}
		load := c.peers[n.id].transfers
		switch {
		case best == nil || load < c.peers[best.id].transfers:
			best, ties = n, 1
		case load == c.peers[best.id].transfers:
			if ties++; c.rng.IntN(ties) == 0 {
				best = n
			}
		}
	}
	return best
}

func (c *Core) startTransfer(b *blob, i int, n *neighbour, urgent bool) {
	t := &transfer{id: c.newID(), b: b, from: n.id, chunk: i, last: c.now, cost: b.cost(), urgent: urgent}
	c.transfers[t.id] = t
	c.peers[n.id].transfers++
	c.inFlight += t.cost
	b.busy[i] |= byTransfer
	b.wake(c.now.Add(c.cfg.TransferStall))
	off, length := b.chunkBytes(i)
	c.emit(Effect{Kind: EfTransfer, ID: t.id, Blob: b.id, Peer: n.id, Chunk: i,
		Off: off, N: length, Size: b.size, Small: b.small})
}

// cancelTransfer ends a transfer; its terminal event is still to come.
func (c *Core) cancelTransfer(t *transfer) {
	c.emit(Effect{Kind: EfCancelTransfer, ID: t.id})
	t.b.busy[t.chunk] &^= byTransfer
	t.dead = true
}

// avoid passes a neighbour over for a while that doubles with each fault.
func (c *Core) avoid(b *blob, id chunkindex.NodeID, weight int) {
	if n := b.neighbour(id); n != nil && (n.avoid <= c.now || weight > 1) {
		n.avoid = c.now.Add(c.cfg.Avoid << min(n.faults, 5))
		n.faults += weight
	}
}

func (c *Core) transferEnded(t *transfer, ev Event) {
	b := t.b
	delete(c.transfers, t.id)
	c.peers[t.from].transfers--
	c.inFlight -= t.cost
	c.freed = true
	if t.dead || b.closed {
		if ev.Kind == EvTransferDone {
			c.emit(Effect{Kind: EfDiscard, ID: t.id, Blob: b.id, Chunk: t.chunk})
			c.count(CountWaste, ev.N)
		}
		return
	}
	b.busy[t.chunk] &^= byTransfer
	if ev.Kind == EvTransferDone {
		c.arrivedFromPeer(b, t, ev)
		c.advance(b)
		return
	}
	n := b.neighbour(t.from)
	switch {
	case n == nil:
	case ev.Fault == FaultGone:
		n.bits.Clear(t.chunk)
	case ev.Fault == FaultBusy:
		c.count(CountBusy, 1)
		n.avoid = c.now.Add(c.cfg.AskTimeout / 4)
	case ev.Fault == FaultCorrupt:
		// Small blobs only: what came over this peer's own connection is
		// not what its digest says.
		n.bits.Clear(t.chunk)
		c.ban(t.from)
	case ev.Fault == FaultLocal:
		b.wake(c.now.Add(c.cfg.AskTimeout))
		n.avoid = c.now.Add(c.cfg.AskTimeout)
	default:
		c.avoid(b, t.from, 1)
	}
	c.advance(b)
}
