package policy

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// transfer is one chunk on its way from a peer.
type transfer struct {
	id      ID
	b       *blob
	from    *peer
	chunk   int
	started Time
	last    Time // when a byte last came
	got     int64
	cost    int64
	second  bool // the chunk is on its way from somebody else as well
	dead    bool
	// answered is when the peer said something to it, 0 if it has not.
	answered Time
}

// underWay is a transfer that has not had its terminal event, and its ID beside.
type underWay struct {
	id ID
	*transfer
}

// transfer returns the transfer under way with that ID, nil if there is none.
func (c *Core) transfer(id ID) *transfer {
	for k := range c.transfers {
		if u := &c.transfers[k]; u.id == id {
			return u.transfer
		}
	}
	return nil
}

// newTransfer returns one that is over, or one of some more.
func (c *Core) newTransfer() *transfer {
	n := len(c.spare)
	if n == 0 {
		some := make([]transfer, 4)
		for k := range some {
			c.spare = append(c.spare, &some[k])
		}
		n = len(some)
	}
	t := c.spare[n-1]
	c.spare = c.spare[:n-1]
	return t
}

// usable reports whether chunks may be asked of a neighbour now. One that lied about
// the blob is not, while the origin answers.
func (c *Core) usable(b *blob, n *neighbour) bool { return c.canUse(b, int(n.place)) }

// canUse is usable for the neighbour at a place.
func (c *Core) canUse(b *blob, k int) bool {
	return b.seats[k].alive && (c.now >= b.wary || c.reached(b, b.avoid[k])) &&
		(len(b.liars) == 0 || !b.isLiar(b.neighbours[k].p.id) || c.usableSource(b) == nil)
}

// offers reports whether a neighbour says that it has chunk i, and may be believed
// to have a version that was not found wanting.
func (b *blob) offers(n *neighbour, i int) bool {
	return n.bits.Has(i) && !n.refused.Has(i) && (!b.doubt.Has(i) || n.epoch >= b.epoch || n.differs.Has(i) || !b.wants(n))
}

// servable reports whether some neighbour can serve chunk i now.
func (c *Core) servable(b *blob, i int) bool {
	for _, n := range b.neighbours {
		if b.offers(n, i) && c.usable(b, n) && c.reached(b, b.shy[n.place]) {
			return true
		}
	}
	return false
}

// promised reports whether some neighbour says that it has chunk i and has not
// failed too often.
func (c *Core) promised(b *blob, i int) bool {
	for _, n := range b.neighbours {
		if b.offers(n, i) && c.aliveP(n.p) && n.faults < 3 {
			c.reached(b, b.avoid[n.place])
			return true
		}
	}
	return false
}

// wanted reports whether chunk i is wanted: a part of the readers' ranges and
// their read-ahead, or anything if the whole blob is.
func (b *blob) wanted(i int, ahead int64) bool {
	if b.whole || b.small {
		return true
	}
	off, n := b.layout.Chunk(i)
	for _, r := range b.readers {
		end := r.pos + ahead
		if r.end >= 0 {
			end = min(end, r.end)
		}
		if off < end && off+n > r.pos {
			return true
		}
	}
	return false
}

// fetchPeers keeps the transfers busy.
func (c *Core) fetchPeers(b *blob) {
	c.watchTransfers(b)
	if !b.wanting() || len(b.neighbours) == 0 || b.epoch > aloneAfter && c.usableSource(b) != nil {
		return
	}
	for c.hasSlot(b) {
		i, n := -1, (*neighbour)(nil)
		if c.findFree(b) {
			if b.rareTurn = !b.rareTurn; !b.rareTurn && b.choice() >= scarce || c.pressed(b) {
				i, n = c.pickUrgent(b)
			}
			if n == nil {
				i, n = c.pickRare(b)
			}
		}
		if n == nil && c.askAnew(b) {
			continue
		}
		if n == nil {
			i, n = c.pickSecond(b)
		}
		if n == nil {
			return
		}
		c.startTransfer(b, i, n)
	}
}

