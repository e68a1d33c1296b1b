package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

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
	// settled: it is known what exists already; nothing is granted before.
	settled bool
	// known holds what was read by grantees, for those that are not neighbours.
	known chunkindex.Bitfield
	// epoch is the latest under which somebody asked, known is of since then, old
	// holds what somebody had by then.
	epoch int
	old   chunkindex.Bitfield
	// relayed are runs that a better coordinator granted for the askers here.
	relayed []run
	// until: the origin asked to be left alone, and answered status.
	until   Time
	status  int
	checkAt Time // when askers are next asked whether they are still there
	// elsewhere is when a chunk last appeared that was not granted here, waits since
	// when chunk waitsFor is left to another coordinator.
	elsewhere, waits Time
	waitsFor         int
	width            width
}

type asker struct {
	id    chunkindex.NodeID
	want  chunkindex.Bitfield
	asked int // chunks, the last time
	epoch int
	// refused: the origin will not give it the blob.
	refused bool
	// until: it failed, and is passed over before then.
	until Time
	fails int
	// low is the lowest chunk that it asked for, since when it did, and for no fewer
	// chunks; stuck: it went on so, so that whoever says to hold it does not serve
	// it.
	low   int
	since Time
	stuck bool
	// checked is when it was last asked whether it still wants the blob,
	// answered whether it said so since.
	checked  Time
	answered bool
}

type grant struct {
	run
	to    chunkindex.NodeID
	at    Time
	epoch int
	// via is who granted the run to this node, where it is relayed.
	via chunkindex.NodeID
}

// maxCoordinated bounds the blobs that peers can make this node keep state for,
// beside those that its own clients read, and maxStrangeChunks their chunks: some
// bytes are kept for each.
const (
	maxCoordinated   = 256
	maxStrangeChunks = 1 << 20
)

// roomFor reports whether state for one more blob of so many chunks may be kept for
// the sake of others. It makes room by forgetting who wanted what longest ago.
func (c *Core) roomFor(chunks int) bool {
	for {
		kept := 0
		var idle *blob
		for _, b := range c.order {
			if b.wanting() {
				continue
			}
			kept += b.n
			if idle == nil && b.coord == nil && len(b.readers) == 0 {
				idle = b
			}
		}
		switch {
		case len(c.order) < maxCoordinated && kept+chunks <= maxStrangeChunks:
			return true
		case idle == nil:
			return false
		}
		c.close(idle)
	}
}

// above is the member that should be asked rather than this node, zero if there
// is none.
func (c *Core) above(b *blob) chunkindex.NodeID {
	for _, id := range c.committee(b) {
		if id == c.cfg.Self {
			break
		}
		if !slices.Contains(b.passed, id) && c.answers(b, id) {
			return id
		}
	}
	return chunkindex.NodeID{}
}

// heardAsk takes in a node's wish to read from the origin.
func (c *Core) heardAsk(from chunkindex.NodeID, m Message) {
	if h, ok := c.held[m.Blob]; ok && h.complete {
		c.send(from, Message{Kind: MsgState, Blob: m.Blob, Size: h.size, Small: h.small, Label: c.cfg.Label,
			Bits: chunkindex.FullBitfield(chunksOf(h.size, h.small))})
		if m.Epoch == 0 {
			return
		}
		// Something was wrong there, and nobody's version is believed.
	}
	if m.Size < 0 && !m.Small || m.Bits.Len() != chunksOf(m.Size, m.Small) {
		c.count(CountIgnored, 1)
		return
	}
	if b := c.blobs[m.Blob]; (b == nil || !b.layoutSet()) && !c.roomFor(m.Bits.Len()) {
		// Whoever asked loses patience and turns to the next in rank.
		c.count(CountIgnored, 1)
		return
	}
	b := c.blob(m.Blob)
	if b.wanting() && !b.layoutSet() {
		// The origin is being asked how large it is, and its word counts: who asks
		// here asks again.
		if b.claimed < 0 {
			b.claimed = m.Size
		}
		c.advance(b)
		return
	}
	if !b.setSize(m.Size, m.Small) || m.Bits.Len() != b.n {
		c.count(CountIgnored, 1)
		c.advance(b)
		return
	}
	c.lookup(b)
	// The member named in a redirect is alive as far as this node can tell; the
	// asker says which ones it has found not to be.
	for _, id := range c.committee(b) {
		if id == c.cfg.Self || id == from {
			break
		}
		if !slices.Contains(m.Peers, id) && c.answers(b, id) {
			c.count(CountRedirect, 1)
			c.send(from, Message{Kind: MsgRedirect, Blob: b.id, Size: b.size, Small: b.small, Peer: id})
			c.advance(b)
			return
		}
	}
	c.takeAsk(b, from, m.Bits, m.Epoch)
	c.tellPeers(b, from)
	c.advance(b)
}

