package policy

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// neighbour is a peer as far as one blob goes.
type neighbour struct {
	p    *peer
	b    *blob
	next *neighbour // of the same peer, for another blob
	// bits is what it can serve. Its length is 0 or the blob's number of chunks. While
	// the chunks are known only setBit, clearBit and setBits change bits, since
	// blob.avail counts them, and its words are a row of the blob's.
	bits  chunkindex.Bitfield
	place int32 // of its seat
	told  int32 // it knows of the chunks before this place in blob.gained
	// What is up to here is all that most events need.

	size int64
	// epoch is the neighbour's own: see [blob].
	epoch      int
	askedAt    Time  // when it was asked for its state
	faults     uint8 // why it is avoided, up to mostFaults
	idle       bool  // see blob.sort
	introduced bool  // it was asked for its state
	replied    bool
	stale      bool // it said what could not be understood before the size was known
	owesReply  bool // it asked for ours, which is not known yet
	sumsOut    bool
	*unusual
}

// unusual is what is empty for almost all of the many neighbours that a node has. The
// length of each set is 0 or the blob's number of chunks. It is [nothing] until
// something is in it: see own.
type unusual struct {
	// inFlight is what it is reading from the origin.
	inFlight  chunkindex.Bitfield
	sumsAsked chunkindex.Bitfield
	// differs holds the chunks of which it has another version than the one that
	// was dropped here, refused those of which it has none that this node takes.
	// Empty as long as nothing was wrong; differs has a length once it was asked.
	differs, refused chunkindex.Bitfield
	tardy            Time // it let others of its zone wait: it is not waited for until then
}

// nothing is what is unusual of those of whom nothing is. Nobody changes it.
var nothing unusual

// own returns what is unusual of a neighbour, for changing it.
func (n *neighbour) own() *unusual {
	if n.unusual == &nothing {
		n.unusual = &unusual{}
	}
	return n.unusual
}

// forget empties a set of what is unusual.
func forget(set *chunkindex.Bitfield) {
	if set.Len() > 0 {
		*set = chunkindex.Bitfield{}
	}
}

// neighbour returns what a node is to a blob, nil if it is no neighbour.
func (c *Core) neighbour(b *blob, id chunkindex.NodeID) *neighbour {
	if p := c.peers.get(id); p != nil {
		return b.as(p)
	}
	return nil
}

// as is the same for a peer.
func (b *blob) as(p *peer) *neighbour {
	for n := p.near; n != nil; n = n.next {
		if n.b == b {
			return n
		}
	}
	return nil
}

// leave undoes what addNeighbour made of the peer.
func (n *neighbour) leave() {
	link := &n.p.near
	for *link != n {
		link = &(*link).next
	}
	*link, n.next = n.next, nil
}

// setBit and clearBit note that a neighbour can, or cannot, serve chunk i.
func (b *blob) setBit(n *neighbour, i int) {
	if n.bits.Set(i) {
		b.count(i)
	}
}

func (b *blob) clearBit(n *neighbour, i int) {
	if n.bits.Clear(i) {
		b.uncount(i)
	}
}

func (b *blob) count(i int) {
	if b.avail[i]++; b.avail[i] == 1 {
		b.offered.Set(i)
	}
}

func (b *blob) uncount(i int) {
	if b.avail[i]--; b.avail[i] == 0 {
		b.offered.Clear(i)
	}
}

// setBits notes all that a neighbour can serve; of a set of another length, which
// is about another blob, nothing.
func (b *blob) setBits(n *neighbour, bits chunkindex.Bitfield) {
	for i := n.bits.Next(0); i >= 0; i = n.bits.Next(i + 1) {
		b.uncount(i)
	}
	if bits.Len() != b.n {
		bits = chunkindex.NewBitfield(b.n)
	}
	n.bits = bits
	n.bits.MoveTo(b.row(int(n.place)))
	for i := n.bits.Next(0); i >= 0; i = n.bits.Next(i + 1) {
		b.count(i)
	}
}

// fit drops what a neighbour said of a blob of another size: chunk numbers mean
// nothing then.
func (n *neighbour) fit(b *blob) {
	if n.bits.Len() != b.n || n.size >= 0 && b.size >= 0 && n.size != b.size {
		n.bits.Reset(b.n)
	}
	if n.inFlight.Len() != b.n {
		forget(&n.inFlight)
	}
	if n.sumsAsked.Len() != b.n {
		forget(&n.sumsAsked)
	}
}

// mark adds chunk i to a set of the blob's chunks that takes no memory as long as it is
// empty.
func (b *blob) mark(set *chunkindex.Bitfield, i int) {
	if set.Len() != b.n {
		set.Reset(b.n)
	}
	set.Set(i)
}

