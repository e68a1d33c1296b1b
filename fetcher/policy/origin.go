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

// asking is this node's standing request to a coordinator.
type asking struct {
	to   chunkindex.NodeID
	at   Time
	sent Time
	bits chunkindex.Bitfield
	// repeats counts how often the same was asked while chunks came.
	repeats int
	// checked is when there was last nothing new to ask for, 0 if that must be
	// looked at again.
	checked Time
}

// askPause is how long it is not looked at again what is missing, after all of it was
// asked for: most of what happens in a swarm only makes it less.
const askPause = 20 * time.Millisecond

// usableSource returns where the blob may be read upstream right now.
func (c *Core) usableSource(b *blob) *source {
	for _, s := range b.sources {
		if s.refused == 0 && c.reached(b, s.until) {
			return s
		}
	}
	return nil
}

// fetchOrigin reads from the origin what this node may read, and asks the
// coordinator for what nobody has.
func (c *Core) fetchOrigin(b *blob) {
	c.dropNeedless(b)
	c.readGrants(b)
	if !b.wanting() {
		c.relay(b, chunkindex.Bitfield{})
		return
	}
	if b.coord == nil && b.ask.checked != 0 && !c.reached(b, b.ask.checked.Add(askPause)) {
		return
	}
	b.ask.checked = 0
	c.hedge(b)
	need, some := c.missing(b)
	if !some && b.coord != nil {
		if a := b.coord.byID[c.cfg.Self]; a != nil {
			a.want.Reset(b.n)
		}
	}
	if !some || c.usableSource(b) == nil {
		b.ask.checked = c.now
		c.relay(b, chunkindex.Bitfield{})
		return
	}
	if len(c.up) == 0 || b.epoch > aloneAfter {
		// Nobody to ask; or those who would be asked were wrong too often.
		c.readAlone(b, need)
		return
	}
	c.introduceAll(b)
	if b.looking {
		return
	}
	switch {
	case c.relay(b, need):
	case slices.Contains(c.committee(b), c.cfg.Self):
		b.ask = asking{}
		c.takeAsk(b, c.cfg.Self, need.Clone(), b.epoch)
		c.coordinate(b)
		c.readGrants(b)
	default:
		// Every member is gone, and this node is not one of them.
		c.readAlone(b, need)
	}
}

// aloneAfter is the epoch after which a node trusts nobody but the origin, and
// reads a blob that was refuted for itself.
const aloneAfter = 2

// relay asks the coordinator for what this node needs, and for what those want who
// asked this node because they cannot reach the coordinator. It reports false if
// there is none better than this node.
func (c *Core) relay(b *blob, need chunkindex.Bitfield) bool {
	if need.Len() == 0 && b.coord == nil {
		return false
	}
	to := c.above(b)
	for !to.IsZero() {
		if b.ask.to != to {
			b.ask = asking{to: to, at: c.now}
		}
		if !c.isUp(to) {
			return true // it is being connected to
		}
		if c.watch(b, to, b.ask.at) {
			break
		}
		c.count(CountTakeover, 1)
		to = c.above(b)
	}
	if to.IsZero() {
		return false
	}
	if b.coord != nil {
		c.asked.Reset(b.n)
		if need.Len() > 0 {
			c.asked.Union(need)
		}
		c.findExisting(b)
		for _, a := range b.coord.askers {
			if a.id != c.cfg.Self && c.mayRead(b, a) {
				c.asked.Union(c.lacks(b, a))
			}
		}
		need = c.asked
	}
	every := 2 * c.cfg.AskTimeout
	covered := covers(b.ask.bits, need)
	if need.Count() == 0 || covered && !c.reached(b, b.ask.sent.Add(every)) {
		b.ask.checked = c.now
		return true
	}
	// While chunks come, the coordinator need not be told each second.
	flowing := covered && c.now < b.progress.Add(every)
	if flowing && c.now < b.ask.sent.Add(every<<b.ask.repeats) {
		b.ask.checked = c.now
		b.wake(c.now.Add(every))
		return true
	}
	if flowing {
		b.ask.repeats = min(b.ask.repeats+1, maxAskRepeats)
	} else {
		b.ask.repeats = 0
	}
	b.ask.bits, b.ask.sent = need.Clone(), c.now
	b.wake(c.now.Add(every))
	if !c.crowded() || len(b.grantors) > 0 {
		// A new coordinator must know what is being read, if not what everybody has.
		c.introduce(b, to)
	}
	c.send(to, Message{Kind: MsgAsk, Blob: b.id, Size: b.size, Small: b.small,
		Bits: need.Clone(), Epoch: b.epoch, Peers: c.passedOver(b, to)})
	return true
}

