package simulation

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// The clients, each of which pulls an image through its node.

const retryWait = time.Second

// pull is a client at work. What it has come to is in Result.Pulls.
type pull struct {
	node  int32
	due   int64 // when it begins, if its node is there; 0: it waits for a wave
	begun bool
	over  bool
	asked int     // how many of the image's blobs it has seen to, the manifest first
	open  []int32 // blobs that it waits for
}

// wave is a number of pulls for which others wait.
type wave struct {
	left int     // how many of them are not over
	next []int32 // pulls that wait
}

// schedule has a pull begin when it is its time.
func (c *cluster) schedule(i int32) {
	at := max(startTime+int64(c.run.Pulls[i].At), c.now)
	c.pulls[i].due, c.res.Pulls[i].At = at, time.Duration(at-startTime)
	c.q.push(at, evPull, c.pulls[i].node, 0, uint64(i))
}

// client is one request for a blob. Several pulls of a node may wait for it.
type client struct {
	blob          int32
	upto, said    int64
	chunk         int // the next to check
	try           int
	wrong, rotten bool
	bypassed      bool // reads the origin past the store
	ended         bool
	leaving       bool // has ended, and the core does not know yet
}

// pull has a client begin, now or, if its node is away, when it comes back.
func (c *cluster) pull(i int32) {
	n := c.nodes[c.pulls[i].node]
	if n.gone {
		c.excuse(i)
		return
	}
	n.pulls = append(n.pulls, i)
	if !n.down && !n.leaving {
		c.advance(n, i)
	}
}

// resume has all clients of a node that came back ask anew.
func (c *cluster) resume(n *node) {
	for _, i := range slices.Clone(n.pulls) {
		c.advance(n, i)
	}
}

// wanted is the k-th blob that a client asks for: the manifest, if there is one, and
// then the layers.
func (c *cluster) wanted(i int32, k int) (blob int32, ok bool) {
	m := &c.run.Images[c.run.Pulls[i].Image]
	switch {
	case k == 0:
		return int32(m.Manifest), true
	case k <= len(m.Layers):
		return int32(m.Layers[k-1]), true
	}
	return 0, false
}

// advance has a client ask for what comes next: all that it may have open at a time.
func (c *cluster) advance(n *node, i int32) {
	if c.ending {
		return // nobody begins any more
	}
	p, s := &c.pulls[i], &c.run.Pulls[i]
	if !p.begun {
		p.begun, c.res.Pulls[i].Begun = true, time.Duration(c.now-startTime)
	}
	for !p.over {
		k, ok := c.wanted(i, p.asked)
		if !ok {
			break
		}
		if len(p.open) > 0 && (p.asked == 1 || s.Parallel > 0 && len(p.open) >= s.Parallel) {
			return
		}
		p.asked++
		if k < 0 || n.pulled[k] || slices.Contains(p.open, k) {
			continue
		}
		p.open = append(p.open, k)
		if cl := n.reading(k); cl == nil {
			c.read(n, k, 0)
		} else if cl.upto > 0 {
			c.firstByte(n, k)
		}
	}
	if len(p.open) == 0 && !p.over {
		c.res.Pulls[i].Done = time.Duration(c.now - startTime)
		c.done++
		c.end(n, i)
	}
}

// end is the end of a client, whatever it was.
func (c *cluster) end(n *node, i int32) {
	c.pulls[i].over, c.pulls[i].open = true, nil
	if k := slices.Index(n.pulls, i); k >= 0 {
		n.pulls = slices.Delete(n.pulls, k, k+1)
	}
	c.waiting--
	w := &c.waves[c.run.Pulls[i].Wave]
	if w.left--; w.left == 0 {
		for _, k := range w.next {
			c.schedule(k)
		}
	}
}

func (c *cluster) excuse(i int32) {
	c.res.Pulls[i].Excused = true
	c.end(c.nodes[c.pulls[i].node], i)
}

// reading is the request for a blob that a node's clients have open, nil if none.
func (n *node) reading(k int32) *client {
	for i := len(n.clients) - 1; i >= 0; i-- {
		if cl := &n.clients[i]; cl.blob == k && !cl.ended {
			return cl
		}
	}
	return nil
}

// read has the node's client ask for a blob. What is complete in the store comes
// from there, and the core is not asked.
func (c *cluster) read(n *node, k int32, try int) {
	b, h := c.blobs[k], n.held[k]
	n.clients = append(n.clients, client{blob: k, try: try})
	id := policy.ID(len(n.clients))
	if h != nil {
		h.wanted = c.now
	}
	if h != nil && h.proven {
		c.fromStore += b.size
		c.q.push(c.now+int64(c.run.Costs.Open), evServed, n.index, n.life, uint64(id))
		return
	}
	if h != nil {
		for i := range b.n {
			if h.level[i] != chunkindex.Absent {
				_, size := b.chunk(i)
				c.fromStore += size
			}
		}
	}
	size := b.size
	if b.manifest {
		size = -1 // nobody has said
	}
	c.step(n, policy.Event{Kind: policy.EvRead, Blob: b.id, Reader: id, End: -1, Size: size,
		Whole: true, Small: b.small, Source: 1, Origin: 1})
}

// served is called when a client has all of a blob out of the store.
func (c *cluster) served(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	if cl.ended {
		return
	}
	b := c.blobs[cl.blob]
	c.check(n, cl, b.size)
	c.firstByte(n, cl.blob)
	c.complete(n, cl)
}

