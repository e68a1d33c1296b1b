package policy

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// vouch is what a holder says that a chunk hashes to.
type vouch struct {
	by  chunkindex.NodeID
	sum chunkindex.Sum
}

// suspect is a chunk of a blob that turned out wrong as a whole.
type suspect struct {
	chunk        int
	sum          chunkindex.Sum
	from, signer chunkindex.NodeID
}

// enough is the level at which a chunk may be released to a client. Once a blob
// was refuted, somebody whose word counted was wrong about it.
func (c *Core) enough(b *blob) chunkindex.Level {
	if c.cfg.Verify == VerifyMember && b.epoch == 0 {
		return chunkindex.Attested
	}
	return chunkindex.Agreed
}

// arrivedFromPeer judges a chunk that a peer sent.
//
// A claim that says something else means that the sender or the signer is
// wrong; which of them is known only when the blob is proven, so that the sender
// is avoided and not yet banned.
func (c *Core) arrivedFromPeer(b *blob, t *transfer, ev *Event) {
	i := t.chunk
	discard := func() {
		c.emit(Effect{Kind: EfDiscard, ID: t.id, Blob: b.id, Chunk: i})
		c.count(CountWaste, ev.N)
	}
	if b.have.Has(i) || b.busy[i]&byStore != 0 {
		discard()
		return
	}
	if b.small {
		b.begin(i, byStore)
		b.from[i] = &t.from.id
		*c.effect() = Effect{Kind: EfStore, ID: t.id, Blob: b.id, Chunk: i, Small: true, Level: chunkindex.Proven, Size: b.size}
		return
	}
	level := chunkindex.Received
	var matching, strangers *chunkindex.Claim
	contradicted := false
	var stranger chunkindex.NodeID
	for k := range ev.Claims {
		switch claim := &ev.Claims[k]; {
		case claim.Sum != ev.Sum:
			// Whoever signed it signed other bytes than these, and answers for none of them.
			contradicted = true
		case !c.member(claim.Signer):
			// A key that anybody could have made a moment ago, or a member
			// that left before this node came.
			stranger = claim.Signer
			if p := c.peers.get(stranger); p == nil || p.banned <= c.now {
				strangers = claim
			}
		default:
			matching = claim
		}
	}
	if contradicted {
		c.count(CountConflict, 1)
		if matching == nil {
			discard()
			c.avoid(b, t.from.id, corruptFault)
			return
		}
		// Two signers differ: neither is believed before the proof.
		matching = nil
	}
	switch {
	case matching != nil:
		level = chunkindex.Attested
		c.signedBy(b, i, matching.Signer)
	case strangers != nil && !contradicted && c.member(t.from.id):
		// In a large cluster a node meets few of those that read from the origin.
		// A member hands on what it believes itself, and could as well have
		// signed it.
		level, matching = chunkindex.Attested, strangers
		c.signedBy(b, i, stranger)
	default:
		c.signedBy(b, i, stranger)
	}
	agreed := false
	if len(b.suspects) > 0 {
		var keep bool
		if keep, agreed = c.weigh(b, t, ev.Sum, b.signerOf(i)); !keep {
			discard()
			if n := c.neighbour(b, t.from.id); n != nil {
				b.refuse(n, i)
			}
			return
		}
	}
	if agreed && !contradicted {
		level = chunkindex.Agreed
	}
	if v, ok := b.vouched[i]; ok && v.by != t.from.id && v.by != b.signerOf(i) {
		switch {
		case v.sum != ev.Sum:
			c.count(CountConflict, 1)
			if c.probe(b, i) {
				b.suspect(suspect{i, ev.Sum, t.from.id, b.signerOf(i)})
				discard()
				return
			}
			level = chunkindex.Received
		case !contradicted:
			level = chunkindex.Agreed
		}
	}
	c.store(b, t.id, i, ev.Sum, &t.from.id, level, matching)
}

// member reports whether a node's word counts: this node itself, and those that
// it has met and not found lying.
func (c *Core) member(id chunkindex.NodeID) bool {
	p := c.peers.get(id)
	return id == c.cfg.Self || p != nil && p.met && p.banned <= c.now
}

// met reports whether a node's key is one that may join.
func (c *Core) met(id chunkindex.NodeID) bool {
	p := c.peers.get(id)
	return id == c.cfg.Self || p != nil && p.met
}

func (c *Core) store(b *blob, id ID, i int, sum chunkindex.Sum, from *chunkindex.NodeID, level chunkindex.Level, claim *chunkindex.Claim) {
	b.begin(i, byStore)
	b.sum[i], b.from[i], b.level[i] = sum, from, level
	*c.effect() = Effect{Kind: EfStore, ID: id, Blob: b.id, Chunk: i, Level: level, Claim: claim, Size: b.size}
}

