package fetcher

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"runtime"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// originSizeError says that an origin's blob has another size than the one that
// is known.
func originSizeError(got, want int64) error {
	return &Error{Status: http.StatusBadGateway, Message: "the origin's blob has another size than expected",
		Err: errors.Join(io.ErrUnexpectedEOF, sizes{got, want})}
}

// originSize asks an origin for a blob's size.
func (f *Fetcher) originSize(ctx context.Context, e *policy.Effect, src sourceKey) {
	size, err := f.origin.Size(ctx, src.Source, e.Blob)
	if err == nil && (size <= 0 || size > chunkindex.MaxBlobSize) {
		// The empty blob is never asked for.
		err = originSizeError(size, -1)
	}
	if err != nil {
		f.originFailed(ctx, e, err)
		return
	}
	f.hints.put(e.Blob, hint{size: size})
	f.post(policy.Event{Kind: policy.EvOriginDone, Blob: e.Blob, ID: e.ID, Size: size})
}

func (f *Fetcher) originFailed(ctx context.Context, e *policy.Effect, err error) {
	ev := policy.Event{Kind: policy.EvOriginFailed, Blob: e.Blob, ID: e.ID, Status: statusOf(err), Wait: wishOf(err)}
	if ctx.Err() != nil {
		ev.Status, ev.Wait = statusCancelled, 0
	} else {
		f.log.Info("the origin failed", "digest", e.Blob, "status", ev.Status, "err", err)
		f.lookUp(e.Blob).setOriginError(err)
	}
	f.post(ev)
}

// originRead reads a range of a blob, or all of a small one, from an origin,
// chunk by chunk, and ends with one event.
func (f *Fetcher) originRead(ctx context.Context, e *policy.Effect, src sourceKey, b *blob) {
	var err error
	if e.N < 0 {
		err = f.originSmall(ctx, e, src)
	} else {
		err = f.originChunks(ctx, e, src)
	}
	if err != nil {
		f.originFailed(ctx, e, err)
		return
	}
	b.setOriginError(nil)
	f.post(policy.Event{Kind: policy.EvOriginDone, Blob: e.Blob, ID: e.ID, Size: e.Size})
}

// originMeter returns the meter of an origin's body. done must be called after
// the last Read.
func (f *Fetcher) originMeter(ctx context.Context, e *policy.Effect, body io.Reader) (m *meter, done func()) {
	m = &meter{r: body, from: fromOrigin, count: f.count, report: func(n int64) {
		f.post(policy.Event{Kind: policy.EvOriginProgress, Blob: e.Blob, ID: e.ID, N: n})
	}}
	if b := f.lookUp(e.Blob); b != nil {
		m.tally = func(n int64) { b.traffic.add(fromOrigin, n) }
	}
	return m, f.limit(ctx, m, f.limits.origin)
}

func (f *Fetcher) originSmall(ctx context.Context, e *policy.Effect, src sourceKey) (err error) {
	h := &held{blob: e.Blob, from: fromOrigin}
	defer func() {
		if err != nil {
			f.count.wasted(fromOrigin, h.bytes())
			f.mem.free(h)
		}
	}()
	// Without a size the permit is for what a manifest usually takes at most.
	want := e.Size
	if want < 0 {
		want = chunkindex.MinChunkLength
	}
	if h.permits, err = f.permit(ctx, min(want, maxSmall)); err != nil {
		return err
	}
	if h.data, h.mediaType, err = f.originWhole(ctx, e, src); err != nil {
		return err
	}
	if err := matches(e.Blob, h.data, "origin"); err != nil {
		f.hints.forget(e.Blob)
		return &Error{Status: http.StatusBadGateway, Message: "the origin sent wrong bytes", Err: err}
	}
	size := int64(len(h.data))
	sum := chunkindex.Sum(sha256.Sum256(h.data))
	f.mem.put(arrival{e.ID, e.Chunk}, h)
	f.post(policy.Event{Kind: policy.EvOriginHeaders, Blob: e.Blob, ID: e.ID, Size: size, Ranged: true})
	f.post(policy.Event{Kind: policy.EvOriginChunk, Blob: e.Blob, ID: e.ID, Chunk: e.Chunk, Sum: sum, N: size, Size: size})
	return nil
}

