package policy

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// Who was told BUSY would have to ask again and again to find out when there is
// room, and what room there is would lie idle meanwhile. So a node that is done with an
// upload tells those that have waited longest. It keeps the room for nobody: who has
// found another peer in the meantime says nothing.

// waiter is a peer that was told BUSY, and for which blob.
type waiter struct {
	peer *peer
	blob digest.Digest
}

const (
	// maxWaiting bounds the peers that are remembered. One that is not asks again by
	// itself.
	maxWaiting = 64
	// toldAtOnce is how many are told of one upload's end: more than one, since not
	// all of them want it still.
	toldAtOnce = 2
)

// keepWaiting remembers a peer that was told BUSY.
func (c *Core) keepWaiting(p *peer, d digest.Digest) {
	i := slices.IndexFunc(c.waiting, func(w waiter) bool { return w.peer == p })
	switch {
	case i >= 0:
		c.waiting[i].blob = d
	case len(c.waiting) < maxWaiting:
		c.waiting = append(c.waiting, waiter{p, d})
	}
}

// stopWaiting forgets a peer that is being served.
func (c *Core) stopWaiting(p *peer) {
	c.waiting = slices.DeleteFunc(c.waiting, func(w waiter) bool { return w.peer == p })
}

// tellWaiting tells those that have waited longest that there is room.
func (c *Core) tellWaiting() {
	told, passed := 0, 0
	for told < toldAtOnce && passed < len(c.waiting) {
		w := c.waiting[passed]
		if passed++; c.aliveP(w.peer) {
			told++
			c.send(w.peer.id, Message{Kind: MsgFree, Blob: w.blob, Size: -1})
		}
	}
	c.waiting = slices.Delete(c.waiting, 0, passed)
}

// heardFree takes in that a peer, which was busy, has room.
func (c *Core) heardFree(b *blob, p *peer) {
	p.busy, p.refusals = 0, 0
	if b.wanting() && c.hasSlot(b) {
		c.advance(b)
	}
}
