package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

type grant struct {
	run
	to    chunkindex.NodeID
	at    Time
	epoch int
	// via is who granted the run to this node, where it is relayed.
	via chunkindex.NodeID
}

func (k *coordinator) drop(g *grant) {
	k.grants = slices.DeleteFunc(k.grants, func(o *grant) bool { return o == g })
}

// granteeHas reports whether all chunks of a grant are where they were to go.
func (c *Core) granteeHas(b *blob, g *grant) bool {
	has := b.have
	if g.to != c.cfg.Self {
		if n := c.neighbour(b, g.to); n != nil && (n.epoch >= g.epoch || !b.wants(n)) {
			has = n.bits
		} else if n == nil && c.isUp(g.to) {
			has = b.coord.known
		} else {
			return false
		}
	}
	next := has.NextClear(g.first)
	return next < 0 || next >= g.end
}

// exists reports whether somebody holds chunk i or is getting it from the origin.
// For an asker to whom the blob was refuted only what was read since counts, of
// chunks that were there before: it asks for them because it does not believe who
// holds them.
func (c *Core) exists(b *blob, i int, a *asker) bool {
	doubted := a.epoch > 0 && b.coord.old.Has(i)
	if b.busy[i]&(byOrigin|byStore) != 0 || !doubted && b.have.Has(i) {
		return true
	}
	for _, g := range b.coord.grants {
		if g.first <= i && i < g.end && g.epoch >= a.epoch && !c.brought(b, g, i) {
			return true
		}
	}
	if b.coord.known.Has(i) && !a.stuck && (doubted || c.crowded()) {
		return true
	}
	if a.stuck && b.coord.readSince(i, c.now.Add(-c.standstill())) {
		// It was read for those that are stuck, and this one asked before it could hear.
		return true
	}
	for k, n := range b.neighbours {
		if !doubted && n.bits.Has(i) && !a.stuck && c.usable(b, n) ||
			n.inFlight.Has(i) && (!doubted || n.epoch >= a.epoch) && b.seats[k].alive && c.reached(b, b.avoid[k]) && !b.isLiar(n.p.id) {
			return true
		}
	}
	return false
}

// findExisting makes c.existing the set of chunks that exist, as exists has it, for
// an asker that is not stuck, while nobody has seen a refutation.
func (c *Core) findExisting(b *blob) {
	e := &c.existing
	e.Reset(b.n)
	e.Union(b.have)
	for i, a := range b.busy {
		if a&(byOrigin|byStore) != 0 {
			e.Set(i)
		}
	}
	for _, g := range b.coord.grants {
		for i := g.first; i < g.end; i++ {
			if !c.brought(b, g, i) {
				e.Set(i)
			}
		}
	}
	if c.crowded() {
		e.Union(b.coord.known)
	}
	for k, n := range b.neighbours {
		if c.usable(b, n) {
			e.Union(n.bits)
		}
		if n.inFlight.Count() > 0 && b.seats[k].alive && c.reached(b, b.avoid[k]) {
			e.Union(n.inFlight)
		}
	}
}

// lacks is what an asker wants that does not exist, after findExisting. The set is
// good until the next call.
func (c *Core) lacks(b *blob, a *asker) chunkindex.Bitfield {
	c.unmet.Reset(b.n)
	c.unmet.Union(a.want)
	if b.epoch == 0 && a.epoch == 0 && !a.stuck {
		c.unmet.Subtract(c.existing)
		return c.unmet
	}
	for i := a.want.Next(0); i >= 0; i = a.want.Next(i + 1) {
		if c.exists(b, i, a) {
			c.unmet.Clear(i)
		}
	}
	return c.unmet
}

// isWithout reports whether an asker wants chunk i and it does not exist for it, after
// findExisting.
func (c *Core) isWithout(b *blob, a *asker, i int) bool {
	if b.epoch == 0 && a.epoch == 0 && !a.stuck {
		return a.want.Has(i) && !c.existing.Has(i)
	}
	return a.want.Has(i) && !c.exists(b, i, a)
}

