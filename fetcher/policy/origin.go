package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// originRead is one request to the origin under way.
type originRead struct {
	id         ID
	b          *blob
	src        *source
	first, end int
	by         chunkindex.NodeID // who granted it; zero: nobody
	sizeOnly   bool
	started    Time
	// last is when bytes last came, brought when a chunk did, 0 never.
	last, brought Time
	cost          int64
	// alone: it was begun because there was nobody to ask.
	alone bool
	dead  bool
}

// originRead returns the read under way with that ID, nil if there is none.
func (c *Core) originRead(id ID) *originRead {
	for _, r := range c.reads {
		if r.id == id {
			return r
		}
	}
	return nil
}

// usableSource returns where the blob may be read upstream right now.
func (c *Core) usableSource(b *blob) *source {
	for _, s := range b.sources {
		if (s.refused == 0 || renewable(s.refused) && len(b.readers) > 0) && c.reached(b, s.until) {
			return s
		}
	}
	return nil
}

// granted reports whether chunk i waits for room to be read from the origin.
func (b *blob) granted(i int) bool {
	for _, r := range b.grants {
		if r.first <= i && i < r.end {
			return true
		}
	}
	return false
}

// readAlone reads what is needed without asking anybody.
func (c *Core) readAlone(b *blob, need chunkindex.Bitfield) {
	for i := need.Next(0); i >= 0; i = need.Next(i) {
		if !c.roomForRead(b, c.loneReads(b), c.cfg.LoneReads) {
			return
		}
		end := b.stripeEnd(i)
		before := c.lastID
		c.startRead(b, run{first: i, end: end})
		for _, r := range c.sortedReads(b) {
			r.alone = r.alone || r.id > before && len(c.up) == 0
		}
		for ; i < end; i++ {
			need.Clear(i)
		}
	}
}

// loneReads is how many reads may run at once: one until the origin has shown
// that it honours ranges, and until a first chunk is here, which the client waits
// for and which would share the link and the CPUs with the others.
func (c *Core) loneReads(b *blob) int {
	if s := c.usableSource(b); s != nil && !s.ranged || b.progress == 0 {
		return 1
	}
	return c.cfg.LoneReads
}

func (b *blob) stripeEnd(i int) int {
	if b.small {
		return 1
	}
	_, end := b.layout.Stripe(b.layout.StripeOf(i))
	return end
}

// readGrants starts the reads that were granted. What cannot start now goes back
// at once: somebody else may have room.
func (c *Core) readGrants(b *blob) {
	if !b.isOpen || b.proven {
		return
	}
	for len(b.grants) > 0 {
		r := b.grants[0]
		b.grants = b.grants[1:]
		switch {
		case !b.wanting() || c.usableSource(b) == nil:
			c.giveBack(b, r, c.lastStatus(b), 0)
		case !c.roomForRead(b, c.cfg.LoneReads, c.cfg.LoneReads):
			c.giveBack(b, r, statusLater, 0)
		case c.overtaken(b, r) || !c.startRead(b, r):
			c.giveBack(b, r, 0, 0)
		}
	}
}

// overtaken reports whether some of a granted run comes, or can be had, from a peer by now,
// of which there was none when it was asked for: the wish or the grant was long on its way.
// What nobody has of it is asked for again.
func (c *Core) overtaken(b *blob, r run) bool {
	for i := r.first; i < r.end; i++ {
		if b.ask.bare.Has(i) && !b.have.Has(i) && (b.busy[i] == byTransfer || b.busy[i] == 0 && c.servable(b, i)) {
			return true
		}
	}
	return false
}

// statusLater gives a grant back because this node reads as much as it may at the
// moment: the HTTP status Too Early.
const statusLater = 425

// lastStatus is how the origin last failed.
func (c *Core) lastStatus(b *blob) int {
	status := 0
	for _, s := range b.sources {
		if s.refused != 0 {
			return s.refused
		}
		if s.fails > 0 {
			status = s.status
		}
	}
	return status
}

// failing is the origin that failed last.
func (b *blob) failing() Origin {
	var last *source
	for _, s := range b.sources {
		if s.fails > 0 && (last == nil || s.failedAt > last.failedAt) {
			last = s
		}
	}
	if last == nil {
		return 0
	}
	return last.origin
}

