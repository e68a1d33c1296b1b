package policy

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// blob is one blob that somebody here wants, or that this node coordinates.
type blob struct {
	// What nearly every event needs comes first, what is needed together side by side: a
	// node of a large cluster finds none of it in a cache.

	id      digest.Digest
	n       int   // chunks; 1 for a small blob
	size    int64 // -1 unknown
	coord   *coordinator
	readers []*reader

	small bool
	// partial: the store holds some of it, whoever wants it.
	partial         bool
	opening, isOpen bool
	closed          bool
	proving, proven bool
	// stale: something was dropped since the proof began, so that it is about what is
	// not there any more.
	stale    bool
	provided bool
	// whole: the whole blob is wanted, not just what readers ask for next.
	whole bool
	// rareTurn: the next chunk is chosen for its readers, the one after that for the
	// swarm, and so on.
	rareTurn bool
	looking  bool
	// apart: one of those that rank before this node could not be reached from the
	// start, so that it may live, and coordinate for others.
	apart bool
	// sparse: some peers were not told of the interest, since the cluster was large or the
	// blob not wanted when they came.
	sparse bool
	// progress is when a chunk of the blob last came to be known here or with a
	// neighbour.
	progress Time
	due      Time
	// epoch counts the refutations. What was said about the blob under an earlier
	// epoch is not believed any more of the chunks in doubt.
	epoch int
	// liars are those that sent or signed what is wrong, by the origin's word, known before
	// suspects are judged.
	liars []chunkindex.NodeID

	seating
	// per chunk, once the size is known; have and share once it is open
	have chunkindex.Bitfield // stored
	// taken is the set of chunks that are stored or under way, offered that of
	// those with a neighbour in avail.
	taken, offered chunkindex.Bitfield
	busy           []activity
	// avail counts, for each chunk, the neighbours that say they hold it.
	avail []uint16
	share chunkindex.Bitfield // stored, at a level that may be served
	live  []*transfer         // under way, oldest first
	// gained lists the chunks that can be had here in the order in which they came,
	// told counts the turns of those who hear of them, tellBy is when the others must
	// have had theirs, 0 if all know.
	gained []int32
	told   int
	tellBy Time
	// askedAnew is when peers that had been busy were last asked again all the same.
	askedAnew Time
	doubt     chunkindex.Bitfield
	// reported holds the chunks that neighbours say to be reading from the origin, and
	// may hold others, which none says any more.
	reported chunkindex.Bitfield
	layout   chunkindex.Layout
	latest   ID  // of its transfers
	turn     int // whose reader is served next
	idlers   int // how many of the neighbours are idle
	ask      asking
	grants   []run // to be read from the origin
	// grantors are runs granted to this node that are not all here yet: whoever
	// granted them hears of each chunk.
	grantors  []run
	level     []chunkindex.Level
	idleSince Time
	// swarm is what this node knows of others as a member of the committee, candidates and what
	// follows what it learned of others as one of the crowd.
	swarm  *swarm
	zone   *zone                // nil as long as there is none, or nobody in another
	ranked []chunkindex.NodeID  // cache of committee
	sum    []chunkindex.Sum     // per chunk, as are from and signer
	from   []*chunkindex.NodeID // who sent it: see senderOf
	signer []*chunkindex.NodeID // whose claim it matched: see signerOf
	// cameAt is when each chunk was stored, kept where verification is strict.
	cameAt []Time

	// claimed is the size that peers speak of, -1 none.
	claimed int64
	// vouched holds what another holder says a chunk hashes to.
	vouched map[int]vouch
	// late holds what the origin said of a chunk while it was being stored.
	late map[int]chunkindex.Sum
	// suspects are the chunks that a refuted blob was made of; who sent and
	// signed them is judged once the blob is proven.
	suspects []suspect
	audit    *audit
	// probes counts the chunks read under this epoch to find out who lied, probed is
	// one more than the number of the latest.
	probes, probed int
	sources        []*source

	// lookups
	lookedAt Time // 0 never
	namedAt  Time // when the latest was answered
	lookups  int  // since a chunk last came to be known
	closest  []chunkindex.NodeID
	missed   []chunkindex.NodeID // of closest, those that could not be reached
	// redirects counts those that were followed since the last look-up.
	redirects int
	// introducedAt is when the first peers were told of the interest, 0 never.
	introducedAt Time

	sizing ID // the size request under way, 0 none

	// passed lists coordinators that were of no use for this blob.
	passed []chunkindex.NodeID
	// aside is the coordinator's state while the origin is asked for the size, of which
	// only peers have spoken: if they are right, what was granted still counts.
	aside *coordinator

	candidates []candidate
	joinAt     Time
	joins      int
	// crowd is how many nodes want or hold the blob, providers how many the DHT
	// named, as far as anybody told.
	crowd, providers int
	groups           map[int]bool // whose announcement was decided, by first chunk
}