// arrivedFromOrigin takes in a chunk that this node read from the origin, and
// compares it with what peers sent before.
func (c *Core) arrivedFromOrigin(b *blob, id ID, i int, sum chunkindex.Sum) {
	b.end(i, byOrigin)
	switch {
	case b.small && !b.have.Has(i) && b.busy[i]&byStore == 0:
		b.begin(i, byStore)
		*c.effect() = Effect{Kind: EfStore, ID: id, Blob: b.id, Chunk: i, Small: true, Level: chunkindex.Proven, Size: b.size}
	case b.busy[i]&byStore != 0:
		c.emit(Effect{Kind: EfDiscard, ID: id, Blob: b.id, Chunk: i})
		if !b.small {
			b.late[i] = sum
		}
	case b.have.Has(i) && b.sum[i] == sum:
		c.emit(Effect{Kind: EfDiscard, ID: id, Blob: b.id, Chunk: i})
		c.raise(b, i, chunkindex.Fetched)
	case b.have.Has(i):
		c.suspectChunk(b, i)
		c.cutOff(b, i)
		c.drop(b, i)
		c.store(b, id, i, sum, nil, chunkindex.Fetched, nil)
	default:
		c.store(b, id, i, sum, nil, chunkindex.Fetched, nil)
	}
	c.originSays(b, i, sum)
}

// cutOff ends the readers that may have been given chunk i, which is wrong.
func (c *Core) cutOff(b *blob, i int) {
	off, n := b.layout.Chunk(i)
	for _, r := range slices.Clone(b.readers) {
		if r.off < off+n && r.sent > max(off, r.off) {
			c.failReader(r, 503, ReasonCorrupt)
		}
	}
}

// stored takes in that a chunk is, or is not, in the store.
func (c *Core) stored(b *blob, i int, ok bool) {
	if b.proving && !ok {
		// The store failed at the proof; what is in it proves nothing.
		c.bypass(b)
		return
	}
	if b.closed || i < 0 || i >= b.n || b.busy[i]&byStore == 0 {
		return
	}
	b.end(i, byStore)
	if !ok {
		c.bypass(b)
		return
	}
	b.hold(i)
	if b.cameAt != nil {
		b.cameAt[i] = c.now
	}
	b.progress = c.now
	b.appeared(c.cfg.Self, i, i+1, c.now)
	b.doubt.Clear(i)
	if b.small {
		c.provenWhole(b)
		return
	}
	if sum, ok := b.late[i]; ok {
		delete(b.late, i)
		if sum != b.sum[i] {
			c.suspectChunk(b, i)
			c.cutOff(b, i)
			c.drop(b, i)
			c.originSays(b, i, sum)
			c.advance(b)
			return
		}
		c.raise(b, i, chunkindex.Fetched)
	}
	if len(b.liars) > 0 && b.level[i] < chunkindex.Fetched && b.isLiar(c.source(b.senderOf(i), b.signerOf(i))) && c.usableSource(b) != nil {
		// It was found to lie while this was being stored.
		c.suspectChunk(b, i)
		c.drop(b, i)
		c.advance(b)
		return
	}
	if b.level[i].Shareable() && b.share.Set(i) {
		c.gain(b, i)
		c.announceGroup(b, i)
	}
	c.advance(b)
}

// raise notes that more is known of a stored chunk than before.
func (c *Core) raise(b *blob, i int, level chunkindex.Level) {
	if level <= b.level[i] {
		return
	}
	b.level[i] = level
	c.emit(Effect{Kind: EfRaise, Blob: b.id, Chunk: i, Level: level})
	if b.have.Has(i) && level.Shareable() && b.share.Set(i) {
		c.gain(b, i)
	}
}

func (c *Core) drop(b *blob, i int) {
	b.stale = true
	b.unhold(i)
	b.share.Clear(i)
	b.level[i] = chunkindex.Absent
	c.emit(Effect{Kind: EfDrop, Blob: b.id, Chunk: i})
}

// prove has the whole blob hashed once every chunk is there.
func (c *Core) prove(b *blob) {
	if b.proving || b.audit != nil || b.small || !b.have.Full() {
		return
	}
	b.proving, b.stale = true, false
	c.emit(Effect{Kind: EfProve, Blob: b.id})
}

func (c *Core) provenWhole(b *blob) {
	b.proving, b.proven = false, true
	if !c.held[b.id].complete {
		c.held[b.id] = holding{b.size, b.small, true}
	}
	for _, t := range slices.Clone(b.live) {
		c.cancelTransfer(t)
	}
	for _, r := range c.sortedReads(b) {
		c.cancelRead(r)
	}
	for _, r := range b.grants {
		c.giveBack(b, r, 0, 0)
	}
	b.grants = nil
	c.judge(b)
	c.tellRest(b, true)
	for i := b.share.NextClear(0); i >= 0; {
		end := b.share.Next(i)
		if end < 0 {
			end = b.n
		}
		c.sendHave(b, i, end)
		i = b.share.NextClear(end)
	}
	for i := range b.n {
		b.hold(i)
		b.share.Set(i)
		b.level[i] = chunkindex.Proven
	}
	c.announce(b)
	c.leave(b)
	b.coord = nil
	c.advance(b)
}

