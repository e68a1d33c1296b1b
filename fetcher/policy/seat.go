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
	// never while as many as may be are under way from it. Only fill changes it.
	free Time
	// shunned is until when it is passed over, for its avoid or for its shy.
	shunned Time
	// wants: it asked to be told of what comes here.
	wants bool
}

// never is later than any time.
const never = Time(math.MaxInt64)

// sit gives a new neighbour its seat.
func (c *Core) sit(b *blob, n *neighbour) {
	n.place = int32(len(b.neighbours))
	b.neighbours = append(b.neighbours, n)
	b.seats = append(b.seats, seat{free: c.freeFrom(n.p)})
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

// fill has the seats of a peer say when it is free.
func (c *Core) fill(p *peer) {
	free := c.freeFrom(p)
	for n := p.near; n != nil; n = n.next {
		n.b.seats[n.place].free = free
	}
}

// passOver sets a neighbour's avoid or shy.
func (b *blob) passOver(n *neighbour, set *Time, until Time) {
	*set = until
	b.seats[n.place].shunned = max(n.avoid, n.shy)
	b.shunned = max(b.shunned, until)
}

// wants reports whether a neighbour asked to be told of what comes here.
func (b *blob) wants(n *neighbour) bool { return b.seats[n.place].wants }

func (b *blob) setWants(n *neighbour, wants bool) { b.seats[n.place].wants = wants }
