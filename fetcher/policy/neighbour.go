package policy

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// neighbour is a peer as far as one blob goes.
type neighbour struct {
	id   chunkindex.NodeID
	size int64
	// bits is what it can serve, inFlight what it is reading from the origin.
	// Their length is 0 or the blob's number of chunks.
	bits, inFlight chunkindex.Bitfield
	wants          bool
	introduced     bool // it was asked for its state
	replied        bool
	stale          bool // it said what could not be understood before the size was known
	owesReply      bool // it asked for ours, which is not known yet

	// avoid: not asked for chunks before then; faults counts why.
	avoid  Time
	faults int

	sumsAsked chunkindex.Bitfield
	sumsOut   bool
}

func (b *blob) neighbour(id chunkindex.NodeID) *neighbour {
	for _, n := range b.neighbours {
		if n.id == id {
			return n
		}
	}
	return nil
}

// fit drops what a neighbour said of a blob of another size: chunk numbers mean
// nothing then.
func (n *neighbour) fit(b *blob) {
	if n.bits.Len() != b.n || n.size >= 0 && b.size >= 0 && n.size != b.size {
		n.bits = chunkindex.NewBitfield(b.n)
	}
	if n.inFlight.Len() != b.n {
		n.inFlight = chunkindex.NewBitfield(b.n)
	}
	if n.sumsAsked.Len() != b.n {
		n.sumsAsked = chunkindex.NewBitfield(b.n)
	}
}

func (c *Core) addNeighbour(b *blob, id chunkindex.NodeID) *neighbour {
	c.peer(id)
	n := &neighbour{id: id, size: -1}
	if b.layoutSet() {
		n.fit(b)
	}
	b.neighbours = append(b.neighbours, n)
	return n
}

func (c *Core) dropNeighbour(b *blob, id chunkindex.NodeID) {
	b.neighbours = slices.DeleteFunc(b.neighbours, func(n *neighbour) bool { return n.id == id })
	for _, t := range c.sortedTransfers(b) {
		if t.from == id {
			c.cancelTransfer(t)
		}
	}
	c.dropAsker(b, id)
	if b.ask.to == id {
		b.ask = asking{}
	}
	b.grants = slices.DeleteFunc(b.grants, func(r run) bool { return r.by == id })
}

// introduce tells a node of this node's interest in b and asks for its state.
func (c *Core) introduce(b *blob, id chunkindex.NodeID) {
	if id == c.cfg.Self {
		return
	}
	if p := c.peers[id]; p != nil && p.banned > c.now {
		return
	}
	n := b.neighbour(id)
	if n == nil {
		if len(b.neighbours) >= 2*c.cfg.Neighbours {
			return
		}
		n = c.addNeighbour(b, id)
	}
	if n.introduced {
		return
	}
	n.introduced = true
	c.sendState(b, n, true)
}

// introduceAll is introduce for the neighbours that a node starts with: every
// peer in a small cluster, a part of them in a large one, and those that the
// DHT names as providers.
func (c *Core) introduceAll(b *blob) {
	c.lookup(b)
	if b.introducedAt != 0 {
		return
	}
	b.introducedAt = max(c.now, 1)
	if len(c.up) <= c.cfg.Neighbours {
		for _, p := range c.up {
			c.introduce(b, p.id)
		}
		return
	}
	for _, i := range c.rng.Perm(len(c.up))[:c.cfg.Neighbours] {
		c.introduce(b, c.up[i].id)
	}
}

// lookup asks the DHT who is near to b and who provides it, unless it was asked
// lately, or there is nobody to ask.
func (c *Core) lookup(b *blob) {
	if b.looking || len(c.up) == 0 || b.lookedAt != 0 && c.now < b.lookedAt.Add(c.cfg.CommitteeTTL) {
		return
	}
	b.looking, b.lookedAt = true, max(c.now, 1)
	c.emit(Effect{Kind: EfLookup, Blob: b.id})
}

func (c *Core) looked(b *blob, closest, providers []chunkindex.NodeID) {
	b.looking, b.redirects = false, 0
	b.closest, b.ranked = closest, nil
	for _, id := range providers[:min(len(providers), c.cfg.Neighbours)] {
		c.introduce(b, id)
	}
	c.advance(b)
}

// settled reports whether this node knows what its neighbours hold, or has
// waited long enough for it.
func (c *Core) settled(b *blob) bool {
	if len(c.up) == 0 {
		return true
	}
	open := b.looking || b.introducedAt == 0
	for _, n := range b.neighbours {
		open = open || n.introduced && !n.replied && c.alive(n.id)
	}
	return !open || b.introducedAt != 0 && c.reached(b, b.introducedAt.Add(c.cfg.SettleTimeout))
}

func (c *Core) sendState(b *blob, n *neighbour, reply bool) {
	m := Message{Kind: MsgState, Blob: b.id, Size: b.size, Small: b.small, Reply: reply,
		Want: b.wanting() || b.coord != nil,
		Bits: chunkindex.NewBitfield(b.n), InFlight: chunkindex.NewBitfield(b.n)}
	if b.layoutSet() {
		m.Bits = b.share.Clone()
		for i, a := range b.busy {
			if a&byOrigin != 0 {
				m.InFlight.Set(i)
			}
		}
	}
	c.send(n.id, m)
}