// activity says what is under way for a chunk.
type activity uint8

const (
	byTransfer activity = 1 << iota
	byOrigin
	byStore
)

// begin and end note that something is, or is not any more, under way for chunk i.
func (b *blob) begin(i int, a activity) {
	b.busy[i] |= a
	b.taken.Set(i)
}

func (b *blob) end(i int, a activity) {
	if b.busy[i] &^= a; b.busy[i] == 0 && !b.have.Has(i) {
		b.taken.Clear(i)
	}
}

// hold and unhold note that chunk i is, or is not any more, stored.
func (b *blob) hold(i int) {
	b.have.Set(i)
	b.taken.Set(i)
}

func (b *blob) unhold(i int) {
	if b.have.Clear(i); b.busy[i] == 0 {
		b.taken.Clear(i)
	}
}

// run is the chunks [first, end) and who granted them.
type run struct {
	first, end int
	by         chunkindex.NodeID
}

// source is a place upstream and how it has behaved for this blob.
type source struct {
	src    Source
	origin Origin
	// refused is 401, 403, 404 or the like: the origin's own word, for good but for
	// credentials (see renewable), which are tried again for readers after until.
	refused int
	// ranged: it has shown that it honours ranges.
	ranged bool
	// status, failedAt and until describe the latest failure.
	status   int
	fails    int
	failedAt Time
	until    Time
	// told is when a peer first said to leave it alone.
	told Time
}

// lookUp returns the blob, nil if nobody wants it. It is mostly the one of the last time.
func (c *Core) lookUp(id digest.Digest) *blob {
	if c.last == nil || c.last.id != id {
		c.last = c.blobs[id]
	}
	return c.last
}

func (c *Core) blob(id digest.Digest) *blob {
	b := c.blobs[id]
	if b == nil {
		b = &blob{id: id, size: -1, claimed: -1, idleSince: c.now}
		c.blobs[id] = b
		c.order = append(c.order, b)
	}
	return b
}

// ready reports whether the blob's chunks are known and its partial is open.
func (b *blob) ready() bool { return b.isOpen && !b.proven }

// wanting reports whether this node wants any of the blob.
func (b *blob) wanting() bool {
	return !b.proven && (b.whole || len(b.readers) > 0)
}

// setSize fixes the blob's chunks. A size that is not known yet goes with a
// small blob only. It reports false for a size that is impossible, or not the
// one that was fixed before.
func (b *blob) setSize(size int64, small bool) bool {
	if b.layoutSet() {
		if b.small && b.size < 0 {
			b.size = size
		}
		return size == b.size || b.small && size < 0
	}
	if !small {
		l, err := chunkindex.LayoutFor(size)
		if err != nil {
			return false
		}
		b.layout, b.n = l, l.Count()
	}
	b.size = size
	if small || b.n <= 1 {
		b.small, b.n = true, 1
	}
	if b.coord == nil && b.aside != nil && b.aside.known.Len() == b.n {
		b.coord = b.aside
	}
	b.aside = nil
	sets := []*chunkindex.Bitfield{&b.have, &b.taken, &b.offered, &b.share, &b.reported, &b.doubt}
	each := chunkindex.Words(b.n)
	words := make([]uint64, len(sets)*each)
	for k, set := range sets {
		*set = chunkindex.NewBitfield(b.n)
		set.MoveTo(words[k*each : (k+1)*each])
	}
	b.level = make([]chunkindex.Level, b.n)
	b.busy = make([]activity, b.n)
	b.vouched = map[int]vouch{}
	b.late = map[int]chunkindex.Sum{}
	b.avail = make([]uint16, b.n)
	for _, n := range b.neighbours {
		n.fit(b)
		b.report(n)
		for i := n.bits.Next(0); i >= 0; i = n.bits.Next(i + 1) {
			b.count(i)
		}
	}
	b.layRows(len(b.neighbours))
	return true
}

func (b *blob) layoutSet() bool { return b.n > 0 }

// chunkBytes is the byte range of chunk i; of a small blob, N is -1.
func (b *blob) chunkBytes(i int) (off, n int64) {
	if b.small {
		return 0, -1
	}
	return b.layout.Chunk(i)
}

// maxSmall bounds a small blob: no manifest is larger.
const maxSmall = 8 << 20

// cost is what one chunk in flight counts against the memory budget.
func (b *blob) cost() int64 {
	if b.small {
		return min(max(b.size, 64<<10), maxSmall)
	}
	return b.layout.ChunkLength()
}

// findSize learns the blob's size, by the origin's word or, where the origin
// does not answer, by the peers', and opens the blob.
func (c *Core) findSize(b *blob) {
	if b.isOpen || b.opening || b.proven {
		return
	}
	if !b.layoutSet() {
		if !b.wanting() {
			return
		}
		c.introduceAll(b)
		if !c.askSize(b) && b.claimed >= 0 {
			b.setSize(b.claimed, false)
		}
		if !b.layoutSet() {
			return
		}
	}
	if !b.wanting() && !b.partial {
		return
	}
	b.opening = true
	c.emit(Effect{Kind: EfOpen, Blob: b.id, Size: b.size, Small: b.small})
}

