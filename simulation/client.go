package simulation

import (
	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// The clients, each of which wants all blobs of its node.

// client is one request for a blob.
type client struct {
	blob         int32
	upto, said   int64
	chunk        int // the next to check
	try          int
	wrong, ended bool
}

// read has the node's client ask for a blob.
func (c *cluster) read(n *node, k int32, try int) {
	b := c.blobs[k]
	n.clients = append(n.clients, client{blob: k, try: try})
	c.step(n, policy.Event{Kind: policy.EvRead, Blob: b.id, Reader: policy.ID(len(n.clients)), End: -1, Size: b.size,
		Whole: true, Small: b.small, Source: 1, Origin: 1})
}

func (c *cluster) deliver(n *node, e *policy.Effect) {
	cl := &n.clients[e.Reader-1]
	b, h := c.blobs[cl.blob], n.held[cl.blob]
	if cl.ended {
		c.broken("%s delivers to reader %d, which has ended", n.id, e.Reader)
		return
	}
	upto := e.Off
	if b.small {
		upto = b.size
	}
	if upto >= b.size && !h.proven {
		c.broken("%s releases the last byte of an unproven blob", n.id)
	}
	for ; cl.chunk < b.n; cl.chunk++ {
		off, length := b.chunk(cl.chunk)
		if off+length > upto {
			break
		}
		if h.level[cl.chunk] == chunkindex.Absent && !h.proven {
			c.broken("%s releases chunk %d, which it does not have", n.id, cl.chunk)
		}
		if h.bytes[cl.chunk] != 0 {
			cl.wrong = true
			c.res.WrongReleases++
		}
	}
	if n.first == 0 {
		n.first = c.now
	}
	cl.upto = upto
	c.q.push(c.now, evConsumed, n.index, n.life, uint64(e.Reader))
}

func (c *cluster) consumed(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	if cl.ended || cl.said >= cl.upto {
		return
	}
	cl.said = cl.upto
	blob, upto := cl.blob, cl.upto
	c.step(n, policy.Event{Kind: policy.EvConsumed, Reader: reader, Off: upto})
	cl = &n.clients[reader-1]
	if cl.ended || upto < c.blobs[blob].size {
		return
	}
	cl.ended = true
	if cl.wrong {
		c.res.WrongCompletions++
	}
	c.step(n, policy.Event{Kind: policy.EvCancel, Reader: reader})
	if n.missing--; n.missing == 0 && n.failed == 0 {
		n.done = c.now
		c.waiting--
	}
}

// failed is the end of a client that was told to go elsewhere.
func (c *cluster) failed(n *node, e *policy.Effect) {
	cl := &n.clients[e.Reader-1]
	cl.ended = true
	c.res.Failures++
	if cl.try < c.cfg.Retries {
		c.q.push(c.now+int64(retryWait), evClient, n.index, n.life, uint64(cl.blob)<<32|uint64(cl.try+1))
		return
	}
	if n.failed == 0 {
		n.failed = max(e.Status, 1)
		c.waiting--
	}
}