// brought reports whether a grantee has read chunk i already, so that whether it
// exists depends on whether the grantee can be asked for it.
func (c *Core) brought(b *blob, g *grant, i int) bool {
	n := c.neighbour(b, g.to)
	return n != nil && n.bits.Has(i)
}

// grantedElsewhere reports whether another node, which this one cannot reach, seems to
// coordinate for those who can: what was not granted here is read, or appears. Then
// chunk i, the lowest that askers here lack, will come without a grant from here; if
// it does not within Config.Standstill, nobody there wants it.
func (c *Core) grantedElsewhere(b *blob, i int) bool {
	k := b.coord
	if k.waitsFor != i || k.waits == 0 {
		k.waitsFor, k.waits = i, max(c.now, 1)
	}
	if c.reached(b, k.waits.Add(c.cfg.Standstill)) {
		return false
	}
	if k.elsewhere != 0 && !c.reached(b, k.elsewhere.Add(c.cfg.AskTimeout)) {
		return true
	}
	for _, n := range b.neighbours {
		if !c.aliveP(n.p) {
			continue
		}
		for i := n.inFlight.Next(0); i >= 0; i = n.inFlight.Next(i + 1) {
			if !slices.ContainsFunc(k.grants, func(g *grant) bool { return g.to == n.p.id && g.first <= i && i < g.end }) {
				return true
			}
		}
	}
	return false
}

func (c *Core) grant(b *blob, a *asker, r run, via chunkindex.NodeID) {
	c.count(CountGrant, 1)
	b.coord.grants = append(b.coord.grants, &grant{run: r, to: a.id, at: c.now, epoch: a.epoch, via: via})
	b.coord.regrants(r.first, r.end)
	if n := c.neighbour(b, a.id); n != nil && a.epoch == 0 {
		// Who asks for chunks does not hold them, whatever it said: if it did, the grant
		// would seem to be carried out, and the next asker be granted the same.
		for i := r.first; i < r.end; i++ {
			b.clearBit(n, i)
		}
	}
	if a.id == c.cfg.Self {
		b.grants = append(b.grants, run{r.first, r.end, c.cfg.Self})
		return
	}
	c.send(a.id, Message{Kind: MsgGrant, Blob: b.id, Size: b.size, Small: b.small,
		Chunk: r.first, N: r.end - r.first, Epoch: a.epoch})
	c.watch(b, a.id, c.now)
}

// nextGrant chooses the lowest run within a stripe and within limits that nobody
// has, and among those who lack it the one with the fewest grants. Those to whom the
// blob was refuted come first: what is read for them counts for the others too, while what
// is read for others does not count for them. Nobody is granted what exists for it,
// because it does not exist for another: that one would lack it still.
func (c *Core) nextGrant(b *blob, within run) (*asker, run) {
	c.findExisting(b)
	low := c.lowestLacked(b, within)
	if low < 0 {
		return nil, run{}
	}
	var best *asker
	fewest, ties := 0, 0
	for _, a := range b.coord.askers {
		if !c.mayRead(b, a) || !c.isWithout(b, a, low) {
			continue
		}
		n := b.coord.granted(a)
		if n >= c.readsEach(b) {
			continue
		}
		if b.coord.failing() && a.id == b.coord.prober {
			best = a
			break
		}
		switch {
		case best == nil || a.epoch > best.epoch || a.epoch == best.epoch && n < fewest:
			best, fewest, ties = a, n, 1
		case a.epoch == best.epoch && n == fewest:
			if ties++; c.rng.IntN(ties) == 0 {
				best = a
			}
		}
	}
	r := run{low, low + 1, c.cfg.Self}
	end := min(b.stripeEnd(low), within.end)
	if len(b.coord.askers) > 1 && within.end == b.n {
		// The last runs get shorter, so that all of them end at about the same time:
		// each of k that ask takes a k-th of the rest (Polychronopoulos and Kuck,
		// "Guided self-scheduling", 1987).
		if !b.coord.width.found {
			end = min(end, low+startRun)
		}
		rest, k := c.lacks(b, best).CountIn(low, b.n), max(b.coord.width.now, 1)
		end = min(end, low+max(leastRun, (rest+k-1)/k))
	}
	for r.end < end && best.want.Has(r.end) && !c.exists(b, r.end, best) {
		r.end++
	}
	return best, r
}

