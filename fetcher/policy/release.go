package policy

import (
	"math"
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// reader is one client's request for bytes of a blob.
type reader struct {
	id       ID
	b        *blob
	src      *source
	off, end int64 // end -1: to the blob's end
	pos      int64 // the client has taken what is before
	sent     int64 // the client may have what is before
	// since is when the reader began to wait for what comes next, held when
	// the next bytes were here but not to be released, 0 never.
	since, held Time
}

// wholeAt is how much of a blob must be covered by what readers wanted, in
// percent, for the rest to be fetched too.
const wholeAt = 60

func (c *Core) read(ev *Event) {
	b := c.blob(ev.Blob)
	h, held := c.held[ev.Blob]
	if !b.opening && !b.isOpen && b.layoutSet() && (ev.Size != b.size || ev.Small != b.small) {
		// Only peers have spoken of it so far.
		if b.aside = nil; ev.Size < 0 && !ev.Small {
			b.aside = b.coord
		}
		b.n, b.small, b.size, b.coord, b.grants, b.ask = 0, false, -1, nil, nil, asking{}
	}
	switch {
	case held && h.complete:
		b.setSize(h.size, h.small)
		b.proven, b.isOpen = true, true
	case ev.Small:
		b.setSize(ev.Size, true)
		if !b.small {
			break
		}
		// A peer's word for the size of a small blob is worth nothing: the
		// digest settles it.
		b.size = ev.Size
	case held:
		b.partial = true
		b.setSize(h.size, h.small)
	case ev.Size >= 0:
		b.setSize(ev.Size, false)
	}
	r := &reader{id: ev.Reader, b: b, off: ev.Off, end: ev.End, pos: ev.Off, sent: ev.Off, since: c.now}
	if ev.Source != 0 {
		for _, s := range b.sources {
			if s.src == ev.Source {
				r.src = s
			}
		}
		if r.src == nil {
			r.src = &source{src: ev.Source, origin: ev.Origin}
			b.sources = append(b.sources, r.src)
		} else if r.src.refused != 0 {
			// Credentials may have come since: each client's request is a
			// new question.
			r.src.refused, r.src.fails, r.src.until = 0, 0, 0
		}
	}
	again := !b.wanting() && b.introducedAt != 0
	c.readers[r.id] = r
	b.readers = append(b.readers, r)
	b.ask.checked = 0
	b.whole = b.whole || ev.Whole
	if again {
		// Those who asked in the meantime were told that nothing is wanted.
		for _, n := range b.neighbours {
			n.introduced = true
			c.sendState(b, n, true)
		}
	}
	c.advance(b)
}

func (c *Core) consumed(r *reader, off int64) {
	if off <= r.pos {
		return
	}
	r.pos, r.since = off, c.now
	b := r.b
	if b.layoutSet() && !b.whole && !b.proven && !b.small {
		covered := b.have.Count()
		if covered*100 > wholeAt*b.n {
			b.whole = true
		}
	}
	c.advance(b)
}

func (c *Core) dropReader(r *reader) {
	delete(c.readers, r.id)
	r.b.readers = slices.DeleteFunc(r.b.readers, func(o *reader) bool { return o == r })
	r.b.idleSince = c.now
}

func (c *Core) failReader(r *reader, status int, reason Reason) {
	c.emit(Effect{Kind: EfFail, Reader: r.id, Blob: r.b.id, Status: status, Reason: reason})
	c.dropReader(r)
	if b := r.b; len(b.readers) == 0 && b.have.Count() == 0 && b.epoch == 0 {
		// What was thought of it, its size above all, may be the reason.
		b.whole, b.idleSince = false, c.now.Add(-c.cfg.Linger)
	}
}

// bypass hands all readers of a blob that the store cannot take to the driver.
func (c *Core) bypass(b *blob) {
	for _, r := range slices.Clone(b.readers) {
		e := Effect{Kind: EfBypass, Reader: r.id, Blob: b.id, Off: r.sent, Size: b.size, Small: b.small}
		if s := c.usableSource(b); s != nil {
			e.Source = s.src
		} else if r.src != nil {
			e.Source = r.src.src
		}
		c.emit(e)
		c.dropReader(r)
	}
	b.whole = false
	c.close(b)
}

// head is the chunk that a reader needs next; waiting says that it has taken all
// that was released to it.
func (b *blob) head(r *reader) (chunk int, waiting bool) {
	if b.small {
		return 0, true
	}
	if !b.layoutSet() || r.sent >= b.size {
		return 0, false
	}
	return b.layout.At(r.sent), r.pos >= r.sent
}

// pressed reports whether a reader has not had a byte yet, or none for long.
func (c *Core) pressed(b *blob) bool {
	return slices.ContainsFunc(b.readers, func(r *reader) bool {
		return r.sent == r.off || c.now >= r.since.Add(c.cfg.Standstill)
	})
}

// release gives readers the bytes that they may have, and gives up on readers
// that cannot be served.
func (c *Core) release(b *blob) {
	whole := b.whole
	for _, r := range slices.Clone(b.readers) {
		if b.layoutSet() && b.size > 0 && r.off >= b.size {
			c.failReader(r, 416, ReasonRange)
			continue
		}
		c.deliver(b, r)
		c.giveUp(b, r)
	}
	if b.whole && !whole && b.ready() && !b.closed {
		// A reader came to the last chunk, which needs the proof of all.
		c.vouch(b)
		c.fetchPeers(b)
		c.fetchOrigin(b)
	}
}

// deliver releases the contiguous bytes ahead of a reader whose chunks are known
// well enough. Bytes of the last chunk wait for the proof of the whole blob.
func (c *Core) deliver(b *blob, r *reader) {
	if b.proven {
		if r.sent < math.MaxInt64 {
			r.sent = math.MaxInt64
			*c.effect() = Effect{Kind: EfDeliver, Reader: r.id, Blob: b.id, Off: b.size, Size: b.size, Small: b.small}
		}
		return
	}
	if !b.ready() || b.small {
		return
	}
	upto := r.sent
	for i := b.layout.At(upto); i < b.n-1; i++ {
		if !b.have.Has(i) || b.level[i] < c.enough(b) {
			break
		}
		off, n := b.layout.Chunk(i)
		upto = off + n
	}
	if upto > r.sent {
		r.sent, r.since, r.held = upto, c.now, 0
		*c.effect() = Effect{Kind: EfDeliver, Reader: r.id, Blob: b.id, Off: upto, Size: b.size}
	}
	i, waiting := b.head(r)
	if !waiting || r.end >= 0 && r.pos >= r.end {
		return
	}
	if i == b.n-1 {
		b.whole = true
	}
	if !b.have.Has(i) || c.cfg.Verify != VerifyStrict || b.level[i] >= c.enough(b) {
		return
	}
	if r.held == 0 {
		r.held = max(c.now, 1)
		// Only the proof of the whole blob releases it, or the origin once the
		// limit has passed: a reader of a range would wait for nothing else.
		b.whole = true
	}
	if c.reached(b, b.came(i).Add(c.cfg.HoldLimit)) {
		c.readHeld(b, i)
	}
}

// came is when chunk i was stored; 0 for what was there when the blob was opened.
func (b *blob) came(i int) Time {
	if i < len(b.cameAt) {
		return b.cameAt[i]
	}
	return 0
}

// readHeld reads from the origin what strict verification has held back for too
// long, from chunk i on and within a stripe. What came later has its time too: until
// then the proof may have made the read needless.
func (c *Core) readHeld(b *blob, i int) {
	s := c.usableSource(b)
	if s == nil || b.busy[i] != 0 || !c.roomForRead(b, c.cfg.LoneReads, c.cfg.OriginReads) {
		return
	}
	end := i
	for stop := b.stripeEnd(i); end < stop && b.have.Has(end) && b.level[end] < chunkindex.Agreed && b.busy[end] == 0 &&
		c.now >= b.came(end).Add(c.cfg.HoldLimit); end++ {
		b.begin(end, byOrigin)
	}
	c.count(CountStrict, 1)
	c.emitRead(b, s, run{first: i, end: end})
}

// giveUp fails a reader that waits for something that cannot come, or has
// waited for too long.
func (c *Core) giveUp(b *blob, r *reader) {
	i, waiting := b.head(r)
	if b.proven || b.layoutSet() && !waiting || r.end >= 0 && r.pos >= r.end {
		return
	}
	if c.reached(b, r.since.Add(c.cfg.ReaderTimeout)) {
		c.failReader(r, 504, ReasonStalled)
		return
	}
	if b.layoutSet() && b.size != 0 {
		if !b.isOpen || b.have.Has(i) || b.busy[i] != 0 || b.granted(i) || c.promised(b, i) {
			return
		}
	} else if b.sizing != 0 {
		return
	}
	s := r.src
	if s == nil {
		if c.settled(b) && c.reached(b, r.since.Add(2*c.cfg.AskTimeout)) {
			c.failReader(r, 404, ReasonUnavailable)
		}
		return
	}
	if !c.settled(b) {
		return
	}
	switch {
	case s.refused != 0 && len(c.up) > 0 && b.layoutSet() &&
		(c.inFlightAt(b, i) || b.progress != 0 && !c.reached(b, b.progress.Add(c.cfg.Standstill))):
		// Others, whom the origin lets in, are at it.
	case s.refused != 0 && c.usableSource(b) == nil:
		c.refuseReader(b, r, i, s.refused)
	case c.failsNow(b, r, s):
		c.refuseReader(b, r, i, s.status)
	}
}

// failsNow reports whether a reader need not wait for the next try of an origin that
// failed: it failed more than once, or before anything came, and peers have had the time to
// bring what is missing. Who came since then sees the next try, if that is soon.
func (c *Core) failsNow(b *blob, r *reader, s *source) bool {
	switch {
	case s.fails == 0 || c.now >= s.until || s.fails == 1 && b.have.Count() > 0:
		return false
	case len(c.up) == 0:
		return true
	case r.since > s.failedAt && s.until <= r.since.Add(c.cfg.RetryOrigin<<maxPauses):
		return false
	}
	return c.reached(b, s.failedAt.Add(2*c.cfg.AskTimeout))
}

// refuseReader fails a reader whose next chunk i the origin does not give, unless
// somebody holds a version of it that this node did not want while there was a better
// one to be had: it may have been right.
func (c *Core) refuseReader(b *blob, r *reader, i, status int) {
	forgiven := false
	for _, n := range b.neighbours {
		if n.refused.Has(i) && c.aliveP(n.p) && n.faults < 3 {
			forget(&n.own().refused)
			forgiven = true
		}
	}
	if forgiven {
		b.wake(c.now)
		return
	}
	c.failReader(r, status, ReasonOrigin)
}
