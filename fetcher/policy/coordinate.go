package policy

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// coordinator is the state of the node that ranks first for a blob: who wants
// what from the origin, and who has been told to read it. It keeps no lease: a
// grant lasts until its chunks are there, its holder gives it back, or its
// holder is gone.
type coordinator struct {
	askers []*asker
	grants []*grant
	// settled: it is known what exists already; nothing is granted before.
	settled bool
}

type asker struct {
	id    chunkindex.NodeID
	want  chunkindex.Bitfield
	epoch int
	// refused: the origin will not give it the blob.
	refused bool
	// until: it failed, and is passed over before then.
	until Time
	fails int
	// low is the lowest chunk that it asked for, since when it did; stuck: it
	// went on asking for it, so that whoever says to hold it does not serve it.
	low   int
	since Time
	stuck bool
	// checked is when it was last asked whether it still wants the blob,
	// answered whether it said so since.
	checked  Time
	answered bool
}

type grant struct {
	run
	to chunkindex.NodeID
	at Time
}

// maxCoordinated bounds the blobs that peers can make this node keep state for,
// beside those that its own clients read.
const maxCoordinated = 256

// heardAsk takes in a node's wish to read from the origin.
func (c *Core) heardAsk(from chunkindex.NodeID, m Message) {
	if h, ok := c.held[m.Blob]; ok && h.complete && m.Epoch == 0 {
		c.send(from, Message{Kind: MsgState, Blob: m.Blob, Size: h.size, Small: h.small,
			Bits: chunkindex.FullBitfield(chunksOf(h.size, h.small))})
		return
	}
	if m.Size < 0 && !m.Small || m.Bits.Len() != chunksOf(m.Size, m.Small) {
		c.count(CountIgnored, 1)
		return
	}
	if c.blobs[m.Blob] == nil && len(c.order) >= maxCoordinated {
		// Whoever asked loses patience and turns to the next in rank.
		c.count(CountIgnored, 1)
		return
	}
	b := c.blob(m.Blob)
	if !b.setSize(m.Size, m.Small) || m.Bits.Len() != b.n {
		c.count(CountIgnored, 1)
		c.advance(b)
		return
	}
	c.lookup(b)
	// The member named in a redirect is alive as far as this node can tell; the
	// asker says which ones it has found not to be.
	for _, id := range c.committee(b) {
		if id == c.cfg.Self || id == from {
			break
		}
		if c.alive(id) && !slices.Contains(m.Peers, id) {
			c.count(CountRedirect, 1)
			c.send(from, Message{Kind: MsgRedirect, Blob: b.id, Size: b.size, Small: b.small, Peer: id})
			c.advance(b)
			return
		}
	}
	c.takeAsk(b, from, m.Bits, m.Epoch)
	c.tellPeers(b, from)
	c.advance(b)
}

func (c *Core) takeAsk(b *blob, id chunkindex.NodeID, want chunkindex.Bitfield, epoch int) {
	if b.coord == nil {
		b.coord = &coordinator{}
		c.survey(b)
	}
	for _, a := range b.coord.askers {
		if a.id == id {
			// A chunk that nobody claims to hold just waits for its turn.
			if low := want.Next(0); low != a.low || !b.claimedBy(low) {
				a.low, a.since = low, c.now
			}
			a.stuck = a.stuck || c.now >= a.since.Add(c.cfg.TransferStall)
			// A new wish is a new chance: its credentials may have come.
			a.want, a.epoch, a.refused, a.answered = want, epoch, false, true
			return
		}
	}
	b.coord.askers = append(b.coord.askers, &asker{id: id, want: want, epoch: epoch, checked: c.now, answered: true, low: want.Next(0), since: c.now})
}

// claimedBy reports whether some neighbour says that it holds chunk i.
func (b *blob) claimedBy(i int) bool {
	return slices.ContainsFunc(b.neighbours, func(n *neighbour) bool { return n.bits.Has(i) })
}

// appeared notes that chunk i has just come to somebody: whoever found nobody to
// serve it has somebody now, and asks again if not.
func (k *coordinator) appeared(i int) {
	if k == nil {
		return
	}
	for _, a := range k.askers {
		if a.stuck {
			a.want.Clear(i)
		}
	}
}

// survey asks the neighbours anew what they hold and what they are reading: what
// they said before may be older than the grants of a coordinator that is gone.
func (c *Core) survey(b *blob) {
	if b.introducedAt == 0 {
		c.introduceAll(b)
		return
	}
	c.lookup(b)
	b.introducedAt = max(c.now, 1)
	for _, n := range b.neighbours {
		n.introduced, n.replied = true, false
		c.sendState(b, n, true)
	}
}

// tellPeers tells an asker who else holds or wants the blob.
func (c *Core) tellPeers(b *blob, to chunkindex.NodeID) {
	m := Message{Kind: MsgPeers, Blob: b.id, Size: b.size, Small: b.small}
	for _, n := range b.neighbours {
		if n.id != to && (n.wants || n.bits.Count() > 0) && len(m.Peers) < MaxPeers {
			m.Peers = append(m.Peers, n.id)
		}
	}
	if len(m.Peers) > 0 {
		c.send(to, m)
	}
}

func (c *Core) dropAsker(b *blob, id chunkindex.NodeID) {
	if b.coord == nil {
		return
	}
	b.coord.askers = slices.DeleteFunc(b.coord.askers, func(a *asker) bool { return a.id == id })
	b.coord.grants = slices.DeleteFunc(b.coord.grants, func(g *grant) bool {
		if g.to == id && !c.granteeHas(b, g) {
			c.count(CountRegrant, 1)
			return true
		}
		return g.to == id
	})
}

