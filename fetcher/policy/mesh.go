package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// A node's neighbours for a blob: in a small cluster all its peers; in a large
// one about Config.Neighbours of those that want the blob too, which it learns
// from the committee. The DHT's providers alone would be the same few hubs for
// everybody, and those who came last would know nobody who came at the same time.

// swarm is what a member of the committee knows of who wants a blob.
type swarm struct {
	// joiners are the latest, oldest first.
	joiners []joiner
	// next is when the other members are told of them, 0 never.
	next Time
	told int // how many of the latest are known to them
	seen Time
}

type joiner struct {
	id    chunkindex.NodeID
	label Label
	at    Time
}

const (
	// maxJoiners bounds the nodes that a member remembers for a blob.
	maxJoiners = 512
	// gossipSize is how many joiners the members tell one another of at once.
	gossipSize = 32
	// joinVia is how many members a joiner tells that it came.
	joinVia = 2
)

// candidate is a node that may become a neighbour.
type candidate struct {
	id    chunkindex.NodeID
	label Label
}

// crowded reports whether the cluster is too large for everybody to be everybody's
// neighbour.
func (c *Core) crowded() bool { return len(c.up) > c.cfg.Neighbours }

// introduceAll makes a node's first acquaintances for a blob: every peer in a
// small cluster; in a large one those whom the committee names.
func (c *Core) introduceAll(b *blob) {
	c.lookup(b)
	if b.introducedAt != 0 {
		return
	}
	b.introducedAt = max(c.now, 1)
	if c.crowded() {
		b.sparse = true
		return // the look-up's result goes on with it
	}
	for _, p := range c.up {
		c.introduce(b, p.id)
	}
}

// introduceRest makes neighbours of those peers that were passed over, once so few are
// left that the cluster is large no more: in a small one everybody counts on being told by
// everybody. Nothing is granted before they have said what they hold.
func (c *Core) introduceRest(b *blob) {
	if !b.sparse || c.crowded() || !b.wanting() && b.coord == nil {
		return
	}
	b.sparse = false
	b.introducedAt = max(c.now, 1)
	for _, p := range c.up {
		c.introduce(b, p.id)
	}
	if b.coord != nil {
		b.coord.settled = false
	}
}

// lookup asks the DHT who is near to b and who provides it, unless it was asked
// lately, or there is nobody to ask.
func (c *Core) lookup(b *blob) {
	if b.looking || len(c.up) == 0 || b.lookedAt != 0 && !c.looksAgain(b) {
		return
	}
	b.looking, b.lookedAt = true, max(c.now, 1)
	e := Effect{Kind: EfLookup, Blob: b.id}
	if first, end := b.group(b.lowestWanted()); c.cfg.Announce != AnnounceBlobs && end > 0 {
		e.Chunk, e.N = first, int64(end-first)
	}
	c.emit(e)
}

// looksAgain reports whether it is time for another look-up: a committee is used for
// Config.CommitteeTTL. Where no chunk comes to anybody known here, others may hold what is
// wanted by now, so that the first comes sooner, and each other one after twice the time.
func (c *Core) looksAgain(b *blob) bool {
	if b.lookedAt <= b.progress {
		b.lookups = 0
	}
	ttl := c.cfg.CommitteeTTL
	if b.wanting() && c.now >= b.progress.Add(c.cfg.Standstill) {
		ttl = min(ttl, 2*c.cfg.Standstill<<b.lookups)
	}
	if c.now < b.lookedAt.Add(ttl) {
		return false
	}
	b.lookups = min(b.lookups+1, 8)
	return true
}

func (c *Core) looked(b *blob, closest, providers []chunkindex.NodeID) {
	b.looking, b.redirects, b.namedAt = false, 0, c.now
	b.closest, b.ranked = closest, nil
	b.missed = slices.DeleteFunc(b.missed, func(id chunkindex.NodeID) bool { return !slices.Contains(closest, id) })
	b.providers = len(providers)
	for _, id := range providers[:min(len(providers), c.cfg.Neighbours)] {
		c.reach(b, id)
	}
	if c.crowded() {
		// The first in rank is asked and the second takes over: both should be
		// there before they are needed.
		for _, id := range rank(b.id, closest)[:min(2, len(closest))] {
			c.connect(id)
		}
		b.joinAt = c.now
	}
	c.advance(b)
}

