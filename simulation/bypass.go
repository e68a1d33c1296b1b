package simulation

import "github.com/peercache/peercache/fetcher/policy"

// A client whose blob the store cannot take is served past it: its node reads the
// rest from the origin through memory, and holds the last bytes back until all
// hashes to the digest.

// bypass has a client read the origin from where it stands.
func (c *cluster) bypass(n *node, e *policy.Effect) {
	cl := &n.clients[e.Reader-1]
	if cl.leaving {
		return
	}
	b := c.blobs[cl.blob]
	cl.bypassed = true
	c.rules.refused(n, cl, e)
	r := originRead{open: true, node: n.index, reader: e.Reader, blob: cl.blob, flow: -1, size: b.size, end: b.n}
	if !b.small && e.Off > 0 {
		r.chunk = b.layout.At(e.Off)
	}
	c.beginRead(n, r)
}

// bypassDone is called when a client has all that it read past the store. What
// it was given before may have been wrong, which the digest tells.
func (c *cluster) bypassDone(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	if cl.ended {
		return
	}
	if cl.wrong || cl.rotten {
		c.bypassFailed(n, reader, 502)
		return
	}
	if cl.upto == 0 {
		c.firstByte(n, cl.blob)
	}
	c.complete(n, cl)
}

func (c *cluster) bypassFailed(n *node, reader policy.ID, status int) {
	if cl := &n.clients[reader-1]; !cl.ended {
		c.failed(n, cl, status)
	}
}
