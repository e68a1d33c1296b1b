package store

import (
	"context"
	"crypto/sha256"
	"io"
	"os"

	"github.com/peercache/peercache/chunkindex"
)

// After an unclean stop the chunks of partial blobs are suspect: their records may
// have outlived their bytes. Each is read back once, by whoever comes first: the
// owner of the partial when it asks for the chunk, or Run.

// recheck reads a suspect chunk back, and then knows it as present or absent.
func (p *Partial) recheck(i int) {
	p.recheckMu.Lock()
	defer p.recheckMu.Unlock()
	p.mu.Lock()
	suspect := p.suspect.Has(i) && (!p.closed || p.finish)
	p.mu.Unlock()
	if !suspect {
		return // somebody else was first
	}
	r, err := p.record(i)
	ok, stuck := p.s.readBack(p.e, i, r, err, p.file)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.suspect.Clear(i)
	if ok {
		p.present.Set(i)
	}
	p.s.rechecked(p.e, i, ok, stuck)
}

// readBack compares a suspect chunk with its record, which is r unless err, and
// makes the record say what was found. stuck says that the record of a chunk that
// is not right could not be deleted. Where the index is too full to say that the
// chunk is right, it will be read once more after the next start.
func (s *Store) readBack(e *entry, i int, r chunkRecord, err error, f diskFile) (ok, stuck bool) {
	off, n := layoutOf(e.size).Chunk(i)
	if err == nil && sumMatches(f, off, n, r.sum) {
		r.epoch = s.epoch
		_ = s.setChunkRecord(e.digest, i, r)
		return true, false
	}
	s.counts.corruptChunks.Inc()
	s.log.Warn("a chunk did not survive an unclean stop", "digest", e.digest, "chunk", i)
	return false, s.deleteChunkRecord(e.digest, i) != nil
}

// rechecked counts one suspect chunk less. With the last one the partial is
// trusted as a whole, unless a wrong record had to stay.
func (s *Store) rechecked(e *entry, i int, ok, stuck bool) {
	_, n := layoutOf(e.size).Chunk(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.unverified--
	e.stuck = e.stuck || stuck
	if ok {
		e.have++
	} else {
		e.bytes -= n
		s.used -= n
	}
	if e.unverified == 0 && !e.stuck {
		e.epoch, e.dirty = s.epoch, true
	}
}

// sumMatches reports whether n bytes at off hash to sum. A read error is a no:
// what cannot be read is not here.
func sumMatches(f io.ReaderAt, off, n int64, sum chunkindex.Sum) bool {
	h := sha256.New()
	buf := hashBuffers.Get().(*[]byte)
	defer hashBuffers.Put(buf)
	m, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.NewSectionReader(f, off, n)}, *buf)
	return err == nil && m == n && chunkindex.Sum(h.Sum(nil)) == sum
}

// recheckPartials reads back, after an unclean stop, the chunks of partial blobs
// that nobody has opened, so that they count again. It holds the claim on a blob
// for one chunk at a time: whoever opens it meanwhile waits no longer than that,
// and does the rest.
func (s *Store) recheckPartials(ctx context.Context) {
	s.mu.Lock()
	var work []*entry
	for _, e := range s.entries {
		if !e.complete && e.unverified > 0 {
			work = append(work, e)
		}
	}
	s.mu.Unlock()
	pace := newPace(s.opts.ProveRate)
	for _, e := range work {
		for i := range layoutOf(e.size).Count() {
			if pace.wait(ctx, nil) != nil || !s.recheckChunk(e, i, pace) {
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// recheckChunk reads one chunk of an unopened partial back. It returns false when
// there is nothing left to do for this blob.
func (s *Store) recheckChunk(e *entry, i int, pace *pace) bool {
	s.claim(e.digest)
	defer s.unclaim(e.digest)
	s.mu.Lock()
	stop := s.closed || e.gone || e.complete || e.owner != nil || e.unverified == 0
	s.mu.Unlock()
	if stop {
		return false
	}
	r, err := s.chunkRecord(e.digest, i)
	if isAbsent(err) || err == nil && r.epoch == s.epoch {
		return true
	}
	f, openErr := s.disk.Open(s.partialPath(e.digest), os.O_RDONLY)
	if openErr != nil {
		s.log.Warn("reading a partial blob back", "digest", e.digest, "err", openErr)
		return false
	}
	defer f.Close()
	ok, stuck := s.readBack(e, i, r, err, f)
	_, n := layoutOf(e.size).Chunk(i)
	pace.add(int(n))
	s.rechecked(e, i, ok, stuck)
	return true
}
