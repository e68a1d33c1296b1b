package fetcher

import (
	"context"
	"math/bits"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// maxSmall bounds what travels whole: manifests, and blobs of one chunk.
const maxSmall = 8 << 20

// origins of bytes, as in the metrics.
type from uint8

const (
	fromNowhere from = iota
	fromStore
	fromPeer
	fromOrigin
)

// permits bounds the bytes of content that are in memory at once. Nothing is
// read from a socket without a permit.
type permits struct {
	sem *semaphore.Weighted
	cap int64
}

func newPermits(n int64) *permits { return &permits{semaphore.NewWeighted(n), n} }

// acquire waits for n bytes and returns how many to give back: no more than
// there are, so that a single chunk always passes.
func (p *permits) acquire(ctx context.Context, n int64) (int64, error) {
	n = min(n, p.cap)
	return n, p.sem.Acquire(ctx, n)
}

func (p *permits) release(n int64) { p.sem.Release(n) }

// arrival names bytes in memory: what transfer or read ID brought for a chunk.
type arrival struct {
	id    policy.ID
	chunk int
}

// held is a chunk, or a small blob, in memory: verified against its sum, and
// waiting for the core to say whether to store or to discard it.
type held struct {
	blob    digest.Digest
	buf     *chunkindex.Buffer // a chunk
	data    []byte             // a small blob
	permits int64
	from    from
	// mediaType is what came with a manifest, "" unknown.
	mediaType string
}

func (h *held) bytes() int64 {
	if h.buf != nil {
		return int64(h.buf.Len())
	}
	return int64(len(h.data))
}

// memory holds what has arrived and awaits the core's word.
type memory struct {
	*permits
	// buffers are kept apart by what they have room for, up to each power of two:
	// a short chunk in a long one's buffer would take up more memory than its
	// permit is for.
	buffers [8]sync.Pool

	mu   sync.Mutex
	held map[arrival]*held
}

func newMemory(bytes int64) *memory {
	return &memory{permits: newPermits(bytes), held: map[arrival]*held{}}
}

// buffer returns an empty buffer for n bytes.
func (m *memory) buffer(n int64) *chunkindex.Buffer {
	recycled, _ := m.pool(n).Get().(*chunkindex.Buffer)
	return chunkindex.NewBuffer(int(n), recycled)
}

func (m *memory) pool(n int64) *sync.Pool {
	i := bits.Len64(uint64(max(0, n-1) / chunkindex.HeadChunkLength))
	return &m.buffers[min(i, len(m.buffers)-1)]
}

func (m *memory) recycle(b *chunkindex.Buffer) {
	if b != nil {
		m.pool(int64(cap(b.Bytes()))).Put(b)
	}
}

// put keeps h until it is taken.
func (m *memory) put(a arrival, h *held) {
	m.mu.Lock()
	m.held[a] = h
	m.mu.Unlock()
}

// take hands over what arrived, nil if it is not there.
func (m *memory) take(a arrival) *held {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.held[a]
	delete(m.held, a)
	return h
}

// takeAll hands over all that is held of a blob.
func (m *memory) takeAll(d digest.Digest) []*held {
	m.mu.Lock()
	defer m.mu.Unlock()
	var hs []*held
	for a, h := range m.held {
		if h.blob == d {
			hs = append(hs, h)
			delete(m.held, a)
		}
	}
	return hs
}

// free gives back h's memory and permits. h must not be used after it.
func (m *memory) free(h *held) {
	m.recycle(h.buf)
	m.release(h.permits)
	h.buf, h.data = nil, nil
}
