package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// asking is this node's standing request to a coordinator.
type asking struct {
	to   chunkindex.NodeID
	at   Time
	sent Time
	bits chunkindex.Bitfield
	// bare is the set of those chunks that nobody known here held when they were last
	// asked for.
	bare chunkindex.Bitfield
	// repeats counts how often the same was asked while chunks came.
	repeats int
	// until: it said that nothing is granted before then, since the origin fails.
	until Time
	// checked is when there was last nothing new to ask for, 0 if that must be
	// looked at again.
	checked Time
}

// askPause is how long it is not looked at again what is missing, after all of it was
// asked for: most of what happens in a swarm only makes it less.
const askPause = 20 * time.Millisecond

// fetchOrigin reads from the origin what this node may read, and asks the
// coordinator for what nobody has.
func (c *Core) fetchOrigin(b *blob) {
	c.dropNeedless(b)
	c.readGrants(b)
	if !b.wanting() {
		c.relay(b, chunkindex.Bitfield{})
		return
	}
	c.tellGrants(b)
	if b.coord == nil && b.ask.checked != 0 && !c.reached(b, b.ask.checked.Add(askPause)) {
		return
	}
	b.ask.checked = 0
	c.remind(b)
	c.hedge(b)
	need, some := c.missing(b)
	if !some && b.coord != nil {
		if a := b.coord.byID[c.cfg.Self]; a != nil {
			a.want.Reset(b.n)
		}
	}
	if !some || c.usableSource(b) == nil {
		b.ask.checked = c.now
		c.relay(b, chunkindex.Bitfield{})
		return
	}
	if len(c.up) == 0 || b.epoch > aloneAfter {
		// Nobody to ask; or those who would be asked were wrong too often.
		c.readAlone(b, need)
		return
	}
	c.introduceAll(b)
	if b.looking && len(b.closest) == 0 || c.awaitsProviders(b) {
		return
	}
	switch {
	case c.relay(b, need):
	case b.coord != nil || slices.Contains(c.committee(b), c.cfg.Self):
		b.ask = asking{}
		c.takeAsk(b, c.cfg.Self, need.Clone(), b.epoch, len(b.live) > 0)
		c.coordinate(b)
		c.readGrants(b)
	default:
		// Every member is gone, and this node is not one of them.
		c.readAlone(b, need)
	}
}

// aloneAfter is the epoch after which a node trusts nobody but the origin, and
// reads a blob that was refuted for itself.
const aloneAfter = 2

// relay asks the coordinator for what this node needs, and for what those want who
// asked this node because they cannot reach the coordinator. It reports false if
// there is none better than this node.
func (c *Core) relay(b *blob, need chunkindex.Bitfield) bool {
	if need.Len() == 0 && b.coord == nil {
		return false
	}
	to := c.above(b)
	for !to.IsZero() {
		if b.ask.to != to {
			b.ask = asking{to: to, at: c.now}
		}
		if !c.isUp(to) {
			return true // it is being connected to
		}
		if !c.reached(b, b.ask.until) {
			b.ask.checked = c.now
			return true
		}
		since := b.ask.at
		if len(b.live) > 0 && c.now < b.progress.Add(2*c.cfg.AskTimeout) {
			// A crowd that has enough to trade need not ask it twice a second, each of them,
			// whether it is there.
			since = max(since, c.peers.get(to).heard.Add(fedPatience*c.cfg.AskTimeout))
		}
		if c.watch(b, to, since) {
			break
		}
		c.count(CountTakeover, 1)
		to = c.above(b)
	}
	if to.IsZero() {
		return false
	}
	if b.coord != nil {
		c.asked.Reset(b.n)
		if need.Len() > 0 {
			c.asked.Union(need)
		}
		c.findExisting(b)
		for _, a := range b.coord.askers {
			if a.id != c.cfg.Self && c.mayRead(b, a) {
				c.asked.Union(c.lacks(b, a))
			}
		}
		need = c.asked
	}
	every := 2 * c.cfg.AskTimeout
	covered := b.ask.bits.Covers(need)
	if need.Count() == 0 || covered && !c.reached(b, b.ask.sent.Add(every)) {
		b.ask.checked = c.now
		return true
	}
	// While chunks come, the coordinator need not be told each second.
	flowing := covered && c.now < b.progress.Add(every)
	if flowing && c.now < b.ask.sent.Add(every<<b.ask.repeats) {
		b.ask.checked = c.now
		b.wake(c.now.Add(every))
		return true
	}
	if flowing {
		b.ask.repeats = min(b.ask.repeats+1, maxAskRepeats)
	} else {
		b.ask.repeats = 0
	}
	b.ask.bits, b.ask.sent = need.Clone(), c.now
	if b.ask.bare.Len() != b.n {
		b.ask.bare.Reset(b.n)
	}
	b.ask.bare.Union(need)
	c.asked.Reset(b.n)
	c.asked.Union(b.ask.bits)
	c.asked.Intersect(b.offered)
	b.ask.bare.Subtract(c.asked)
	b.wake(c.now.Add(every))
	if !c.crowded() || len(b.grantors) > 0 {
		// A new coordinator must know what is being read, if not what everybody has.
		c.introduce(b, to)
	}
	c.send(to, Message{Kind: MsgAsk, Blob: b.id, Size: b.size, Small: b.small,
		Want: len(b.live) > 0, Bits: b.ask.bits.Clone(), Epoch: b.epoch, Peers: c.passedOver(b, to)})
	return true
}

