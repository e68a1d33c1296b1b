package policy

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// audit is what follows when a blob does not hash to its digest: this node asks
// others what the chunks hash to where they are. Where two differ, one is wrong. Of
// those chunks this node reads one from the origin, the one in which it stands
// most alone: that settles who lied, whatever anybody says, and everything that came
// of the liar is dropped and fetched anew. So a lie costs each victim a chunk, and the
// cluster what the liar had read for it.
//
// Where nobody differs, or this node cannot ask the origin, what is in doubt is
// fetched again of others than before: the coordinator has it read once more for
// all nodes of that epoch together. A chunk that then differs is settled the same way.
// If the blob is refuted once more the next liar is looked for, and after that the
// node reads alone.
type audit struct {
	until   Time
	waiting int
	// chunks are those that the origin did not vouch for; differ those of which
	// others have another version.
	chunks, differ chunkindex.Bitfield
	// votes counts, for each chunk, the neighbours that have another version, less
	// those that have the same.
	votes []int
}

const (
	// maxEpochs bounds how often one blob is fetched again.
	maxEpochs = 3
	// maxAudited is how many neighbours are asked.
	maxAudited = 16
	// maxProbes bounds how many chunks of a blob a node reads from the origin under
	// one epoch to find out who lied: any peer can say that it has other sums.
	maxProbes = 4
)

// refuted handles a blob that does not hash to its digest.
func (c *Core) refuted(b *blob) {
	b.proving = false
	if b.stale {
		// What made it wrong was found meanwhile, and dropped; what comes instead is
		// proven anew.
		c.advance(b)
		return
	}
	b.probes = 0
	b.epoch++
	c.count(CountRefuted, 1)
	limit := chunkindex.Agreed
	if c.cfg.Verify == VerifyMember || b.epoch > 1 {
		limit = chunkindex.Fetched
	}
	if !slices.ContainsFunc(b.level, func(l chunkindex.Level) bool { return l < limit }) {
		limit = chunkindex.Proven
	}
	chunks := chunkindex.NewBitfield(b.n)
	for i := range b.n {
		if b.level[i] < limit {
			chunks.Set(i)
		}
	}
	if b.epoch > aloneAfter || !c.beginAudit(b, chunks) {
		c.dropDoubted(b, chunks)
	}
	c.advance(b)
}

// beginAudit asks neighbours for sums, and reports false if there are none.
func (c *Core) beginAudit(b *blob, chunks chunkindex.Bitfield) bool {
	waiting := c.askAll(b)
	if waiting > 0 {
		b.audit = &audit{until: c.now.Add(2 * c.cfg.AskTimeout), waiting: waiting,
			chunks: chunks, differ: chunkindex.NewBitfield(b.n), votes: make([]int, b.n)}
	}
	return waiting > 0
}

// askAll asks neighbours what all chunks hash to, and returns how many answers are
// due.
func (c *Core) askAll(b *blob) int {
	asked := 0
	for _, k := range c.rng.Perm(len(b.neighbours)) {
		n := b.neighbours[k]
		n.own().differs = chunkindex.NewBitfield(b.n)
		if asked == maxAudited || !c.aliveP(n.p) || b.isLiar(n.p.id) || n.bits.Count() == 0 {
			continue
		}
		asked++
		for first := 0; first < b.n; first += MaxSums {
			c.send(n.p.id, Message{Kind: MsgAskSums, Blob: b.id, Size: b.size, Chunk: first, N: min(MaxSums, b.n-first), Reply: true})
		}
	}
	return asked * ((b.n + MaxSums - 1) / MaxSums)
}

