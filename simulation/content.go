package simulation

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/simulation/scenario"
)

// taint says what a chunk's bytes are: zero is right, k wrong in the way of node
// k-1, -k spoiled on the disk of node k-1.
type taint int32

// content is one blob of the origin.
type content struct {
	id              digest.Digest
	size            int64
	small, manifest bool
	layout          chunkindex.Layout
	n               int
	sums            []chunkindex.Sum // of the right chunks
	near            []int32          // all nodes, the closest to it first
	// providers are those that announced it, groups those of a part.
	providers []provider
	groups    []group
}

type group struct {
	chunk, n  int
	providers []provider
}

// provider is a node that announced something.
type provider struct {
	node         int32
	since, until int64 // until 0: still
}

// on says whether the DHT knows of it at a time, if that takes a while.
func (p *provider) on(now, delay int64) bool {
	return p.since+delay <= now && (p.until == 0 || now < p.until)
}

func newContent(s *scenario.Blob, seed uint64) (*content, error) {
	l, err := chunkindex.LayoutFor(s.Size)
	if err != nil {
		return nil, err
	}
	b := &content{id: digest.FromString(fmt.Sprintf("%s of run %d", s.Name, seed)), size: s.Size, manifest: s.Manifest,
		small: s.Manifest || s.Size <= chunkindex.MinChunkLength, layout: l,
		n: max(l.Count(), 1)}
	if b.small {
		b.n = 1
	}
	b.sums = make([]chunkindex.Sum, b.n)
	for i := range b.sums {
		b.sums[i] = sha256.Sum256(fmt.Appendf(nil, "%s %d", b.id, i))
	}
	return b, nil
}

// chunk is the byte range of chunk i.
func (b *content) chunk(i int) (off, n int64) {
	if b.small {
		return 0, b.size
	}
	return b.layout.Chunk(i)
}

func (b *content) sum(i int, t taint) chunkindex.Sum {
	if t == 0 {
		return b.sums[i]
	}
	return sha256.Sum256(fmt.Appendf(nil, "%s %d by %d", b.id, i, t.early()))
}

// claim is what the signer says of chunk i. It is made anew each time: to keep what
// every node signs of every chunk would take more memory than anything else.
func (b *content) claim(signer *node, i int, t taint) []chunkindex.Claim {
	return []chunkindex.Claim{{Signer: signer.id, Sum: b.sum(i, t)}}
}

// provide notes a provider of n chunks from chunk on, of the blob where n is 0.
func (b *content) provide(now int64, node int32, chunk, n int) {
	list := &b.providers
	if n > 0 {
		k := slices.IndexFunc(b.groups, func(g group) bool { return g.chunk == chunk && g.n == n })
		if k < 0 {
			k = len(b.groups)
			b.groups = append(b.groups, group{chunk: chunk, n: n})
		}
		list = &b.groups[k].providers
	}
	if !slices.ContainsFunc(*list, func(p provider) bool { return p.node == node && p.until == 0 }) {
		*list = append(*list, provider{node: node, since: now})
	}
}

func (b *content) providersOf(chunk, n int) []provider {
	if n == 0 {
		return b.providers
	}
	for _, g := range b.groups {
		if g.chunk == chunk && g.n == n {
			return g.providers
		}
	}
	return nil
}

func (b *content) withdraw(now int64, node int32) {
	gone := func(list []provider) {
		for i := range list {
			if p := &list[i]; p.node == node && p.until == 0 {
				p.until = now
			}
		}
	}
	gone(b.providers)
	for k := range b.groups {
		gone(b.groups[k].providers)
	}
}

// holding is what a node's store holds of a blob.
type holding struct {
	level   []chunkindex.Level
	storing []chunkindex.Level // being written, Absent for none
	bytes   []taint
	signer  []int32 // whose claim is stored with it, -1 none
	proven  bool
	// hashed chunks are a part of the hash of the whole, which is behind until
	// hashing.
	hashed  int
	hashing int64
	at      []int32 // when each chunk was stored, in ms, where that matters
	wanted  int64   // when a client last asked for it
}

func (h *holding) storedAt(i int) int64 {
	if h.at == nil {
		return 0
	}
	return int64(h.at[i]) * int64(time.Millisecond)
}

func newHolding(n int) *holding {
	h := &holding{level: make([]chunkindex.Level, n), storing: make([]chunkindex.Level, n), bytes: make([]taint, n), signer: make([]int32, n)}
	for i := range h.signer {
		h.signer[i] = -1
	}
	return h
}
