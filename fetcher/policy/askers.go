package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

type asker struct {
	id   chunkindex.NodeID
	want chunkindex.Bitfield
	// ever is all that it asked for so far.
	ever  chunkindex.Bitfield
	asked int // chunks, the last time
	epoch int
	// refused: the origin will not give it the blob.
	refused bool
	// until: it failed, and is passed over before then.
	until Time
	fails int
	// low is the lowest chunk that it asked for, since when it did, and for no fewer
	// chunks; stuck: it went on so, so that whoever says to hold it does not serve
	// it.
	low   int
	since Time
	stuck bool
	// last is when it last asked.
	last Time
}

// maxCoordinated bounds the blobs that peers can make this node keep state for,
// beside those that its own clients read, and maxStrangeChunks their chunks: some
// bytes are kept for each.
const (
	maxCoordinated   = 256
	maxStrangeChunks = 1 << 20
)

// roomFor reports whether state for one more blob of so many chunks may be kept for
// the sake of others. It makes room by forgetting who wanted what longest ago.
func (c *Core) roomFor(chunks int) bool {
	for {
		kept := 0
		var idle *blob
		for _, b := range c.order {
			if b.wanting() {
				continue
			}
			kept += b.n
			if idle == nil && b.coord == nil && len(b.readers) == 0 {
				idle = b
			}
		}
		switch {
		case len(c.order) < maxCoordinated && kept+chunks <= maxStrangeChunks:
			return true
		case idle == nil:
			return false
		}
		c.close(idle)
	}
}

// heardAsk takes in a node's wish to read from the origin.
func (c *Core) heardAsk(from chunkindex.NodeID, m *Message) {
	if h, ok := c.held[m.Blob]; ok && h.complete {
		c.send(from, Message{Kind: MsgState, Blob: m.Blob, Size: h.size, Small: h.small, Label: c.cfg.Label,
			Bits: chunkindex.FullBitfield(chunksOf(h.size, h.small))})
		if m.Epoch == 0 {
			return
		}
		// Something was wrong there, and nobody's version is believed.
	}
	if m.Size < 0 && !m.Small || m.Bits.Len() != chunksOf(m.Size, m.Small) {
		c.count(CountIgnored, 1)
		return
	}
	if b := c.blobs[m.Blob]; (b == nil || !b.layoutSet()) && !c.roomFor(m.Bits.Len()) {
		// Whoever asked loses patience and turns to the next in rank.
		c.count(CountIgnored, 1)
		return
	}
	b := c.blob(m.Blob)
	if b.wanting() && !b.layoutSet() {
		// The origin is being asked how large it is, and its word counts: who asks
		// here asks again.
		if b.claimed < 0 {
			b.claimed = m.Size
		}
		c.advance(b)
		return
	}
	if !b.setSize(m.Size, m.Small) || m.Bits.Len() != b.n {
		c.count(CountIgnored, 1)
		c.advance(b)
		return
	}
	c.lookup(b)
	// The member named in a redirect is alive as far as this node can tell; the
	// asker says which ones it has found not to be.
	for _, id := range c.committee(b) {
		if c.unsure(b) || id == c.cfg.Self || id == from || c.leavesItHere(b, id) {
			break
		}
		if !slices.Contains(m.Peers, id) && c.answers(b, id) {
			c.count(CountRedirect, 1)
			c.send(from, Message{Kind: MsgRedirect, Blob: b.id, Size: b.size, Small: b.small, Peer: id})
			c.advance(b)
			return
		}
	}
	c.takeAsk(b, from, m.Bits, m.Epoch, m.Want)
	c.tellPeers(b, from)
	c.tellPause(b, from)
	c.advance(b)
}

// takeAsk notes what a node, this one or another, wants to be read from the origin. fed:
// other chunks come to it meanwhile.
func (c *Core) takeAsk(b *blob, id chunkindex.NodeID, want chunkindex.Bitfield, epoch int, fed bool) {
	if b.coord == nil {
		b.coord = &coordinator{byID: map[chunkindex.NodeID]*asker{}, known: chunkindex.NewBitfield(b.n),
			taken: chunkindex.NewBitfield(b.n), wishes: chunkindex.NewBitfield(b.n), width: width{now: c.cfg.StripesInFlight}}
		c.survey(b)
	} else if c.now >= b.coord.asked.Add(longAlone*c.cfg.Standstill) {
		// Nobody asked for long: who was silent may have read since what it was granted.
		b.coord.settled = false
		c.survey(b)
	}
	b.coord.asked = c.now
	if epoch > b.coord.epoch {
		b.coord.epoch, b.coord.known, b.coord.old = epoch, chunkindex.NewBitfield(b.n), b.have.Clone()
		b.coord.readBy = nil
		for _, n := range b.neighbours {
			if n.bits.Len() == b.n && !b.isLiar(n.p.id) {
				b.coord.old.Union(n.bits)
			}
		}
	}
	a, low := b.coord.byID[id], want.Next(0)
	if a == nil {
		a = &asker{id: id, since: c.now, low: low, ever: chunkindex.NewBitfield(b.n)}
		b.coord.askers = append(b.coord.askers, a)
		b.coord.byID[id] = a
	}
	// A chunk that nobody claims to hold just waits for its turn; and who gets some
	// of what it asked for, or of what it need not ask for, will get the rest. (The origin
	// may be much faster than the nodes: what was read far ahead waits with its readers.)
	unclaimed := low < 0 || (b.avail[low] == 0 || epoch > 0 && b.coord.old.Has(low)) && !b.coord.known.Has(low)
	if low != a.low || want.Count() < a.asked || unclaimed || fed {
		a.low, a.since = low, c.now
	}
	b.coord.setStuck(a, c.now >= a.since.Add(c.standstill()))
	a.ever.Union(want)
	b.coord.wishes.Union(want)
	// A new wish is a new chance: its credentials may have come.
	a.want, a.asked, a.epoch, a.refused, a.last = want, want.Count(), epoch, false, c.now
}