const maxAskRepeats = 2

// covers reports whether a holds every chunk of b.
func covers(a, b chunkindex.Bitfield) bool {
	for i := b.Next(0); i >= 0; i = b.Next(i + 1) {
		if !a.Has(i) {
			return false
		}
	}
	return true
}

// passedOver lists the nodes that rank before id and do not answer: id must not
// send the asker back to them.
func (c *Core) passedOver(b *blob, id chunkindex.NodeID) []chunkindex.NodeID {
	nodes := append([]chunkindex.NodeID{id}, b.closest...)
	slices.SortFunc(nodes, chunkindex.NodeID.Compare)
	var passed []chunkindex.NodeID
	for _, n := range rank(b.id, slices.Compact(nodes)) {
		if n == id || len(passed) == MaxPeers {
			break
		}
		if !c.alive(n) || slices.Contains(b.passed, n) {
			passed = append(passed, n)
		}
	}
	return passed
}

// missing is the set of wanted chunks that are neither here nor on their way, and
// that no neighbour can serve or is reading. The set is good until the next call.
func (c *Core) missing(b *blob) (need chunkindex.Bitfield, some bool) {
	served := &c.served
	served.Reset(b.n)
	served.Union(b.have)
	for _, n := range b.neighbours {
		if c.usable(b, n) && c.reached(b, n.shy) {
			served.Union(n.bits)
		}
		if n.inFlight.Count() > 0 && c.aliveP(n.p) && c.reached(b, n.avoid) {
			served.Union(n.inFlight)
		}
	}
	if b.doubt.Count() > 0 || len(b.suspects) > 0 {
		for i := b.have.NextClear(0); i >= 0; i = b.have.NextClear(i + 1) {
			if served.Has(i) && !c.servable(b, i) && !c.inFlightAt(b, i) {
				served.Clear(i)
			}
		}
	}
	c.need.Reset(b.n)
	for i := served.NextClear(0); i >= 0; i = served.NextClear(i + 1) {
		if b.busy[i] == 0 && b.wanted(i, c.cfg.ReadAhead) && !b.granted(i) {
			c.need.Set(i)
		}
	}
	return c.need, c.need.Count() > 0
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
		case !c.startRead(b, r):
			c.giveBack(b, r, 0, 0)
		}
	}
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
			b.busy[i] |= byOrigin
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
	c.reads[read.id] = read
	c.inFlight += read.cost
	off, n := b.chunkBytes(r.first)
	if !b.small {
		lastOff, lastN := b.layout.Chunk(r.end - 1)
		n = lastOff + lastN - off
	}
	c.emit(Effect{Kind: EfOriginRead, ID: read.id, Blob: b.id, Small: b.small, Source: s.src,
		Chunk: r.first, Off: off, N: n, Size: b.size})
}