// tellState tells the neighbours that want to know what this node holds, and what
// it is reading from the origin.
func (c *Core) tellState(b *blob) {
	for _, n := range b.neighbours {
		if n.wants {
			c.sendState(b, n, false)
		}
	}
}

// inFlightAt reports whether a neighbour is reading chunk i from the origin.
func (c *Core) inFlightAt(b *blob, i int) bool {
	for _, n := range b.neighbours {
		if n.inFlight.Has(i) && c.alive(n.id) {
			return true
		}
	}
	return false
}

// sendHave tells the neighbours that want to know of the chunks [first, end).
func (c *Core) sendHave(b *blob, first, end int) {
	for _, n := range b.neighbours {
		if n.wants {
			c.send(n.id, Message{Kind: MsgHave, Blob: b.id, Size: b.size, Small: b.small, Chunk: first, N: end - first})
		}
	}
}

// maxRedirects bounds how often one look-up's worth of redirects is followed.
const maxRedirects = 4

// message takes in what a peer says.
func (c *Core) message(from chunkindex.NodeID, m Message) {
	p := c.peer(from)
	p.heard, p.pinged, p.silent = c.now, 0, false
	if p.banned > c.now {
		return
	}
	switch m.Kind {
	case MsgPing:
		c.send(from, Message{Kind: MsgPong, Blob: m.Blob, Size: -1})
		return
	case MsgState:
		c.heardState(from, m)
		return
	case MsgAsk:
		c.heardAsk(from, m)
		return
	case MsgAskSums:
		c.heardAskSums(from, m)
		return
	}
	b := c.blobs[m.Blob]
	if b == nil {
		return
	}
	n := b.neighbour(from)
	switch m.Kind {
	case MsgHave:
		if n != nil && !b.layoutSet() {
			n.stale = true
			return
		}
		if n == nil || m.N <= 0 || m.Chunk+m.N > b.n || !b.small && m.Size != b.size {
			c.count(CountIgnored, 1)
			return
		}
		b.progress = c.now
		for i := m.Chunk; i < m.Chunk+m.N; i++ {
			n.bits.Set(i)
			n.inFlight.Clear(i)
			b.coord.appeared(i)
		}
	case MsgLeave:
		if n != nil {
			n.wants = false
			if b.layoutSet() {
				// It has proven the blob: now its word for any chunk counts.
				n.sumsAsked = chunkindex.NewBitfield(b.n)
			}
		}
		c.dropAsker(b, from)
	case MsgGrant:
		c.heardGrant(b, from, m)
	case MsgGiveBack:
		c.heardGiveBack(b, from, m)
	case MsgRedirect:
		// Views may disagree in a circle: a few steps are enough, then the
		// reader's patience decides.
		if b.ask.to == from && m.Peer != from && b.redirects < maxRedirects && !slices.Contains(b.closest, m.Peer) {
			b.redirects++
			b.closest, b.ranked = append(b.closest, m.Peer), nil
			c.introduce(b, m.Peer)
			b.ask = asking{}
		}
	case MsgPeers:
		if b.wanting() {
			for _, id := range m.Peers {
				if p := c.peers[id]; p != nil && p.up {
					c.introduce(b, id)
				}
			}
		}
	case MsgSums:
		c.heardSums(b, n, m)
	case MsgPong:
	default:
		c.count(CountIgnored, 1)
	}
	c.advance(b)
}

// heardState takes in what a peer holds, and answers with what this node holds
// if it was asked to.
func (c *Core) heardState(from chunkindex.NodeID, m Message) {
	b := c.blobs[m.Blob]
	if b == nil {
		h, ok := c.held[m.Blob]
		if !m.Reply {
			return
		}
		if !ok || h.complete {
			r := Message{Kind: MsgState, Blob: m.Blob, Size: -1}
			if ok {
				r.Size, r.Small = h.size, h.small
				r.Bits = chunkindex.FullBitfield(chunksOf(h.size, h.small))
			}
			c.send(from, r)
			return
		}
		b = c.blob(m.Blob)
		b.partial = true
		b.setSize(h.size, h.small)
	}
	n := b.neighbour(from)
	if n == nil {
		n = c.addNeighbour(b, from)
	}
	n.replied, n.wants, n.size = true, m.Want, m.Size
	n.bits, n.inFlight = m.Bits, m.InFlight
	if !m.Want {
		c.dropAsker(b, from)
	} else if b.coord != nil {
		for _, a := range b.coord.askers {
			a.answered = a.answered || a.id == from
		}
	}
	if b.layoutSet() {
		n.fit(b)
	} else if m.Size >= 0 && b.claimed < 0 {
		b.claimed = m.Size
	}
	if m.Reply {
		if b.opening || b.partial && !b.isOpen {
			n.owesReply = true
		} else {
			c.sendState(b, n, false)
		}
	}
	c.advance(b)
}

func chunksOf(size int64, small bool) int {
	if l, err := chunkindex.LayoutFor(size); err == nil && !small {
		return max(l.Count(), 1)
	}
	return 1
}
