package policy

import (
	"math"
	"slices"
)

// A blob has some fifty neighbours, and most of what happens is followed by a look at
// all of them: who may be asked for one more chunk, who is told of a new one. Almost
// always the answer is the same for each: it is busy, or not its turn. What that depends
// on lies side by side here. Were it with all else that is known of a neighbour, each
// look would have to fetch it from fifty places in memory, which takes longer than
// everything else that a step does.

// seat is what is looked at of each neighbour at a time. A blob's seats are in the order
// of its neighbours.
type seat struct {
	// free is when the neighbour's peer may be asked for one more chunk: its busy, or
	// never while as many as may be are under way from it. alive: something may be
	// expected of it; a banned peer is nobody's neighbour. Only fill changes these.
	free  Time
	alive bool
	// wants: it asked to be told of what comes here.
	wants bool
	// reads: it says to be reading something from the origin, or once did.
	reads bool
	// avoid: not asked for chunks before then; shy: it was busy so often that others
	// are asked as well, until then.
	avoid, shy Time
}

// never is later than any time.
const never = Time(math.MaxInt64)

// sit gives a new neighbour its seat.
func (c *Core) sit(b *blob, n *neighbour) {
	n.place = int32(len(b.neighbours))
	b.neighbours = append(b.neighbours, n)
	b.seats = append(b.seats, seat{free: c.freeFrom(n.p), alive: c.aliveP(n.p)})
}

// rise takes a neighbour's seat away; those after it move up.
func (b *blob) rise(n *neighbour) {
	k := int(n.place)
	b.neighbours, b.seats = slices.Delete(b.neighbours, k, k+1), slices.Delete(b.seats, k, k+1)
	for _, o := range b.neighbours[k:] {
		o.place--
	}
}

// freeFrom is when a peer may be asked for one more chunk.
func (c *Core) freeFrom(p *peer) Time {
	if int(p.transfers) >= c.cfg.TransfersPerPeer {
		return never
	}
	return p.busy
}

// engage notes that more transfers come from a peer than before, or fewer if more is
// below 0.
func (c *Core) engage(p *peer, more int32) {
	p.transfers += more
	c.fill(p)
}

// setBusy notes until when a peer serves as many as it wants to; 0: it does not.
func (c *Core) setBusy(p *peer, until Time) {
	p.busy = until
	c.fill(p)
}

// fill has the seats of a peer say when it is free, and whether it is alive.
func (c *Core) fill(p *peer) {
	free, alive := c.freeFrom(p), p.up && !p.silent
	for n := p.near; n != nil; n = n.next {
		s := &n.b.seats[n.place]
		s.free, s.alive = free, alive
	}
}

// wants reports whether a neighbour asked to be told of what comes here.
func (b *blob) wants(n *neighbour) bool { return b.seats[n.place].wants }

func (b *blob) setWants(n *neighbour, wants bool) { b.seats[n.place].wants = wants }