// compare takes in what a neighbour's chunks from first on hash to. An answer that
// comes after the audit still tells who has another version than the one that was
// dropped, and who has the same.
func (c *Core) compare(b *blob, n *neighbour, first int, sums []chunkindex.Sum) {
	a := b.audit
	if a != nil {
		a.waiting--
	}
	for k, sum := range sums {
		switch i := first + k; {
		case sum == (chunkindex.Sum{}):
		case a == nil:
			switch {
			case !b.doubt.Has(i) || b.have.Has(i):
			case b.sum[i] != sum:
				n.differs.Set(i)
			default:
				b.refuse(n, i)
			}
		case !a.chunks.Has(i) || !b.have.Has(i):
		case b.sum[i] == sum:
			a.votes[i]--
		default:
			a.votes[i]++
			a.differ.Set(i)
			n.differs.Set(i)
		}
	}
}

// checkAudit goes on with an audit once all have answered, or have had the time.
func (c *Core) checkAudit(b *blob) {
	a := b.audit
	if a == nil || a.waiting > 0 && !c.reached(b, a.until) {
		return
	}
	if b.isProbing() {
		return
	}
	if b.probed > 0 {
		// It was right, or could not be read. Had it been wrong, the audit would be
		// over.
		a.votes[b.probed-1] = -len(b.neighbours)
	}
	best := -1
	for i := a.differ.Next(0); i >= 0; i = a.differ.Next(i + 1) {
		if b.level[i] < chunkindex.Fetched && (best < 0 || a.votes[i] > a.votes[best]) {
			best = i
		}
	}
	if best >= 0 && b.probes < maxProbes && c.originAnswers(b) {
		c.probe(b, best) // or there is no room yet
		return
	}
	b.audit = nil
	if a.differ.Count() > 0 && b.epoch == 1 {
		c.dropDoubted(b, a.differ)
	} else {
		c.dropDoubted(b, a.chunks)
	}
}

// originAnswers reports whether the origin can be asked, now or later.
func (c *Core) originAnswers(b *blob) bool {
	return c.usableSource(b) != nil || slices.ContainsFunc(b.sources, func(s *source) bool { return s.refused == 0 })
}

// probe reads chunk i, of which there are two versions, from the origin, to know
// whose is wrong. It reports whether it does.
func (c *Core) probe(b *blob, i int) bool {
	s := c.usableSource(b)
	if s == nil || b.busy[i] != 0 || b.isProbing() || b.probes >= maxProbes || !c.roomForRead(b, c.cfg.OriginReads, c.cfg.OriginReads) {
		return false
	}
	b.probes++
	b.probed = i + 1
	b.begin(i, byOrigin)
	c.count(CountProbe, 1)
	c.emitRead(b, s, run{first: i, end: i + 1})
	return true
}

func (b *blob) isProbing() bool { return b.probed > 0 && b.busy[b.probed-1]&byOrigin != 0 }

// originSays compares what the origin gave for a chunk with what was given here
// before: whose version is another one lied.
func (c *Core) originSays(b *blob, i int, sum chunkindex.Sum) {
	for _, s := range slices.Clone(b.suspects) {
		if s.chunk == i && s.sum != sum {
			c.expose(b, c.source(s.from, s.signer))
		}
	}
	if v, ok := b.vouched[i]; ok && v.sum != sum {
		c.expose(b, v.by)
	}
}

// expose leaves a node that was found to lie out of a blob, with everything that
// it signed. It is banned once the blob is proven.
func (c *Core) expose(b *blob, liar chunkindex.NodeID) {
	if b.isLiar(liar) || b.proven {
		return
	}
	b.liars = append(b.liars, liar)
	b.passed = append(b.passed, liar)
	c.dropAsker(b, liar)
	for _, t := range slices.Clone(b.live) {
		if t.from.id == liar {
			c.cancelTransfer(t)
		}
	}
	b.audit = nil
	chunks := chunkindex.NewBitfield(b.n)
	for i := range b.n {
		if b.vouched[i].by == liar {
			delete(b.vouched, i)
		}
		if b.have.Has(i) && b.level[i] < chunkindex.Fetched && c.source(b.senderOf(i), b.signerOf(i)) == liar {
			chunks.Set(i)
		}
	}
	for _, n := range b.neighbours {
		forget(&n.refused)
	}
	b.epoch = max(b.epoch, 1)
	c.dropDoubted(b, chunks)
	c.askAll(b)
}

