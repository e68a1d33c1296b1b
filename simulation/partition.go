package simulation

import (
	"math/bits"
	"slices"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
)

// Partitions. A connection over one does not break at once: TCP holds what is sent
// and sends it again, and delivers it if the partition ends soon. One that does not is
// found out by silence, after which both ends take the connection for broken. Where
// only one direction is cut no bytes flow in the other either, since nobody
// acknowledges them; what is short arrives.

const (
	// peerTimeout is the silence after which a peer is held to be dead, and
	// peerDial how long it takes to find that one cannot be connected to, as in
	// package p2p.
	peerTimeout = 5 * int64(time.Second)
	peerDial    = 2 * int64(time.Second)
	// redial is within which time nodes find one another again after a partition.
	redial = 10 * int64(time.Second)
)

// part puts a node on the one side of a partition, or takes it from there.
func (c *cluster) part(f *fault, n *node, begin bool) {
	if f.side == 0 {
		free := ^c.sides
		if free == 0 {
			c.broken("more than 64 partitions at a time")
			return
		}
		f.side = 1 << bits.TrailingZeros64(free)
		c.sides |= f.side
		if f.OneWay {
			c.oneWay |= f.side
		}
	}
	if begin {
		n.sides |= f.side
	} else {
		n.sides &^= f.side
	}
}

// parted says whether anything is wrong between two nodes.
func parted(a, b *node) bool { return a.sides != b.sides }

// cut says whether what a node sends another is held up.
func (c *cluster) cut(from, to *node) bool {
	x := from.sides ^ to.sides
	return x&^c.oneWay != 0 || x&c.oneWay&from.sides != 0
}

// partitioned has what is under way feel that a partition began or ended.
func (c *cluster) partitioned(f *fault) {
	c.recap()
	if slices.Contains(c.suffering, f) {
		c.q.push(c.now+peerTimeout, evSilence, 0, 0, uint64(f.number))
		return
	}
	c.sides &^= f.side
	c.oneWay &^= f.side
	f.side = 0
	c.deliverHeld()
	for _, p := range f.pairs {
		a := c.nodes[p[0]]
		c.q.push(c.now+c.rng.Int64N(redial), evRedial, a.index, a.life, uint64(p[1]))
	}
	f.pairs = nil
}

// redial has a node connect to one that it was parted from, or, if another partition parts them
// by now, try again when that is over.
func (c *cluster) redial(n, o *node) {
	for _, f := range c.suffering {
		if (n.sides^o.sides)&f.side != 0 {
			f.pairs = append(f.pairs, [2]int32{n.index, o.index})
			return
		}
	}
	c.connect(n, o)
}

// silence breaks the connections over a partition that has lasted for so long.
func (c *cluster) silence(k int) {
	f := &c.faults[k]
	if !slices.Contains(c.suffering, f) {
		return
	}
	for _, i := range f.nodes {
		n := c.nodes[i]
		for _, p := range slices.Clone(n.peers) {
			if o := c.nodes[p]; (n.sides^o.sides)&f.side != 0 {
				f.pairs = append(f.pairs, [2]int32{n.index, p})
				c.breakConnection(n, o)
			}
		}
	}
	c.dropHeld(f)
}

// unlink ends what two nodes know of their connection.
func (c *cluster) unlink(a, b *node) {
	c.unlinks++
	a.unlink(b.index)
	b.unlink(a.index)
}

// breakConnection ends the connection between two nodes that live.
func (c *cluster) breakConnection(a, b *node) {
	c.unlink(a, b)
	for _, pair := range [2][2]*node{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		for _, i := range slices.Clone(to.transfers) {
			if t := &c.transfers.all[i]; t.from == from.index {
				c.endFlow(t)
				c.endUpload(t)
				t.fault = policy.FaultBroken
				c.q.push(c.now, evRefused, to.index, 0, t.arg(i)) // its own kernel says so
			}
		}
		c.q.push(c.now, evPeerDown, to.index, to.life, uint64(from.index))
	}
}

// heldUp is something that a partition keeps from arriving.
type heldUp struct {
	from, to int32
	item     item
}

// carry has something come from a node to another, unless that is held up.
func (c *cluster) carry(from, to *node, at int64, kind eventKind, node int32, life uint32, arg uint64) {
	if (from.sides|to.sides) != 0 && c.cut(from, to) {
		c.held = append(c.held, heldUp{from.index, to.index, item{at: at - c.now, key: uint64(kind), arg: arg, node: node, life: life}})
		return
	}
	c.q.push(at, kind, node, life, arg)
}

// deliverHeld has what was held up arrive, where nothing is in the way any more.
func (c *cluster) deliverHeld() {
	kept := c.held[:0]
	for _, h := range c.held {
		if c.cut(c.nodes[h.from], c.nodes[h.to]) {
			kept = append(kept, h)
			continue
		}
		from, at := c.nodes[h.from], c.now+minRTO+h.item.at
		if k := slices.Index(from.peers, h.to); k >= 0 && h.item.kind() == evMessage {
			at = max(at, from.arrivals[k])
			from.arrivals[k] = at
		}
		if h.item.kind() == evPeerDown {
			at = c.now // before they may connect again
		}
		c.q.push(at, h.item.kind(), h.item.node, h.item.life, h.item.arg)
	}
	c.held = kept
}

// dropHeld forgets what a partition held up on connections that are broken. Where the other end is
// dead, silence tells that too, and what came of transfers.
func (c *cluster) dropHeld(f *fault) {
	kept := c.held[:0]
	for _, h := range c.held {
		from, to := c.nodes[h.from], c.nodes[h.to]
		switch kind := h.item.kind(); {
		case from.isLinked(h.to) || (from.sides^to.sides)&f.side == 0:
			kept = append(kept, h)
		case kind == evPeerDown || kind == evRefused:
			c.q.push(c.now, kind, h.item.node, h.item.life, h.item.arg)
		case kind == evMessage:
			c.letters.drop(int32(h.item.arg))
		}
	}
	c.held = kept
}
