package simulation

import (
	"slices"
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

// store writes a chunk, if the store takes it.
func (c *cluster) store(n *node, e *policy.Effect) {
	k := c.blobOf(e.Blob)
	b := c.blobs[k]
	bytes, ok := n.take(e.ID, e.Chunk)
	if !ok {
		c.broken("%s stores chunk %d of %d, which is not in hand", n.id, e.Chunk, e.ID)
		return
	}
	_, size := b.chunk(e.Chunk)
	cost := perMiB(c.run.Costs.Store, size)
	if n.full > 0 || !c.makeRoom(n, k, size) {
		c.post(n, cost, policy.Event{Kind: policy.EvStoreFailed, Blob: b.id, Chunk: e.Chunk})
		return
	}
	h := n.held[k]
	if h == nil {
		h = newHolding(b.n)
		if c.keepsTimes {
			h.at = make([]int32, b.n)
		}
		n.held[k] = h
	}
	if h.level[e.Chunk] == chunkindex.Absent && h.storing[e.Chunk] == chunkindex.Absent {
		n.used += size
	}
	h.bytes[e.Chunk], h.storing[e.Chunk], h.signer[e.Chunk] = bytes, e.Level, -1
	if e.Claim != nil {
		if s := c.nodeOf(&e.Claim.Signer); s != nil {
			h.signer[e.Chunk] = s.index
		}
	}
	if n.disk >= unbounded && len(n.writes) == 0 {
		c.q.push(c.now+cost, evStored, n.index, n.life, uint64(k)<<32|uint64(e.Chunk))
		return
	}
	// The disk writes one chunk after the other.
	n.writes = append(n.writes, write{k, int32(e.Chunk), size})
	if len(n.writes) == 1 {
		c.write(n)
	}
}

// write is a chunk that waits for the disk, or what is left of it.
type write struct {
	blob, chunk int32
	left        int64
}

// write has a disk begin with the next chunk, or go on with one at another rate.
func (c *cluster) write(n *node) {
	n.writing = c.now
	n.written = c.q.push(c.now+mulDiv(n.writes[0].left, nanos, n.disk), evWritten, n.index, n.life, 0)
}

// wrote is called when a disk may be done with a chunk.
func (c *cluster) wrote(n *node) {
	if len(n.writes) == 0 || n.written != c.now {
		return
	}
	w := n.writes[0]
	n.writes = slices.Delete(n.writes, 0, 1)
	cost := perMiB(c.run.Costs.Store, c.lengthOf(int(w.blob), int(w.chunk)))
	c.q.push(c.now+cost, evStored, n.index, n.life, uint64(w.blob)<<32|uint64(w.chunk))
	if len(n.writes) > 0 {
		c.write(n)
	}
}

// setDisk changes the rate of a disk.
func (c *cluster) setDisk(n *node, rate int64) {
	if len(n.writes) > 0 {
		w := &n.writes[0]
		w.left = max(w.left-mulDiv(c.now-n.writing, n.disk, nanos), 0)
	}
	n.disk = rate
	if len(n.writes) > 0 {
		c.write(n)
	}
}

// makeRoom has a store drop blobs that nobody reads, the one first that was wanted
// longest ago, until there is room for more of another. It says whether there is.
func (c *cluster) makeRoom(n *node, k int32, size int64) bool {
	space := c.run.Nodes[n.index].Space
	for space > 0 && n.used+size > space {
		victim := int32(-1)
		for o, h := range n.held {
			if h != nil && h.proven && int32(o) != k && n.reading(int32(o)) == nil &&
				(victim < 0 || h.wanted < n.held[victim].wanted) {
				victim = int32(o)
			}
		}
		if victim < 0 {
			return false
		}
		n.used -= c.blobs[victim].size
		n.held[victim] = nil
		c.post(n, 0, policy.Event{Kind: policy.EvEvicted, Blob: c.blobs[victim].id})
	}
	return true
}

func (c *cluster) stored(n *node, k, chunk int) {
	b, h := c.blobs[k], n.held[k]
	if h.storing[chunk] != chunkindex.Absent {
		h.level[chunk], h.storing[chunk] = h.storing[chunk], chunkindex.Absent
	}
	if h.at != nil {
		h.at[chunk] = int32(c.now / int64(time.Millisecond))
	}
	h.proven = h.proven || b.small
	// The hash of the whole follows the chunks.
	for h.hashed < b.n && h.level[h.hashed] != chunkindex.Absent {
		_, size := b.chunk(h.hashed)
		h.hashing = max(h.hashing, c.now) + perMiB(c.run.Costs.Hash, size)
		h.bytes[h.hashed] = h.bytes[h.hashed].early()
		h.hashed++
	}
	c.step(n, policy.Event{Kind: policy.EvStored, Blob: b.id, Chunk: chunk})
}

// drop removes a chunk.
func (c *cluster) drop(n *node, k int32, chunk int) {
	h := n.held[k]
	if h.level[chunk] != chunkindex.Absent {
		n.used -= c.lengthOf(int(k), chunk)
	}
	h.level[chunk] = chunkindex.Absent
	h.hashed = min(h.hashed, chunk)
}

func (c *cluster) lengthOf(k, chunk int) int64 {
	_, n := c.blobs[k].chunk(chunk)
	return n
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
		if t := h.bytes[i]; t != 0 && !t.late() {
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