func (c *Core) addNeighbour(b *blob, id chunkindex.NodeID) *neighbour {
	p := c.peer(id)
	n := &neighbour{b: b, p: p, next: p.near, size: -1, unusual: &nothing}
	p.near = n
	if b.layoutSet() {
		n.fit(b)
	}
	c.sit(b, n)
	return n
}

// sort notes whether a neighbour said that it neither has nor wants any of the blob.
// Such a one takes no place: where a node knows just as many peers as it wants for
// neighbours, and none of them has begun, it would look for no others. It is kept, since
// what is known of it may be of use once it begins.
func (b *blob) sort(n *neighbour) {
	idle := n.replied && !b.wants(n) && n.bits.Count() == 0 && n.inFlight.Count() == 0
	switch {
	case idle && !n.idle:
		b.idlers++
	case !idle && n.idle:
		b.idlers--
	}
	n.idle = idle
}

// active is how many neighbours a blob has that have to do with it, or may have.
func (b *blob) active() int { return len(b.neighbours) - b.idlers }

// remove takes a neighbour out of those of the blob.
func (b *blob) remove(n *neighbour) {
	if b.layoutSet() {
		b.setBits(n, chunkindex.NewBitfield(b.n))
		n.bits = n.bits.Clone() // its row is another's from now on
	}
	if n.idle {
		b.idlers--
	}
	b.ask.checked = 0
	n.leave()
	b.rise(n)
}

func (c *Core) dropNeighbour(b *blob, id chunkindex.NodeID) {
	if n := c.neighbour(b, id); n != nil {
		b.remove(n)
	}
	for _, t := range slices.Clone(b.live) {
		if t.from.id == id {
			c.cancelTransfer(t)
		}
	}
	c.dropAsker(b, id)
	b.coord.readerGone(id, c.now)
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
	if p := c.peers.get(id); p != nil && p.banned > c.now {
		return
	}
	n := c.neighbour(b, id)
	if n == nil {
		if b.active() >= 2*c.cfg.Neighbours {
			return
		}
		n = c.addNeighbour(b, id)
	}
	if n.introduced {
		return
	}
	n.introduced, n.askedAt = true, c.now
	c.sendState(b, n, true)
}

// settled reports whether this node knows what its neighbours hold, or has
// waited long enough for it.
func (c *Core) settled(b *blob) bool {
	if len(c.up) == 0 {
		return true
	}
	open := b.looking || b.introducedAt == 0
	for _, n := range b.neighbours {
		open = open || n.introduced && !n.replied && c.alive(n.p.id)
	}
	return !open || b.introducedAt != 0 && c.reached(b, b.introducedAt.Add(c.cfg.SettleTimeout))
}