// watchTransfers passes over peers that send nothing: whoever is pinged in vain at
// once, whoever is alive but sends no byte a little later.
func (c *Core) watchTransfers(b *blob) {
	for k := len(b.live) - 1; k >= 0; k-- { // from the end, as those that stall are taken out
		t := b.live[k]
		silent := max(c.cfg.AskTimeout, time.Duration(4*t.from.rtt))
		if !c.reached(b, t.last.Add(silent)) {
			continue
		}
		switch {
		case !c.watch(b, t.from.id, t.last):
			c.count(CountStall, 1)
			c.cancelTransfer(t)
		case c.reached(b, t.last.Add(max(c.cfg.TransferStall, silent))):
			c.count(CountStall, 1)
			c.avoid(b, t.from.id, 1)
			c.cancelTransfer(t)
		}
	}
}

// hasSlot reports whether one more transfer may start: so many as fill this node's
// link, and a few in any case. More would not bring more bytes, and each would
// come later, and later be of use to others.
func (c *Core) hasSlot(b *blob) bool {
	slots := c.cfg.MinTransfers + c.ahead(b.cost())
	if len(c.reads) == 0 && b.hasPlenty() {
		slots++
	}
	// What the origin sends is nowhere else: it goes first.
	for _, r := range c.reads {
		if r.last != 0 && c.now < r.last.Add(c.cfg.TransferStall) {
			slots -= readCost
		}
	}
	slots = max(slots, 1)
	return len(c.transfers) < min(slots, c.cfg.Transfers) &&
		(c.inFlight == 0 || c.inFlight+b.cost() <= c.cfg.InFlightBytes)
}

// readCost is how many transfers fewer a node begins for each origin read.
const readCost = 1

func (c *Core) startTransfer(b *blob, i int, n *neighbour) {
	off, length := b.chunkBytes(i)
	cost := b.cost()
	if !b.small {
		cost = length
	}
	t := c.newTransfer()
	*t = transfer{id: c.newID(), b: b, from: n.p, chunk: i, started: c.now, last: c.now, cost: cost,
		second: b.busy[i]&byTransfer != 0}
	c.transfers = append(c.transfers, underWay{t.id, t})
	b.live, b.latest = append(b.live, t), t.id
	c.engage(n.p, 1)
	if c.byZone && c.isFar(n) {
		c.takeTurn(b, i)
	}
	c.inFlight += t.cost
	b.begin(i, byTransfer)
	b.wake(c.now.Add(c.cfg.AskTimeout))
	*c.effect() = Effect{Kind: EfTransfer, ID: t.id, Blob: b.id, Peer: n.p.id, Chunk: i,
		Off: off, N: length, Size: b.size, Small: b.small}
}

// cancelTransfer ends a transfer; its terminal event is still to come.
func (c *Core) cancelTransfer(t *transfer) {
	c.emit(Effect{Kind: EfCancelTransfer, ID: t.id})
	t.dead = true
	t.b.lose(t)
}

// lose forgets a transfer that is over; its chunk is free again unless it comes
// from somebody else as well.
func (b *blob) lose(t *transfer) {
	b.live = slices.DeleteFunc(b.live, func(o *transfer) bool { return o == t })
	if !slices.ContainsFunc(b.live, func(o *transfer) bool { return o.chunk == t.chunk }) {
		b.end(t.chunk, byTransfer)
	}
}

// answered takes the time in which a peer answers a request, whatever it says: so
// long does a slot stand empty between two chunks.
func (c *Core) answered(t *transfer) {
	if t.answered == 0 {
		t.answered = c.now
		t.from.roundTrip(c.now, t.started)
		c.rtt = (7*c.rtt + c.now - t.started) / 8
	}
}

// arriving is how many transfers bring bytes.
func (c *Core) arriving() int {
	n := 0
	for _, t := range c.transfers {
		if t.answered != 0 && !t.dead {
			n++
		}
	}
	return n
}

func (c *Core) transferProgress(t *transfer, n int64) {
	c.answered(t)
	t.last, c.lastBytes = c.now, c.now
	t.got += n
	c.heardFrom(t.from)
}

// avoid passes a neighbour over for a while that doubles with each fault: for
// Config.Avoid where it sent what is wrong, for a moment where it was slow, which
// the best of peers may be.
func (c *Core) avoid(b *blob, id chunkindex.NodeID, weight int) {
	if n := c.neighbour(b, id); n != nil && (b.avoid[n.place] <= c.now || weight > 1) {
		pause := c.cfg.AskTimeout
		if weight >= corruptFault {
			pause = c.cfg.Avoid
		}
		b.avoidUntil(n, c.now.Add(pause<<min(n.faults, 5)))
		n.faults = uint8(min(int(n.faults)+weight, mostFaults))
	}
}

