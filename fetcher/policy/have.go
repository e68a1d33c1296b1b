package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// Who is told of a new chunk, and when. What few have must be known to all soon: the more
// of those who have it serve it, the faster it spreads. What many have is asked of
// somebody anyhow, and this node can send it to two or three only. So each such chunk is
// told at once to a part of the neighbours, which take turns, and each of them is told
// on that occasion of all that came since its last turn. By then it has often got some of
// that from others, which need not be said any more.

const (
	// tellAtOnce is about how many neighbours are told of a chunk at once, tellAtLeisure
	// how many where there is plenty.
	tellAtOnce, tellAtLeisure = 8, 4
	// rarely: a chunk that less than one in so many neighbours has is a rare one, commonly:
	// one that at least one in so many has is a common one.
	rarely, commonly = 10, 2
	// enough is from how many chunks to choose from on nobody waits for what is new.
	enough = 16
	// tellWithin is how long the others wait at most for their turn if no other chunk
	// comes.
	tellWithin = 250 * time.Millisecond
)

// gain notes that chunk i can be had here from now on, and tells those whose turn it is,
// and who granted it.
func (c *Core) gain(b *blob, i int) {
	b.gained = append(b.gained, int32(i))
	turns := c.turns(b, i)
	b.told++
	k := 0
	for place := range b.seats {
		if !b.seats[place].wants {
			continue
		}
		if k++; (k+b.told)%turns == 0 {
			c.tell(b, b.neighbours[place])
		}
	}
	for _, g := range b.grantors {
		if i < g.first || i >= g.end {
			continue
		}
		if n := c.neighbour(b, g.by); n != nil && b.wants(n) {
			c.tell(b, n)
		} else {
			c.send(g.by, Message{Kind: MsgHave, Blob: b.id, Size: b.size, Small: b.small, Chunk: i, N: 1})
		}
	}
	if turns > 1 {
		b.tellBy = c.now.Add(tellWithin)
		b.wake(b.tellBy)
	}
}

// turns is among how many parts of the neighbours the turns go round. All are told at
// once of a rare chunk where there is little else, where chunks are in doubt, and where a
// second holder counts. Where there is something to choose from, half of them are told of what is
// rare, and few of what is common; and where there is enough, what is new is wanted no sooner
// than the rest, and few are told at once, whatever it is.
func (c *Core) turns(b *blob, i int) int {
	n := len(b.neighbours)
	choice := b.choice()
	switch {
	case b.epoch > 0 || c.cfg.Verify == VerifyStrict:
		return 1
	case choice >= enough || choice >= scarce && int(b.avail[i])*commonly >= n:
		return max((n+tellAtLeisure-1)/tellAtLeisure, 1)
	case int(b.avail[i])*rarely < n && choice >= scarce:
		return 2
	case int(b.avail[i])*rarely < n:
		return 1
	}
	return max((n+tellAtOnce-1)/tellAtOnce, 1)
}

// tellRest tells the neighbours whose turn did not come in time, or all that know less
// than they should if there will be no other turn.
func (c *Core) tellRest(b *blob, last bool) {
	if b.tellBy == 0 || !last && !c.reached(b, b.tellBy) {
		return
	}
	b.tellBy = 0
	for k, n := range b.neighbours {
		if b.seats[k].wants {
			c.tell(b, n)
		}
	}
}

// tell tells a neighbour of the chunks that came since it was told last.
//
// One that holds a chunk itself is not told of it, which halves the messages of a
// swarm: only strict verification has use for a second holder, and those to whom the
// blob was refuted.
func (c *Core) tell(b *blob, n *neighbour) {
	all := b.epoch > 0 || c.cfg.Verify == VerifyStrict
	news := c.news[:0]
	for _, i := range b.gained[min(int(n.told), len(b.gained)):] {
		if b.share.Has(int(i)) && (all || !n.bits.Has(int(i))) {
			news = append(news, i)
		}
	}
	n.told, c.news = int32(len(b.gained)), news
	slices.Sort(news)
	m := Message{Kind: MsgHave, Blob: b.id, Size: b.size, Small: b.small}
	for _, i := range news {
		switch beyond := int(i) - m.Chunk - m.N; {
		case m.N > 0 && beyond < 0: // twice the same
		case m.N > 0 && beyond == 0:
			m.N++
		case m.N > 0 && beyond < restBits:
			m.Rest[beyond/64] |= 1 << (beyond % 64)
		default:
			if m.N > 0 {
				c.send(n.p.id, m)
			}
			m.Chunk, m.N, m.Rest = int(i), 1, [restWords]uint64{}
		}
	}
	if m.N > 0 {
		c.send(n.p.id, m)
	}
}

// sendHave tells the neighbours that want to know of the chunks [first, end) at once.
func (c *Core) sendHave(b *blob, first, end int) {
	m := Message{Kind: MsgHave, Blob: b.id, Size: b.size, Small: b.small, Chunk: first, N: end - first}
	for k, n := range b.neighbours {
		if b.seats[k].wants {
			c.send(n.p.id, m)
		}
	}
	for _, g := range b.grantors {
		if n := c.neighbour(b, g.by); first < g.end && g.first < end && (n == nil || !b.wants(n)) {
			c.send(g.by, m)
		}
	}
}

// heardHave takes in that a neighbour got chunks. Most of the messages are these,
// and most of them change nothing that could be done now.
func (c *Core) heardHave(b *blob, n *neighbour, from chunkindex.NodeID, m *Message) {
	if n != nil && !b.layoutSet() {
		n.stale = true
		return
	}
	if m.N <= 0 || m.end() > b.n || !b.small && m.Size != b.size {
		c.count(CountIgnored, 1)
		return
	}
	granted := false
	for i := range m.chunks() {
		its := b.appeared(from, i, i+1, c.now)
		if b.coord != nil && !its && b.avail[i] == 0 && !b.have.Has(i) && !b.coord.known.Has(i) {
			b.coord.elsewhere = c.now
		}
		granted = granted || its
	}
	if n == nil {
		if granted {
			b.progress = c.now
			c.advance(b)
		} else {
			c.count(CountIgnored, 1)
		}
		return
	}
	useful := false
	for i := range m.chunks() {
		if !n.bits.Has(i) {
			b.setBit(n, i)
			b.progress = c.now // what is said twice is no news
		}
		n.refused.Clear(i)
		n.inFlight.Clear(i)
		useful = useful || b.idle(i)
	}
	if n.idle {
		b.sort(n)
	}
	c.advanced = true // if not now, then when n is free again
	if b.coord != nil || c.cfg.Verify == VerifyStrict || useful && b.wanting() && c.isFree(b, n) && c.usable(b, n) && c.hasSlot(b) {
		c.advance(b)
	}
}
