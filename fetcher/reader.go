package fetcher

import (
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// errBypass ends a shared supply: the store cannot take the blob.
var errBypass = errors.New("fetcher: the store cannot take the blob")

// errGone says that the store dropped a blob between the core's word that it is
// complete and the opening of it.
var errGone = errors.New("fetcher: the store has dropped the blob")

// reader is a client's request as the core sees it. The loop grants it bytes;
// the request's own goroutine takes them.
type reader struct {
	id       policy.ID
	ref      Ref
	off, end int64 // end -1: to the end
	size     int64 // as known at the start, -1 unknown
	whole    bool
	small    bool

	blob *blob  // set by the loop before anything is granted
	mark uint64 // blob.marks when it came

	mu      sync.Mutex
	granted int64 // bytes before it may go out
	total   int64 // the blob's size, -1 unknown
	proven  bool  // it was told that the whole blob is there
	err     error
	changed chan struct{} // holds a token after each change
}

func (f *Fetcher) newReader(ref Ref, off, end, size int64, whole bool) *reader {
	return &reader{
		id: policy.ID(f.lastID.Add(1)), ref: ref, off: off, end: end, size: size, whole: whole,
		small:   ref.Manifest || size > 0 && size <= chunkindex.MinChunkLength,
		granted: off, total: -1, changed: make(chan struct{}, 1),
	}
}

// event is the reader's EvRead but for the source.
func (r *reader) event() policy.Event {
	return policy.Event{Kind: policy.EvRead, Blob: r.ref.Digest, Reader: r.id, Off: r.off, End: r.end,
		Size: r.size, Whole: r.whole, Small: r.small}
}

// admit registers a reader with the loop and completes its event.
func (f *Fetcher) admit(r *reader, ev *policy.Event) {
	b := f.blob(r.ref.Digest)
	f.readers[r.id] = r
	f.readerCount.Add(1)
	kind := KindLayer
	if r.ref.Manifest {
		kind = KindManifest
	} else if h, ok := f.hints.get(r.ref.Digest); ok {
		kind = h.kind
	}
	b.mu.Lock()
	r.blob, r.mark = b, b.marks
	b.readers++
	b.kind = max(b.kind, kind)
	b.mu.Unlock()
	ev.Source, ev.Origin = f.intern(b, sourceKey{r.ref.Source, r.ref.Manifest})
}

// dismiss forgets a reader that has ended. Loop only.
func (f *Fetcher) dismiss(r *reader) {
	delete(f.readers, r.id)
	f.readerCount.Add(-1)
	r.blob.mu.Lock()
	r.blob.readers--
	r.blob.mu.Unlock()
}

func (r *reader) tell(change func()) {
	r.mu.Lock()
	change()
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *reader) deliver(e *policy.Effect) {
	r.tell(func() {
		if e.Small || e.Off == e.Size {
			r.proven = true
		}
		r.granted, r.total = max(r.granted, e.Off), e.Size
	})
}

func (r *reader) fail(err error) {
	r.tell(func() {
		if r.err == nil {
			r.err = err
		}
	})
}

func (r *reader) bypass() { r.fail(errBypass) }

// grant is what a reader may take.
type grant struct {
	upto, size int64
	proven     bool
}

// wait returns once bytes from pos on may go out, or with the reader's end.
func (f *Fetcher) wait(ctx context.Context, r *reader, pos int64) (grant, error) {
	// The core gives up first and knows the reason; this is the net below it.
	timeout := time.NewTimer(f.cfg.ReaderTimeout + time.Second)
	defer timeout.Stop()
	for {
		r.mu.Lock()
		g, err := grant{r.granted, r.total, r.proven}, r.err
		r.mu.Unlock()
		switch {
		case g.proven || g.upto > pos:
			// What was granted is good whatever came after.
			return g, nil
		case err != nil:
			return g, err
		}
		select {
		case <-r.changed:
		case <-ctx.Done():
			return g, ctx.Err()
		case <-f.ctx.Done():
			return g, errClosed
		case <-timeout.C:
			return g, &Error{Status: http.StatusGatewayTimeout, Message: policy.ReasonStalled.String()}
		}
	}
}

// sharedSupply serves a reader from what the core has granted it.
type sharedSupply struct {
	f    *Fetcher
	r    *reader
	size int64
	file *os.File
	// closer closes file: itself, or the stored blob that it belongs to.
	closer   func()
	consumed int64
}

// burst bounds one hand-over to the client, so that the core hears of progress.
const burst = 4 << 20

func (s *sharedSupply) next(ctx context.Context, pos, end int64) (section, error) {
	g, err := s.f.wait(ctx, s.r, pos)
	if err != nil {
		return section{}, err
	}
	if s.file == nil {
		if err := s.open(ctx, g); err != nil {
			return section{}, err
		}
	}
	upto := g.upto
	if g.proven {
		upto = s.size
	}
	return section{file: s.file, off: pos, n: min(upto, end, pos+burst) - pos}, nil
}

// open opens what the reader reads from, with an offset of its own.
func (s *sharedSupply) open(ctx context.Context, g grant) error {
	b := s.r.blob
	for {
		b.mu.Lock()
		p, finishing := b.partial, b.finishing
		b.mu.Unlock()
		if p != nil && !g.proven {
			if file, err := p.File(); err == nil {
				s.file, s.size, s.closer = file, g.size, func() { closeQuietly(file) }
				return nil
			}
		}
		sb, err := s.f.store.Open(b.digest)
		if err == nil {
			s.file, s.size, s.closer = sb.File(), sb.Size(), func() { closeQuietly(sb) }
			if g.proven {
				err = sb.Prove(ctx)
			}
			if err == nil {
				return nil
			}
			s.closer()
			s.file, s.closer = nil, nil
		}
		if finishing == nil {
			return errors.Join(errGone, err)
		}
		// It is just being moved.
		select {
		case <-finishing:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.f.ctx.Done():
			return errClosed
		}
		b.mu.Lock()
		if b.finishing == finishing {
			b.finishing = nil
		}
		b.mu.Unlock()
	}
}

// consumedStep is how far a client that need not wait comes between two reports.
const consumedStep = 1 << 20

// took tells the core how far the client has come: in steps, and where the client
// waits for more.
func (s *sharedSupply) took(pos int64) {
	s.r.mu.Lock()
	granted := s.r.granted
	s.r.mu.Unlock()
	if pos-s.consumed < consumedStep && pos < granted {
		return
	}
	s.consumed = pos
	s.f.post(policy.Event{Kind: policy.EvConsumed, Blob: s.r.ref.Digest, Reader: s.r.id, Off: pos})
}

// count books n bytes at pos to where this request found them first.
func (s *sharedSupply) count(pos, n int64) {
	b := s.r.blob
	l, err := chunkindex.LayoutFor(s.size)
	if err != nil {
		return
	}
	for n > 0 {
		i := l.At(pos)
		off, length := l.Chunk(i)
		part := min(n, off+length-pos)
		found := b.found(i, s.r.mark)
		s.f.count.served(found, part)
		if found == fromStore {
			b.traffic.add(fromStore, part)
		}
		pos, n = pos+part, n-part
	}
}

func (s *sharedSupply) close() {
	s.f.post(policy.Event{Kind: policy.EvCancel, Blob: s.r.ref.Digest, Reader: s.r.id})
	if s.closer != nil {
		s.closer()
	}
}
