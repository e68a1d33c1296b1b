package simulation

import (
	"slices"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// fault is one that the run has, and whom it befell.
type fault struct {
	*scenario.Fault
	nodes []int32
}

// roleRetry is how often a fault looks for a node in its role.
const roleRetry = 5 * int64(time.Millisecond)

// begin has a fault begin, or, where it is for a role that nobody has, look again
// in a while.
func (c *cluster) begin(k int) {
	f := &c.faults[k]
	f.nodes = f.nodes[:0]
	if f.Role != "" {
		n := c.inRole(f.Role)
		if n == nil {
			if !c.ending {
				c.q.push(c.now+roleRetry, evFault, 0, 0, uint64(k))
			}
			return
		}
		f.nodes = append(f.nodes, n.index)
	}
	for _, i := range f.Nodes {
		if f.Kind != scenario.Crash || !c.nodes[i].down {
			f.nodes = append(f.nodes, int32(i))
		}
	}
	for _, i := range f.nodes {
		c.strike(f, c.nodes[i], +1)
	}
	if f.Kind == scenario.OriginThrottle {
		c.origin.throttled = append(c.origin.throttled, f.Fault)
	}
	c.rules.began(f.Fault, f.nodes)
	switch {
	case f.Kind == scenario.Crash:
		if f.Restart > 0 {
			c.q.push(c.now+int64(f.Restart), evHeal, 0, 0, uint64(k))
		}
	case f.For > 0:
		c.q.push(c.now+int64(f.For), evHeal, 0, 0, uint64(k))
	}
}

// heal ends a fault.
func (c *cluster) heal(k int) {
	f := &c.faults[k]
	for _, i := range f.nodes {
		c.strike(f, c.nodes[i], -1)
	}
	if f.Kind == scenario.OriginThrottle {
		c.origin.throttled = slices.DeleteFunc(c.origin.throttled, func(o *scenario.Fault) bool { return o == f.Fault })
	}
	c.rules.ended(f.Fault, f.nodes)
}

// strike has a fault begin (+1) or end (-1) for a node. Several of a kind may
// befall one at a time.
func (c *cluster) strike(f *fault, n *node, by int) {
	switch f.Kind {
	case scenario.Crash:
		if by > 0 {
			n.gone = f.Restart == 0
			c.kill(n)
		} else {
			c.join(n, n.known)
		}
	case scenario.Corrupt:
		n.corrupt += by
	case scenario.Forge:
		n.forges += by
	case scenario.Stall:
		n.stalls += by
	case scenario.Mute:
		n.mute += by
	}
}

// inRole is a node that plays a part now, nil if none does.
func (c *cluster) inRole(r scenario.Role) *node {
	if r == scenario.Coordinator {
		if n := c.grantor; n != nil && !n.down {
			return n
		}
		return nil
	}
	for i := range c.reads.all {
		if r := &c.reads.all[i]; r.open && r.flow >= 0 && c.nodes[r.node] != c.grantor {
			return c.nodes[r.node]
		}
	}
	return nil
}

// gap is a chunk that a killed node was reading from the origin, or, with chunk
// -1, that nobody gives grants, since then.
type gap struct {
	blob  int32
	chunk int
	since int64
}

// closed notes that somebody reads what a killed node was to read: chunks
// [chunk, end) of a blob; or that somebody gives grants again.
func (c *cluster) closed(blob int32, chunk, end int) {
	c.gaps = slices.DeleteFunc(c.gaps, func(g gap) bool {
		if g.blob != blob || g.chunk < chunk || g.chunk >= end {
			return false
		}
		c.res.Recovery = max(c.res.Recovery, time.Duration(c.now-g.since))
		return true
	})
}

// kill ends a node as kill -9 does; those that it was connected to see that a latency later.
func (c *cluster) kill(n *node) {
	n.down = true
	n.life++
	if n == c.grantor {
		c.gaps = append(c.gaps, gap{0, -1, c.now})
	}
	for _, p := range n.peers {
		o := c.nodes[p]
		o.unlink(n.index)
		c.q.push(c.now+c.distance(n, o), evPeerDown, p, o.life, uint64(n.index))
	}
	for _, p := range n.peers {
		n.linked[p>>6] &^= 1 << (p & 63)
	}
	n.peers, n.arrivals = n.peers[:0], n.arrivals[:0]
	c.breakFlows(n.up)
	c.breakFlows(n.in)
	for _, b := range c.blobs {
		b.withdraw(n.index)
	}
	for len(n.transfers) > 0 {
		c.closeTransfer(n.transfers[0])
	}
	for len(n.reads) > 0 {
		i := n.reads[0]
		if r := &c.reads.all[i]; !r.sizeOnly && r.chunk < r.end {
			c.gaps = append(c.gaps, gap{r.blob, r.chunk, c.now})
		}
		c.closeRead(i)
	}
	n.hand, n.diskFree, n.busy = n.hand[:0], 0, 0
	for i := range n.clients {
		n.clients[i].ended = true
	}
	for _, i := range slices.Clone(n.pulls) {
		p := &c.pulls[i]
		p.open, p.asked = p.open[:0], 0
		if n.gone {
			c.excuse(i)
		}
	}
}

// breakFlows ends the flows of a dead node's link.
func (c *cluster) breakFlows(l int32) {
	for len(c.net.links[l].flows) > 0 {
		i := c.net.links[l].flows[0].flow()
		f := c.net.flows[i]
		moved := c.net.end(c.now, i)
		if f.origin {
			c.cutRead(&c.reads.all[f.owner], moved)
			continue
		}
		c.res.CutBytes += moved
		t := &c.transfers.all[f.owner]
		t.flow = -1
		c.refuse(f.owner, faultBroken, c.distance(c.nodes[t.from], c.nodes[t.to]))
		c.endUpload(t)
	}
}
