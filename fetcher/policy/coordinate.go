package policy

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
)

// reading is a run that was read from the origin by run.by.
type reading struct {
	run
	// gone: when that node was found to be, 0 if it is not.
	gone Time
	// at is when the latest of it was read.
	at Time
}

// coordinator is the state of the node that ranks first for a blob: who wants
// what from the origin, and who has been told to read it. It keeps no lease: a
// grant lasts until its chunks are there, its holder gives it back, or its
// holder is gone.
//
// A node that is asked although it knows of a better one, because the asker
// cannot reach that one, relays: it adds the wish to its own and hands out what it
// is granted. So there is one coordinator, as long as any chain of nodes leads
// to it; each link of the chain leads to a better rank, so that it has an end.
type coordinator struct {
	askers []*asker
	byID   map[chunkindex.NodeID]*asker
	stuck  int // how many of the askers are
	grants []*grant
	// settled: it is known what exists already; nothing is granted before. asked is when
	// somebody last asked.
	settled bool
	asked   Time
	// known holds what was read by grantees, for those that are not neighbours.
	known chunkindex.Bitfield
	// taken holds what was asked for by nodes that said since that they want nothing any
	// more: mostly they have it.
	taken chunkindex.Bitfield
	// wishes holds what any of the askers wants, and may hold more.
	wishes chunkindex.Bitfield
	// readBy says who read what is known.
	readBy []reading
	// epoch is the latest under which somebody asked, known is of since then, old
	// holds what somebody had by then.
	epoch int
	old   chunkindex.Bitfield
	// relayed are runs that a better coordinator granted for the askers here.
	relayed []run
	// until: nothing is granted before then, since the origin asked to be left alone,
	// or failed one grantee after the other: then each of the latest grants, of which
	// there were failed; pauses counts how often it was waited for.
	// prober is the latest of those, if it is to look once more.
	until          Time
	failed, pauses int
	prober         chunkindex.NodeID
	checkAt        Time // when askers are next asked whether they are still there
	// elsewhere is when a chunk last appeared that was not granted here, waits since
	// when chunk waitsFor is left to another coordinator.
	elsewhere, waits Time
	waitsFor         int
	width            width
}

// leavesItHere reports whether a member itself asks this node, which ranks better: where
// views differ, a node that is no member by its own may be the first by another's.
func (c *Core) leavesItHere(b *blob, id chunkindex.NodeID) bool {
	return b.coord != nil && b.coord.byID[id] != nil && !c.better(b, id)
}

// above is the member that should be asked rather than this node, zero if there
// is none.
func (c *Core) above(b *blob) chunkindex.NodeID {
	for _, id := range c.committee(b) {
		if c.unsure(b) || id == c.cfg.Self || c.leavesItHere(b, id) {
			break
		}
		if !slices.Contains(b.passed, id) && c.answers(b, id) {
			return id
		}
	}
	return chunkindex.NodeID{}
}

// appeared notes that chunks have just come to a node: whoever found nobody to
// serve them has somebody now, and asks again if not. It reports whether the
// node was granted them.
func (b *blob) appeared(at chunkindex.NodeID, first, end int, now Time) (granted bool) {
	k := b.coord
	if k == nil {
		return false
	}
	for _, g := range k.grants {
		if g.to != at || end <= g.first || g.end <= first {
			continue
		}
		granted = true
		for i := max(first, g.first); i < min(end, g.end); i++ {
			if k.know(i, at, now) && i >= headChunks { // those of the head come one by one
				_, n := b.chunkBytes(i)
				k.width.bytes += n
			}
			k.failed, k.pauses = 0, 0
		}
	}
	if a := k.byID[at]; a != nil {
		a.got(first, end)
	}
	if k.stuck > 0 {
		for _, a := range k.askers {
			if a.stuck {
				a.got(first, end)
			}
		}
	}
	return granted
}

