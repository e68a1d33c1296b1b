package fetcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// BusyError tells a peer to ask somebody else.
type BusyError struct{}

// Error implements error.
func (BusyError) Error() string { return "fetcher: busy" }

// Busy is true.
func (BusyError) Busy() bool { return true }

// ErrRange says that a peer asked for bytes that the blob does not have, or for
// more than is in the chunk where they start.
var ErrRange = errors.New("fetcher: range not served")

// proofPatience is how long a peer waits for the proof of a blob: less than it
// takes for a stall.
const proofPatience = time.Second

// served is the body of a range that goes to a peer.
type served struct {
	*io.SectionReader
	closer func()
}

// Close implements io.Closer. It may be called more than once.
func (s *served) Close() error {
	if s.closer != nil {
		s.closer()
		s.closer = nil
	}
	return nil
}

// OpenRange opens a range of a blob for a peer: of a complete blob, or of chunks
// of a partial one that are known to be right. At most the length of the chunk
// at Offset at once; Length -1 is all of a blob of at most 8 MiB. It fails with
// fs.ErrNotExist for what is not here, [BusyError], or [ErrRange]. The caller
// closes the body.
func (f *Fetcher) OpenRange(ctx context.Context, from chunkindex.NodeID, req RangeRequest) (*RangeSource, error) {
	if f.isBanned(from) {
		return nil, fmt.Errorf("serving %s: %w", req.Digest, fs.ErrNotExist)
	}
	select {
	case f.uploads <- struct{}{}:
	default:
		return nil, BusyError{}
	}
	src, closer, err := f.openRange(ctx, req)
	if err != nil {
		<-f.uploads
		return nil, fmt.Errorf("serving %s: %w", req.Digest, err)
	}
	body := src.Body.(*served)
	body.closer = func() {
		closer()
		<-f.uploads
	}
	return src, nil
}

func (f *Fetcher) openRange(ctx context.Context, req RangeRequest) (*RangeSource, func(), error) {
	if sb, err := f.store.Open(req.Digest); err == nil {
		src, err := f.rangeOfStored(ctx, sb, req)
		if err != nil {
			closeQuietly(sb)
			return nil, nil, err
		}
		return src, func() { closeQuietly(sb) }, nil
	} else if !absent(err) {
		return nil, nil, err
	}
	return f.rangeOfPartial(req)
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

func (f *Fetcher) rangeOfStored(ctx context.Context, sb StoredBlob, req RangeRequest) (*RangeSource, error) {
	l, err := chunkindex.LayoutFor(sb.Size())
	if err != nil {
		return nil, err
	}
	off, n, err := fit(l, req)
	if err != nil {
		return nil, err
	}
	src := &RangeSource{Size: sb.Size(), Length: n}
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
		return nil, BusyError{}
	}
	if first, end := l.Span(off, n); end == first+1 && proof == nil {
		if sum, err := sb.Sum(first); err == nil {
			src.Claims = []chunkindex.Claim{f.keys.Sign(req.Digest, l, first, sum)}
		}
	}
	src.Body = &served{SectionReader: io.NewSectionReader(sb.File(), off, n)}
	return src, nil
}

func (f *Fetcher) rangeOfPartial(req RangeRequest) (*RangeSource, func(), error) {
	b := f.lookUp(req.Digest)
	if b == nil {
		return nil, nil, fs.ErrNotExist
	}
	b.mu.Lock()
	p, l := b.partial, b.layout
	b.mu.Unlock()
	if p == nil {
		return nil, nil, fs.ErrNotExist
	}
	off, n, err := fit(l, req)
	if err != nil {
		return nil, nil, err
	}
	src := &RangeSource{Size: l.Size(), Length: n}
	// The file is opened before the levels are looked at: bytes at a level that
	// may be shared are never overwritten in place.
	file, err := p.File()
	if err != nil {
		return nil, nil, err
	}
	first, end := l.Span(off, n)
	for i := first; i < end; i++ {
		st := p.Chunk(i)
		if !st.Level.Shareable() {
			closeQuietly(file)
			return nil, nil, fs.ErrNotExist
		}
		if end > first+1 {
			continue
		}
		switch {
		case st.Level >= chunkindex.Fetched:
			src.Claims = []chunkindex.Claim{f.keys.Sign(req.Digest, l, i, st.Sum)}
		case st.Claim != nil:
			src.Claims = []chunkindex.Claim{*st.Claim}
		}
	}
	src.Body = &served{SectionReader: io.NewSectionReader(file, off, n)}
	return src, func() { closeQuietly(file) }, nil
}