// awaitsProviders reports whether a node that the DHT named has not had the time to say
// what it holds: a coordinator in a large cluster knows only of what it granted, and may have
// been told nothing by who was silent for a while.
func (c *Core) awaitsProviders(b *blob) bool {
	return c.crowded() && slices.ContainsFunc(b.neighbours, func(n *neighbour) bool {
		return n.introduced && !n.replied && n.askedAt == b.namedAt && c.alive(n.p.id)
	}) && !c.reached(b, b.namedAt.Add(c.cfg.SettleTimeout))
}

// reach makes a neighbour of a node, after connecting to it if need be.
func (c *Core) reach(b *blob, id chunkindex.NodeID) {
	switch {
	case id == c.cfg.Self:
	case c.isUp(id):
		c.introduce(b, id)
	default:
		if !b.isCandidate(id) && len(b.candidates) < maxCandidates {
			b.candidates = append(b.candidates, candidate{id: id})
		}
		c.connect(id)
	}
}

func (c *Core) isUp(id chunkindex.NodeID) bool {
	p := c.peers.get(id)
	return p != nil && p.up
}

func (b *blob) isCandidate(id chunkindex.NodeID) bool {
	return slices.ContainsFunc(b.candidates, func(o candidate) bool { return o.id == id })
}

const (
	maxCandidates = 128
	// maxConnecting bounds the connections that are being made at once.
	maxConnecting = 32
)

// connect asks for a connection to a node that was named by others.
func (c *Core) connect(id chunkindex.NodeID) {
	if c.connecting < maxConnecting {
		c.dial(id)
	}
}

// dial asks for a connection to a node, however many are being made.
func (c *Core) dial(id chunkindex.NodeID) {
	if id == c.cfg.Self {
		return
	}
	p := c.peer(id)
	if p.up || p.connecting || p.unreachable > c.now || p.banned > c.now {
		return
	}
	p.connecting, p.dialed = true, c.now
	c.connecting++
	c.emit(Effect{Kind: EfConnect, Peer: id})
}

func (c *Core) unreachable(id chunkindex.NodeID) {
	p := c.peers.get(id)
	if p == nil || p.up {
		return
	}
	c.connected(p)
	p.unreachable = c.now.Add(c.cfg.Avoid)
	if !p.met && p.banned == 0 && p.near == nil {
		c.peers.remove(p) // anybody can name any number of nodes
	}
	for _, b := range slices.Clone(c.order) {
		b.dropCandidate(id)
		b.apart = b.apart || slices.Contains(b.closest, id) && c.better(b, id)
		b.miss(id)
		c.advance(b)
	}
}

// connected notes that an attempt to connect is over.
func (c *Core) connected(p *peer) {
	if p.connecting {
		p.connecting = false
		c.connecting--
	}
}

// join keeps a node's neighbours at about Config.Neighbours in a large cluster.
func (c *Core) join(b *blob) {
	if !c.crowded() && c.connecting < maxConnecting {
		for _, o := range b.candidates {
			c.connect(o.id)
		}
	}
	if !b.wanting() || !c.crowded() || b.looking || len(b.closest) == 0 || b.active() >= c.cfg.Neighbours && !c.lacksNear(b) {
		return
	}
	if c.reached(b, b.joinAt) {
		// Each joiner has its own order of the members, so that they share the work.
		self := string(b.id) + string(c.cfg.Self[:])
		told := 0
		for _, id := range Rank(self, b.closest) {
			if id == c.cfg.Self || told == joinVia {
				continue
			}
			if !c.isUp(id) {
				c.connect(id)
				continue
			}
			told++
			c.send(id, Message{Kind: MsgJoin, Blob: b.id, Size: b.size, Small: b.small, Label: c.cfg.Label})
		}
		if slices.Contains(b.closest, c.cfg.Self) {
			m := c.sample(c.swarm(b), c.cfg.Self, c.cfg.Label)
			c.heardPeers(b, &m)
			c.enter(c.swarm(b), c.cfg.Self, c.cfg.Label)
		}
		if told > 0 {
			b.joins++
		}
		// Those who come first are told of nobody: they ask again soon.
		b.joinAt = c.now.Add(c.cfg.AskTimeout / 4 << min(max(b.joins-1, 0), 6))
		b.wake(b.joinAt)
	}
	c.fillMesh(b)
}

