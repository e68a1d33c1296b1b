package fetcher

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// bypassBuffer is what one bypassing reader holds in memory.
const bypassBuffer = 256 << 10

// bypassSupply serves a reader whose blob the store cannot take: from the origin
// through a small buffer. Every byte comes from the origin, and the last ones
// are held back until the whole blob has hashed to its digest:
//
//   - A reader that began at byte 0 hashes as it goes; what it had before the
//     store failed it reads back from the file it had it from.
//   - One that began further on streams at once. If it comes to the end, the
//     blob is read once more, from the start, and compared: most such readers
//     hang up earlier, and would otherwise pay for all that precedes.
type bypassSupply struct {
	f       *Fetcher
	c       *content
	prefix  *os.File // what went out before, nil for nothing
	release func()   // closes prefix
	stop    func()   // ends what comes from the origin
	meter   *meter
	watch   *time.Timer
	permits int64

	whole hash.Hash // over the blob from 0 on, nil for a reader that began later
	part  hash.Hash // over what this reader got from the origin
	from  int64     // where part starts
	buf   []byte
	at    int64 // blob offset of buf
	n     int   // bytes in buf
}

var _ supply = (*bypassSupply)(nil)

// newBypass goes on where old ended.
func newBypass(c *content, old *sharedSupply) *bypassSupply {
	s := &bypassSupply{f: c.f, c: c, prefix: old.file, release: old.closer}
	old.closer = nil
	return s
}

// openBypass opens content that the store cannot take from the very start.
func (c *content) openBypass(r *Range, old *sharedSupply) (err error) {
	small := old.r.small
	if !small && old.size < 0 {
		if old.size, err = c.f.origin.Size(c.ctx, c.ref.Source, c.ref.Digest); err != nil {
			return err
		}
		small = old.size <= chunkindex.MinChunkLength
	}
	if small {
		return c.openSmall(r)
	}
	c.size = old.size
	if c.off, c.end, err = resolve(r, c.size); err != nil {
		return err
	}
	c.pos = c.off
	s := newBypass(c, old)
	c.supply = s
	// The origin's refusal must come before the headers.
	_, err = s.next(c.ctx, c.pos, c.end)
	return err
}

// openSmall reads a small blob whole into memory.
func (c *content) openSmall(r *Range) (err error) {
	f := c.f
	s := &memorySupply{f: f, from: fromOrigin}
	c.supply = s
	if s.permits, err = f.permit(c.ctx, chunkindex.MinChunkLength); err != nil {
		return err
	}
	if c.ref.Manifest {
		m, err := f.origin.Manifest(c.ctx, c.ref.Source, c.ref.Digest.String(), nil)
		if err != nil {
			return err
		}
		f.count.received(fromOrigin, int64(len(m.Body)))
		s.data = m.Body
	} else {
		body, err := f.origin.Blob(c.ctx, c.ref.Source, c.ref.Digest, 0, -1)
		if err != nil {
			return err
		}
		defer closeWith(c.ctx, body)()
		m := &meter{r: body, from: fromOrigin, count: f.count}
		defer f.limit(c.ctx, m, f.limits.origin)()
		if s.data, err = readWhole(m, body.Size); err != nil {
			return err
		}
	}
	if err := matches(c.ref.Digest, s.data, "origin"); err != nil {
		return err
	}
	if c.ref.Manifest {
		f.hints.learn(c.ref.Digest, s.data, "")
		h, _ := f.hints.get(c.ref.Digest)
		c.mediaType = h.mediaType
	}
	c.size = int64(len(s.data))
	c.off, c.end, err = resolve(r, c.size)
	return err
}

func (s *bypassSupply) next(ctx context.Context, pos, end int64) (section, error) {
	if s.meter == nil {
		if err := s.begin(ctx, pos); err != nil {
			return section{}, err
		}
	}
	if pos >= s.at+int64(s.n) {
		if err := s.fill(ctx); err != nil {
			return section{}, err
		}
	}
	out := s.buf[pos-s.at : s.n]
	out = out[:min(int64(len(out)), end-pos)]
	return section{mem: out, n: int64(len(out))}, nil
}

