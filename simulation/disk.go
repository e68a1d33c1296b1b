package simulation

import (
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// What nodes store, and what they hand out of it.

// handed is a chunk in memory: transfer or read id brought it, and the core has
// not said yet what to do with it.
type handed struct {
	id    policy.ID
	chunk int
	bytes taint
}

// take takes a chunk out of memory.
func (n *node) take(id policy.ID, chunk int) (bytes taint, ok bool) {
	for i := range n.hand {
		if h := &n.hand[i]; h.id == id && h.chunk == chunk {
			bytes = h.bytes
			n.hand[i] = n.hand[len(n.hand)-1]
			n.hand = n.hand[:len(n.hand)-1]
			return bytes, true
		}
	}
	return 0, false
}

// serves is what a node gives out for a chunk that it holds.
func (n *node) serves(h *holding, i int) taint {
	if n.corrupt > 0 || n.forges > 0 {
		return taint(n.index + 1)
	}
	return h.bytes[i]
}

// perMiB is what bytes cost at a price for each MiB.
func perMiB(price time.Duration, n int64) int64 { return int64(price) * n >> 20 }

func (c *cluster) store(n *node, e *policy.Effect) {
	k := c.blobOf(e.Blob)
	b := c.blobs[k]
	bytes, ok := n.take(e.ID, e.Chunk)
	if !ok {
		c.broken("%s stores chunk %d of %d, which is not in hand", n.id, e.Chunk, e.ID)
		return
	}
	h := n.held[k]
	if h == nil {
		h = newHolding(b.n)
		n.held[k] = h
	}
	h.bytes[e.Chunk], h.storing[e.Chunk], h.signer[e.Chunk] = bytes, e.Level, -1
	if e.Claim != nil {
		if s := c.nodeOf(&e.Claim.Signer); s != nil {
			h.signer[e.Chunk] = s.index
		}
	}
	_, size := b.chunk(e.Chunk)
	done := c.now
	if rate := c.run.Nodes[n.index].Disk; rate > 0 {
		// The disk writes one chunk after the other.
		n.diskFree = max(n.diskFree, c.now) + mulDiv(size, nanos, rate)
		done = n.diskFree
	}
	c.q.push(done+perMiB(c.run.Costs.Store, size), evStored, n.index, n.life, uint64(k)<<32|uint64(e.Chunk))
}

func (c *cluster) stored(n *node, k, chunk int) {
	b, h := c.blobs[k], n.held[k]
	if h.storing[chunk] != chunkindex.Absent {
		h.level[chunk], h.storing[chunk] = h.storing[chunk], chunkindex.Absent
	}
	h.proven = h.proven || b.small
	// The hash of the whole follows the chunks.
	for h.hashed < b.n && h.level[h.hashed] != chunkindex.Absent {
		_, size := b.chunk(h.hashed)
		h.hashing = max(h.hashing, c.now) + perMiB(c.run.Costs.Hash, size)
		h.hashed++
	}
	c.step(n, policy.Event{Kind: policy.EvStored, Blob: b.id, Chunk: chunk})
}

// prove has a blob hashed. The verdict is about what is there now, and comes later:
// stores do one thing after the other, so that what the core drops meanwhile is
// dropped once the blob was hashed.
func (c *cluster) prove(n *node, k int32) {
	b, h := c.blobs[k], n.held[k]
	verdict := uint64(0)
	for i := range b.n {
		if h.level[i] == chunkindex.Absent {
			c.broken("%s proves %s without chunk %d", n.id, b.id, i)
		}
		if h.bytes[i] != 0 {
			verdict = refutes
		}
	}
	c.q.push(max(c.now, h.hashing)+int64(c.run.Costs.Publish), evProve, n.index, n.life, verdict|uint64(k))
}

// refutes is the bit of an evProve's argument that says that the blob is wrong.
const refutes = 1 << 32

func (c *cluster) proved(n *node, k int32, wrong bool) {
	b, h := c.blobs[k], n.held[k]
	if wrong {
		c.step(n, policy.Event{Kind: policy.EvRefuted, Blob: b.id})
		return
	}
	h.proven = true
	for i, t := range h.bytes {
		if t > 0 {
			h.bytes[i] = 0 // what came to be stored since then went nowhere
		}
	}
	c.step(n, policy.Event{Kind: policy.EvProven, Blob: b.id})
}

func (c *cluster) tellHeld(n *node, k int, h *holding) {
	b := c.blobs[k]
	c.step(n, policy.Event{Kind: policy.EvHeld, Blob: b.id, Size: b.size, Small: b.small, Whole: h.proven})
}
