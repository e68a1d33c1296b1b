package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// ErrRange says that a peer asked for bytes that the blob does not have, or for
// more than is in the chunk where they start.
var ErrRange = errors.New("fetcher: range not served")

// proofPatience is how long a peer waits for the proof of a blob: less than it
// takes for a stall.
const proofPatience = time.Second

// served is the body of a range that goes to a peer, at the rate that the peer
// has a share of.
type served struct {
	r     *io.SectionReader
	share *share // nil for no bound
	sent  atomic.Int64
	once  sync.Once
	over  func()
}

// Read implements io.Reader.
func (s *served) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	got, err := s.share.take(len(p))
	if err != nil {
		return 0, err
	}
	n, err := s.r.Read(p[:got])
	s.share.giveBack(got - n)
	s.sent.Add(int64(n))
	return n, err
}

// Close implements io.Closer. It may be called more than once, and while a Read
// waits for its share, which then fails.
func (s *served) Close() error {
	s.once.Do(s.over)
	return nil
}

// OpenRange opens a range of a blob for a peer: of a complete blob, or of chunks
// of a partial one that are known to be right. At most the length of the chunk
// at Offset at once; Length -1 is all of a blob of at most 8 MiB. It fails with
// fs.ErrNotExist for what is not here, [BusyError], or [ErrRange]. ctx governs
// the body too. The caller closes the body.
func (f *Fetcher) OpenRange(ctx context.Context, from chunkindex.NodeID, req RangeRequest) (*RangeSource, error) {
	if f.isBanned(from) {
		return nil, fmt.Errorf("serving %s: %w", req.Digest, fs.ErrNotExist)
	}
	select {
	case f.uploads <- struct{}{}:
	default:
		f.count.refused(refusedFull)
		return nil, BusyError{}
	}
	src, err := f.openRange(ctx, from, req)
	if err != nil {
		<-f.uploads
		return nil, fmt.Errorf("serving %s: %w", req.Digest, err)
	}
	return src, nil
}

// openRange finds the blob, has the core admit the upload, and only then does
// what costs something: proving and signing.
func (f *Fetcher) openRange(ctx context.Context, from chunkindex.NodeID, req RangeRequest) (*RangeSource, error) {
	o, err := f.openServable(req.Digest)
	if err != nil {
		return nil, err
	}
	off, n, err := fit(o.layout, req)
	if err != nil {
		o.close()
		return nil, err
	}
	over, err := f.admitUpload(ctx, from, req.Digest, o.layout.At(off))
	if err != nil {
		o.close()
		var busy BusyError
		if errors.As(err, &busy) {
			f.count.refused(refusedByCore)
			f.introduce(from, busy.Peers)
		}
		return nil, err
	}
	claims, err := o.claims(ctx, off, n)
	if err != nil {
		over(0)
		o.close()
		return nil, err
	}
	body := &served{r: io.NewSectionReader(o.file, off, n), share: f.limits.upload.share(ctx, from)}
	body.over = func() {
		body.share.close()
		o.close()
		over(body.sent.Load())
		<-f.uploads
	}
	return &RangeSource{Size: o.layout.Size(), Length: n, Claims: claims, Body: body}, nil
}

// servable is a blob, complete or not, that is open to be served from.
type servable struct {
	layout chunkindex.Layout
	file   *os.File
	close  func()
	// claims checks that a range may be served, and returns the claims that go
	// with it.
	claims func(ctx context.Context, off, n int64) ([]chunkindex.Claim, error)
}

func (f *Fetcher) openServable(d digest.Digest) (*servable, error) {
	sb, err := f.store.Open(d)
	if absent(err) {
		return f.openServablePartial(d)
	}
	if err != nil {
		return nil, err
	}
	l, err := chunkindex.LayoutFor(sb.Size())
	if err != nil {
		closeQuietly(sb)
		return nil, err
	}
	return &servable{layout: l, file: sb.File(), close: func() { closeQuietly(sb) },
		claims: func(ctx context.Context, off, n int64) ([]chunkindex.Claim, error) {
			return f.claimsOfStored(ctx, d, sb, l, off, n)
		}}, nil
}

func (f *Fetcher) openServablePartial(d digest.Digest) (*servable, error) {
	b := f.lookUp(d)
	if b == nil {
		return nil, fs.ErrNotExist
	}
	b.mu.Lock()
	p, l := b.partial, b.layout
	b.mu.Unlock()
	if p == nil {
		return nil, fs.ErrNotExist
	}
	// The file is opened before the levels are looked at: bytes at a level that
	// may be shared are never overwritten in place.
	file, err := p.File()
	if err != nil {
		return nil, err
	}
	return &servable{layout: l, file: file, close: func() { closeQuietly(file) },
		claims: func(_ context.Context, off, n int64) ([]chunkindex.Claim, error) {
			return f.claimsOfPartial(d, p, l, off, n)
		}}, nil
}

// fit checks a peer's range: it lies in the blob, and is no longer than the chunk
// that it starts in.
func fit(l chunkindex.Layout, req RangeRequest) (off, n int64, err error) {
	off, n = req.Offset, req.Length
	if n == -1 {
		if off != 0 || l.Size() > maxSmall {
			return 0, 0, ErrRange
		}
		return 0, l.Size(), nil
	}
	if off < 0 || n <= 0 || off > l.Size() || n > l.Size()-off {
		return 0, 0, ErrRange
	}
	if _, most := l.Chunk(l.At(off)); n > most {
		return 0, 0, ErrRange
	}
	return off, n, nil
}

func (f *Fetcher) claimsOfStored(ctx context.Context, d digest.Digest, sb StoredBlob, l chunkindex.Layout, off, n int64) ([]chunkindex.Claim, error) {
	// A signature, and the last byte, need the proof. It is at hand unless the
	// node stopped uncleanly; then it goes on when this peer has been told to
	// come again, or been given bytes that nobody vouches for.
	soon, cancel := context.WithTimeout(ctx, proofPatience)
	defer cancel()
	proof := sb.Prove(soon)
	switch {
	case proof == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case soon.Err() == nil:
		return nil, proof
	case off+n == sb.Size():
		f.count.refused(refusedUnproven)
		return nil, BusyError{}
	}
	if first, end := l.Span(off, n); end == first+1 && proof == nil {
		if sum, err := sb.Sum(first); err == nil {
			return []chunkindex.Claim{f.keys.Sign(d, l, first, sum)}, nil
		}
	}
	return nil, nil
}

func (f *Fetcher) claimsOfPartial(d digest.Digest, p Partial, l chunkindex.Layout, off, n int64) (claims []chunkindex.Claim, err error) {
	first, end := l.Span(off, n)
	for i := first; i < end; i++ {
		st := p.Chunk(i)
		if !st.Level.Shareable() {
			return nil, fs.ErrNotExist
		}
		if end > first+1 {
			continue
		}
		switch {
		case st.Level >= chunkindex.Fetched:
			claims = []chunkindex.Claim{f.keys.Sign(d, l, i, st.Sum)}
		case st.Claim != nil:
			claims = []chunkindex.Claim{*st.Claim}
		}
	}
	return claims, nil
}