// farJoins is how many joins leave room in the mesh for near nodes.
const farJoins = 4

// fillMesh makes neighbours of candidates: first those of its rack, up to half of
// all, whose bytes cross no uplink; at most three quarters of all near, so that no
// zone is an island, and at first at most half of them far, since the near ones may
// not have come yet.
func (c *Core) fillMesh(b *blob) {
	mates, near, far := 0, 0, 0
	note := func(l Label) {
		if c.cfg.Label.near(l) {
			near++
		} else {
			far++
		}
		if c.cfg.Label.mate(l) {
			mates++
		}
	}
	for _, n := range b.neighbours {
		if !n.idle {
			note(n.p.label)
		}
	}
	for _, o := range b.candidates {
		if p := c.peers.get(o.id); p != nil && p.connecting {
			note(o.label)
		}
	}
	mostFar := c.cfg.Neighbours
	if c.cfg.Label.Zone != 0 && b.joins < farJoins {
		mostFar /= 2
	}
	most := c.cfg.Neighbours
	if c.lacksNear(b) {
		most *= 2
	}
	for distance := range 3 {
		for _, o := range slices.Clone(b.candidates) {
			isNear := c.cfg.Label.near(o.label)
			switch p := c.peers.get(o.id); {
			case near+far >= most || near+far >= c.cfg.Neighbours && distance == 2:
				return
			case c.cfg.Label.distance(o.label) != distance || distance == 0 && mates >= c.cfg.Neighbours/2 || isNear && near >= c.cfg.Neighbours*3/4 || !isNear && far >= mostFar:
			case p != nil && p.connecting:
			case p != nil && p.up:
				note(o.label)
				b.dropCandidate(o.id)
				c.introduce(b, o.id)
			default:
				note(o.label)
				c.connect(o.id)
			}
		}
	}
}

func (b *blob) dropCandidate(id chunkindex.NodeID) {
	b.candidates = slices.DeleteFunc(b.candidates, func(o candidate) bool { return o.id == id })
}

// near reports whether two nodes are in one zone.
func (l Label) near(o Label) bool { return l.Zone != 0 && l.Zone == o.Zone }

// mate reports whether two nodes are in one rack.
func (l Label) mate(o Label) bool { return l.Rack != 0 && l.Rack == o.Rack }

// distance is 0 for nodes in one rack, 1 in one zone, 2 otherwise.
func (l Label) distance(o Label) int {
	switch {
	case l.mate(o):
		return 0
	case l.near(o):
		return 1
	}
	return 2
}

// heardPeers takes in who else holds or wants the blob.
func (c *Core) heardPeers(b *blob, m *Message) {
	// No member knows of more.
	b.crowd = max(b.crowd, min(m.N, maxJoiners), len(m.Peers))
	for i, id := range m.Peers {
		var label Label
		if i < len(m.Labels) {
			label = m.Labels[i]
		}
		if b.swarm != nil && id != c.cfg.Self {
			told := b.swarm.told
			c.enter(b.swarm, id, label)
			b.swarm.told = told // who told this node tells the others
		}
		switch {
		case !b.wanting() || id == c.cfg.Self || c.neighbour(b, id) != nil:
		case !c.crowded():
			c.reach(b, id)
		default:
			c.suggest(b, id, label)
		}
	}
}

