package policy

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Core is the policy of one node over all blobs. It is not safe for concurrent
// use: one goroutine owns it.
type Core struct {
	cfg Config
	rng *rand.Rand
	now Time
	out []Effect

	peers peerTable
	// up lists the peers that are up, in the order of their IDs: maps have no
	// order that two runs share.
	up []*peer

	blobs map[digest.Digest]*blob
	last  *blob   // that was looked up
	order []*blob // the same, oldest first
	held  map[digest.Digest]holding

	readers   map[ID]*reader
	transfers []underWay // few, in the order of their IDs
	// spare are transfers that are over, for others: what most events need stays where it is.
	spare  []*transfer
	reads  []*originRead
	lastID ID
	// inFlight is the number of bytes of chunks that transfers and origin reads
	// may hold in memory.
	inFlight int64
	// freed: something that blobs share became free in this step.
	freed bool
	// advanced: something may be due at another time than before this step.
	advanced bool

	// uploads, which the core admits, and whom it served lately
	uploads []upload
	waiting []waiter // longest first
	handed  handed

	// what has been measured: the time of a chunk on this node's link, in and out; the
	// time in which peers usually answer; how long the latest transfers took
	received, sent           times
	rtt                      Time
	lastBytes                Time // when a peer last sent some bytes
	transferTimes, sendTimes times
	// all is what was received from peers, seconds the part of it that was asked of
	// two at once.
	all, seconds int64
	connecting   int // attempts under way

	*Scratch
	// byZone: what may be asked of nodes in other zones, which is in far, matters.
	byZone bool

	timer Time // as last set, 0 none
}

// Scratch is memory that a core uses within a step. Between two steps it may be given another.
type Scratch struct {
	free                   []int32             // of findFree: places
	window, beyond, within chunkindex.Bitfield // of findFree
	news                   []int32             // of tell
	served, need           chunkindex.Bitfield // of missing
	// of what exists, and what of it an asker lacks
	existing, unmet, asked chunkindex.Bitfield
	wishes                 chunkindex.Bitfield // of lowestLacked
	far, others            chunkindex.Bitfield // of withhold
}

// holding is a blob at rest in the store.
type holding struct {
	size     int64
	small    bool
	complete bool
}

// New returns the core of a node that knows no peer and no blob.
func New(cfg Config) *Core {
	if cfg.Scratch == nil {
		cfg.Scratch = &Scratch{}
	}
	return &Core{
		cfg:     cfg,
		Scratch: cfg.Scratch,
		rng:     rand.New(rand.NewPCG(cfg.Seed, binary.BigEndian.Uint64(cfg.Self[:8]))),
		peers:   hashPeers(cfg.Seed ^ binary.BigEndian.Uint64(cfg.Self[8:])),
		blobs:   map[digest.Digest]*blob{},
		held:    map[digest.Digest]holding{},
		readers: map[ID]*reader{},
	}
}

// Step takes one event that happened at now and appends the effects that follow
// from it to dst.
func (c *Core) Step(now Time, ev Event, dst []Effect) []Effect { return c.Take(now, &ev, dst) }

// Take is Step for an event that need not be copied. It stays as it is.
func (c *Core) Take(now Time, ev *Event, dst []Effect) []Effect {
	c.now, c.out = max(now, c.now), dst
	switch ev.Kind {
	case EvTimer:
		c.timer, c.advanced = 0, true
		for _, b := range slices.Clone(c.order) {
			if b.due != 0 && b.due <= c.now {
				c.advance(b)
			}
		}
	case EvPeerUp:
		c.peerUp(ev.Peer)
	case EvPeerDown:
		c.peerDown(ev.Peer)
	case EvUnreachable:
		c.unreachable(ev.Peer)
	case EvUpload:
		c.upload(ev)
	case EvUploaded:
		c.uploaded(ev.ID, ev.N)
	case EvMessage:
		c.message(ev.Peer, &ev.Msg)
	case EvLooked:
		if b := c.lookUp(ev.Blob); b != nil {
			c.looked(b, ev.Closest, ev.Providers)
		}
	case EvOpened:
		if b := c.lookUp(ev.Blob); b != nil {
			c.opened(b, ev.Levels, ev.Sums)
		}
	case EvTransferProgress:
		if t := c.transfer(ev.ID); t != nil {
			c.transferProgress(t, ev.N)
		}
	case EvTransferDone, EvTransferFailed:
		if t := c.transfer(ev.ID); t != nil {
			c.transferEnded(t, ev)
			c.spare = append(c.spare, t)
		}
	case EvOriginHeaders, EvOriginProgress, EvOriginChunk, EvOriginDone, EvOriginFailed:
		if r := c.originRead(ev.ID); r != nil {
			c.originEvent(r, ev)
		}
	case EvStored, EvStoreFailed:
		if b := c.lookUp(ev.Blob); b != nil {
			c.stored(b, ev.Chunk, ev.Kind == EvStored)
		}
	case EvProven:
		if b := c.lookUp(ev.Blob); b != nil && b.proving {
			c.provenWhole(b)
		}
	case EvRefuted:
		if b := c.lookUp(ev.Blob); b != nil && b.proving {
			c.refuted(b)
		}
	case EvHeld:
		c.held[ev.Blob] = holding{ev.Size, ev.Small, ev.Whole}
	case EvEvicted:
		c.evicted(ev.Blob)
	case EvRead:
		c.read(ev)
	case EvConsumed:
		if r := c.readers[ev.Reader]; r != nil {
			c.consumed(r, ev.Off)
		}
	case EvCancel:
		if r := c.readers[ev.Reader]; r != nil {
			c.dropReader(r)
			c.advance(r.b)
		}
	}
	if c.freed {
		c.freed = false
		c.shareOut()
	}
	c.setTimer()
	out := c.out
	c.out = nil
	return out
}

