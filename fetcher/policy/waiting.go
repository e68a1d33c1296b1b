package policy

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// Who was told BUSY would have to ask again and again to find out when there is
// room, and what room there is would lie idle meanwhile. So a node that is done with an
// upload tells the one that has waited longest. It keeps the room for nobody: who has
// found another peer in the meantime says nothing. (To tell two brings nothing but more
// BUSY.)

// waiter is a peer that was told BUSY, and for which blob.
type waiter struct {
	peer *peer
	blob digest.Digest
}

// maxWaiting bounds the peers that are remembered. One that is not asks again by
// itself.
const maxWaiting = 64

// keepWaiting remembers a peer that was told BUSY.
func (c *Core) keepWaiting(p *peer, d digest.Digest) {
	switch {
	case p.waits:
		c.waiting[slices.IndexFunc(c.waiting, func(w waiter) bool { return w.peer == p })].blob = d
	case len(c.waiting) < maxWaiting:
		c.waiting = append(c.waiting, waiter{p, d})
		p.waits = true
	}
}

// stopWaiting forgets a peer that is being served.
func (c *Core) stopWaiting(p *peer) {
	if p.waits {
		p.waits = false
		c.waiting = slices.DeleteFunc(c.waiting, func(w waiter) bool { return w.peer == p })
	}
}

// tellWaiting tells the peer that has waited longest that there is room.
func (c *Core) tellWaiting() {
	passed := 0
	for told := false; !told && passed < len(c.waiting); passed++ {
		w := c.waiting[passed]
		w.peer.waits = false
		if c.aliveP(w.peer) {
			told = true
			c.send(w.peer.id, Message{Kind: MsgFree, Blob: w.blob, Size: -1})
		}
	}
	c.waiting = slices.Delete(c.waiting, 0, passed)
}

// heardFree takes in that a peer, which was busy, has room.
func (c *Core) heardFree(b *blob, p *peer) {
	p.refusals = 0
	c.setBusy(p, 0)
	if b.wanting() && c.hasSlot(b) {
		c.advance(b)
	}
}