// know notes that a node read chunk i. It reports whether that is news.
func (k *coordinator) know(i int, by chunkindex.NodeID, now Time) bool {
	if !k.known.Set(i) {
		return false
	}
	for j := range k.readBy {
		if r := &k.readBy[j]; r.by == by && r.end == i && r.gone == 0 {
			r.end++
			r.at = now
			return true
		}
	}
	k.readBy = append(k.readBy, reading{run{i, i + 1, by}, 0, now})
	return true
}

// readSince reports whether a grantee that is still there read chunk i later than that.
func (k *coordinator) readSince(i int, since Time) bool {
	return slices.ContainsFunc(k.readBy, func(r reading) bool {
		return r.first <= i && i < r.end && r.gone == 0 && r.at > since
	})
}

// regrants drops what is known of chunks that are granted anew.
func (k *coordinator) regrants(first, end int) {
	for i := first; i < end; i++ {
		k.known.Clear(i)
		k.taken.Clear(i)
	}
	kept := k.readBy[:0:0]
	for _, r := range k.readBy {
		if r.first < first {
			kept = append(kept, reading{run{r.first, min(r.end, first), r.by}, r.gone, r.at})
		}
		if r.end > end {
			kept = append(kept, reading{run{max(r.first, end), r.end, r.by}, r.gone, r.at})
		}
	}
	k.readBy = kept
}

// readerGone notes that a node is gone with what it read.
func (k *coordinator) readerGone(id chunkindex.NodeID, now Time) {
	if k == nil {
		return
	}
	for j := range k.readBy {
		if r := &k.readBy[j]; r.by == id && r.gone == 0 {
			r.gone = max(now, 1)
		}
	}
}

// forgetLost drops what is known only because a node read it that has been gone for
// a moment: by now some neighbour has what it passed on in time, or an asker stopped
// asking for it, since it holds it or knows who does, and the rest is
// lost and must be granted again. Where the blob was refuted, it is not told apart
// who has which version, and the askers' patience decides.
func (c *Core) forgetLost(b *blob) {
	k := b.coord
	if k.epoch > 0 {
		return
	}
	k.readBy = slices.DeleteFunc(k.readBy, func(r reading) bool {
		if r.gone == 0 || !c.reached(b, r.gone.Add(c.cfg.AskTimeout)) {
			return false
		}
		for i := r.first; i < r.end; i++ {
			if !c.passedOn(k, i) {
				k.known.Clear(i)
			}
		}
		return true
	})
}

// passedOn reports whether an asker once asked for chunk i and does not any more, be it
// that it has all. Whoever loses sight of a chunk asks again at once, so that the latest
// wish is what counts.
func (c *Core) passedOn(k *coordinator, i int) bool {
	return k.taken.Has(i) || slices.ContainsFunc(k.askers, func(a *asker) bool { return a.ever.Has(i) && !a.want.Has(i) && c.alive(a.id) })
}

// leaves notes that a node wants nothing any more.
func (k *coordinator) leaves(id chunkindex.NodeID) {
	if k == nil {
		return
	}
	if a := k.byID[id]; a != nil {
		k.taken.Union(a.ever)
	}
}

// tookOver reports whether a better-ranked member is gone: in a large cluster, those
// who read what it granted say so to the next one, which gives them the time.
func (c *Core) tookOver(b *blob) bool {
	return c.crowded() && slices.ContainsFunc(b.missed, func(id chunkindex.NodeID) bool { return c.better(b, id) })
}

// tellGrants makes a neighbour of the coordinator, in a large cluster, where the one
// that granted what is read here is gone: the next one knows of no grant.
func (c *Core) tellGrants(b *blob) {
	if !c.crowded() || !slices.ContainsFunc(b.grantors, func(r run) bool { return r.by != c.cfg.Self && !c.isUp(r.by) }) {
		return
	}
	if to := c.above(b); c.isUp(to) {
		c.introduce(b, to)
	}
}

// longAlone is for how many standstills nobody asks before a coordinator looks around
// again.
const longAlone = 3