func (c *Core) takeAsk(b *blob, id chunkindex.NodeID, want chunkindex.Bitfield, epoch int) {
	if b.coord == nil {
		b.coord = &coordinator{byID: map[chunkindex.NodeID]*asker{}, known: chunkindex.NewBitfield(b.n), width: width{now: c.cfg.StripesInFlight}}
		c.survey(b)
	}
	if epoch > b.coord.epoch {
		b.coord.epoch, b.coord.known, b.coord.old = epoch, chunkindex.NewBitfield(b.n), b.have.Clone()
		for _, n := range b.neighbours {
			if n.bits.Len() == b.n && !b.isLiar(n.id) {
				b.coord.old.Union(n.bits)
			}
		}
	}
	a, low := b.coord.byID[id], want.Next(0)
	if a == nil {
		a = &asker{id: id, checked: c.now, since: c.now, low: low}
		b.coord.askers = append(b.coord.askers, a)
		b.coord.byID[id] = a
	}
	// A chunk that nobody claims to hold just waits for its turn; and who gets some
	// of what it asked for will get the rest.
	unclaimed := low < 0 || (b.avail[low] == 0 || epoch > 0 && b.coord.old.Has(low)) && !b.coord.known.Has(low)
	if low != a.low || want.Count() < a.asked || unclaimed {
		a.low, a.since = low, c.now
	}
	b.coord.setStuck(a, c.now >= a.since.Add(c.standstill()))
	// A new wish is a new chance: its credentials may have come.
	a.want, a.asked, a.epoch, a.refused, a.answered = want, want.Count(), epoch, false, true
}

func (k *coordinator) setStuck(a *asker, stuck bool) {
	if a.stuck != stuck {
		a.stuck = stuck
		if stuck {
			k.stuck++
		} else {
			k.stuck--
		}
	}
}

// standstill is how long an asker is left without what somebody holds: in a large
// cluster, a chunk takes many steps.
func (c *Core) standstill() time.Duration {
	if c.crowded() {
		return c.cfg.Patience
	}
	return c.cfg.Standstill
}