// originWhole reads a small blob, or a manifest, without checking it.
func (f *Fetcher) originWhole(ctx context.Context, e *policy.Effect, src sourceKey) ([]byte, string, error) {
	if src.manifest {
		m, err := f.origin.Manifest(ctx, src.Source, e.Blob.String(), nil)
		if err != nil {
			return nil, "", err
		}
		f.count.received(fromOrigin, int64(len(m.Body)))
		return m.Body, m.MediaType, nil
	}
	body, err := f.origin.Blob(ctx, src.Source, e.Blob, 0, -1)
	if err != nil {
		return nil, "", err
	}
	defer closeWith(ctx, body)()
	m, done := f.originMeter(ctx, e, body)
	defer done()
	data, err := readWhole(m, body.Size)
	if err != nil {
		f.count.wasted(fromOrigin, m.total)
	}
	return data, "", err
}

func (f *Fetcher) originChunks(ctx context.Context, e *policy.Effect, src sourceKey) error {
	l, err := chunkindex.LayoutFor(e.Size)
	if err != nil {
		return err
	}
	body, err := f.origin.Blob(ctx, src.Source, e.Blob, e.Off, e.N)
	if err != nil {
		return err
	}
	defer closeWith(ctx, body)()
	if body.Size >= 0 && body.Size != e.Size {
		f.wrongSize(e.Blob)
		f.post(policy.Event{Kind: policy.EvOriginHeaders, Blob: e.Blob, ID: e.ID, Size: body.Size, Ranged: body.Ranged})
		return originSizeError(body.Size, e.Size)
	}
	first, end := l.Span(e.Off, e.N)
	if !body.Ranged {
		first, end = 0, l.Count()
	}
	if start, _ := l.Chunk(first); body.Offset != start {
		return &Error{Status: http.StatusBadGateway, Message: "the origin sent another range than it was asked for"}
	}
	f.post(policy.Event{Kind: policy.EvOriginHeaders, Blob: e.Blob, ID: e.ID, Size: body.Size, Ranged: body.Ranged})
	m, done := f.originMeter(ctx, e, body)
	defer done()
	for i := first; i < end; i++ {
		if err := f.originChunk(ctx, e, l, i, m); err != nil {
			return err
		}
	}
	if !body.Ranged && body.Size < 0 {
		// Nobody has told yet where this blob ends.
		var one [1]byte
		if n, err := io.ReadFull(m, one[:]); n > 0 || !errors.Is(err, io.EOF) {
			f.wrongSize(e.Blob)
			return originSizeError(e.Size+int64(n), e.Size)
		}
	}
	return nil
}

// originChunk reads one chunk once there is memory for it: until then the
// origin's connection waits.
func (f *Fetcher) originChunk(ctx context.Context, e *policy.Effect, l chunkindex.Layout, i int, m *meter) error {
	_, n := l.Chunk(i)
	permits, err := f.permit(ctx, n)
	if err != nil {
		return err
	}
	h := &held{blob: e.Blob, from: fromOrigin, permits: permits, buf: f.mem.buffer(n)}
	if _, err := h.buf.ReadFrom(m); err != nil {
		f.count.wasted(fromOrigin, h.bytes())
		f.mem.free(h)
		return err
	}
	m.flush()
	sum := h.buf.Sum()
	f.mem.put(arrival{e.ID, i}, h)
	f.post(policy.Event{Kind: policy.EvOriginChunk, Blob: e.Blob, ID: e.ID, Chunk: i, Sum: sum, N: n})
	// From a fast origin this goroutine would never wait for anything, and the
	// loop would get a CPU only when this one's 10 ms are over: a reader waits.
	runtime.Gosched()
	return nil
}
