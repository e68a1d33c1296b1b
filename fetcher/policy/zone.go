package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// What lies between zones is slow, or paid for, and shared by all nodes of a zone. So a
// chunk that somebody near holds is asked of the near alone, and one that nobody near
// holds comes over once: of the nodes of a zone that want it, the one that ranks first
// for it asks the far, and the others wait until it has it.
//
// How many chunks come over at once follows from Little's law: as many as came in the
// last second, and a few in any case. As long as each takes less than a second, that
// becomes more; where they share a link that is full, each takes about a second, however
// slow the link is. Without a bound all of them would come late, and nobody would have
// anything to trade.
//
// Nobody says that it is on it: what is expected are Have messages, as everywhere. The
// longer a chunk has been open, the more ranks may ask for it. Whoever let the others
// wait while more came over has no say in the chunks that follow.
//
// A node without a zone, one that knows nobody near who wants the blob, and one that
// knows nobody far, decide as if there were no zones; so do all once a blob was refuted.

// zone is what a node knows of a blob in its own zone.
type zone struct {
	// seen is the set of chunks that were here or near when that was last looked at;
	// opened is when each of the others became one of those that come over, 0 not yet.
	seen   chunkindex.Bitfield
	opened []Time
	// latest are the times at which chunks came over, the last at came-1 modulo their
	// number, since is when the first was opened.
	latest [16]Time
	came   int
	since  Time
	// usual is how long they were open.
	usual times
	key   uint64
}

const (
	// leastFar is how many chunks of a blob come into a zone at once in any case.
	leastFar = 2
	// mostTurns bounds how often the time doubles until the next rank may ask.
	mostTurns = 5
	// tardyFor is how long a node that let others wait is passed over.
	tardyFor = 30 * time.Second
)

// isFar reports whether a neighbour is known to be in another zone.
func (c *Core) isFar(n *neighbour) bool {
	return c.cfg.Label.Zone != 0 && n.p.label.Zone != 0 && n.p.label.Zone != c.cfg.Label.Zone
}

// zoned reports whether b is fetched together with others of this node's zone.
func (c *Core) zoned(b *blob) bool {
	if c.cfg.Label.Zone == 0 || b.small || b.epoch > 0 || b.doubt.Count() > 0 {
		return false
	}
	near, far := false, false
	for _, n := range b.neighbours {
		far = far || c.isFar(n)
		near = near || c.isMate(n) || n.bits.Count() > 0 && c.cfg.Label.near(n.p.label) && c.aliveP(n.p)
	}
	return near && far
}

// lacksNear reports whether a node that knows some in other zones should know more in its
// own, beyond the usual number: those that the DHT names are where they are.
func (c *Core) lacksNear(b *blob) bool {
	if c.cfg.Label.Zone == 0 || b.active() >= 2*c.cfg.Neighbours {
		return false
	}
	near, far := 0, false
	for _, n := range b.neighbours {
		far = far || c.isFar(n)
		if c.cfg.Label.near(n.p.label) {
			near++
		}
	}
	return far && near < c.cfg.Neighbours*3/4
}

// isMate reports whether a neighbour is near, wants the blob and can be expected to
// take its turn.
func (c *Core) isMate(n *neighbour) bool {
	return n.b.wants(n) && c.cfg.Label.near(n.p.label) && c.aliveP(n.p) && n.tardy <= c.now
}

// withhold takes those chunks out of a set that are not for this node to ask of the
// far. It makes c.far the set of those that are, and c.held back the others.
func (c *Core) withhold(b *blob, w *chunkindex.Bitfield) {
	c.byZone = c.zoned(b)
	if !c.byZone {
		return
	}
	c.lookAround(b)
	far, z := &c.far, b.zone
	far.Reset(b.n)
	most := leastFar + z.aSecond(c.now)
	open := 0
	for i := z.seen.NextClear(0); i >= 0 && open < most; i = z.seen.NextClear(i + 1) {
		if b.avail[i] == 0 || !b.whole && !b.wanted(i, c.cfg.ReadAhead) {
			continue
		}
		open++
		if z.opened[i] == 0 {
			z.opened[i] = c.now
		}
		if w.Has(i) && c.mayAskFar(b, i) {
			far.Set(i)
		}
	}
	for _, r := range b.readers {
		// A client's patience ends politeness.
		if i, waiting := b.head(r); waiting && w.Has(i) && !far.Has(i) && c.reached(b, r.since.Add(c.cfg.Patience)) {
			far.Set(i)
		}
	}
	c.others.Reset(b.n)
	c.others.Union(*w)
	c.others.Subtract(z.seen)
	c.others.Subtract(*far)
	w.Subtract(c.others)
}