func (k *coordinator) setStuck(a *asker, stuck bool) {
	if a.stuck != stuck {
		a.stuck = stuck
		if stuck {
			k.stuck++
		} else {
			k.stuck--
		}
	}
}

// standstill is how long an asker is left without what somebody holds: in a large
// cluster, a chunk takes many steps. It is less than the askers' patience, so that they do
// not all turn to the origin at once for what was lost with the nodes that had it.
func (c *Core) standstill() time.Duration {
	if c.crowded() {
		return 3 * c.cfg.Standstill
	}
	return c.cfg.Standstill
}

// got takes chunks out of what a node asked for.
func (a *asker) got(first, end int) {
	for i := first; i < end; i++ {
		a.want.Clear(i)
	}
}

// tellPeers tells an asker who else holds or wants the blob.
func (c *Core) tellPeers(b *blob, to chunkindex.NodeID) {
	if c.crowded() {
		// It joins, and is told then.
		c.tellHolders(b, to)
		return
	}
	m := Message{Kind: MsgPeers, Blob: b.id, Size: b.size, Small: b.small}
	for _, n := range b.neighbours {
		if !b.wants(n) && n.bits.Count() == 0 {
			continue
		}
		m.N++
		if n.p.id != to && len(m.Peers) < MaxPeers {
			m.Peers, m.Labels = append(m.Peers, n.p.id), append(m.Labels, n.p.label)
		}
	}
	if len(m.Peers) > 0 {
		c.send(to, m)
	}
}

// tellHolders tells an asker who goes on to ask for what somebody holds, by what is known
// here, who that is: where few want a blob, those who were named when it joined may all have
// come before the one that read it.
func (c *Core) tellHolders(b *blob, to chunkindex.NodeID) {
	a := b.coord.byID[to]
	if a.low < 0 || a.since == c.now {
		return
	}
	m := Message{Kind: MsgPeers, Blob: b.id, Size: b.size, Small: b.small}
	name := func(id chunkindex.NodeID) {
		if id != to && id != c.cfg.Self && len(m.Peers) < maxAlternatives && !slices.Contains(m.Peers, id) && c.alive(id) {
			m.Peers, m.Labels = append(m.Peers, id), append(m.Labels, c.peers.get(id).label)
		}
	}
	for _, r := range b.coord.readBy {
		if i := a.want.Next(r.first); r.gone == 0 && i >= 0 && i < r.end {
			name(r.by)
		}
	}
	for _, n := range b.neighbours {
		if n.bits.Has(a.low) {
			name(n.p.id)
		}
	}
	if m.N = len(m.Peers); m.N > 0 {
		c.send(to, m)
	}
}

func (c *Core) dropAsker(b *blob, id chunkindex.NodeID) {
	if b.coord == nil {
		return
	}
	if a := b.coord.byID[id]; a != nil {
		b.coord.setStuck(a, false)
		delete(b.coord.byID, id)
		i := slices.Index(b.coord.askers, a)
		b.coord.askers = slices.Delete(b.coord.askers, i, i+1)
	}
	for _, g := range slices.Clone(b.coord.grants) {
		if g.to != id {
			continue
		}
		b.coord.drop(g)
		if c.granteeHas(b, g) {
			continue
		}
		c.count(CountRegrant, 1)
		if !g.via.IsZero() {
			b.coord.relayed = append(b.coord.relayed, run{g.first, g.end, g.via})
		}
	}
}

// grantLost reports whether a node that was granted something seems to know nothing of
// it: it answers, but no chunk came to anybody for long, and it does not say to read
// any of what it was granted.
func (c *Core) grantLost(b *blob, a *asker) bool {
	if c.now < b.progress.Add(c.cfg.Linger) {
		return false
	}
	n := c.neighbour(b, a.id)
	return !slices.ContainsFunc(b.coord.grants, func(g *grant) bool {
		if g.to != a.id {
			return false
		}
		if c.now < g.at.Add(c.cfg.Linger) {
			return true
		}
		i := -1
		if n != nil {
			i = n.inFlight.Next(g.first)
		}
		return i >= 0 && i < g.end
	})
}

// checkAskers drops askers that have nothing more to ask for and did not say so: a
// MsgLeave may have been lost with a connection, and one that asks for others does
// not know when they have all. Who lacks something asks again and again, and comes
// back. That it says to want the blob is not enough: two nodes that once asked each
// other, because they saw different committees, would keep each other at it for
// ever.
func (c *Core) checkAskers(b *blob) {
	if !c.reached(b, b.coord.checkAt) {
		return
	}
	for _, a := range slices.Clone(b.coord.askers) {
		if a.id != c.cfg.Self && c.now >= a.last.Add(c.cfg.Linger) && (b.coord.granted(a) == 0 || c.grantLost(b, a)) {
			c.dropAsker(b, a.id)
		}
	}
	b.coord.checkAt = c.now.Add(c.cfg.Linger / 4)
	b.wake(b.coord.checkAt)
}
