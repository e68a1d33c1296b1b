package simulation

import (
	"slices"
	"time"
)

// FaultKind says what goes wrong.
type FaultKind uint8

// The faults.
const (
	// Kill ends a node as kill -9 does: its connections break.
	Kill FaultKind = iota
	// Corrupt has a node serve wrong bytes beside honest claims, as a broken
	// disk would.
	Corrupt
	// Forge has it serve wrong bytes and sign them.
	Forge
	// Stall has it accept requests for chunks, and send nothing.
	Stall
	// Mute has it take messages and say nothing.
	Mute
)

// Role says which node a fault befalls.
type Role uint8

// The roles.
const (
	// Numbered is the node Fault.Node.
	Numbered Role = iota
	// Coordinator is the node that gave the last grant.
	Coordinator
	// Fetcher is a node that is reading from the origin and gave no grant.
	Fetcher
)

// Fault is one thing that goes wrong. It befalls its node at At, or, where it is
// for a role, as soon after that as some node has the role; never, if none comes
// to have it.
type Fault struct {
	Kind FaultKind
	Who  Role
	Node int
	At   time.Duration
	// Restart is how long after being killed a node comes back, with its
	// store and with a client that asks anew; 0 is never.
	Restart time.Duration
}

// Throttle is a time in which the origin answers 429 and asks to be left alone.
type Throttle struct {
	At, For, Wait time.Duration
}

// roleRetry is how often a fault looks for a node in its role.
const roleRetry = 5 * int64(time.Millisecond)

func (c *cluster) fault(k int) {
	f := &c.cfg.Faults[k]
	n := c.inRole(f)
	if n == nil {
		c.q.push(c.now+roleRetry, evFault, 0, 0, uint64(k))
		return
	}
	switch f.Kind {
	case Kill:
		c.kill(n)
		if n.done == 0 && n.failed == 0 && f.Restart == 0 {
			c.waiting--
		}
		if f.Restart > 0 {
			c.q.push(c.now+int64(f.Restart), evRestart, n.index, n.life, 0)
		}
	case Corrupt:
		n.corrupt = true
	case Forge:
		n.forges = true
	case Stall:
		n.stalls = true
	case Mute:
		n.mute = true
	}
}

func (c *cluster) inRole(f *Fault) *node {
	switch f.Who {
	case Coordinator:
		if n := c.grantor; n != nil && !n.down {
			return n
		}
	case Fetcher:
		for i := range c.reads.all {
			if r := &c.reads.all[i]; r.open && r.flow >= 0 && c.nodes[r.node] != c.grantor {
				return c.nodes[r.node]
			}
		}
	default:
		if n := c.nodes[f.Node]; !n.down {
			return n
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
		c.q.push(c.now+c.latency, evPeerDown, p, o.life, uint64(n.index))
	}
	for _, p := range n.peers {
		n.linked[p>>6] &^= 1 << (p & 63)
	}
	n.peers = n.peers[:0]
	c.breakFlows(n.up)
	c.breakFlows(n.in)
	for _, b := range c.blobs {
		b.withdraw(n.index)
	}
	for i := range c.transfers.all {
		if t := &c.transfers.all[i]; t.open && t.to == n.index {
			c.closeTransfer(int32(i))
		}
	}
	for i := range c.reads.all {
		if r := &c.reads.all[i]; r.open && r.node == n.index {
			if !r.sizeOnly && r.chunk < r.end {
				c.gaps = append(c.gaps, gap{r.blob, r.chunk, c.now})
			}
			c.closeRead(int32(i))
		}
	}
	clear(n.transfers)
	clear(n.reads)
	clear(n.hand)
	for i := range n.clients {
		n.clients[i].ended = true
	}
}

// breakFlows ends the flows of a dead node's link.
func (c *cluster) breakFlows(l int32) {
	for len(c.net.links[l].flows) > 0 {
		i := c.net.links[l].flows[0].flow()
		f := c.net.flows[i]
		moved := c.net.end(c.now, i)
		if f.origin {
			r := &c.reads.all[f.owner]
			r.flow = -1
			c.res.OriginBytes += moved
			c.res.CutBytes += moved
			continue
		}
		c.res.CutBytes += moved
		t := &c.transfers.all[f.owner]
		t.flow = -1
		c.refuse(f.owner, faultBroken, c.latency)
		c.endUpload(t, c.latency)
	}
}

// restart brings a killed node back with what its store held.
func (c *cluster) restart(n *node) {
	n.down = false
	c.boot(n)
	for k, h := range n.held {
		if h != nil {
			clear(h.storing)
			h.hashed, h.hashing = 0, 0
			c.tellHeld(n, k, h)
		}
	}
	for _, o := range n.known {
		c.q.push(c.now+4*c.latency, evConnect, n.index, n.life, uint64(o))
	}
	c.q.push(c.now+8*c.latency, evClient, n.index, n.life, 0)
}
