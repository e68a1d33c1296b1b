package simulation

import (
	"slices"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// How nodes read from the origin.

// originRead is one request to the origin, or for a blob's size.
type originRead struct {
	open       bool
	serial     uint32
	node       int32
	id         policy.ID
	blob       int32
	chunk, end int
	flow       int32 // -1 none
	size       int64 // as the asker has it
	sizeOnly   bool
}

// readOrigin sends a request to the origin.
func (c *cluster) readOrigin(n *node, e *policy.Effect) {
	c.serial++
	k := c.blobOf(e.Blob)
	b := c.blobs[k]
	r := originRead{open: true, serial: c.serial, node: n.index, id: e.ID, blob: k, flow: -1,
		size: e.Size, sizeOnly: e.Kind == policy.EfOriginSize, chunk: e.Chunk, end: b.n}
	if !b.small && !r.sizeOnly {
		r.chunk, r.end = b.layout.Span(e.Off, e.N)
	}
	if !r.sizeOnly {
		c.closed(k, r.chunk, r.end)
	}
	i := c.reads.put(r)
	n.reads = append(n.reads, i)
	c.res.OriginRequests++
	if b.manifest {
		c.res.ManifestRequests++
	}
	delay := 2*int64(c.run.Latency.Origin) + int64(c.run.Origin.Delay)
	if c.now < n.cooldown {
		delay = 0
	}
	c.q.push(c.now+delay, evOrigin, n.index, 0, uint64(r.serial)<<32|uint64(uint32(i)))
}

// readOf is the slot of a node's read, -1 if it is over.
func (c *cluster) readOf(n *node, id policy.ID) int32 {
	for _, i := range n.reads {
		if c.reads.all[i].id == id {
			return i
		}
	}
	return -1
}

func (c *cluster) readAt(arg uint64) (int32, *originRead) {
	i := int32(uint32(arg))
	if r := &c.reads.all[i]; r.open && r.serial == uint32(arg>>32) {
		return i, r
	}
	return i, nil
}

// answered is the origin's answer to a request.
func (c *cluster) answered(arg uint64) {
	i, r := c.readAt(arg)
	if r == nil {
		return
	}
	n, b := c.nodes[r.node], c.blobs[r.blob]
	ev := policy.Event{Kind: policy.EvOriginFailed, Blob: b.id, ID: r.id}
	ev.Status, ev.Wait = c.originStatus(n)
	if ev.Status == 0 && !r.sizeOnly && !b.small && r.size != b.size {
		ev.Status = 502
	}
	if ev.Status != 0 {
		c.closeRead(i)
		c.step(n, ev)
		return
	}
	if r.sizeOnly {
		c.closeRead(i)
		c.step(n, policy.Event{Kind: policy.EvOriginDone, Blob: b.id, ID: ev.ID, Size: b.size})
		return
	}
	c.step(n, policy.Event{Kind: policy.EvOriginHeaders, Blob: b.id, ID: r.id, Size: b.size, Ranged: true})
	if i, r = c.readAt(arg); r == nil {
		return
	}
	if r.chunk >= r.end {
		c.finishRead(i)
		return
	}
	_, size := b.chunk(r.chunk)
	r.flow = c.net.start(c.now, c.topo.fromOrigin(r.node), size, c.run.Origin.Connection, i, true)
}

// originState is how the origin fares.
type originState struct {
	throttled []*scenario.Fault // that have it answer 429
}

// originStatus is what the origin has against a request, 0 for nothing.
func (c *cluster) originStatus(n *node) (int, time.Duration) {
	if c.now < n.cooldown {
		return 429, time.Duration(n.cooldown - c.now)
	}
	if k := c.run.Origin.Readers; k > 0 && int(n.index) >= k {
		return 401, 0
	}
	for _, f := range c.origin.throttled {
		if len(f.Nodes) == 0 || slices.Contains(f.Nodes, int(n.index)) {
			c.res.Throttled++
			return 429, f.Delay
		}
	}
	return 0, 0
}

// originChunk is called when a read has brought a chunk.
func (c *cluster) originChunk(i int32) {
	r := &c.reads.all[i]
	n, b, chunk := c.nodes[r.node], c.blobs[r.blob], r.chunk
	_, size := b.chunk(chunk)
	c.res.OriginBytes += size
	c.res.OriginDelivered += size
	n.hand = append(n.hand, handed{r.id, chunk, 0})
	c.rules.originSent(n, r.blob, chunk, size, true)
	r.chunk++
	last := r.chunk >= r.end
	if last {
		c.net.end(c.now, r.flow)
		r.flow = -1
	} else {
		_, next := b.chunk(r.chunk)
		c.net.next(c.now, r.flow, next)
	}
	serial := r.serial
	ev := policy.Event{Kind: policy.EvOriginChunk, Blob: b.id, ID: r.id, Chunk: chunk, Sum: b.sum(chunk, 0), N: size}
	if b.small {
		ev.Size = b.size
	}
	c.step(n, ev)
	if r := &c.reads.all[i]; last && r.open && r.serial == serial {
		c.finishRead(i)
	}
}

func (c *cluster) finishRead(i int32) {
	r := &c.reads.all[i]
	n := c.nodes[r.node]
	ev := policy.Event{Kind: policy.EvOriginDone, Blob: c.blobs[r.blob].id, ID: r.id, Size: c.blobs[r.blob].size}
	c.closeRead(i)
	c.step(n, ev)
}

func (c *cluster) stopRead(i int32) {
	if f := c.reads.all[i].flow; f >= 0 {
		c.cutRead(&c.reads.all[i], c.net.end(c.now, f))
	}
	c.closeRead(i)
}

// cutRead counts what the origin sent of a chunk in vain.
func (c *cluster) cutRead(r *originRead, moved int64) {
	r.flow = -1
	c.res.OriginBytes += moved
	c.res.CutBytes += moved
	c.rules.originSent(c.nodes[r.node], r.blob, r.chunk, moved, false)
}

func (c *cluster) closeRead(i int32) {
	r := &c.reads.all[i]
	n := c.nodes[r.node]
	n.reads = without(n.reads, i)
	c.reads.drop(i)
}
