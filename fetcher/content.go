package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// section is a run of bytes that may go out: of a file, or in memory.
type section struct {
	file *os.File
	off  int64
	mem  []byte
	n    int64
}

// supply is where a content's bytes come from.
type supply interface {
	// next waits until bytes from pos on may go out and returns some of those
	// before end, at least one. They are good until the next call.
	next(ctx context.Context, pos, end int64) (section, error)
	// took tells that the client has the bytes before pos.
	took(pos int64)
	// count books n bytes at pos to where the request found them.
	count(pos, n int64)
	close()
}

// content is an open blob or manifest: see [Content].
type content struct {
	f         *Fetcher
	ctx       context.Context
	cancel    context.CancelFunc
	ref       Ref
	size      int64
	off, end  int64
	pos       int64
	mediaType string
	supply    supply
	closed    sync.Once
	failed    error
	unasked   bool // nobody has said yet that this node may have it
}

func (c *content) Size() int64           { return c.size }
func (c *content) Range() (off, n int64) { return c.off, c.end - c.off }
func (c *content) MediaType() string     { return c.mediaType }
func (c *content) Close() error          { c.closed.Do(func() { c.supply.close(); c.cancel() }); return nil }
func (c *content) next() (s section, err error) {
	if c.failed != nil {
		return s, c.failed
	}
	s, err = c.supply.next(c.ctx, c.pos, c.end)
	if errors.Is(err, errBypass) {
		c.divert()
		s, err = c.supply.next(c.ctx, c.pos, c.end)
	}
	if err != nil {
		c.failed = err
	}
	return s, err
}

// divert goes on past the store.
func (c *content) divert() {
	old, _ := c.supply.(*sharedSupply)
	if old == nil {
		return
	}
	c.supply = newBypass(c, old)
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.pos >= c.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	s, err := c.next()
	if err != nil {
		return 0, err
	}
	var n int
	if s.file == nil {
		n = copy(p, s.mem)
	} else if n, err = s.file.ReadAt(p[:min(int64(len(p)), s.n)], s.off); n > 0 {
		err = nil
	} else if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	c.passed(int64(n))
	return n, err
}

