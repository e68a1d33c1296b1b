package fetcher

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// sourceKey is what the core's number for a source stands for.
type sourceKey struct {
	Source
	manifest bool
}

// source is a place upstream that some open blob may be had from.
type source struct {
	sourceKey
	number policy.Source
	users  int // blobs
}

// originOf is what the core knows an origin by: the same on every node, so that one
// can tell the others of it.
func originOf(name string) policy.Origin {
	if name == "" {
		return 0
	}
	sum := sha256.Sum256([]byte(name))
	return policy.Origin(binary.BigEndian.Uint64(sum[:]) >> 1)
}

// blob is what the driver holds for a blob that the core has open. It outlives
// EfClose until the store has let go of it, so that a blob which is opened again
// waits for that.
type blob struct {
	digest digest.Digest
	// disk does what changes the store, in the core's order.
	disk serial
	hash hasher
	// traffic counts the blob's bytes while it is open.
	traffic traffic

	open    bool                  // loop
	sources map[sourceKey]*source // loop

	mu        sync.Mutex
	kind      Kind
	size      int64 // -1 unknown
	layout    chunkindex.Layout
	small     bool
	partial   Partial    // while it is open in the store
	stored    StoredBlob // once it is complete: keeps it from being evicted
	finishing chan struct{}
	levels    []chunkindex.Level
	arrived   []arrivalMark
	marks     uint64
	readers   int
	originErr error
	copies    int  // other nodes that announce it
	misfit    bool // the size that the partial was made for is wrong
}

// arrivalMark says where a chunk came from, and when: a chunk with a number no
// higher than blob.marks was when a reader came is, for that reader, from the
// store.
type arrivalMark struct {
	from from
	mark uint64
}

// blob returns the state of a blob, opened if need be. Loop only.
func (f *Fetcher) blob(d digest.Digest) *blob {
	b := f.blobs[d]
	if b == nil {
		b = &blob{digest: d, size: -1, sources: map[sourceKey]*source{}}
		b.disk.spawn = f.spawn
		b.hash.spawn = f.spawn
		f.mu.Lock()
		f.blobs[d] = b
		f.mu.Unlock()
	}
	b.open = true
	return b
}

// intern returns what the core knows a source of b and its origin by. Loop
// only.
func (f *Fetcher) intern(b *blob, key sourceKey) (policy.Source, policy.Origin) {
	if key.Origin == "" {
		return 0, 0
	}
	if s := b.sources[key]; s != nil {
		return s.number, originOf(key.Origin)
	}
	s := f.sources[key]
	if s == nil {
		f.lastSrc++
		s = &source{sourceKey: key, number: f.lastSrc}
		f.sources[key], f.numbers[s.number] = s, s
	}
	s.users++
	b.sources[key] = s
	return s.number, originOf(key.Origin)
}

// sourceOf returns what a number stands for. Loop only.
func (f *Fetcher) sourceOf(n policy.Source) sourceKey {
	if s := f.numbers[n]; s != nil {
		return s.sourceKey
	}
	return sourceKey{}
}

// closeBlob lets go of a blob, after what is still to be done for it on disk.
func (f *Fetcher) closeBlob(d digest.Digest) {
	b := f.blobs[d]
	if b == nil {
		return
	}
	b.open = false
	for key, s := range b.sources {
		if s.users--; s.users == 0 {
			delete(f.sources, key)
			delete(f.numbers, s.number)
		}
	}
	clear(b.sources)
	f.discardAll(d)
	b.disk.add(func() {
		if b.release() {
			f.post(policy.Event{Kind: policy.EvEvicted, Blob: d})
		}
		f.queue.put(item{do: func() {
			if !b.open && f.blobs[d] == b {
				f.mu.Lock()
				delete(f.blobs, d)
				f.mu.Unlock()
			}
		}})
	})
}

// release closes what b has open in the store, and reports whether the partial
// was removed.
func (b *blob) release() (discarded bool) {
	b.mu.Lock()
	p, sb := b.partial, b.stored
	misfit := b.misfit
	b.partial, b.stored, b.misfit = nil, nil, false
	b.levels, b.arrived = nil, nil
	b.mu.Unlock()
	if p != nil {
		b.hash.stop()
		if misfit {
			discarded = p.Discard() == nil
		} else {
			closeQuietly(p)
		}
	}
	if sb != nil {
		closeQuietly(sb)
	}
	return discarded
}

// wrongSize notes that a blob has another size than was thought: the hint is
// forgotten, and what was stored by it goes when the core lets go of the blob.
func (f *Fetcher) wrongSize(d digest.Digest) {
	f.hints.forget(d)
	if b := f.lookUp(d); b != nil {
		b.mu.Lock()
		b.misfit = true
		b.mu.Unlock()
	}
}

func (b *blob) lastOriginError() error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.originErr
}

func (b *blob) setOriginError(err error) {
	if b == nil {
		return
	}
	b.mu.Lock()
	b.originErr = err
	b.mu.Unlock()
}

// mark notes that a chunk is stored at a level. Callers hold b.mu.
func (b *blob) mark(i int, lvl chunkindex.Level, from from) {
	if i >= 0 && i < len(b.levels) {
		b.levels[i] = lvl
		if from != fromNowhere {
			b.marks++
			b.arrived[i] = arrivalMark{from, b.marks}
		}
	}
}

// found says where the bytes of chunk i came from, for a reader that came when
// the count of marks was since.
func (b *blob) found(i int, since uint64) from {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i < 0 || i >= len(b.arrived) || b.arrived[i].mark <= since {
		return fromStore
	}
	return b.arrived[i].from
}

// closeQuietly closes what was only read from: there is nothing to lose.
func closeQuietly(c io.Closer) { _ = c.Close() }
