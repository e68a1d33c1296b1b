package policy

import (
	"crypto/sha256"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// peer is what this node knows of another, whatever the blob.
type peer struct {
	id chunkindex.NodeID
	// heard is when anything last came from it, pinged when it was asked for a
	// sign of life that has not come, 0 if none is due.
	heard, pinged Time
	// near is what it is to the blobs that it is a neighbour for, each of which leads
	// to the next.
	near *neighbour
	up   bool
	// met: it was up at some time, so that its key is one that may join.
	met bool
	// silent: it did not answer a ping. Cleared by anything that it sends.
	silent bool
	// connecting: this node is trying to reach it, since dialed; unreachable until
	// then, after it could not.
	connecting bool
	// refusals counts how often it said to be busy since it last served. What is up
	// to here is all that most events need, and lies in one cache line.
	refusals int32
	// busy: it serves as many as it wants to, until about then.
	busy                Time
	dialed, unreachable Time
	// banned until then.
	banned Time
	label  Label
	// rtt is the shortest time in which it ever answered, 0 unknown: queues and
	// disks only ever add to it.
	rtt       Time
	transfers int32 // that come from it
	// strikes counts the blobs that it spoiled by handing on strangers' lies.
	strikes int32
	waits   bool // is in Core.waiting
}

// roundTrip takes in that the peer answered what was sent at asked.
func (p *peer) roundTrip(now, asked Time) {
	if d := max(now-asked, 1); p.rtt == 0 || d < p.rtt {
		p.rtt = d
	}
}

func (c *Core) peer(id chunkindex.NodeID) *peer {
	p := c.peers.get(id)
	if p == nil {
		p = &peer{id: id}
		c.peers.add(p)
	}
	return p
}

func comparePeer(p *peer, id chunkindex.NodeID) int { return p.id.Compare(id) }

func (c *Core) peerUp(id chunkindex.NodeID) {
	if id == c.cfg.Self {
		return
	}
	p := c.peer(id)
	c.heardFrom(p)
	c.connected(p)
	p.met, p.unreachable = true, 0
	if !p.up {
		p.up = true
		c.fill(p)
		i, _ := slices.BinarySearchFunc(c.up, id, comparePeer)
		c.up = slices.Insert(c.up, i, p)
	}
	for _, b := range slices.Clone(c.order) {
		// A node that came back forgot what it was told.
		c.dropNeighbour(b, id)
		b.ranked = nil
		b.missed = slices.DeleteFunc(b.missed, func(o chunkindex.NodeID) bool { return o == id })
		if (b.wanting() || b.coord != nil) && (!c.crowded() || b.isCandidate(id)) {
			c.introduce(b, id)
		} else {
			b.sparse = true
		}
		b.dropCandidate(id)
		c.advance(b)
	}
}

func (c *Core) peerDown(id chunkindex.NodeID) {
	p := c.peers.get(id)
	if p == nil {
		return
	}
	p.up, p.pinged = false, 0
	c.fill(p)
	if i, ok := slices.BinarySearchFunc(c.up, id, comparePeer); ok {
		c.up = slices.Delete(c.up, i, i+1)
	}
	for _, b := range slices.Clone(c.order) {
		c.dropNeighbour(b, id)
		b.miss(id)
		c.advance(b)
	}
}

// alive reports whether something may be expected of the peer.
func (c *Core) alive(id chunkindex.NodeID) bool {
	if id == c.cfg.Self {
		return true
	}
	p := c.peers.get(id)
	return p != nil && c.aliveP(p)
}

func (c *Core) aliveP(p *peer) bool { return p.up && !p.silent && p.banned <= c.now }

// heardFrom notes that a peer gave a sign of life.
func (c *Core) heardFrom(p *peer) {
	p.heard, p.pinged = c.now, 0
	if p.silent {
		p.silent = false
		c.fill(p)
	}
}

// watch is called while b waits for something from id since then. It pings a
// silent peer, and reports false once it must be passed over.
func (c *Core) watch(b *blob, id chunkindex.NodeID, since Time) bool {
	if id == c.cfg.Self {
		return true
	}
	if !c.alive(id) {
		return false
	}
	p := c.peers.get(id)
	if p.pinged == 0 {
		if c.reached(b, max(p.heard, since).Add(c.cfg.AskTimeout)) {
			p.pinged = c.now
			c.send(id, Message{Kind: MsgPing, Blob: b.id, Size: -1})
			b.wake(c.now.Add(c.cfg.AskTimeout))
		}
		return true
	}
	if c.reached(b, p.pinged.Add(c.cfg.AskTimeout)) {
		p.silent = true
		c.fill(p)
		return false
	}
	return true
}

// remind turns once a while to neighbours that said nothing when they were asked: one that
// hung and is back may have nothing to say by itself.
func (c *Core) remind(b *blob) {
	for k, n := range b.neighbours {
		p := n.p
		switch {
		case b.seats[k].alive && (!n.introduced || n.replied) || !p.up:
		case p.silent:
			if c.reached(b, p.pinged.Add(2*c.cfg.AskTimeout)) {
				p.pinged = c.now
				c.send(p.id, Message{Kind: MsgPing, Blob: b.id, Size: -1})
			}
		case n.introduced && !n.replied && c.watch(b, p.id, n.askedAt) && p.heard > n.askedAt && c.reached(b, n.askedAt.Add(2*c.cfg.AskTimeout)):
			c.sendState(b, n, true) // the question was lost
		}
	}
}

func (c *Core) send(to chunkindex.NodeID, m Message) {
	*c.effect() = Effect{Kind: EfSend, Peer: to, Blob: m.Blob, Msg: m}
}

// ban stops all dealings with a peer that was proven to lie.
func (c *Core) ban(id chunkindex.NodeID) {
	if id == c.cfg.Self || id.IsZero() {
		return
	}
	p := c.peer(id)
	if p.banned > c.now {
		return
	}
	p.banned = c.now.Add(c.cfg.Ban)
	c.count(CountBan, 1)
	c.emit(Effect{Kind: EfBan, Peer: id, At: p.banned, Reason: ReasonLied})
	for _, b := range c.order {
		c.dropNeighbour(b, id)
		b.ranked = nil
	}
}

// Rank orders nodes for a key by rendezvous hashing (Thaler and Ravishankar,
// "A name-based mapping scheme for rendezvous", 1996), best first: each node that
// knows the same candidates computes the same order, and a node that comes or goes
// moves no other pair.
func Rank(key string, nodes []chunkindex.NodeID) []chunkindex.NodeID {
	type scored struct {
		id    chunkindex.NodeID
		score [sha256.Size]byte
	}
	s := make([]scored, len(nodes))
	buf := append([]byte(key), 0)
	for i, id := range nodes {
		s[i] = scored{id, sha256.Sum256(append(buf[:len(key)+1:len(key)+1], id[:]...))}
	}
	slices.SortFunc(s, func(a, b scored) int {
		return chunkindex.NodeID(b.score).Compare(chunkindex.NodeID(a.score))
	})
	ranked := make([]chunkindex.NodeID, len(s))
	for i := range s {
		ranked[i] = s[i].id
	}
	return ranked
}

func rank(d digest.Digest, nodes []chunkindex.NodeID) []chunkindex.NodeID {
	return Rank(string(d), nodes)
}

// committeeSize is how many of the ranked nodes may coordinate.
const committeeSize = 16

// committee returns the nodes that may coordinate b, best first, this node among
// them where it belongs. Nodes that are known to be gone are left out; those that
// it has no connection to are not: in a large cluster that says nothing.
func (c *Core) committee(b *blob) []chunkindex.NodeID {
	if b.ranked != nil {
		return b.ranked
	}
	gone := func(id chunkindex.NodeID) bool { return c.gone(b, id) }
	nodes := slices.DeleteFunc(slices.Clone(b.closest), gone)
	if len(b.closest) < committeeSize || len(nodes) == 0 {
		// The whole cluster, or as much of it as this node knows.
		nodes = append(nodes, c.cfg.Self)
		for _, p := range c.up {
			nodes = append(nodes, p.id)
		}
	}
	slices.SortFunc(nodes, chunkindex.NodeID.Compare)
	nodes = rank(b.id, slices.Compact(nodes))
	b.ranked = nodes[:min(len(nodes), committeeSize)]
	return b.ranked
}

// unsure reports whether it is not known yet who is near to b: those that this node is
// connected to may be no members of its committee.
func (c *Core) unsure(b *blob) bool {
	return b.looking && len(b.closest) == 0 && !c.reached(b, b.lookedAt.Add(2*c.cfg.AskTimeout))
}

// gone reports whether a node cannot be reached, as far as was tried.
func (c *Core) gone(b *blob, id chunkindex.NodeID) bool {
	if id == c.cfg.Self || c.isUp(id) {
		return false
	}
	p := c.peers.get(id)
	return slices.Contains(b.missed, id) || p != nil && p.unreachable > c.now
}

// better reports whether a node ranks before this one.
func (c *Core) better(b *blob, id chunkindex.NodeID) bool {
	return rank(b.id, []chunkindex.NodeID{c.cfg.Self, id})[0] == id
}

// miss notes that a node cannot be reached.
func (b *blob) miss(id chunkindex.NodeID) {
	b.ranked = nil
	if slices.Contains(b.closest, id) && !slices.Contains(b.missed, id) {
		b.missed = append(b.missed, id)
	}
}

// answers reports whether a member may be expected to answer: one that is alive,
// or one that is being connected to, which should not take long.
func (c *Core) answers(b *blob, id chunkindex.NodeID) bool {
	if c.isUp(id) {
		return c.alive(id)
	}
	c.dial(id)
	p := c.peers.get(id)
	if p == nil || !p.connecting {
		return false
	}
	if c.reached(b, p.dialed.Add(c.cfg.AskTimeout)) {
		b.apart = b.apart || c.better(b, id)
		b.miss(id)
		return false
	}
	return true
}