// giveBack tells whoever granted r that it will not be read, or that it was.
func (c *Core) giveBack(b *blob, r run, status int, wait time.Duration) {
	switch {
	case r.by.IsZero():
	case r.by == c.cfg.Self:
		if b.coord != nil {
			c.takeBack(b, r, status, wait, b.failing())
			b.wake(c.now)
		}
	default:
		c.send(r.by, Message{Kind: MsgGiveBack, Blob: b.id, Size: b.size, Small: b.small,
			Chunk: r.first, N: r.end - r.first, Status: status, Wait: wait, Origin: b.failing()})
		b.grantors = slices.DeleteFunc(b.grantors, func(o run) bool { return o.by == r.by && o.first <= r.first && r.first < o.end })
		if status != 200 {
			// What was asked for is no longer promised.
			b.ask.bits = chunkindex.Bitfield{}
		}
	}
}

// roomForRead reports whether one more read may start: at most ofBlob of this
// blob, and atOrigin of all blobs at its origin.
func (c *Core) roomForRead(b *blob, ofBlob, atOrigin int) bool {
	s := c.usableSource(b)
	if s == nil {
		return false
	}
	if s.fails > 0 {
		ofBlob = 1 // one shows whether it still fails
	}
	blob, origin := 0, 0
	held := int64(0)
	for _, r := range c.reads {
		if r.sizeOnly {
			continue
		}
		held += r.cost
		if r.b == b {
			blob++
		}
		if r.src.origin == s.origin {
			origin++
		}
	}
	// Reads hold their memory for as long as an origin likes: half of it is left to
	// what peers send.
	return blob < ofBlob && origin < atOrigin && len(c.reads) < c.cfg.OriginReads &&
		(held == 0 || held+b.cost() <= c.cfg.InFlightBytes/2 && c.inFlight+b.cost() <= c.cfg.InFlightBytes)
}

// startRead reads the chunks of r that are still missing from the origin, in as
// few requests as there are gaps. It reports whether there was anything to read.
func (c *Core) startRead(b *blob, r run) bool {
	started := false
	s := c.usableSource(b)
	if s == nil {
		return false
	}
	needs := func(i int) bool {
		return !b.have.Has(i) && b.busy[i]&(byOrigin|byStore) == 0 && b.wanted(i, c.cfg.ReadAhead)
	}
	for i := r.first; i < r.end; i++ {
		if !needs(i) {
			continue
		}
		first := i
		for i < r.end && needs(i) {
			b.begin(i, byOrigin)
			i++
		}
		c.emitRead(b, s, run{first, i, r.by})
		started = true
	}
	if started {
		c.announceStart(b)
		c.tellState(b)
	}
	return started
}

func (c *Core) emitRead(b *blob, s *source, r run) {
	read := &originRead{id: c.newID(), b: b, src: s, first: r.first, end: r.end, by: r.by, started: c.now, cost: b.cost()}
	c.reads = append(c.reads, read)
	c.inFlight += read.cost
	off, n := b.chunkBytes(r.first)
	if !b.small {
		lastOff, lastN := b.layout.Chunk(r.end - 1)
		n = lastOff + lastN - off
	}
	c.emit(Effect{Kind: EfOriginRead, ID: read.id, Blob: b.id, Small: b.small, Source: s.src,
		Chunk: r.first, Off: off, N: n, Size: b.size})
}

// originEvent takes in what happens to a read.
func (c *Core) originEvent(r *originRead, ev *Event) {
	b := r.b
	switch ev.Kind {
	case EvOriginHeaders:
		if r.dead {
			return
		}
		if !r.sizeOnly && !b.small && ev.Size >= 0 && ev.Size != b.size {
			// What is here was cut by a wrong size. The next request starts
			// anew, with the origin's word.
			for _, reader := range slices.Clone(b.readers) {
				c.failReader(reader, 502, ReasonCorrupt)
			}
			b.whole = false
			c.close(b)
			return
		}
		r.src.ranged = ev.Ranged
		if !ev.Ranged && !b.small && !r.sizeOnly {
			c.readsWhole(r)
		}
		c.advance(b)
		return
	case EvOriginProgress:
		r.last = c.now
		return
	case EvOriginChunk:
		if r.dead || b.closed || ev.Chunk < 0 || ev.Chunk >= b.n {
			c.emit(Effect{Kind: EfDiscard, ID: ev.ID, Blob: b.id, Chunk: ev.Chunk})
			return
		}
		r.last, r.brought = c.now, c.now
		r.src.fails, r.src.refused = 0, 0
		c.arrivedFromOrigin(b, r.id, ev.Chunk, ev.Sum)
		c.advance(b)
		return
	}
	c.endRead(r)
	if b.closed || r.dead {
		return
	}
	switch {
	case r.sizeOnly && ev.Kind == EvOriginDone:
		b.setSize(ev.Size, ev.Size >= 0 && ev.Size <= chunkindex.MinChunkLength)
	case ev.Kind == EvOriginFailed:
		c.originFailed(r, ev.Status, ev.Wait)
	}
	c.advance(b)
}