// lowestLacked is the lowest chunk within limits that somebody lacks who may read it, after
// findExisting; -1 if there is none.
func (c *Core) lowestLacked(b *blob, within run) int {
	k := b.coord
	// Where nothing is in doubt and nobody stuck, what does not exist does not for all. Then
	// not every asker of thousands need be looked at each time that one says something.
	peace := b.epoch == 0 && k.epoch == 0 && k.stuck == 0
	first := -1
	if peace {
		if first = k.wishes.NextBeyond(c.existing, within.first); first < 0 || first >= within.end {
			return -1
		}
		c.wishes.Reset(b.n)
	}
	low := -1
	for _, a := range k.askers {
		var i int
		if peace {
			i = a.want.NextBeyond(c.existing, within.first)
			c.wishes.Union(a.want)
		} else {
			i = c.lacks(b, a).Next(within.first)
		}
		if i < 0 || i >= within.end || low >= 0 && i >= low {
			continue
		}
		if c.mayRead(b, a) && k.granted(a) < c.readsEach(b) {
			if low = i; peace && low == first {
				return low
			}
		}
	}
	if peace {
		k.wishes.Reset(b.n)
		k.wishes.Union(c.wishes)
	}
	return low
}

// leastRun is how many chunks a run has at least, where so many are left.
const leastRun = 4

// granted counts the grants that a node holds.
func (k *coordinator) granted(a *asker) int {
	n := 0
	for _, g := range k.grants {
		if g.to == a.id {
			n++
		}
	}
	return n
}

// readsEach is how many stripes one node may read at once: more if it is the only
// one that wants them.
func (c *Core) readsEach(b *blob) int {
	if len(b.coord.askers) == 1 {
		return c.cfg.LoneReads
	}
	return c.cfg.SharedReads
}

// mayRead reports whether a node may be told to read now: not one that the origin
// refuses, nor one that does not serve what it has.
func (c *Core) mayRead(b *blob, a *asker) bool {
	if n := c.neighbour(b, a.id); n != nil && !c.reached(b, b.avoid[n.place]) {
		return false
	}
	return !a.refused && c.alive(a.id) && !b.isLiar(a.id) && c.reached(b, a.until)
}

// heardGiveBack takes back a grant.
func (c *Core) heardGiveBack(b *blob, from chunkindex.NodeID, m *Message) {
	if b.coord != nil && m.N > 0 {
		c.takeBack(b, run{m.Chunk, min(m.Chunk+m.N, b.n), from}, m.Status, m.Wait, m.Origin)
	}
}

// takeBack takes back the grant of a run to r.by, if there is one.
func (c *Core) takeBack(b *blob, r run, status int, wait time.Duration, origin Origin) {
	granted := false
	for _, g := range slices.Clone(b.coord.grants) {
		if g.to != r.by || r.first < g.first || r.first >= g.end {
			continue
		}
		granted = true
		b.coord.drop(g)
		if !g.via.IsZero() && status != 200 {
			b.coord.relayed = append(b.coord.relayed, run{r.first, g.end, g.via})
		}
	}
	if !granted {
		return // anybody can say so
	}
	if status == 200 {
		for i := r.first; i < r.end; i++ {
			b.coord.know(i, r.by, c.now)
		}
		if a := b.coord.byID[r.by]; a != nil {
			a.got(r.first, r.end)
		}
		return
	}
	if a := b.coord.byID[r.by]; a != nil && status == 0 {
		// It no longer wants what it asked for; without this, the same grant would
		// go back and forth for ever.
		a.got(r.first, r.end)
	} else if a != nil {
		c.count(CountRegrant, 1)
		switch {
		case permanent(status):
			a.refused = true
		case status == statusLater:
			a.until = c.now.Add(c.cfg.RetryOrigin)
		default:
			a.until = c.now.Add(c.cfg.RetryOrigin << min(a.fails, 4))
			a.fails++
			c.grantFailed(b, r.by)
		}
	}
	if wait > 0 && patient(status) {
		c.coolDown(b, r.by, status, wait, origin)
	}
}