// appeared notes that chunks have just come to a node: whoever found nobody to
// serve them has somebody now, and asks again if not. It reports whether the
// node was granted them.
func (k *coordinator) appeared(at chunkindex.NodeID, first, end int) (granted bool) {
	if k == nil {
		return false
	}
	for _, g := range k.grants {
		if g.to != at || end <= g.first || g.end <= first {
			continue
		}
		granted = true
		for i := max(first, g.first); i < min(end, g.end); i++ {
			if k.known.Set(i) {
				k.width.chunks++
			}
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

// got takes chunks out of what a node asked for.
func (a *asker) got(first, end int) {
	for i := first; i < end; i++ {
		a.want.Clear(i)
	}
}

// survey asks the neighbours anew what they hold and what they are reading: what
// they said before may be older than the grants of a coordinator that is gone. In
// a large cluster those are asked who would know: the next two in rank.
func (c *Core) survey(b *blob) {
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

// tellPeers tells an asker who else holds or wants the blob.
func (c *Core) tellPeers(b *blob, to chunkindex.NodeID) {
	if c.crowded() {
		return // it joins, and is told then
	}
	m := Message{Kind: MsgPeers, Blob: b.id, Size: b.size, Small: b.small}
	for _, n := range b.neighbours {
		if !n.wants && n.bits.Count() == 0 {
			continue
		}
		m.N++
		if n.id != to && len(m.Peers) < MaxPeers {
			m.Peers, m.Labels = append(m.Peers, n.id), append(m.Labels, n.p.label)
		}
	}
	if len(m.Peers) > 0 {
		c.send(to, m)
	}
}

func (c *Core) dropAsker(b *blob, id chunkindex.NodeID) {
	if b.coord == nil {
		return
	}
	if a := b.coord.byID[id]; a != nil {
		b.coord.setStuck(a, false)
		delete(b.coord.byID, id)
		i := slices.Index(b.coord.askers, a)
		b.coord.askers = slices.Delete(b.coord.askers, i, i+1)
	}
	for _, g := range slices.Clone(b.coord.grants) {
		if g.to != id {
			continue
		}
		b.coord.drop(g)
		if c.granteeHas(b, g) {
			continue
		}
		c.count(CountRegrant, 1)
		if !g.via.IsZero() {
			b.coord.relayed = append(b.coord.relayed, run{g.first, g.end, g.via})
		}
	}
}

func (k *coordinator) drop(g *grant) {
	k.grants = slices.DeleteFunc(k.grants, func(o *grant) bool { return o == g })
}

// granteeHas reports whether all chunks of a grant are where they were to go.
func (c *Core) granteeHas(b *blob, g *grant) bool {
	has := b.have
	if g.to != c.cfg.Self {
		if n := b.neighbour(g.to); n != nil && (n.epoch >= g.epoch || !n.wants) {
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
	for _, n := range b.neighbours {
		if !doubted && n.bits.Has(i) && !a.stuck && c.usable(b, n) ||
			n.inFlight.Has(i) && (!doubted || n.epoch >= a.epoch) && c.aliveP(n.p) && c.reached(b, n.avoid) && !b.isLiar(n.id) {
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
	for _, n := range b.neighbours {
		if c.usable(b, n) {
			e.Union(n.bits)
		}
		if n.inFlight.Count() > 0 && c.aliveP(n.p) && c.reached(b, n.avoid) {
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

// brought reports whether a grantee has read chunk i already, so that whether it
// exists depends on whether the grantee can be asked for it.
func (c *Core) brought(b *blob, g *grant, i int) bool {
	n := b.neighbour(g.to)
	return n != nil && n.bits.Has(i)
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
		} else if n := b.neighbour(g.to); n != nil && n.faults >= corruptFault && n.avoid > c.now {
			// What it reads is worth nothing to the others.
			c.takeBack(b, run{g.first, g.end, g.to}, statusLater, 0, 0)
		}
	}
	if !b.wanting() {
		c.dropAsker(b, c.cfg.Self)
	}
	c.checkAskers(b)
	if len(b.coord.askers) == 0 {
		for _, r := range b.coord.relayed {
			c.giveBack(b, r, 0, 0)
		}
		b.coord = nil
		return
	}
	if !b.coord.settled && (!c.settled(b) || b.apart && !c.reached(b, b.introducedAt.Add(c.cfg.SettleTimeout))) {
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
			if !slices.ContainsFunc(k.grants, func(g *grant) bool { return g.to == n.id && g.first <= i && i < g.end }) {
				return true
			}
		}
	}
	return false
}

// checkAskers drops askers that are not there any more without having said so: a
// MsgLeave may have been lost with a connection, and a node that holds this one
// for a liar does not answer.
func (c *Core) checkAskers(b *blob) {
	if !c.reached(b, b.coord.checkAt) {
		return
	}
	for _, a := range slices.Clone(b.coord.askers) {
		if a.id == c.cfg.Self || c.now < a.checked.Add(c.cfg.Linger) {
			continue
		}
		n := b.neighbour(a.id)
		switch {
		case !a.answered || n == nil && !c.alive(a.id):
			c.dropAsker(b, a.id)
			continue
		case n != nil:
			c.sendState(b, n, true)
		}
		a.checked, a.answered = c.now, false
	}
	b.coord.checkAt = c.now.Add(c.cfg.Linger / 4)
	b.wake(b.coord.checkAt)
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
// came, since the origin may ignore ranges.
func (c *Core) stripesAtOnce(b *blob) int {
	if b.progress == 0 {
		return 1
	}
	return b.coord.width.adapt(c.now, c.cfg.StripesInFlight, c.cfg.MaxStripes)
}

func (c *Core) grant(b *blob, a *asker, r run, via chunkindex.NodeID) {
	c.count(CountGrant, 1)
	b.coord.grants = append(b.coord.grants, &grant{run: r, to: a.id, at: c.now, epoch: a.epoch, via: via})
	for i := r.first; i < r.end; i++ {
		b.coord.known.Clear(i)
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
// has, and among those who want it the one with the fewest grants.
func (c *Core) nextGrant(b *blob, within run) (*asker, run) {
	low := -1
	c.findExisting(b)
	for _, a := range b.coord.askers {
		i := c.lacks(b, a).Next(within.first)
		if i < 0 || i >= within.end || low >= 0 && i >= low {
			continue
		}
		if c.mayRead(b, a) && b.coord.granted(a) < c.readsEach(b) {
			low = i
		}
	}
	if low < 0 {
		return nil, run{}
	}
	var best *asker
	fewest, ties := 0, 0
	for _, a := range b.coord.askers {
		if !c.mayRead(b, a) || !a.want.Has(low) {
			continue
		}
		n := b.coord.granted(a)
		if n >= c.readsEach(b) {
			continue
		}
		if best == nil || n < fewest {
			best, fewest, ties = a, n, 1
		} else if n == fewest {
			if ties++; c.rng.IntN(ties) == 0 {
				best = a
			}
		}
	}
	r := run{low, low + 1, c.cfg.Self}
	end := min(b.stripeEnd(low), within.end)
	for r.end < end && best.want.Has(r.end) && !c.exists(b, r.end, best) {
		r.end++
	}
	return best, r
}

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
	if n := b.neighbour(a.id); n != nil && !c.reached(b, n.avoid) {
		return false
	}
	return !a.refused && c.alive(a.id) && !b.isLiar(a.id) && c.reached(b, a.until)
}

// heardGiveBack takes back a grant.
func (c *Core) heardGiveBack(b *blob, from chunkindex.NodeID, m Message) {
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
			b.coord.known.Set(i)
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
		}
	}
	if wait > 0 && patient(status) {
		c.coolDown(b, r.by, status, wait, origin)
	}
}

// patient reports whether an origin's status says to come again later.
func patient(status int) bool { return status == 429 || status == 503 }

// coolDown stops the granting, and tells all askers, because the origin told one
// of them to leave it alone.
func (c *Core) coolDown(b *blob, from chunkindex.NodeID, status int, wait time.Duration, origin Origin) {
	wait = min(wait, maxOriginWait)
	if until := c.now.Add(wait); until > b.coord.until {
		b.coord.until, b.coord.status = until, status
	}
	for _, a := range b.coord.askers {
		if a.id != from && a.id != c.cfg.Self {
			c.send(a.id, Message{Kind: MsgCooldown, Blob: b.id, Size: b.size, Small: b.small, Status: status, Wait: wait, Origin: origin})
		}
	}
	if from != c.cfg.Self {
		c.cool(b, status, wait, origin)
	}
}

// heardCooldown believes the coordinator that the origin wants to be left alone.
func (c *Core) heardCooldown(b *blob, from chunkindex.NodeID, m Message) {
	if b.ask.to != from || m.Wait <= 0 || !patient(m.Status) {
		c.count(CountIgnored, 1)
		return
	}
	c.cool(b, m.Status, min(m.Wait, maxOriginWait), m.Origin)
}

// cool leaves the sources of a blob at an origin alone, as if it had said so to this
// node.
func (c *Core) cool(b *blob, status int, wait time.Duration, origin Origin) {
	c.count(CountCooldown, 1)
	for _, s := range b.sources {
		if s.refused != 0 || s.origin != origin {
			continue
		}
		// For so long in all, a peer's word counts; then this node asks for itself,
		// once a while.
		if s.told == 0 || c.now > s.told.Add(forgetTold) {
			s.told = max(c.now, 1)
		}
		wait := min(wait, time.Duration(s.told.Add(maxTold)-c.now))
		if wait <= 0 {
			c.count(CountIgnored, 1)
			continue
		}
		s.status, s.failedAt, s.until = status, c.now, max(s.until, c.now.Add(wait))
		s.fails = max(s.fails, 1)
		c.emit(Effect{Kind: EfCooldown, Blob: b.id, Source: s.src, Wait: wait})
		b.wake(s.until)
	}
}

// maxTold is how long an origin is left alone on peers' word alone: less than what
// a client is left waiting. After forgetTold it counts anew.
const (
	maxTold    = 20 * time.Second
	forgetTold = 2 * time.Minute
)

// permanent reports whether an origin's status is its last word on a blob, as
// opposed to a state that may pass.
func permanent(status int) bool {
	return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429
}