func (c *Core) emit(e Effect) { *c.effect() = e }

// effect is where the next effect goes: it is large, and need not be put together
// somewhere else. The caller sets all of it.
func (c *Core) effect() *Effect {
	n := len(c.out)
	if n < cap(c.out) {
		c.out = c.out[:n+1]
	} else {
		c.out = append(c.out, Effect{})
	}
	return &c.out[n]
}

func (c *Core) count(m Metric, n int64) {
	*c.effect() = Effect{Kind: EfCount, Metric: m, N: n}
}

func (c *Core) newID() ID {
	c.lastID++
	return c.lastID
}

// shareOut gives what became free to the blobs that have least under way, and of those
// to the one whose turn was longest ago, so that no client starves behind the others.
func (c *Core) shareOut() {
	if len(c.order) == 1 {
		if b := c.order[0]; b.wanting() {
			c.advance(b)
		}
		return
	}
	var wanting []*blob
	for _, b := range c.order {
		if b.wanting() {
			wanting = append(wanting, b)
		}
	}
	slices.SortStableFunc(wanting, func(x, y *blob) int {
		return cmp.Or(c.underWay(x)-c.underWay(y), cmp.Compare(x.latest, y.latest))
	})
	for _, b := range wanting {
		c.advance(b)
	}
}

// touch is advance for an event that freed something which blobs share: a blob that
// wants more takes its turn with the others.
func (c *Core) touch(b *blob) {
	if !c.freed || !b.wanting() {
		c.advance(b)
	}
}

func (c *Core) underWay(b *blob) int {
	n := len(b.live)
	for _, r := range c.reads {
		if r.b == b {
			n++
		}
	}
	return n
}

// setTimer asks for the earliest time at which some blob is due.
func (c *Core) setTimer() {
	if !c.advanced {
		return
	}
	c.advanced = false
	var due Time
	for _, b := range c.order {
		if b.due != 0 && (due == 0 || b.due < due) {
			due = b.due
		}
	}
	if due != c.timer {
		c.timer = due
		*c.effect() = Effect{Kind: EfTimer, At: due}
	}
}

// advance does for b whatever can be done now, and notes when to look again.
// Every event ends here: the rules look at the state, not at the event, so that
// no order of events can leave a blob behind.
func (c *Core) advance(b *blob) {
	if b.closed {
		return
	}
	b.due, c.advanced = 0, true
	c.tellRest(b, false)
	c.findSize(b)
	c.introduceRest(b)
	c.join(b)
	c.gossip(b)
	c.coordinate(b)
	if b.ready() {
		c.checkAudit(b)
		c.vouch(b)
		c.fetchPeers(b)
		c.fetchOrigin(b)
		c.prove(b)
	} else if b.coord != nil {
		c.relay(b, chunkindex.Bitfield{}) // for others
	}
	c.release(b)
	c.closeIdle(b)
}

// wake asks for b to be looked at again at t.
func (b *blob) wake(t Time) {
	if b.due == 0 || t < b.due {
		b.due = t
	}
}

// reached asks for b to be looked at again at t if that is still to come, and
// reports whether it has come already.
func (c *Core) reached(b *blob, t Time) bool {
	if c.now >= t {
		return true
	}
	b.wake(t)
	return false
}