// suspectChunk remembers who is behind a chunk that may be wrong.
func (c *Core) suspectChunk(b *blob, i int) {
	if b.from[i] != nil {
		b.suspect(suspect{i, b.sum[i], b.senderOf(i), b.signerOf(i)})
	}
}

// suspect remembers a version of a chunk, within bounds: whoever sends one wrong
// chunk after the other is caught by the first.
func (b *blob) suspect(s suspect) {
	if len(b.suspects) < 4*b.n {
		b.suspects = append(b.suspects, s)
	}
}

// strikes is how many blobs a node may spoil by handing on what strangers signed
// before it is held for the liar itself: keys cost nothing.
const strikes = 3

// judge compares the suspects with the proven blob. Whoever signed a wrong sum
// lied; the sender of a wrong chunk that nobody signed did; one who relayed a
// stranger's lie may have been deceived.
func (c *Core) judge(b *blob) {
	relayed := map[chunkindex.NodeID]bool{}
	for _, s := range b.suspects {
		switch p := c.peer(s.from); {
		case s.sum == b.sum[s.chunk]:
		case s.signer.IsZero():
			c.ban(s.from)
		case c.met(s.signer):
			c.ban(s.signer)
		case !relayed[s.from]:
			relayed[s.from] = true
			if p.strikes++; p.strikes >= strikes {
				c.ban(s.from)
			}
		}
	}
	b.suspects = nil
}

// vouch asks, where verification is strict and a reader waits, what other
// holders say that chunks hash to: two that agree are enough to release one.
func (c *Core) vouch(b *blob) {
	if c.cfg.Verify != VerifyStrict || b.small || len(b.readers) == 0 {
		return
	}
	for _, r := range b.readers {
		first, waiting := b.head(r)
		if !waiting {
			continue
		}
		for _, n := range b.neighbours {
			if n.sumsOut || !c.alive(n.p.id) {
				continue
			}
			i := n.bits.Next(first)
			for i >= 0 && i < first+MaxSums && (n.sumsAsked.Has(i) || b.level[i] >= chunkindex.Agreed || b.have.Has(i) && b.senderOf(i) == n.p.id) {
				i = n.bits.Next(i + 1)
			}
			if i < 0 || i >= first+MaxSums {
				continue
			}
			end := i
			for end < b.n && end < i+MaxSums && n.bits.Has(end) {
				b.mark(&n.own().sumsAsked, end)
				end++
			}
			n.sumsOut = true
			c.send(n.p.id, Message{Kind: MsgAskSums, Blob: b.id, Size: b.size, Chunk: i, N: end - i})
		}
	}
}

func (c *Core) heardAskSums(from chunkindex.NodeID, m *Message) {
	answer := Message{Kind: MsgSums, Blob: m.Blob, Size: m.Size, Chunk: m.Chunk, Reply: m.Reply}
	b := c.blobs[m.Blob]
	switch {
	case m.N <= 0 || m.N > MaxSums || m.Size < 0:
		c.count(CountIgnored, 1)
		return
	case b != nil && b.isOpen && !b.proven:
		if m.Size == b.size && m.Reply {
			answer.Sums = b.answerAudit(m.Chunk, m.N)
		} else if m.Size == b.size {
			for i := m.Chunk; i < m.Chunk+m.N && b.share.Has(i) && b.level[i] >= chunkindex.Agreed; i++ {
				answer.Sums = append(answer.Sums, b.sum[i])
			}
		}
	default:
		if h := c.held[m.Blob]; h.complete && h.size == m.Size && m.Chunk+m.N <= chunksOf(h.size, h.small) {
			c.emit(Effect{Kind: EfSums, Peer: from, Blob: m.Blob, Size: m.Size, Chunk: m.Chunk, N: int64(m.N)})
			return
		}
	}
	answer.N = len(answer.Sums)
	c.send(from, answer)
}

func (c *Core) heardSums(b *blob, n *neighbour, m *Message) {
	if n == nil || b.isLiar(n.p.id) || !b.layoutSet() || m.Size != b.size || !n.sumsOut && n.differs.Len() == 0 || m.Chunk+len(m.Sums) > b.n {
		c.count(CountIgnored, 1)
		return
	}
	if n.differs.Len() > 0 && b.isOpen {
		c.compare(b, n, m.Chunk, m.Sums)
	}
	if !n.sumsOut || m.Reply {
		return // in an audit, a node says what it cannot vouch for
	}
	n.sumsOut = false
	for k, sum := range m.Sums {
		i := m.Chunk + k
		if !b.have.Has(i) {
			if _, ok := b.vouched[i]; !ok {
				b.vouched[i] = vouch{n.p.id, sum}
			}
			continue
		}
		switch {
		case b.senderOf(i) == n.p.id || b.signerOf(i) == n.p.id:
		case b.sum[i] == sum:
			c.raise(b, i, chunkindex.Agreed)
		default:
			c.count(CountConflict, 1)
			if b.level[i] < chunkindex.Fetched && c.probe(b, i) {
				b.vouched[i] = vouch{n.p.id, sum}
			}
		}
	}
}