// lookAround takes in which chunks have come into the zone.
func (c *Core) lookAround(b *blob) {
	z := b.zone
	if z == nil {
		z = &zone{opened: make([]Time, b.n), since: c.now, key: zoneKey(b.id)}
		z.seen.Reset(b.n)
		b.zone = z
	}
	here := &c.others
	here.Reset(b.n)
	here.Union(b.have)
	for _, n := range b.neighbours {
		if c.cfg.Label.near(n.p.label) && c.usable(b, n) {
			here.Union(n.bits)
		}
	}
	for i := here.Next(0); i >= 0; i = here.Next(i + 1) {
		if !z.seen.Has(i) && z.opened[i] != 0 {
			_, length := b.layout.Chunk(i)
			z.usual.add(c.now-z.opened[i], length)
			z.opened[i] = 0
			z.latest[z.came%len(z.latest)] = c.now
			z.came++
		}
	}
	z.seen.Reset(b.n)
	z.seen.Union(*here)
}

// aSecond is how many chunks come over in a second, by the latest of them, and at most
// as many as came in all.
func (z *zone) aSecond(now Time) int {
	since := z.since
	if z.came >= len(z.latest) {
		since = z.latest[z.came%len(z.latest)]
	}
	known := min(z.came, len(z.latest))
	return int(min(int64(known)*int64(time.Second)/max(int64(now-since), 1), int64(z.came)))
}

// turn is how long the first in rank is waited for: three times as long as usual.
func (c *Core) turn(b *blob, i int) time.Duration {
	_, length := b.layout.Chunk(i)
	usual := b.zone.usual.median(length)
	if usual == 0 {
		return c.cfg.Standstill
	}
	return min(max(3*usual, c.cfg.TransferStall), c.cfg.Patience/2)
}

// mayAskFar reports whether it is for this node to ask the far for chunk i, which has
// been open for a while.
func (c *Core) mayAskFar(b *blob, i int) bool {
	own := b.zone.score(&c.cfg.Self, i)
	before, first := 0, own
	var mate *neighbour
	for _, n := range b.neighbours {
		if c.isMate(n) {
			if s := b.zone.score(&n.p.id, i); s > own {
				before++
				if s > first {
					first, mate = s, n
				}
			}
		}
	}
	for _, o := range b.candidates {
		// Not all of a large zone are neighbours; what the others fetch comes over
		// some that are.
		if c.cfg.Label.near(o.label) && c.neighbour(b, o.id) == nil && b.zone.score(&o.id, i) > own {
			before++
		}
	}
	if before == 0 {
		return true
	}
	if mate != nil {
		c.watch(b, mate.p.id, b.zone.opened[i])
	}
	return c.reached(b, b.zone.opened[i].Add(c.turn(b, i)*(1<<min(before, mostTurns)-1)))
}

// takeTurn notes that this node asks the far for chunk i. Those who come before it and
// were not on time, while others were, have no say for a while.
func (c *Core) takeTurn(b *blob, i int) {
	z := b.zone
	if z.opened[i] == 0 || z.came == 0 || z.latest[(z.came-1)%len(z.latest)] <= z.opened[i] || c.turn(b, i) >= c.cfg.Patience/2 {
		return
	}
	own := z.score(&c.cfg.Self, i)
	for _, n := range b.neighbours {
		if c.isMate(n) && z.score(&n.p.id, i) > own {
			n.own().tardy = c.now.Add(tardyFor)
		}
	}
}

// offer adds to c.within what a neighbour in another zone may be asked for.
func (c *Core) offer(n *neighbour) {
	for i := c.far.Next(0); i >= 0; i = c.far.Next(i + 1) {
		if n.bits.Has(i) {
			c.within.Set(i)
		}
	}
}

func zoneKey(d digest.Digest) uint64 {
	sum := sha256.Sum256([]byte(d))
	return binary.BigEndian.Uint64(sum[:8])
}

// score ranks the nodes of a zone for a chunk: rendezvous hashing, with the finalizer
// of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
// generators", 2014) for a hash, as IDs and digests are hashes themselves.
func (z *zone) score(id *chunkindex.NodeID, i int) uint64 {
	h := binary.BigEndian.Uint64(id[:8]) ^ (z.key + uint64(i)*0x9e3779b97f4a7c15)
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