// askSize asks the origin for the size and reports whether to wait for it.
func (c *Core) askSize(b *blob) bool {
	if b.sizing != 0 {
		// A claim is better than a wait: a lie is found out by the digest.
		return b.claimed < 0 || !c.reached(b, c.originRead(b.sizing).started.Add(2*c.cfg.AskTimeout))
	}
	s := c.usableSource(b)
	if s == nil {
		return false
	}
	r := &originRead{id: c.newID(), b: b, src: s, sizeOnly: true, started: c.now}
	b.sizing = r.id
	c.reads = append(c.reads, r)
	c.emit(Effect{Kind: EfOriginSize, ID: r.id, Blob: b.id, Source: s.src})
	return true
}

func (c *Core) opened(b *blob, levels []chunkindex.Level, sums []chunkindex.Sum) {
	if !b.opening {
		return
	}
	b.opening, b.isOpen = false, true
	// Not before: a peer's word makes a coordinator, and may speak of any size.
	b.sum = make([]chunkindex.Sum, b.n)
	b.from = make([]*chunkindex.NodeID, b.n)
	b.signer = make([]*chunkindex.NodeID, b.n)
	if c.cfg.Verify == VerifyStrict {
		b.cameAt = make([]Time, b.n)
		for i := range b.cameAt {
			b.cameAt[i] = c.now
		}
	}
	for i := range min(len(levels), b.n) {
		if levels[i] == chunkindex.Absent {
			continue
		}
		b.hold(i)
		b.level[i] = levels[i]
		if i < len(sums) {
			b.sum[i] = sums[i]
		}
		if levels[i].Shareable() {
			b.share.Set(i)
		}
	}
	if b.wanting() {
		c.introduceAll(b)
	}
	for _, n := range b.neighbours {
		if n.owesReply || n.stale {
			reply := n.stale
			n.owesReply, n.stale = false, false
			c.sendState(b, n, reply)
		} else if b.share.Count() > 0 {
			c.sendState(b, n, false)
		}
	}
	if c.held[b.id].complete {
		// Somebody else put it into the store in the meantime.
		c.provenWhole(b)
		return
	}
	c.advance(b)
}

// closeIdle lets go of a blob that nobody wants.
func (c *Core) closeIdle(b *blob) {
	if len(b.readers) > 0 || b.closed {
		b.idleSince = c.now
		return
	}
	if b.proven && b.swarm == nil {
		c.close(b)
		return
	}
	if b.coord != nil && slices.ContainsFunc(b.coord.askers, func(a *asker) bool { return a.id != c.cfg.Self }) {
		b.idleSince = c.now
		return
	}
	if !c.reached(b, b.idleSince.Add(c.cfg.Linger)) {
		return
	}
	if b.swarm != nil && !c.reached(b, b.swarm.seen.Add(swarmTTL)) {
		// Who wants it is remembered, but no member goes on to want it itself: two
		// would join with each other for ever.
		if b.wanting() {
			c.stop(b)
			c.leave(b)
			b.wake(c.now)
		}
		return
	}
	c.close(b)
}

// stop ends what is under way for a blob that nobody here wants any more.
func (c *Core) stop(b *blob) {
	b.whole = false
	for _, t := range slices.Clone(b.live) {
		c.cancelTransfer(t)
	}
	for _, r := range c.sortedReads(b) {
		c.cancelRead(r)
	}
}

func (c *Core) close(b *blob) {
	b.closed = true
	c.stop(b)
	if !b.proven {
		c.leave(b)
	}
	if b.isOpen && !b.proven && !b.small && b.have.Count() > 0 {
		c.held[b.id] = holding{b.size, b.small, false}
	}
	for _, n := range b.neighbours {
		n.leave()
	}
	delete(c.blobs, b.id)
	c.last = nil
	c.order = slices.DeleteFunc(c.order, func(o *blob) bool { return o == b })
	c.emit(Effect{Kind: EfClose, Blob: b.id})
}

func (c *Core) evicted(d digest.Digest) {
	if _, ok := c.held[d]; ok {
		delete(c.held, d)
		c.emit(Effect{Kind: EfWithdraw, Blob: d})
	}
	if b := c.blobs[d]; b != nil && b.proven && len(b.readers) == 0 {
		c.close(b) // who wanted it is forgotten as well; who still does joins again
	}
}

// sortedReads lists the origin reads under way for b, oldest first.
func (c *Core) sortedReads(b *blob) []*originRead {
	var rs []*originRead
	for _, r := range c.reads {
		if r.b == b && !r.dead {
			rs = append(rs, r)
		}
	}
	return rs
}