func (c *Core) sendState(b *blob, n *neighbour, reply bool) {
	m := Message{Kind: MsgState, Blob: b.id, Size: b.size, Small: b.small, Reply: reply, Epoch: b.epoch, Label: c.cfg.Label,
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
	if h := c.held[b.id]; h.complete && h.size == b.size {
		// At rest here; this node only coordinates for others.
		m.Want, m.Bits = false, chunkindex.FullBitfield(chunksOf(h.size, h.small))
	}
	if reply {
		n.askedAt = c.now
	}
	n.told = int32(len(b.gained))
	c.send(n.p.id, m)
}

// leave tells those who know of this node's interest in b, its neighbours and whom it
// asked, that there is none any more.
func (c *Core) leave(b *blob) {
	m := Message{Kind: MsgLeave, Blob: b.id, Size: b.size, Small: b.small}
	for _, n := range b.neighbours {
		c.send(n.p.id, m)
	}
	if to := b.ask.to; c.neighbour(b, to) == nil && c.isUp(to) {
		c.send(to, m)
	}
}

// tellState tells the neighbours that want to know what this node holds, and what
// it is reading from the origin.
func (c *Core) tellState(b *blob) {
	for k, n := range b.neighbours {
		if b.seats[k].wants {
			c.sendState(b, n, false)
		}
	}
}

// report notes what a neighbour says to be reading from the origin.
func (b *blob) report(n *neighbour) {
	if n.inFlight.Count() > 0 && n.inFlight.Len() == b.n {
		b.reported.Union(n.inFlight)
		b.seats[n.place].reads = true
	}
}

// inFlightAt reports whether a neighbour is reading chunk i from the origin.
func (c *Core) inFlightAt(b *blob, i int) bool {
	if !b.reported.Has(i) {
		return false
	}
	said := false
	for k := range b.seats {
		s := b.seats[k]
		if !s.reads || !b.neighbours[k].inFlight.Has(i) {
			continue
		}
		if said = true; s.alive && c.reached(b, b.avoid[k]) && !b.isLiar(b.neighbours[k].p.id) {
			return true
		}
	}
	if !said {
		b.reported.Clear(i)
	}
	return false
}

// maxRedirects bounds how often one look-up's worth of redirects is followed.
const maxRedirects = 4

// message takes in what a peer says.
func (c *Core) message(from chunkindex.NodeID, m *Message) {
	p := c.peer(from)
	c.heardFrom(p)
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
	case MsgJoin:
		c.heardJoin(from, m)
		return
	}
	b := c.lookUp(m.Blob)
	if b == nil {
		if m.Kind == MsgGrant {
			// Asked for, and come by otherwise since.
			c.send(from, Message{Kind: MsgLeave, Blob: m.Blob, Size: m.Size, Small: m.Small})
		}
		return
	}
	n := b.as(p)
	switch m.Kind {
	case MsgHave:
		c.heardHave(b, n, from, m)
		return
	case MsgLeave:
		if n != nil {
			b.setWants(n, false)
			if b.layoutSet() {
				forget(&n.inFlight)
				// It has proven the blob: now its word for any chunk counts.
				forget(&n.sumsAsked)
				forget(&n.refused)
			}
		}
		b.coord.leaves(from)
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
			c.reach(b, m.Peer)
			b.ask = asking{}
		}
	case MsgPeers:
		c.heardPeers(b, m)
	case MsgCooldown:
		c.heardCooldown(b, from, m)
	case MsgSums:
		c.heardSums(b, n, m)
	case MsgFree:
		c.heardFree(b, p)
		return
	case MsgPong:
	default:
		c.count(CountIgnored, 1)
	}
	c.advance(b)
}

// maxNeighbours bounds the peers that can make a node tell them of each chunk.
const maxNeighbours = 512

// heardState takes in what a peer holds, and answers with what this node holds
// if it was asked to.
func (c *Core) heardState(from chunkindex.NodeID, m *Message) {
	c.peer(from).label = m.Label
	b := c.blobs[m.Blob]
	if b == nil {
		h, ok := c.held[m.Blob]
		// Who wants what is complete here may have been asked just before it was, and answers
		// now: of the chunks that came since nobody told it.
		if !m.Reply && !(ok && h.complete && m.Want) {
			return
		}
		if !ok || h.complete {
			r := Message{Kind: MsgState, Blob: m.Blob, Size: -1, Label: c.cfg.Label}
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
	n := c.neighbour(b, from)
	if n == nil && len(b.neighbours) >= maxNeighbours {
		if m.Reply {
			c.sendState(b, &neighbour{p: c.peer(from)}, false)
		}
		return
	}
	if n == nil {
		n = c.addNeighbour(b, from)
	}
	if n.introduced && !n.replied && !m.Reply {
		n.p.roundTrip(c.now, n.askedAt)
	}
	b.setWants(n, m.Want)
	n.replied, n.size, n.epoch = true, m.Size, m.Epoch
	for i := n.refused.Next(0); i >= 0; i = n.refused.Next(i + 1) {
		if !m.Bits.Has(i) {
			n.refused.Clear(i) // it dropped what it had
		}
	}
	forget(&n.inFlight)
	if m.InFlight.Count() > 0 {
		n.own().inFlight = m.InFlight
	}
	if !m.Want {
		c.dropAsker(b, from)
	} else if b.coord != nil && b.coord.byID[from] != nil {
		a := b.coord.byID[from]
		for i := m.Bits.Next(0); i >= 0; i = m.Bits.Next(i + 1) {
			a.want.Clear(i)
		}
	}
	switch {
	case !b.layoutSet():
		n.bits = m.Bits
		if m.Size >= 0 && b.claimed < 0 {
			b.claimed = m.Size
		}
	case m.Size >= 0 && b.size >= 0 && m.Size != b.size:
		b.setBits(n, chunkindex.Bitfield{})
		n.fit(b)
	default:
		b.setBits(n, m.Bits)
		n.fit(b)
	}
	b.report(n)
	if m.Reply {
		if b.opening || b.partial && !b.isOpen {
			n.owesReply = true
		} else {
			c.sendState(b, n, false)
		}
	}
	b.sort(n)
	c.advance(b)
}

func chunksOf(size int64, small bool) int {
	if l, err := chunkindex.LayoutFor(size); err == nil && !small {
		return max(l.Count(), 1)
	}
	return 1
}