// check looks at the bytes before upto that a client was not given yet.
func (c *cluster) check(n *node, cl *client, upto int64) {
	b, h := c.blobs[cl.blob], n.held[cl.blob]
	for ; cl.chunk < b.n; cl.chunk++ {
		off, length := b.chunk(cl.chunk)
		if off+length > upto {
			break
		}
		switch t := h.bytes[cl.chunk]; {
		case t.rot():
			cl.rotten = true
		case t != 0:
			cl.wrong = true
			c.res.WrongReleases++
		}
	}
	cl.upto = upto
}

// firstByte notes that clients have a first byte of a layer.
func (c *cluster) firstByte(n *node, k int32) {
	if b := &c.run.Blobs[k]; b.Manifest || b.Config {
		return
	}
	for _, i := range n.pulls {
		if r := &c.res.Pulls[i]; r.First == 0 && slices.Contains(c.pulls[i].open, k) {
			r.First = time.Duration(c.now - startTime)
		}
	}
}

func (c *cluster) deliver(n *node, e *policy.Effect) {
	cl := &n.clients[e.Reader-1]
	b := c.blobs[cl.blob]
	if cl.leaving {
		return
	}
	if cl.ended {
		c.broken("%s delivers to reader %d, which has ended", n.id, e.Reader)
		return
	}
	upto := e.Off
	if b.small {
		upto = b.size
	}
	if cl.upto == 0 {
		c.firstByte(n, cl.blob)
	}
	c.rules.released(n, cl, upto)
	c.check(n, cl, upto)
	c.q.push(c.now, evConsumed, n.index, n.life, uint64(e.Reader))
}

func (c *cluster) consumed(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	if cl.ended || cl.said >= cl.upto {
		return
	}
	cl.said = cl.upto
	blob, upto := cl.blob, cl.upto
	next := nothingElse
	if upto >= c.blobs[blob].size {
		next = afterConsumed
	}
	c.stepThen(n, policy.Event{Kind: policy.EvConsumed, Reader: reader, Off: upto}, next, uint64(reader))
}

// tookAll ends a client that has all of a blob.
func (c *cluster) tookAll(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	if cl.ended {
		return
	}
	c.cancel(n, reader)
	c.complete(n, &n.clients[reader-1])
}

// cancel has a core know that a client wants no more.
func (c *cluster) cancel(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	cl.ended, cl.leaving = true, c.ahead != nil
	c.step(n, policy.Event{Kind: policy.EvCancel, Reader: reader})
}

// complete is the end of a request that has been answered.
func (c *cluster) complete(n *node, cl *client) {
	cl.ended = true
	if cl.wrong {
		c.res.WrongCompletions++
	}
	if cl.rotten {
		c.res.RottenCompletions++
	}
	c.rules.completed(n, cl)
	k := cl.blob
	n.pulled[k] = true
	for _, i := range c.waitingFor(n, k) {
		p := &c.pulls[i]
		p.open = slices.DeleteFunc(p.open, func(o int32) bool { return o == k })
		c.advance(n, i)
	}
}

// waitingFor lists the pulls of a node that wait for a blob.
func (c *cluster) waitingFor(n *node, k int32) (some []int32) {
	for _, i := range n.pulls {
		if slices.Contains(c.pulls[i].open, k) {
			some = append(some, i)
		}
	}
	return some
}

// refused is what a core says of a request that it gives up.
func (c *cluster) refused(n *node, e *policy.Effect) {
	cl := &n.clients[e.Reader-1]
	if cl.leaving {
		return
	}
	c.rules.refused(n, cl, e)
	c.failed(n, cl, e.Status)
}

// failed is the end of a request that was told to go elsewhere. Clients that have
// tries left ask again.
func (c *cluster) failed(n *node, cl *client, status int) {
	cl.ended = true
	c.res.Failures++
	again := false
	for _, i := range c.waitingFor(n, cl.blob) {
		r := &c.res.Pulls[i]
		r.Failures++
		if cl.try < c.run.Pulls[i].Retries {
			again = true
			continue
		}
		r.Status = max(status, 1)
		for _, k := range c.pulls[i].open {
			c.abandon(n, i, k)
		}
		c.end(n, i)
	}
	if again {
		c.q.push(c.now+int64(retryWait), evRetry, n.index, n.life, uint64(cl.blob)<<32|uint64(cl.try+1))
	}
}

// abandon has a client that gave up hang up on a blob that nobody else wants.
func (c *cluster) abandon(n *node, i, k int32) {
	for _, o := range n.pulls {
		if o != i && slices.Contains(c.pulls[o].open, k) {
			return
		}
	}
	for r := range n.clients {
		if cl := &n.clients[r]; cl.blob == k && !cl.ended {
			c.q.push(c.now, evHangUp, n.index, n.life, uint64(r+1))
		}
	}
}

// hangUp has the node's client end a request, unless somebody wants the blob by now.
func (c *cluster) hangUp(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	if cl.ended || !c.ending && !n.leaving && len(c.waitingFor(n, cl.blob)) > 0 {
		return
	}
	if cl.bypassed {
		cl.ended = true
		for _, i := range n.reads {
			if c.reads.all[i].reader == reader {
				c.stopRead(i)
				return
			}
		}
		return
	}
	c.cancel(n, reader)
}

func (c *cluster) retry(n *node, k int32, try int) {
	if !c.ending && len(c.waitingFor(n, k)) > 0 && n.reading(k) == nil {
		c.read(n, k, try)
	}
}