// mostFaults is how many faults are counted: more than make a difference.
const mostFaults = 64

// corruptFault is how much a wrong chunk weighs against slow ones.
const corruptFault = 4

func (c *Core) transferEnded(t *transfer, ev *Event) {
	b := t.b
	c.transfers = slices.DeleteFunc(c.transfers, func(u underWay) bool { return u.id == t.id })
	c.engage(t.from, -1)
	c.inFlight -= t.cost
	c.freed = true
	if t.dead || b.closed {
		if ev.Kind == EvTransferDone {
			c.emit(Effect{Kind: EfDiscard, ID: t.id, Blob: b.id, Chunk: t.chunk})
			c.count(CountWaste, ev.N)
		}
		return
	}
	b.lose(t)
	if ev.Kind == EvTransferDone {
		for _, o := range slices.Clone(b.live) {
			if o.chunk == t.chunk {
				c.count(CountWaste, o.got)
				c.cancelTransfer(o)
			}
		}
		c.transferred(t, ev.N)
		c.arrivedFromPeer(b, t, ev)
		c.touch(b)
		return
	}
	n := b.as(t.from)
	switch {
	case n == nil:
	case ev.Fault == FaultGone:
		b.clearBit(n, t.chunk)
	case ev.Fault == FaultBusy:
		c.answered(t)
		c.refusedBy(b, n, ev.Peers)
	case ev.Fault == FaultCorrupt:
		// Small blobs only: what came over this peer's own connection is
		// not what its digest says.
		b.clearBit(n, t.chunk)
		c.ban(t.from.id)
	case ev.Fault == FaultLocal:
		b.wake(c.now.Add(c.cfg.AskTimeout))
		b.avoidUntil(n, c.now.Add(c.cfg.AskTimeout))
	default:
		c.avoid(b, t.from.id, 1)
	}
	c.touch(b)
}

// transferred takes the measure of a transfer that ended well.
func (c *Core) transferred(t *transfer, n int64) {
	p := t.from
	c.heardFrom(p)
	p.refusals = 0
	c.setBusy(p, 0)
	if o := t.b.as(p); o != nil && o.faults < corruptFault {
		// What was slow in between is forgiven: else who is slow now and then in a long pull
		// would count as one that serves nothing, and what it reads be read by another.
		o.faults = 0
	}
	if t.answered != 0 {
		c.received.add((c.now-t.answered)/Time(c.arriving()+1), n)
	}
	c.all += n
	c.transferTimes.add(c.now-t.started, n)
}

// refusedBy passes over a peer that is busy until it says that there is room, or for
// about as long as it takes it to send something, and turns to those that it names.
func (c *Core) refusedBy(b *blob, n *neighbour, others []chunkindex.NodeID) {
	c.count(CountBusy, 1)
	pause, most := max(c.transferTimes.median(b.cost()), minBusy), 2*c.cfg.AskTimeout
	if b.hasPlenty() {
		// Others are there to be asked, and most of what is asked anew is asked in vain.
		pause, most = 2*pause, 2*most
	}
	c.setBusy(n.p, c.now.Add(min(pause<<min(n.p.refusals+2, 5), most)))
	if n.p.refusals++; n.p.refusals%refusalsBorne == 0 {
		// Perhaps it never serves; others, and the origin, may be asked meanwhile.
		b.shyUntil(n, c.now.Add(2*c.cfg.AskTimeout))
	}
	for _, id := range others {
		if c.crowded() {
			// Those who have a chunk first are named to everybody: a node that knows
			// enough others leaves them alone.
			if b.active() < c.cfg.Neighbours/8 {
				c.suggest(b, id, Label{})
			}
		} else if b.active() < 2*c.cfg.Neighbours {
			c.reach(b, id)
		}
	}
}

const (
	minBusy = 5 * time.Millisecond
	// refusalsBorne is how often in a row a peer may be busy.
	refusalsBorne = 8
)