// survey asks the neighbours anew what they hold and what they are reading: what
// they said before may be older than the grants of a coordinator that is gone. In
// a large cluster those are asked who would know: the next two in rank, and the DHT,
// which may name by now who had nothing when it was last asked.
func (c *Core) survey(b *blob) {
	if c.crowded() && c.now >= b.lookedAt.Add(longAlone*c.cfg.Standstill) {
		b.lookedAt = 0
	}
	if b.introducedAt == 0 {
		c.introduceAll(b)
	} else {
		c.lookup(b)
		b.introducedAt = max(c.now, 1)
		for _, n := range b.neighbours {
			n.introduced, n.replied = true, false
			c.sendState(b, n, true)
		}
	}
	if c.crowded() {
		asked := 0
		for _, id := range c.committee(b) {
			if id != c.cfg.Self && asked < 2 {
				asked++
				c.reach(b, id)
			}
		}
	}
}

// coordinate grants what is missing to those that want it, the lowest stripes
// first, so many at once as the origin gives more bytes a second for.
func (c *Core) coordinate(b *blob) {
	if b.coord == nil || !b.layoutSet() || b.opening || b.partial && !b.isOpen {
		return
	}
	for _, g := range slices.Clone(b.coord.grants) {
		if c.granteeHas(b, g) {
			b.coord.drop(g)
			b.coord.width.finished++
			if !g.via.IsZero() && !b.holds(g.run) {
				c.giveBack(b, run{g.first, g.end, g.via}, 200, 0)
			}
		} else if !c.watch(b, g.to, g.at) {
			c.dropAsker(b, g.to)
		} else if n := c.neighbour(b, g.to); n != nil && n.faults >= corruptFault && b.avoid[n.place] > c.now {
			// What it reads is worth nothing to the others.
			c.takeBack(b, run{g.first, g.end, g.to}, statusLater, 0, 0)
		}
	}
	if !b.wanting() {
		c.dropAsker(b, c.cfg.Self)
	}
	c.checkAskers(b)
	c.forgetLost(b)
	if len(b.coord.askers) == 0 {
		for _, r := range b.coord.relayed {
			c.giveBack(b, r, 0, 0)
		}
		b.coord.relayed = nil
		if !c.crowded() || b.coord.known.Count() == 0 {
			b.coord = nil
		} // else nobody but this node may know who read what, until closeIdle forgets it
		return
	}
	if !b.coord.settled && (!c.settled(b) || (b.apart || c.tookOver(b)) && !c.reached(b, b.introducedAt.Add(c.cfg.SettleTimeout))) {
		return
	}
	b.coord.settled = true
	c.handOn(b)
	if !c.above(b).IsZero() || !c.reached(b, b.coord.until) {
		return
	}
	for len(b.coord.grants) < c.stripesAtOnce(b) {
		a, r := c.nextGrant(b, run{0, b.n, chunkindex.NodeID{}})
		if a == nil || b.apart && c.grantedElsewhere(b, r.first) {
			return
		}
		c.grant(b, a, r, chunkindex.NodeID{})
	}
}

// handOn gives the askers what a better coordinator granted for them.
func (c *Core) handOn(b *blob) {
	runs := b.coord.relayed
	b.coord.relayed = nil
	for _, r := range runs {
		for i := r.first; i < r.end; {
			a, part := c.nextGrant(b, run{i, r.end, r.by})
			if a == nil {
				c.giveBack(b, run{i, r.end, r.by}, statusLater, 0)
				break
			}
			if part.first > i {
				c.giveBack(b, run{i, part.first, r.by}, statusLater, 0)
			}
			c.grant(b, a, part, r.by)
			i = part.end
		}
	}
}

// stripesAtOnce is how many stripes may be at the origin now: one until a chunk
// came, since the origin may ignore ranges, and one as long as it fails.
func (c *Core) stripesAtOnce(b *blob) int {
	if b.progress == 0 || b.coord.failing() {
		return 1
	}
	return b.coord.width.adapt(c.now, c.cfg.StripesInFlight, c.cfg.MaxStripes, b.layout.ChunkLength())
}
