package simulation

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// How nodes end and come back.

// syncTime is how long a stored chunk may wait for the disk, which a machine that
// dies loses: Linux writes back what is older than 30 s, and looks every 5 s. A
// blob that is published, and a small one, is synced at once: see package store.
const syncTime = 35 * int64(time.Second)

// gap is a chunk that a dead node was reading from the origin, or, with chunk
// -1, that nobody gives grants, since then.
type gap struct {
	blob  int32
	chunk int
	since int64
}

// closed notes that somebody reads what a dead node was to read: chunks
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

// kill ends a node as kill -9 and a power cut do.
func (c *cluster) kill(n *node) {
	c.stop(n)
	for k, h := range n.held {
		if h != nil {
			c.loseUnsynced(n, k, h)
		}
	}
}

// takeLeave has a node stop its clients; it leaves when its time is up.
func (c *cluster) takeLeave(n *node, forGood bool) {
	n.leaving, n.gone = true, forGood
	for i := range n.clients {
		c.hangUp(n, policy.ID(i+1))
	}
	c.dropPulls(n)
}

// leave has the nodes of a fault end in good order: all that they hold is synced.
func (c *cluster) leave(k int) {
	f := &c.faults[k]
	for _, i := range f.nodes {
		if n := c.nodes[i]; !n.down {
			for _, b := range c.blobs {
				b.withdraw(c.now, n.index)
			}
			c.stop(n)
		}
	}
}

// dropPulls has a node's clients forget what they were at. They begin anew when the
// node comes back.
func (c *cluster) dropPulls(n *node) {
	for _, i := range slices.Clone(n.pulls) {
		p := &c.pulls[i]
		p.open, p.asked = p.open[:0], 0
		if n.gone {
			c.excuse(i)
		}
	}
}

// stop ends a node. Those that it was connected to see that a latency later, or, behind a
// partition, when that ends or silence tells. What it announced on the DHT stays there.
func (c *cluster) stop(n *node) {
	n.down, n.leaving = true, false
	n.life++
	n.changes = append(n.changes, c.now)
	if n == c.grantor {
		c.gaps = append(c.gaps, gap{0, -1, c.now})
	}
	for len(n.peers) > 0 {
		o := c.nodes[n.peers[0]]
		c.unlink(n, o)
		c.carry(n, o, c.now+c.distance(n, o), evPeerDown, o.index, o.life, uint64(n.index))
	}
	c.breakUploads(n)
	for len(n.transfers) > 0 {
		i := n.transfers[0]
		c.endFlow(&c.transfers.all[i])
		c.closeTransfer(i)
	}
	for len(n.reads) > 0 {
		i := n.reads[0]
		if r := &c.reads.all[i]; !r.sizeOnly && r.chunk < r.end {
			c.gaps = append(c.gaps, gap{r.blob, r.chunk, c.now})
		}
		c.stopRead(i)
	}
	n.hand, n.writes, n.busy = n.hand[:0], n.writes[:0], 0
	for _, i := range n.inbox {
		c.letters.drop(i)
	}
	n.inbox = n.inbox[:0]
	for i := range n.clients {
		n.clients[i].ended = true
	}
	c.dropPulls(n)
}

// breakUploads ends what a node sends to others.
func (c *cluster) breakUploads(n *node) {
	for k := 0; k < len(c.net.links[n.up].flows); {
		i := c.net.links[n.up].flows[k].flow()
		f := &c.net.flows[i]
		if f.origin {
			k++
			continue
		}
		c.breakTransfer(f.owner)
	}
}

// breakTransfer has a transfer under way fail, since the connection broke.
func (c *cluster) breakTransfer(i int32) {
	t := &c.transfers.all[i]
	c.endFlow(t)
	c.endUpload(t)
	c.refuse(i, policy.FaultBroken, c.distance(c.nodes[t.from], c.nodes[t.to]))
}

// loseUnsynced takes from a store what it had not synced.
func (c *cluster) loseUnsynced(n *node, k int, h *holding) {
	if h.proven {
		return
	}
	for i := range h.level {
		if h.level[i] != chunkindex.Absent && c.now-h.storedAt(i) < syncTime {
			h.level[i] = chunkindex.Absent
			n.used -= c.lengthOf(k, i)
		}
	}
}

// join brings a node into the cluster: one that is new, or was dead. What its store
// holds is read back before it counts, which finds what is spoiled.
func (c *cluster) join(n *node, known []int32) {
	n.down, n.known = false, known
	n.changes = append(n.changes, c.now)
	c.boot(n)
	for k, h := range n.held {
		if h == nil {
			continue
		}
		for i, l := range h.storing {
			if l != chunkindex.Absent && h.level[i] == chunkindex.Absent {
				n.used -= c.lengthOf(k, i) // it was never written
			}
		}
		clear(h.storing)
		for i, t := range h.bytes {
			if h.level[i] != chunkindex.Absent && t.rot() {
				h.level[i], h.bytes[i], h.proven = chunkindex.Absent, 0, false
				n.used -= c.lengthOf(k, i)
			}
		}
		h.hashed, h.hashing = 0, 0
		if slices.ContainsFunc(h.level, func(l chunkindex.Level) bool { return l != chunkindex.Absent }) {
			c.tellHeld(n, k, h)
		}
	}
	last := int64(0)
	for _, o := range n.known {
		d := 4 * c.distance(n, c.nodes[o])
		c.q.push(c.now+d, evRedial, n.index, n.life, uint64(o))
		last = max(last, 2*d)
	}
	// The clients come when the node has found others.
	c.q.push(c.now+last, evClients, n.index, n.life, 0)
}