// hedge turns to the origin itself for the sake of a reader that has waited for
// too long, whatever the coordinator says.
func (c *Core) hedge(b *blob) {
	for _, r := range b.readers {
		i, waiting := b.head(r)
		if waiting && b.busy[i]&byOrigin != 0 && !b.have.Has(i) {
			c.dropHung(b, r, i)
		}
		if !waiting || b.have.Has(i) || b.busy[i]&(byOrigin|byStore) != 0 || b.granted(i) || len(c.up) == 0 {
			continue
		}
		// Where others read for all, their progress is what to wait for: at a
		// slow origin every node would else lose patience at the same moment.
		since, patience := r.since, c.cfg.Patience
		switch {
		case c.inFlightAt(b, i):
			// But not for ever: others may get what this reader does not wait for.
			since = max(since, min(b.progress, r.since.Add(c.cfg.Patience/2)))
		case b.busy[i] == 0 && !c.servable(b, i):
			since, patience = max(since, min(b.progress, r.since.Add(c.cfg.Patience/2))), c.cfg.Standstill
		}
		if c.reached(b, since.Add(patience)) && c.roomForRead(b, c.cfg.LoneReads, c.cfg.OriginReads) {
			c.count(CountHedge, 1)
			if id := b.ask.to; !id.IsZero() && b.ask.bits.Has(i) && c.now >= b.ask.at.Add(c.cfg.Standstill) {
				// It was asked, is alive, and neither grants nor knows of
				// anybody who serves: the next in rank may be of more use.
				b.passed = append(b.passed, id)
				b.ask = asking{}
			}
			for _, n := range b.neighbours {
				if n.inFlight.Has(i) {
					// It says that it reads what does not come.
					n.inFlight = chunkindex.NewBitfield(b.n)
					c.avoid(b, n.id, 1)
				}
			}
			c.startRead(b, run{first: i, end: b.stripeEnd(i)})
		}
	}
}

// dropNeedless ends reads that were begun because there was nobody to ask, once
// peers have come that hold all that they would still bring.
func (c *Core) dropNeedless(b *blob) {
	if len(c.up) == 0 || b.epoch > 0 {
		return
	}
	for _, r := range c.sortedReads(b) {
		if !r.alone {
			continue
		}
		needless := true
		for i := r.first; i < r.end && needless; i++ {
			needless = b.have.Has(i) || b.busy[i]&byStore != 0 || c.servable(b, i)
		}
		if needless {
			c.cancelRead(r)
		}
	}
}

// dropHung ends this node's own read of chunk i if its bytes trickle so slowly that
// the reader which waits for them would be given up.
func (c *Core) dropHung(b *blob, reader *reader, i int) {
	for _, r := range c.sortedReads(b) {
		if r.sizeOnly || i < r.first || i >= r.end {
			continue
		}
		if c.reached(b, max(reader.since, r.started, r.brought).Add(2*c.cfg.Patience)) {
			c.cancelRead(r)
			c.originFailed(r, 504, 0)
		}
	}
}

// originEvent takes in what happens to a read.
func (c *Core) originEvent(r *originRead, ev Event) {
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
		if r.src.fails > 0 {
			r.src.fails = 0
		}
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
			b.busy[i] |= byOrigin
		}
	}
	c.tellState(b)
}

// endRead forgets a read; chunks that it did not bring are free again.
func (c *Core) endRead(r *originRead) {
	delete(c.reads, r.id)
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
		r.b.busy[i] &^= byOrigin
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

func (c *Core) originFailed(r *originRead, status int, wait time.Duration) {
	b, s := r.b, r.src
	s.status, s.failedAt = status, c.now
	s.fails++
	if permanent(status) {
		s.refused = status
	} else {
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
func (c *Core) heardGrant(b *blob, from chunkindex.NodeID, m Message) {
	if !b.layoutSet() || m.N <= 0 || m.Chunk+m.N > b.n || b.ask.to != from || len(b.grants) >= 64 {
		c.count(CountIgnored, 1)
		if b.layoutSet() && m.N > 0 && m.Chunk+m.N <= b.n {
			c.giveBack(b, run{m.Chunk, m.Chunk + m.N, from}, 0, 0)
		}
		return
	}
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