// suggest makes a candidate of a node.
func (c *Core) suggest(b *blob, id chunkindex.NodeID, label Label) {
	if id == c.cfg.Self || c.neighbour(b, id) != nil || b.isCandidate(id) {
		return
	}
	if p := c.peers.get(id); p != nil && label == (Label{}) {
		label = p.label
	}
	if len(b.candidates) >= maxCandidates {
		b.candidates = slices.Delete(b.candidates, 0, 1)
	}
	b.candidates = append(b.candidates, candidate{id, label})
}

// swarm returns what this member knows of who wants b.
func (c *Core) swarm(b *blob) *swarm {
	if b.swarm == nil {
		b.swarm = &swarm{}
	}
	return b.swarm
}

// heardJoin answers a joiner with some of those who joined before, at random, and
// remembers it for those who come after.
func (c *Core) heardJoin(from chunkindex.NodeID, m *Message) {
	c.peer(from).label = m.Label
	if c.blobs[m.Blob] == nil && !c.roomFor(0) {
		c.count(CountIgnored, 1)
		return
	}
	b := c.blob(m.Blob)
	s := c.swarm(b)
	s.seen = c.now
	if reply := c.sample(s, from, m.Label); len(reply.Peers) > 0 {
		reply.Blob, reply.Size, reply.Small = b.id, b.size, b.small
		c.send(from, reply)
	}
	c.enter(s, from, m.Label)
	c.advance(b)
}

func (c *Core) enter(s *swarm, id chunkindex.NodeID, l Label) {
	for i := range s.joiners {
		if s.joiners[i].id == id {
			s.joiners[i].at = c.now
			return
		}
	}
	if len(s.joiners) >= maxJoiners {
		s.joiners = slices.Delete(s.joiners, 0, 1)
	}
	s.joiners = append(s.joiners, joiner{id, l, c.now})
	s.told++
}

// sample is a MsgPeers of joiners at random for to, and without it: up to half of
// them of its rack, of which it would hear of few otherwise.
func (c *Core) sample(s *swarm, to chunkindex.NodeID, label Label) Message {
	m := Message{Kind: MsgPeers, N: len(s.joiners)}
	order := c.rng.Perm(len(s.joiners))
	add := func(most int, wanted func(Label) bool) {
		for _, i := range order {
			if j := s.joiners[i]; j.id != to && len(m.Peers) < most && wanted(j.label) {
				m.Peers, m.Labels = append(m.Peers, j.id), append(m.Labels, j.label)
			}
		}
	}
	if label.Rack != 0 {
		add(MaxPeers/2, label.mate)
		add(MaxPeers, func(l Label) bool { return !label.mate(l) })
	} else {
		add(MaxPeers, func(Label) bool { return true })
	}
	return m
}

// gossip tells two other members, once a second while there is news, of the
// latest joiners: each of them knows its part of the crowd only.
func (c *Core) gossip(b *blob) {
	s := b.swarm
	if s == nil || s.told == 0 {
		return
	}
	if s.next == 0 {
		s.next = c.now.Add(2 * c.cfg.AskTimeout)
	}
	if !c.reached(b, s.next) {
		return
	}
	members := slices.DeleteFunc(slices.Clone(c.committee(b)), func(id chunkindex.NodeID) bool { return id == c.cfg.Self || !c.alive(id) })
	latest := s.joiners[max(0, len(s.joiners)-min(s.told, gossipSize)):]
	m := Message{Kind: MsgPeers, Blob: b.id, Size: b.size, Small: b.small, N: len(s.joiners)}
	for _, j := range latest {
		m.Peers, m.Labels = append(m.Peers, j.id), append(m.Labels, j.label)
	}
	for k, i := range c.rng.Perm(len(members)) {
		if k < 2 {
			c.send(members[i], m)
		}
	}
	s.next, s.told = 0, 0
}

// swarmTTL is how long a member remembers who wanted a blob.
const swarmTTL = 5 * time.Minute
