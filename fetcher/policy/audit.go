package policy

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// audit is what follows when a blob does not hash to its digest: this node asks
// others what the chunks hash to where they are. Where two differ, one is wrong;
// only those chunks are dropped and fetched again. A liar can spoil what it sent,
// which is a small part in a swarm, and cannot have the whole fetched twice.
//
// What is in doubt is believed of nodes that hold another version, of those that
// went through the same epoch, and of those that have proven the blob; the
// coordinator has it read again from the origin where there are none of these, for
// all nodes of that epoch together. If the blob is refuted once more, everything
// that this node did not read itself is in doubt, and after that it reads alone.
type audit struct {
	until   Time
	waiting int
	// chunks are those that the origin did not vouch for.
	chunks chunkindex.Bitfield
}

const (
	// maxEpochs bounds how often one blob is fetched again.
	maxEpochs = 3
	// maxAudited is how many neighbours are asked.
	maxAudited = 8
)

// refuted handles a blob that does not hash to its digest.
func (c *Core) refuted(b *blob) {
	b.proving = false
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
	if b.epoch == 1 && c.beginAudit(b, chunks) {
		c.advance(b)
		return
	}
	c.dropDoubted(b, chunks)
	c.advance(b)
}

// beginAudit asks neighbours for sums, and reports false if there are none.
func (c *Core) beginAudit(b *blob, chunks chunkindex.Bitfield) bool {
	asked := 0
	for _, k := range c.rng.Perm(len(b.neighbours)) {
		n := b.neighbours[k]
		n.differs = chunkindex.NewBitfield(b.n)
		if asked == maxAudited || !c.aliveP(n.p) || n.bits.Count() == 0 {
			continue
		}
		asked++
		for first := 0; first < b.n; first += MaxSums {
			c.send(n.id, Message{Kind: MsgAskSums, Blob: b.id, Size: b.size, Chunk: first, N: min(MaxSums, b.n-first), Reply: true})
		}
	}
	if asked == 0 {
		return false
	}
	waiting := asked * ((b.n + MaxSums - 1) / MaxSums)
	b.audit = &audit{until: c.now.Add(2 * c.cfg.AskTimeout), waiting: waiting, chunks: chunks}
	b.doubt = chunkindex.NewBitfield(b.n)
	return true
}

// compare takes in what a neighbour's chunks from first on hash to.
func (c *Core) compare(b *blob, n *neighbour, first int, sums []chunkindex.Sum) {
	b.audit.waiting--
	for k, sum := range sums {
		if i := first + k; sum != (chunkindex.Sum{}) && b.audit.chunks.Has(i) && b.have.Has(i) && b.sum[i] != sum {
			b.doubt.Set(i)
			n.differs.Set(i)
		}
	}
}

// checkAudit ends an audit once all have answered, or have had the time.
func (c *Core) checkAudit(b *blob) {
	a := b.audit
	if a == nil || a.waiting > 0 && !c.reached(b, a.until) {
		return
	}
	b.audit = nil
	chunks := a.chunks
	if b.doubt.Count() > 0 {
		chunks = b.doubt
	}
	c.dropDoubted(b, chunks)
}

// dropDoubted drops chunks that may be wrong. Readers that were given them are cut
// off; the others wait.
func (c *Core) dropDoubted(b *blob, chunks chunkindex.Bitfield) {
	b.doubt = chunks
	for i := chunks.Next(0); i >= 0; i = chunks.Next(i + 1) {
		c.suspectChunk(b, i)
		delete(b.vouched, i)
		c.drop(b, i)
	}
	// Only the whole can tell now what is right.
	b.whole = b.whole || len(b.readers) > 0
	b.ask.bits = chunkindex.Bitfield{}
	for _, n := range b.neighbours {
		n.sumsAsked = chunkindex.NewBitfield(b.n)
		c.sendState(b, n, false)
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
