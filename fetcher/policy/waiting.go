package policy

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// Who was told BUSY would have to ask again and again to find out when there is
// room, and what room there is would lie idle meanwhile. So a node that is done with an
// upload tells the one that lacks most. It keeps the room for nobody: who has found
// another peer in the meantime says nothing. (To tell two brings nothing but more BUSY.)
//
// Of thousands some are always unlucky: nobody tells them, and all their pauses are
// long. The last of them is who a rollout waits for. So a node whose link has room asks
// some of those that were busy anew, all of them if nothing is under way.

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

// tellWaiting tells a peer that there is room: the one that lacks most of what it waits
// for, as far as it has said so, and among equals the one that has waited longest. Who
// claims to lack everything is served no more for it than others are: see admits.
func (c *Core) tellWaiting() {
	best, most := -1, 0
	for i := 0; i < len(c.waiting); i++ {
		w := c.waiting[i]
		if !c.aliveP(w.peer) {
			w.peer.waits = false
			c.waiting = slices.Delete(c.waiting, i, i+1)
			i--
			continue
		}
		if lacks := c.lacking(w); best < 0 || lacks > most {
			best, most = i, lacks
		}
	}
	if best < 0 {
		return
	}
	w := c.waiting[best]
	w.peer.waits = false
	c.waiting = slices.Delete(c.waiting, best, best+1)
	c.send(w.peer.id, Message{Kind: MsgFree, Blob: w.blob, Size: -1})
}

// lacking is how many chunks of the blob that it waits for a peer lacks, 0 where that is
// not known.
func (c *Core) lacking(w waiter) int {
	b := c.lookUp(w.blob)
	if b == nil {
		return 0
	}
	n := b.as(w.peer)
	if n == nil || n.bits.Len() != b.n {
		return 0
	}
	return b.n - n.bits.Count()
}

// anew is how many of those that were busy are asked again at once.
const anew = 16

// askAnew has neighbours that were busy asked again, where this node has room for more
// and enough to choose from, every so often: in the time that a chunk takes, there is
// room for a moment at each of them. It reports whether there are any.
func (c *Core) askAnew(b *blob) bool {
	every := min(max(3*c.transferTimes.median(b.cost())/4, minBusy), c.cfg.AskTimeout)
	if b.choice() < scarce || !c.reached(b, b.askedAnew.Add(every)) {
		return false
	}
	b.askedAnew = c.now
	left := anew
	if len(c.transfers) == 0 {
		left = len(b.neighbours)
	}
	first := c.rng.IntN(len(b.neighbours))
	found := false
	for j := range b.neighbours {
		k := (first + j) % len(b.neighbours)
		if free := b.free[k]; left == 0 || free <= c.now || free == never || !c.window.Meets(b.row(k)) {
			continue
		}
		c.setBusy(b.neighbours[k].p, 0)
		left--
		found = true
	}
	return found
}

// heardFree takes in that a peer, which was busy, has room.
func (c *Core) heardFree(b *blob, p *peer) {
	p.refusals = 0
	c.setBusy(p, 0)
	if b.wanting() && c.hasSlot(b) {
		c.advance(b)
	}
}