// granteeHas reports whether all chunks of a grant are where they were to go.
func (c *Core) granteeHas(b *blob, g *grant) bool {
	has := b.have
	if g.to != c.cfg.Self {
		n := b.neighbour(g.to)
		if n == nil {
			return false
		}
		has = n.bits
	}
	next := has.NextClear(g.first)
	return next < 0 || next >= g.end
}

// exists reports whether somebody holds chunk i or is getting it from the origin.
func (c *Core) exists(b *blob, i int, stuck bool) bool {
	if b.have.Has(i) || b.busy[i]&(byOrigin|byStore) != 0 {
		return true
	}
	for _, g := range b.coord.grants {
		if g.first <= i && i < g.end {
			return true
		}
	}
	for _, n := range b.neighbours {
		if n.bits.Has(i) && !stuck && c.usable(b, n) || n.inFlight.Has(i) && c.alive(n.id) {
			return true
		}
	}
	return false
}

// coordinate grants what is missing to those that want it, the lowest stripes
// first, at most StripesInFlight at once.
func (c *Core) coordinate(b *blob) {
	if b.coord == nil || !b.layoutSet() || b.opening || b.partial && !b.isOpen {
		return
	}
	for _, g := range slices.Clone(b.coord.grants) {
		if c.granteeHas(b, g) {
			b.coord.grants = slices.DeleteFunc(b.coord.grants, func(o *grant) bool { return o == g })
		} else if !c.watch(b, g.to, g.at) {
			c.dropAsker(b, g.to)
		}
	}
	if !b.wanting() {
		c.dropAsker(b, c.cfg.Self)
	}
	for _, a := range slices.Clone(b.coord.askers) {
		// A MsgLeave may have been lost with a connection, and a node that
		// holds this one for a liar does not answer.
		if a.id == c.cfg.Self || !c.reached(b, a.checked.Add(c.cfg.Linger)) {
			continue
		}
		n := b.neighbour(a.id)
		if n == nil || !a.answered {
			c.dropAsker(b, a.id)
			continue
		}
		a.checked, a.answered = c.now, false
		c.sendState(b, n, true)
		b.wake(c.now.Add(c.cfg.Linger))
	}
	if len(b.coord.askers) == 0 {
		b.coord = nil
		return
	}
	if !b.coord.settled {
		c.introduceAll(b)
		if b.coord.settled = c.settled(b); !b.coord.settled {
			return
		}
	}
	most := c.cfg.StripesInFlight
	if b.progress == 0 {
		// Until something has come, the origin may be one that ignores ranges.
		most = 1
	}
	for len(b.coord.grants) < most {
		a, r := c.nextGrant(b)
		if a == nil {
			return
		}
		c.count(CountGrant, 1)
		b.coord.grants = append(b.coord.grants, &grant{run: r, to: a.id, at: c.now})
		if a.id == c.cfg.Self {
			b.grants = append(b.grants, r)
			continue
		}
		c.send(a.id, Message{Kind: MsgGrant, Blob: b.id, Size: b.size, Small: b.small,
			Chunk: r.first, N: r.end - r.first, Epoch: a.epoch})
		c.watch(b, a.id, c.now)
	}
}

// nextGrant chooses the lowest run within a stripe that nobody has, and among
// those who want it the one with the fewest grants.
func (c *Core) nextGrant(b *blob) (*asker, run) {
	low := -1
	for _, a := range b.coord.askers {
		if !c.mayRead(b, a) {
			continue
		}
		for i := a.want.Next(0); i >= 0 && (low < 0 || i < low); i = a.want.Next(i + 1) {
			if !c.exists(b, i, a.stuck) {
				low = i
				break
			}
		}
	}
	if low < 0 {
		return nil, run{}
	}
	var best *asker
	fewest, ties := 0, 0
	for _, a := range b.coord.askers {
		if !c.mayRead(b, a) || !a.want.Has(low) {
			continue
		}
		n := 0
		for _, g := range b.coord.grants {
			if g.to == a.id {
				n++
			}
		}
		if best == nil || n < fewest {
			best, fewest, ties = a, n, 1
		} else if n == fewest {
			if ties++; c.rng.IntN(ties) == 0 {
				best = a
			}
		}
	}
	r := run{low, low + 1, c.cfg.Self}
	if !b.small {
		_, stripeEnd := b.layout.Stripe(b.layout.StripeOf(low))
		for r.end < stripeEnd && best.want.Has(r.end) && !c.exists(b, r.end, best.stuck) {
			r.end++
		}
	}
	return best, r
}

func (c *Core) mayRead(b *blob, a *asker) bool {
	return !a.refused && c.alive(a.id) && c.reached(b, a.until)
}

// heardGiveBack takes back a grant.
func (c *Core) heardGiveBack(b *blob, from chunkindex.NodeID, m Message) {
	if b.coord != nil {
		c.takeBack(b, from, m.Chunk, m.Chunk+m.N, m.Status)
	}
}

func (c *Core) takeBack(b *blob, from chunkindex.NodeID, first, end, status int) {
	b.coord.grants = slices.DeleteFunc(b.coord.grants, func(g *grant) bool {
		return g.to == from && g.first <= first && first < g.end
	})
	for _, a := range b.coord.askers {
		if a.id != from {
			continue
		}
		if status == 0 {
			// It no longer wants what it asked for; without this, the same
			// grant would go back and forth for ever.
			for i := first; i < end && i < b.n; i++ {
				a.want.Clear(i)
			}
			continue
		}
		c.count(CountRegrant, 1)
		if permanent(status) {
			a.refused = true
		} else {
			a.until = c.now.Add(c.cfg.RetryOrigin << min(a.fails, 4))
			a.fails++
		}
	}
}

// permanent reports whether an origin's status is its last word on a blob, as
// opposed to a state that may pass.
func permanent(status int) bool {
	return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429
}
