package policy

import (
	"math"
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// A blob has some fifty neighbours, and most of what happens is followed by a look at
// all of them: who may be asked for one more chunk, who is told of a new one. Almost
// always the answer is the same for each: it is busy, or not its turn. What that depends
// on lies side by side here. Were it with all else that is known of a neighbour, each
// look would have to fetch it from fifty places in memory, which takes longer than
// everything else that a step does.

// seating is what is looked at of all neighbours at a time, each in the order of the
// neighbours, and apart from what is not looked at with it.
type seating struct {
	neighbours []*neighbour
	seats      []seat
	// free is when the neighbour's peer may be asked for one more chunk: its busy, or
	// never while as many as may be are under way from it. Only fill changes it.
	free []Time
	// rows are the words of the neighbours' bits, rowWords of each, once the chunks are known.
	rows     []uint64
	rowWords int
	// avoid: not asked for chunks before then; shy: it was busy so often that others
	// are asked as well, until then. wary: no neighbour is any of that from then on.
	wary       Time
	avoid, shy []Time
}

// seat is what is known of each neighbour by a word.
type seat struct {
	// alive: something may be expected of it; a banned peer is nobody's neighbour. Only
	// fill changes it.
	alive bool
	// wants: it asked to be told of what comes here.
	wants bool
	// reads: it says to be reading something from the origin, or once did.
	reads bool
}

// never is later than any time.
const never = Time(math.MaxInt64)

// sit gives a new neighbour its seat.
func (c *Core) sit(b *blob, n *neighbour) {
	n.place = int32(len(b.neighbours))
	b.neighbours = append(b.neighbours, n)
	b.seats = append(b.seats, seat{alive: c.aliveP(n.p)})
	b.free = append(b.free, c.freeFrom(n.p))
	b.avoid, b.shy = append(b.avoid, 0), append(b.shy, 0)
	if b.layoutSet() {
		if len(b.rows)+b.rowWords > cap(b.rows) {
			b.layRows(2 * len(b.neighbours))
			return
		}
		b.rows = b.rows[:len(b.rows)+b.rowWords]
		n.bits.MoveTo(b.row(int(n.place)))
	}
}

// layRows gives each neighbour's bits a row of their own, and has room for so many rows.
func (b *blob) layRows(room int) {
	b.rowWords = chunkindex.Words(b.n)
	b.rows = make([]uint64, len(b.neighbours)*b.rowWords, max(room, leastRows)*b.rowWords)
	for k, n := range b.neighbours {
		n.bits.MoveTo(b.row(k))
	}
}

// leastRows is how many rows there is room for at least.
const leastRows = 8

// row is the words of a neighbour's bits.
func (b *blob) row(k int) []uint64 {
	return b.rows[k*b.rowWords : (k+1)*b.rowWords : (k+1)*b.rowWords]
}

// rowHas reports whether a neighbour has chunk i, without a look at the neighbour.
func (b *blob) rowHas(k, i int) bool { return b.rows[k*b.rowWords+i>>6]&(1<<(i&63)) != 0 }

// rise takes a neighbour's seat away; those after it move up.
func (b *blob) rise(n *neighbour) {
	k := int(n.place)
	b.neighbours, b.seats = slices.Delete(b.neighbours, k, k+1), slices.Delete(b.seats, k, k+1)
	b.free, b.avoid, b.shy = slices.Delete(b.free, k, k+1), slices.Delete(b.avoid, k, k+1), slices.Delete(b.shy, k, k+1)
	for _, o := range b.neighbours[k:] {
		o.place--
		if b.layoutSet() {
			o.bits.MoveTo(b.row(int(o.place)))
		}
	}
	if b.layoutSet() {
		b.rows = b.rows[:len(b.neighbours)*b.rowWords]
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
		n.b.free[n.place], n.b.seats[n.place].alive = free, alive
	}
}

// avoidUntil and shyUntil note until when a neighbour is passed over.
func (b *blob) avoidUntil(n *neighbour, t Time) {
	b.avoid[n.place], b.wary = t, max(b.wary, t)
}

func (b *blob) shyUntil(n *neighbour, t Time) {
	b.shy[n.place], b.wary = t, max(b.wary, t)
}

// wants reports whether a neighbour asked to be told of what comes here.
func (b *blob) wants(n *neighbour) bool { return b.seats[n.place].wants }

func (b *blob) setWants(n *neighbour, wants bool) { b.seats[n.place].wants = wants }