// WriteTo implements io.WriterTo. A writer that is an io.ReaderFrom gets
// io.LimitedReaders over *os.File, which net.TCPConn turns into sendfile.
func (c *content) WriteTo(w io.Writer) (written int64, err error) {
	for c.pos < c.end {
		s, err := c.next()
		if err != nil {
			return written, err
		}
		n, err := s.writeTo(w)
		written += n
		c.passed(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (c *content) passed(n int64) {
	if n > 0 {
		c.supply.count(c.pos, n)
		c.pos += n
		c.supply.took(c.pos)
	}
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

func (s section) writeTo(w io.Writer) (int64, error) {
	if s.file == nil {
		n, err := w.Write(s.mem)
		return int64(n), err
	}
	if _, err := s.file.Seek(s.off, io.SeekStart); err != nil {
		return 0, err
	}
	var n int64
	var err error
	if rf, ok := w.(io.ReaderFrom); ok {
		n, err = rf.ReadFrom(io.LimitReader(s.file, s.n))
	} else {
		buf := copyBuffers.Get().(*[]byte)
		n, err = io.CopyBuffer(w, io.LimitReader(s.file, s.n), *buf)
		copyBuffers.Put(buf)
	}
	if err == nil && n < s.n {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// storedSupply serves from a complete blob. The last chunk waits for the proof,
// which is at hand unless the node stopped uncleanly.
type storedSupply struct {
	f      *Fetcher
	sb     StoredBlob
	proven bool
}

func (s *storedSupply) next(ctx context.Context, pos, end int64) (section, error) {
	upto := end
	if hold := s.sb.Size() - chunkindex.MinChunkLength; !s.proven && end == s.sb.Size() {
		if pos < hold {
			upto = hold
		} else if err := s.sb.Prove(ctx); err != nil {
			return section{}, err
		} else {
			s.proven = true
		}
	}
	return section{file: s.sb.File(), off: pos, n: upto - pos}, nil
}

func (s *storedSupply) took(int64)       {}
func (s *storedSupply) count(_, n int64) { s.f.count.served(fromStore, n) }
func (s *storedSupply) close()           { closeQuietly(s.sb) }

// memorySupply serves from memory what was proven before.
type memorySupply struct {
	f       *Fetcher
	data    []byte
	from    from
	permits int64
}

func (s *memorySupply) next(_ context.Context, pos, end int64) (section, error) {
	return section{mem: s.data[pos:end], n: end - pos}, nil
}
func (s *memorySupply) took(int64)       {}
func (s *memorySupply) count(_, n int64) { s.f.count.served(s.from, n) }
func (s *memorySupply) close()           { s.f.mem.release(s.permits); s.permits = 0 }

// resolve fits a range to a blob of size bytes; nil is the whole.
func resolve(r *Range, size int64) (off, end int64, err error) {
	off, end = 0, size
	switch {
	case r == nil:
	case r.Suffix > 0:
		off = max(0, size-r.Suffix)
	default:
		off = r.Start
		if r.End >= 0 {
			end = min(r.End, size)
		}
	}
	if r != nil && (off < 0 || off >= end) {
		return 0, 0, &Error{Status: http.StatusRequestedRangeNotSatisfiable,
			Message: fmt.Sprintf("the range does not fit a blob of %d bytes", size)}
	}
	return off, end, nil
}

func checkRef(ref Ref) error {
	if _, err := chunkindex.CID(ref.Digest); err != nil {
		return &Error{Status: http.StatusBadRequest, Code: "DIGEST_INVALID", Message: "invalid digest", Err: err}
	}
	return nil
}

func isEmpty(d digest.Digest) bool { return d.Algorithm().FromBytes(nil) == d }

// Open opens content, or a range of it (nil for the whole), and returns once
// headers may go out: the size is known and, unless the content is in the store
// already, its first byte is at hand; what is so small that it travels whole, and
// every manifest, is proven. ctx bounds the content's whole life, not only Open.
// Concurrent readers of one blob share its download; one that goes away ends
// nobody else's. Nothing is given, or fetched, that the origin does not let this
// node read: see access.go. Errors have an HTTPStatus method.
func (f *Fetcher) Open(ctx context.Context, ref Ref, r *Range) (Content, error) {
	if err := checkRef(ref); err != nil {
		return nil, err
	}
	unasked := f.unasked(ref)
	if !unasked {
		if err := f.allow(ctx, ref); err != nil {
			return nil, clientError(err)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &content{f: f, ctx: ctx, cancel: cancel, ref: ref, unasked: unasked}
	err := c.open(r)
	if unasked {
		err = c.settle(r, err)
	}
	if err != nil {
		if c.supply != nil {
			c.supply.close()
		}
		cancel()
		return nil, clientError(err)
	}
	c.pos = c.off
	return c, nil
}

// clientError gives an error a status where it has none.
func clientError(err error) error {
	var s interface{ HTTPStatus() int }
	if errors.As(err, &s) || errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{Status: http.StatusServiceUnavailable, Message: "the blob cannot be had now", Err: err}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Status = http.StatusGatewayTimeout
	}
	return e
}

func (c *content) open(r *Range) (err error) {
	f, d := c.f, c.ref.Digest
	if isEmpty(d) && !c.ref.Manifest {
		c.supply = &memorySupply{f: f, from: fromStore}
		c.off, c.end, err = resolve(r, 0)
		return err
	}
	// What the store has just dropped is fetched again.
	for range 3 {
		if err = c.openStored(r); err == nil || !absent(err) {
			return err
		}
		if err = c.openShared(r); !errors.Is(err, errGone) {
			return err
		}
		f.log.Warn("a complete blob is gone", "digest", d, "err", err)
		f.Evicted(d)
		c.supply.close()
		c.supply = nil
	}
	return err
}

// openStored serves a complete blob without troubling the core. It fails with
// fs.ErrNotExist where the store does not have one that is right.
func (c *content) openStored(r *Range) error {
	sb, err := c.f.store.Open(c.ref.Digest)
	if err != nil {
		if !absent(err) {
			c.f.log.Error("opening a stored blob", "digest", c.ref.Digest, "err", err)
		}
		return os.ErrNotExist
	}
	c.size = sb.Size()
	if c.off, c.end, err = resolve(r, c.size); err != nil {
		closeQuietly(sb)
		return err
	}
	s := &storedSupply{f: c.f, sb: sb}
	if c.ref.Manifest || c.size <= chunkindex.MinChunkLength {
		if err := sb.Prove(c.ctx); err != nil {
			closeQuietly(sb)
			if c.ctx.Err() != nil {
				return c.ctx.Err()
			}
			c.f.log.Error("a stored blob was found wrong", "digest", c.ref.Digest, "err", err)
			return os.ErrNotExist
		}
		s.proven = true
	}
	c.supply = s
	if c.ref.Manifest {
		c.mediaType = c.f.manifestType(c.ref.Digest, sb)
	}
	return nil
}

// openShared joins the download of a blob, or starts it.
func (c *content) openShared(r *Range) (err error) {
	f := c.f
	size := f.knownSize(c.ref)
	if size < 0 && r != nil && r.Suffix > 0 {
		info, err := f.Stat(c.ctx, c.ref)
		if err != nil {
			return err
		}
		size = info.Size
	}
	off, end := int64(0), int64(-1)
	if size >= 0 {
		var err error
		if off, end, err = resolve(r, size); err != nil {
			return err
		}
		if end == size && (r == nil || r.End < 0) {
			end = -1
		}
	} else if r != nil {
		off, end = r.Start, r.End
	}
	rd := f.newReader(c.ref, off, end, size, r == nil)
	s := &sharedSupply{f: f, r: rd, size: size, consumed: off}
	c.supply = s
	stayed := func() {}
	if !c.unasked {
		f.queue.put(item{ev: rd.event(), reader: rd})
	} else if stayed, err = f.readAlone(rd); err != nil {
		return err
	}
	g, err := f.wait(c.ctx, rd, off)
	stayed()
	if errors.Is(err, errBypass) {
		return c.openBypass(r, s)
	}
	if err != nil {
		return err
	}
	if err := s.open(c.ctx, g); err != nil {
		return err
	}
	c.size = s.size
	if c.off, c.end, err = resolve(r, c.size); err != nil {
		return err
	}
	if c.ref.Manifest {
		if h, ok := f.hints.get(c.ref.Digest); ok {
			c.mediaType = h.mediaType
		}
		if c.mediaType == "" {
			if sb, err := f.store.Open(c.ref.Digest); err == nil {
				c.mediaType = f.manifestType(c.ref.Digest, sb)
				closeQuietly(sb)
			}
		}
	}
	return nil
}
