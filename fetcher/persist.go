package fetcher

import (
	"errors"
	"io/fs"
	"runtime"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// errNoPartial says that the store did not give room for the blob.
var errNoPartial = errors.New("fetcher: the store has not taken the blob")

// openBlob opens a blob in the store and tells the core what is there.
func (f *Fetcher) openBlob(e *policy.Effect) {
	b := f.blob(e.Blob)
	size, small := e.Size, e.Small
	b.disk.add(func() {
		ev := policy.Event{Kind: policy.EvOpened, Blob: b.digest, Size: size, Small: small}
		sb, err := f.store.Open(b.digest)
		switch {
		case err == nil:
			f.adopt(b, sb)
			f.post(policy.Event{Kind: policy.EvHeld, Blob: b.digest, Size: sb.Size(), Small: small, Whole: true})
			ev.Levels = b.provenLevels()
		case !small && size >= 0:
			ev.Levels, ev.Sums = f.openPartial(b, size)
		default:
			b.mu.Lock()
			b.small, b.size = small, size
			b.resize(1)
			b.mu.Unlock()
		}
		f.post(ev)
	})
}

// adopt makes a complete blob the one that b serves from.
func (f *Fetcher) adopt(b *blob, sb StoredBlob) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stored != nil {
		closeQuietly(b.stored)
	}
	b.stored, b.size = sb, sb.Size()
	if l, err := chunkindex.LayoutFor(sb.Size()); err == nil {
		b.layout = l
	}
	if len(b.levels) != max(b.layout.Count(), 1) {
		b.resize(max(b.layout.Count(), 1))
	}
	for i := range b.levels {
		b.levels[i] = chunkindex.Proven
	}
	f.store.SetCopies(b.digest, b.copies)
}

// resize prepares for n chunks. Callers hold b.mu.
func (b *blob) resize(n int) {
	b.levels, b.arrived = make([]chunkindex.Level, n), make([]arrivalMark, n)
}

func (b *blob) provenLevels() []chunkindex.Level {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]chunkindex.Level(nil), b.levels...)
}

func (f *Fetcher) openPartial(b *blob, size int64) ([]chunkindex.Level, []chunkindex.Sum) {
	l, err := chunkindex.LayoutFor(size)
	if err != nil {
		return nil, nil
	}
	b.mu.Lock()
	kind := b.kind
	b.size, b.layout, b.small = size, l, false
	b.resize(l.Count())
	b.mu.Unlock()
	p, err := f.store.Partial(b.digest, l, kind)
	if err != nil {
		if !isNoSpace(err) && !errors.Is(err, fs.ErrExist) {
			f.log.Error("opening a partial blob", "digest", b.digest, "err", err)
		}
		return nil, nil
	}
	var levels []chunkindex.Level
	var sums []chunkindex.Sum
	for i := range l.Count() {
		st := p.Chunk(i)
		if st.Level == chunkindex.Absent {
			continue
		}
		if levels == nil {
			levels, sums = make([]chunkindex.Level, l.Count()), make([]chunkindex.Sum, l.Count())
		}
		levels[i], sums[i] = st.Level, st.Sum
	}
	b.mu.Lock()
	b.partial = p
	b.finishing = nil
	copy(b.levels, levels)
	b.mu.Unlock()
	b.hash.begin(f.ctx, p)
	if levels != nil {
		b.hash.kick()
	}
	return levels, sums
}

// storeChunk writes what arrived to the store. The bytes leave memory when it
// has ended, whatever its end.
func (f *Fetcher) storeChunk(e *policy.Effect) {
	b := f.blob(e.Blob)
	h := f.mem.take(arrival{e.ID, e.Chunk})
	chunk, level, claim := e.Chunk, e.Level, e.Claim
	b.disk.add(func() {
		err := errNoPartial
		if h != nil {
			if h.data != nil {
				err = f.putSmall(b, h)
			} else if p := b.partialNow(); p != nil {
				err = p.WriteChunk(chunk, h.buf, level, claim)
			}
			from := h.from
			f.mem.free(h)
			if err == nil {
				b.mu.Lock()
				b.mark(chunk, level, from)
				b.mu.Unlock()
				b.hash.kick()
			}
		}
		ev := policy.Event{Kind: policy.EvStored, Blob: b.digest, Chunk: chunk}
		if err != nil {
			ev.Kind = policy.EvStoreFailed
			if isNoSpace(err) || errors.Is(err, errNoPartial) {
				f.log.Warn("the store has no room: passing bytes through", "digest", b.digest, "chunk", chunk, "err", err)
			} else {
				f.log.Error("storing a chunk", "digest", b.digest, "chunk", chunk, "err", err)
			}
		}
		f.post(ev)
		runtime.Gosched() // as in originChunk: the loop now, the next chunk after it
	})
}

// putSmall stores a whole small blob, and keeps it open so that the readers that
// wait for it find it. A size that the core may not have known is told to it.
func (f *Fetcher) putSmall(b *blob, h *held) error {
	b.mu.Lock()
	kind := b.kind
	b.mu.Unlock()
	if err := f.store.Put(f.ctx, b.digest, kind, h.data); err != nil {
		return err
	}
	if kind == KindManifest {
		f.hints.learn(b.digest, h.data, h.mediaType)
	}
	sb, err := f.store.Open(b.digest)
	if err != nil {
		return err
	}
	f.adopt(b, sb)
	size := sb.Size()
	// In the loop after the EvStored that is posted next.
	defer f.queue.put(item{do: func() {
		f.post(policy.Event{Kind: policy.EvHeld, Blob: b.digest, Size: size, Small: true, Whole: true})
	}})
	return nil
}

func (b *blob) partialNow() Partial {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.partial
}

func (f *Fetcher) raiseChunk(e *policy.Effect) {
	b := f.blob(e.Blob)
	chunk, level, claim := e.Chunk, e.Level, e.Claim
	b.disk.add(func() {
		p := b.partialNow()
		if p == nil {
			return
		}
		if err := p.Raise(chunk, level, claim); err != nil {
			f.log.Warn("recording a chunk's level", "digest", b.digest, "chunk", chunk, "err", err)
			return
		}
		b.mu.Lock()
		b.mark(chunk, level, fromNowhere)
		b.mu.Unlock()
	})
}

func (f *Fetcher) dropChunk(e *policy.Effect) {
	b := f.blob(e.Blob)
	chunk := e.Chunk
	b.disk.add(func() {
		p := b.partialNow()
		if p == nil {
			return
		}
		b.mu.Lock()
		b.mark(chunk, chunkindex.Absent, fromNowhere)
		b.mu.Unlock()
		if err := p.Drop(chunk); err != nil {
			f.log.Error("dropping a chunk", "digest", b.digest, "chunk", chunk, "err", err)
		}
	})
}

// discard drops bytes that are of no use.
func (f *Fetcher) discard(a arrival) {
	if h := f.mem.take(a); h != nil {
		f.count.wasted(h.from, h.bytes())
		f.mem.free(h)
	}
}

func (f *Fetcher) discardAll(d digest.Digest) {
	for _, h := range f.mem.takeAll(d) {
		f.count.wasted(h.from, h.bytes())
		f.mem.free(h)
	}
}

func isNoSpace(err error) bool {
	var n interface{ NoSpace() bool }
	return errors.As(err, &n) && n.NoSpace()
}