const (
	maxAskRepeats = 2
	// fedPatience is for how many times Config.AskTimeout more a silent coordinator is left
	// alone by a node to which chunks come.
	fedPatience = 3
)

// passedOver lists the nodes that rank before id and do not answer: id must not
// send the asker back to them.
func (c *Core) passedOver(b *blob, id chunkindex.NodeID) []chunkindex.NodeID {
	nodes := append([]chunkindex.NodeID{id}, b.closest...)
	slices.SortFunc(nodes, chunkindex.NodeID.Compare)
	var passed []chunkindex.NodeID
	for _, n := range rank(b.id, slices.Compact(nodes)) {
		if n == id || len(passed) == MaxPeers {
			break
		}
		if !c.alive(n) || slices.Contains(b.passed, n) {
			passed = append(passed, n)
		}
	}
	return passed
}

// missing is the set of wanted chunks that are neither here nor on their way, and
// that no neighbour can serve or is reading. Who trusts nobody but the origin counts on
// no neighbour either. The set is good until the next call.
func (c *Core) missing(b *blob) (need chunkindex.Bitfield, some bool) {
	if b.epoch == 0 && b.doubt.Count() == 0 && len(b.suspects) == 0 && len(b.liars) == 0 {
		return c.missingInPeace(b)
	}
	served := &c.served
	served.Reset(b.n)
	served.Union(b.have)
	for k, n := range b.neighbours {
		if b.epoch > aloneAfter {
			break // see fetchPeers
		}
		if c.usable(b, n) && c.reached(b, b.shy[k]) {
			served.Union(n.bits)
		}
		if n.inFlight.Count() > 0 && b.seats[k].alive && c.reached(b, b.avoid[k]) && c.watch(b, n.p.id, b.progress.Add(2*c.cfg.AskTimeout)) {
			served.Union(n.inFlight)
		}
	}
	if b.doubt.Count() > 0 || len(b.suspects) > 0 {
		for i := b.have.NextClear(0); i >= 0; i = b.have.NextClear(i + 1) {
			if served.Has(i) && !c.servable(b, i) && !c.inFlightAt(b, i) {
				served.Clear(i)
			}
		}
	}
	c.need.Reset(b.n)
	for i := served.NextClear(0); i >= 0; i = served.NextClear(i + 1) {
		if b.busy[i] == 0 && b.wanted(i, c.cfg.ReadAhead) && !b.granted(i) {
			c.need.Set(i)
		}
	}
	return c.need, c.need.Count() > 0
}

// missingInPeace is missing where nothing was ever in doubt, as it almost always is: each
// neighbour that is alive and not passed over counts with all that it says to have. What
// more neighbours have than there are others, one of them has, whoever that is.
func (c *Core) missingInPeace(b *blob) (need chunkindex.Bitfield, some bool) {
	left := &c.need
	left.Reset(b.n)
	left.Complement(b.taken)
	others := 0
	for k := range b.seats {
		if !b.seats[k].alive || c.now < b.wary && (!c.reached(b, b.avoid[k]) || !c.reached(b, b.shy[k])) {
			others++
		}
	}
	if others == 0 {
		left.Subtract(b.offered)
	} else {
		for i := left.Next(0); i >= 0; i = left.Next(i + 1) {
			if int(b.avail[i]) > others {
				left.Clear(i)
			}
		}
		for k := 0; k < len(b.seats) && left.Intersects(b.offered); k++ {
			if b.seats[k].alive && b.avoid[k] <= c.now && b.shy[k] <= c.now {
				left.Subtract(b.neighbours[k].bits)
			}
		}
	}
	for k := 0; k < len(b.seats) && left.Intersects(b.reported); k++ {
		s := &b.seats[k]
		if !s.reads || !s.alive || b.avoid[k] > c.now {
			continue
		}
		n := b.neighbours[k]
		if s.reads = n.inFlight.Count() > 0; s.reads && left.Intersects(n.inFlight) && c.watch(b, n.p.id, b.progress.Add(2*c.cfg.AskTimeout)) {
			// Where nothing comes it may hang, and nobody would see: all may be waiting for its
			// word alone, and have asked it for nothing.
			left.Subtract(n.inFlight)
		}
	}
	if b.whole && len(b.grants) == 0 {
		return *left, left.Count() > 0
	}
	for i := left.Next(0); i >= 0; i = left.Next(i + 1) {
		if !b.wanted(i, c.cfg.ReadAhead) || b.granted(i) {
			left.Clear(i)
		}
	}
	return *left, left.Count() > 0
}