// begin opens the origin at pos.
func (s *bypassSupply) begin(ctx context.Context, pos int64) (err error) {
	wait, cancel := context.WithTimeout(ctx, s.f.cfg.ReaderTimeout)
	defer cancel()
	if s.permits, err = s.f.permit(wait, bypassBuffer); err != nil {
		return err
	}
	if s.c.off == 0 {
		s.whole = s.c.ref.Digest.Algorithm().Hash()
		if pos > 0 {
			if _, err := io.Copy(s.whole, io.NewSectionReader(s.prefix, 0, pos)); err != nil {
				return err
			}
		}
	}
	if s.release != nil {
		s.release()
		s.prefix, s.release = nil, nil
	}
	n := int64(-1)
	if s.c.end < s.c.size {
		n = s.c.end - pos
	}
	if s.meter, s.stop, s.watch, err = s.f.bypassBody(ctx, s.c, pos, n); err != nil {
		return err
	}
	s.part, s.from, s.at, s.buf = sha256.New(), pos, pos, make([]byte, bypassBuffer)
	return nil
}

// bypassBody opens n bytes of a blob at the origin, n -1 to the end, and skips
// what an origin sends that ignores ranges. A body that brings no byte for too
// long is closed.
func (f *Fetcher) bypassBody(ctx context.Context, c *content, pos, n int64) (*meter, func(), *time.Timer, error) {
	body, err := f.origin.Blob(ctx, c.ref.Source, c.ref.Digest, pos, n)
	if err != nil {
		return nil, nil, nil, err
	}
	stop := closeWith(ctx, body)
	if body.Size >= 0 && body.Size != c.size {
		stop()
		return nil, nil, nil, originSizeError(body.Size, c.size)
	}
	if body.Offset > pos {
		stop()
		return nil, nil, nil, &Error{Status: http.StatusBadGateway, Message: "the origin sent another range than it was asked for"}
	}
	watch := time.AfterFunc(f.cfg.ReaderTimeout, stop)
	m := &meter{r: body, from: fromOrigin, count: f.count, alive: func() { watch.Reset(f.cfg.ReaderTimeout) },
		pause: func() { watch.Stop() }}
	closeBody, closeShare := stop, f.limit(ctx, m, f.limits.origin)
	stop = sync.OnceFunc(func() { closeBody(); closeShare() })
	if skip := pos - body.Offset; skip > 0 {
		if _, err := io.CopyN(io.Discard, m, skip); err != nil {
			watch.Stop()
			stop()
			return nil, nil, nil, err
		}
		f.count.wasted(fromOrigin, skip)
	}
	return m, stop, watch, nil
}

// fill reads the next bytes, and proves the blob before it hands over the last.
func (s *bypassSupply) fill(ctx context.Context) error {
	s.at += int64(s.n)
	s.n = 0
	want := min(int64(len(s.buf)), s.c.end-s.at)
	s.watch.Reset(s.f.cfg.ReaderTimeout)
	n, err := io.ReadFull(s.meter, s.buf[:want])
	// While the client takes its time, nobody waits for the origin.
	s.watch.Stop()
	if err != nil {
		return because(ctx, errors.Join(io.ErrUnexpectedEOF, err))
	}
	s.part.Write(s.buf[:n])
	if s.whole != nil {
		s.whole.Write(s.buf[:n])
	}
	if s.at+int64(n) == s.c.size {
		if err := s.prove(ctx); err != nil {
			return err
		}
	}
	s.n = n
	return nil
}

// prove checks the whole blob against its digest.
func (s *bypassSupply) prove(ctx context.Context) error {
	d := s.c.ref.Digest
	whole := s.whole
	if whole == nil {
		whole = d.Algorithm().Hash()
		m, stop, watch, err := s.f.bypassBody(ctx, s.c, 0, -1)
		if err != nil {
			return err
		}
		defer stop()
		defer watch.Stop()
		again := sha256.New()
		if _, err = io.CopyN(whole, m, s.from); err == nil {
			_, err = io.CopyN(io.MultiWriter(whole, again), m, s.c.size-s.from)
		}
		s.f.count.wasted(fromOrigin, m.total)
		if err != nil {
			return because(ctx, err)
		}
		if string(again.Sum(nil)) != string(s.part.Sum(nil)) {
			return &CorruptError{Digest: d, From: "origin"}
		}
	}
	if string(whole.Sum(nil)) != string(rawDigest(d)) {
		s.f.hints.forget(d)
		return &CorruptError{Digest: d, From: "origin"}
	}
	return nil
}

func (s *bypassSupply) took(int64)       {}
func (s *bypassSupply) count(_, n int64) { s.f.count.served(fromOrigin, n) }

func (s *bypassSupply) close() {
	if s.watch != nil {
		s.watch.Stop()
	}
	if s.stop != nil {
		s.stop()
	}
	if s.release != nil {
		s.release()
	}
	s.f.mem.release(s.permits)
	s.permits, s.release = 0, nil
}