// isLiar reports whether a node was found to lie about this blob.
func (b *blob) isLiar(id chunkindex.NodeID) bool { return slices.Contains(b.liars, id) }

// source is who answers for a chunk: the member that signed it, or else its sender.
func (c *Core) source(from, signer chunkindex.NodeID) chunkindex.NodeID {
	if p := c.peers.get(signer); signer == c.cfg.Self || p != nil && p.met {
		return signer
	}
	return from
}

// weigh judges a chunk of a blob in which something was wrong by what was dropped
// before. It reports whether to keep it, and whether two nodes that know nothing of
// each other gave the same.
func (c *Core) weigh(b *blob, t *transfer, sum chunkindex.Sum, signer chunkindex.NodeID) (keep, agreed bool) {
	src := c.source(t.from.id, signer)
	if c.usableSource(b) == nil {
		return true, false // what is there is better than nothing
	}
	if b.isLiar(src) {
		b.suspect(suspect{t.chunk, sum, t.from.id, signer})
		return false, false
	}
	differs := false
	for _, s := range b.suspects {
		was := c.source(s.from, s.signer)
		switch {
		case s.chunk != t.chunk || b.isLiar(was):
		case was == src:
			if len(b.liars) == 0 {
				return false, false // it is who may have lied
			}
		case s.sum == sum:
			agreed = true
		default:
			differs = true
		}
	}
	if differs && !agreed && c.probe(b, t.chunk) {
		// The origin will tell, here and about all else that these two gave.
		b.suspect(suspect{t.chunk, sum, t.from.id, signer})
		return false, false
	}
	return true, agreed && !differs
}

// dropDoubted drops chunks that may be wrong. Readers that were given them are cut
// off; the others wait.
func (c *Core) dropDoubted(b *blob, chunks chunkindex.Bitfield) {
	b.doubt = chunks
	for i := chunks.Next(0); i >= 0; i = chunks.Next(i + 1) {
		c.suspectChunk(b, i)
		delete(b.vouched, i)
		if b.have.Has(i) {
			c.drop(b, i)
		}
		if n := c.neighbour(b, c.source(b.senderOf(i), b.signerOf(i))); n != nil && len(b.liars) == 0 {
			b.refuse(n, i)
		}
	}
	// Only the whole can tell now what is right.
	b.whole = b.whole || len(b.readers) > 0
	b.ask.bits = chunkindex.Bitfield{}
	for _, n := range b.neighbours {
		forget(&n.sumsAsked)
		// They do not tell of chunks that they saw here.
		c.sendState(b, n, true)
	}
	for _, r := range slices.Clone(b.readers) {
		switch i := b.have.NextClear(b.chunkAt(r.off)); {
		case i >= 0 && r.sent > r.off && b.offset(i) < r.sent:
			c.failReader(r, 503, ReasonCorrupt)
		case b.epoch > maxEpochs:
			c.failReader(r, 502, ReasonCorrupt)
		}
	}
	if b.epoch > maxEpochs {
		b.whole = false
	}
}

// refuse notes that a neighbour has no version of chunk i that this node would take.
func (b *blob) refuse(n *neighbour, i int) {
	b.mark(&n.own().refused, i)
}

// chunkAt is the chunk of an offset, 0 for one beyond the end.
func (b *blob) chunkAt(off int64) int {
	if off >= b.size {
		return 0
	}
	return b.layout.At(off)
}

func (b *blob) offset(i int) int64 {
	off, _ := b.layout.Chunk(i)
	return off
}

// answerAudit gives the sums of what is here, whatever is known of it; zero for
// what is not.
func (b *blob) answerAudit(first, n int) []chunkindex.Sum {
	var sums []chunkindex.Sum
	for i := first; i < min(first+n, b.n); i++ {
		var sum chunkindex.Sum
		if b.have.Has(i) {
			sum = b.sum[i]
		}
		sums = append(sums, sum)
	}
	return sums
}