// readsWhole makes of r the only read: its origin does not honour ranges, so
// that every request costs the whole blob.
func (c *Core) readsWhole(r *originRead) {
	b := r.b
	for _, o := range c.sortedReads(b) {
		if o != r && !o.sizeOnly {
			c.cancelRead(o)
		}
	}
	r.first, r.end = 0, b.n
	for i := range b.n {
		if !b.have.Has(i) && b.busy[i]&byStore == 0 {
			b.begin(i, byOrigin)
		}
	}
	c.tellState(b)
}

// endRead forgets a read; chunks that it did not bring are free again.
func (c *Core) endRead(r *originRead) {
	c.reads = slices.DeleteFunc(c.reads, func(o *originRead) bool { return o == r })
	b := r.b
	if r.sizeOnly {
		if b.sizing == r.id {
			b.sizing = 0
		}
		return
	}
	c.inFlight -= r.cost
	c.freed = true
	if !r.dead {
		c.freeRead(r)
	}
}

func (c *Core) freeRead(r *originRead) {
	for i := r.first; i < r.end; i++ {
		r.b.end(i, byOrigin)
	}
}

func (c *Core) cancelRead(r *originRead) {
	c.emit(Effect{Kind: EfCancelOrigin, ID: r.id})
	if !r.sizeOnly {
		c.freeRead(r)
	}
	r.dead = true
}

const maxOriginWait = 30 * time.Second

// refusedPause is how long credentials that the origin refused are first not tried
// again for a reader that waits for others to bring the bytes.
const refusedPause = 2 * time.Second

func (c *Core) originFailed(r *originRead, status int, wait time.Duration) {
	b, s := r.b, r.src
	if s.fails == 0 || r.started > s.failedAt {
		s.fails++ // what was under way together fails together, for one reason
	}
	s.status, s.failedAt = status, c.now
	switch {
	case permanent(status):
		s.refused = status
		s.until = c.now.Add(refusedPause << min(s.fails-1, 3))
	default:
		s.refused = 0
		s.until = c.now.Add(min(max(c.cfg.RetryOrigin<<min(s.fails-1, 4), wait), maxOriginWait))
	}
	if r.sizeOnly {
		return
	}
	c.giveBack(b, run{r.first, r.end, r.by}, status, wait)
	c.tellState(b)
}

// heardGrant takes in a coordinator's permission to read a run. What this node does
// not want itself was asked for on behalf of others.
func (c *Core) heardGrant(b *blob, from chunkindex.NodeID, m *Message) {
	if !b.layoutSet() || m.N <= 0 || m.Chunk+m.N > b.n || b.ask.to != from || len(b.grants) >= 64 {
		c.count(CountIgnored, 1)
		if b.layoutSet() && m.N > 0 && m.Chunk+m.N <= b.n {
			c.giveBack(b, run{m.Chunk, m.Chunk + m.N, from}, 0, 0)
		}
		return
	}
	b.ask.until = min(b.ask.until, c.now)
	r := run{m.Chunk, m.Chunk + m.N, from}
	own := false
	for i := r.first; i < r.end; i++ {
		own = own || b.wanting() && !b.have.Has(i) && b.wanted(i, c.cfg.ReadAhead)
	}
	if b.coord != nil && (!own || c.usableSource(b) == nil) {
		b.coord.relayed = append(b.coord.relayed, r)
		return
	}
	b.grants = append(b.grants, r)
	b.grantors = append(slices.DeleteFunc(b.grantors, func(o run) bool { return b.holds(o) }), r)
}

// holds reports whether all chunks of a run are here.
func (b *blob) holds(r run) bool {
	next := b.have.NextClear(r.first)
	return next < 0 || next >= r.end
}
