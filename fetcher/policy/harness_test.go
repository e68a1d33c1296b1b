package policy

import (
	"container/heap"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// world is the deterministic in-memory driver: some cores, a network with a fixed
// latency, an origin, and symbolic content, so that a wrong byte is a fact and
// not a payload. Everything happens in virtual time, in an order that the events
// alone decide.
type world struct {
	t     tester
	now   Time
	seq   int
	queue happenings
	nodes []*node
	blobs map[digest.Digest]*content

	latency, chunkTime, originTime time.Duration

	// originBytes counts what the origin wrote, by blob; originReads the requests.
	originBytes map[digest.Digest]int64
	originReads int
	// originStatus answers a node's request with a failure, 0 for none.
	originStatus func(n *node, d digest.Digest) int
	// originStalls: reads never bring anything.
	originStalls bool
	unranged     bool
	trace        func(format string, args ...any)
	// steps counts what cores were asked within the virtual second, recent holds
	// the latest of it: messages that answer one another without end show here.
	second Time
	steps  int
	recent [64]string
	// apart are pairs of nodes that cannot reach each other.
	apart map[[2]*node]bool
}

func (w *world) unlinked(a, b *node) bool { return w.apart[[2]*node{a, b}] || w.apart[[2]*node{b, a}] }

// tester is what a world needs of a testing.T or a rapid.T.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

type content struct {
	size   int64
	small  bool
	layout chunkindex.Layout
	n      int
}

type happening struct {
	at  Time
	seq int
	f   func()
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

type node struct {
	w        *world
	id       chunkindex.NodeID
	core     *Core
	down     bool
	links    map[*node]bool
	stored   map[digest.Digest]*held
	inHand   map[hand]chunkindex.Sum
	clients  map[ID]*client
	lastID   ID
	counts   map[Metric]int64
	cancels  map[ID]bool
	timer    int
	uploads  ID // the latest
	admitted bool
	refusal  []chunkindex.NodeID
	cooled   int // how often it was told to leave an origin alone
	// what it does wrong
	corrupt  bool // serves wrong bytes, and claims them
	signs    bool // and signs the claims, instead of leaving them out
	boasts   bool // says that it holds everything
	poisoned bool // reads wrong bytes from the origin, and believes them
	stalls   bool // accepts transfers and sends nothing
	mute     bool // a process that hangs: takes messages, says nothing
	full     bool // its disk is full
	busy     int  // answers so many transfers with busy
	noProof  bool // its disk fails when the blob is to be published
	paused   Time // it does nothing before then
	openTime time.Duration
	// closest is what the DHT tells it, nil for everybody.
	closest func() []chunkindex.NodeID
	steps   int // how often its core was asked
	// dropped counts the right and the wrong chunks that its core had it drop.
	droppedRight, droppedWrong int
	originBytes                int64 // what it read from the origin
}

// progressEach is how often a transfer tells of its progress.
const progressEach = 250 * time.Millisecond

type hand struct {
	id    ID
	chunk int
}

// held is what a node's store holds of a blob: the sum of each chunk.
type held struct {
	level  []chunkindex.Level
	sum    []chunkindex.Sum
	claim  []*chunkindex.Claim
	proven bool
}

type client struct {
	node     *node
	d        digest.Digest
	off, end int64
	upto     int64
	status   int
	reason   Reason
	bypassed bool
	got      map[int]chunkindex.Sum // what it was given
	wrong    bool
	started  Time
	finished Time
	first    Time
}

func (c *client) done() bool { return c.finished != 0 }

// newWorld is a world of n nodes, each linked to each.
func newWorld(t tester, n int, cfg func(i int, c *Config)) *world {
	w := newStrangers(t, n, cfg)
	for i, a := range w.nodes {
		for _, b := range w.nodes[:i] {
			w.link(a, b)
		}
	}
	return w
}

// newStrangers is a world of n nodes without links.
func newStrangers(t tester, n int, cfg func(i int, c *Config)) *world {
	w := &world{t: t, now: 1, blobs: map[digest.Digest]*content{}, originBytes: map[digest.Digest]int64{},
		latency: time.Millisecond, chunkTime: 5 * time.Millisecond, originTime: 10 * time.Millisecond,
		originStatus: func(*node, digest.Digest) int { return 0 }, trace: func(string, ...any) {}}
	for i := range n {
		id := chunkindex.NodeID(sha256.Sum256(fmt.Appendf(nil, "node %d", i)))
		c := DefaultConfig(id)
		c.Verify = VerifyMember
		c.Seed = 1
		if cfg != nil {
			cfg(i, &c)
		}
		w.nodes = append(w.nodes, &node{w: w, id: id, core: New(c), links: map[*node]bool{},
			stored: map[digest.Digest]*held{}, inHand: map[hand]chunkindex.Sum{}, clients: map[ID]*client{},
			counts: map[Metric]int64{}, cancels: map[ID]bool{}})
	}
	return w
}

func (w *world) link(a, b *node) {
	delete(w.apart, [2]*node{a, b})
	delete(w.apart, [2]*node{b, a})
	a.links[b], b.links[a] = true, true
	a.event(Event{Kind: EvPeerUp, Peer: b.id})
	b.event(Event{Kind: EvPeerUp, Peer: a.id})
}

func (w *world) unlink(a, b *node) {
	if w.apart == nil {
		w.apart = map[[2]*node]bool{}
	}
	w.apart[[2]*node{a, b}] = true
	delete(a.links, b)
	delete(b.links, a)
	a.event(Event{Kind: EvPeerDown, Peer: b.id})
	b.event(Event{Kind: EvPeerDown, Peer: a.id})
}

// kill ends a node as kill -9 does: its peers see the connection break.
func (w *world) kill(n *node) {
	n.down = true
	for _, o := range w.nodes {
		if n.links[o] {
			delete(o.links, n)
			delete(n.links, o)
			o.event(Event{Kind: EvPeerDown, Peer: n.id})
		}
	}
}

// restart brings a killed node back with what its store held.
func (w *world) restart(n *node, cfg Config) {
	n.down, n.core, n.inHand, n.clients = false, New(cfg), map[hand]chunkindex.Sum{}, map[ID]*client{}
	for d, h := range n.stored {
		c := w.blobs[d]
		n.event(Event{Kind: EvHeld, Blob: d, Size: c.size, Small: c.small, Whole: h.proven})
	}
	for _, o := range w.nodes {
		if o != n && !o.down {
			w.link(n, o)
		}
	}
}

func (w *world) blob(name string, size int64) digest.Digest {
	d := digest.FromString(name)
	l, err := chunkindex.LayoutFor(size)
	if err != nil {
		w.t.Fatal(err)
	}
	w.blobs[d] = &content{size: size, small: size <= chunkindex.MinChunkLength, layout: l, n: max(l.Count(), 1)}
	return d
}

func right(d digest.Digest, i int) chunkindex.Sum {
	return sha256.Sum256(fmt.Appendf(nil, "%s %d", d, i))
}

func (n *node) wrong(d digest.Digest, i int) chunkindex.Sum {
	return sha256.Sum256(fmt.Appendf(nil, "%s %d by %x", d, i, n.id))
}

func (w *world) after(d time.Duration, f func()) {
	w.seq++
	heap.Push(&w.queue, happening{w.now.Add(d), w.seq, f})
}

// run lets time pass until nothing is left to happen before the end, or done
// says so.
func (w *world) run(d time.Duration, done func() bool) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !done() && w.queue[0].at <= end {
		h := heap.Pop(&w.queue).(happening)
		w.now = h.at
		h.f()
	}
	if !done() {
		w.now = end
	}
}

func (w *world) node(id chunkindex.NodeID) *node {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (n *node) event(ev Event) {
	if n.down {
		return
	}
	if n.paused > n.w.now {
		core := n.core
		n.w.after(time.Duration(n.paused-n.w.now), func() {
			if n.core == core {
				n.event(ev)
			}
		})
		return
	}
	n.steps++
	n.w.loops(n, &ev)
	effects := n.core.Step(n.w.now, ev, nil)
	if n.steps%16 == 0 {
		n.core.checkSeats(n.w.t)
	}
	for _, e := range effects {
		n.do(e)
	}
}

// maxStepsASecond is more than any world here has a use for: a protocol that goes on
// and on at the speed of the network fails the test instead of filling the memory.
const maxStepsASecond = 200_000

func (w *world) loops(n *node, ev *Event) {
	if s := w.now / Time(time.Second); s != w.second {
		w.second, w.steps = s, 0
	}
	w.steps++
	if left := maxStepsASecond - w.steps; left < len(w.recent) {
		w.recent[max(left, 0)] = fmt.Sprintf("%v %v: event %d id %d chunk %d+%d peer %v; message %d chunk %d+%d status %d epoch %d",
			time.Duration(w.now), n.id, ev.Kind, ev.ID, ev.Chunk, ev.N, ev.Peer, ev.Msg.Kind, ev.Msg.Chunk, ev.Msg.N, ev.Msg.Status, ev.Msg.Epoch)
		if left <= 0 {
			slices.Reverse(w.recent[:])
			w.t.Fatalf("more than %d events within a virtual second; the last are\n%s", maxStepsASecond, strings.Join(w.recent[:], "\n"))
		}
	}
}

// later has an event happen to a node, unless it was killed since.
func (n *node) later(d time.Duration, ev Event) {
	core := n.core
	n.w.after(d, func() {
		if n.core == core {
			n.event(ev)
		}
	})
}

func (n *node) do(e Effect) {
	w := n.w
	switch e.Kind {
	case EfSend:
		to := w.node(e.Peer)
		w.trace("%v %s -> %s: message %d chunk %d+%d status %d", time.Duration(w.now), n.id, e.Peer, e.Msg.Kind, e.Msg.Chunk, e.Msg.N, e.Msg.Status)
		if to == nil || !n.links[to] || n.mute {
			return
		}
		if n.boasts && e.Msg.Kind == MsgState && e.Msg.Bits.Len() > 0 {
			e.Msg.Bits = chunkindex.FullBitfield(e.Msg.Bits.Len())
		}
		// Over the wire and back: what a message cannot carry must not matter.
		m, err := DecodeMessage(AppendMessage(nil, &e.Msg))
		if err != nil {
			w.t.Fatalf("message %+v: %v", e.Msg, err)
		}
		w.after(w.latency, func() {
			if to.links[n] {
				to.event(Event{Kind: EvMessage, Peer: n.id, Msg: m})
			}
		})
	case EfLookup:
		var ids, providers []chunkindex.NodeID
		for _, o := range w.nodes {
			if o == n || n.links[o] {
				ids = append(ids, o.id)
			}
			if h := o.stored[e.Blob]; n.links[o] && h != nil && h.proven {
				providers = append(providers, o.id)
			}
		}
		if n.closest != nil {
			ids = n.closest()
		}
		n.later(2*w.latency, Event{Kind: EvLooked, Blob: e.Blob, Closest: ids, Providers: providers})
	case EfOpen:
		ev := Event{Kind: EvOpened, Blob: e.Blob}
		if h := n.stored[e.Blob]; h != nil && !h.proven && !e.Small {
			ev.Levels, ev.Sums = slices.Clone(h.level), slices.Clone(h.sum)
		}
		n.later(n.openTime, ev)
	case EfTransfer:
		n.transfer(e)
	case EfOriginRead:
		n.originRead(e)
	case EfOriginSize:
		c := w.blobs[e.Blob]
		if st := w.originStatus(n, e.Blob); st != 0 {
			n.later(w.originTime, Event{Kind: EvOriginFailed, ID: e.ID, Status: st})
		} else {
			n.later(w.originTime, Event{Kind: EvOriginDone, ID: e.ID, Size: c.size})
		}
	case EfCancelTransfer:
		n.cancels[e.ID] = true
		n.later(0, Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultCancelled})
	case EfCancelOrigin:
		n.cancels[e.ID] = true
		n.later(0, Event{Kind: EvOriginFailed, ID: e.ID, Status: 499})
	case EfStore:
		n.store(e)
	case EfDiscard:
		delete(n.inHand, hand{e.ID, e.Chunk})
	case EfRaise:
		n.stored[e.Blob].level[e.Chunk] = e.Level
	case EfDrop:
		if n.stored[e.Blob].sum[e.Chunk] == right(e.Blob, e.Chunk) {
			n.droppedRight++
		} else {
			n.droppedWrong++
		}
		n.stored[e.Blob].level[e.Chunk] = chunkindex.Absent
	case EfProve:
		if n.noProof {
			n.later(time.Millisecond, Event{Kind: EvStoreFailed, Blob: e.Blob})
			return
		}
		h, ok := n.stored[e.Blob], true
		for i := range h.sum {
			if h.level[i] == chunkindex.Absent {
				w.t.Errorf("%s proves %s without chunk %d", n.id, e.Blob, i)
			}
			ok = ok && h.sum[i] == right(e.Blob, i)
		}
		h.proven = ok
		kind := EvRefuted
		if ok {
			kind = EvProven
		}
		n.later(time.Millisecond, Event{Kind: kind, Blob: e.Blob})
	case EfSums:
		m := Message{Kind: MsgSums, Blob: e.Blob, Size: e.Size, Chunk: e.Chunk, N: int(e.N)}
		for i := e.Chunk; i < e.Chunk+int(e.N); i++ {
			m.Sums = append(m.Sums, n.sumOf(e.Blob, i))
		}
		n.do(Effect{Kind: EfSend, Peer: e.Peer, Msg: m})
	case EfDeliver:
		n.deliver(e)
	case EfFail:
		cl := n.clients[e.Reader]
		w.trace("%v %s: reader %d fails: %d %s", time.Duration(w.now), n.id, e.Reader, e.Status, e.Reason)
		cl.status, cl.reason, cl.finished = e.Status, e.Reason, w.now
		delete(n.clients, e.Reader)
	case EfBypass:
		cl := n.clients[e.Reader]
		cl.bypassed, cl.finished = true, w.now
		delete(n.clients, e.Reader)
	case EfTimer:
		n.timer++
		mine := n.timer
		if e.At != 0 {
			core := n.core
			w.after(max(time.Duration(e.At-w.now), 0), func() {
				if n.timer == mine && n.core == core {
					n.event(Event{Kind: EvTimer})
				}
			})
		}
	case EfCount:
		n.counts[e.Metric] += e.N
	case EfConnect:
		to := w.node(e.Peer)
		w.after(2*w.latency, func() {
			switch {
			case n.down || n.links[to]:
			case to == nil || to.down || w.unlinked(n, to):
				n.event(Event{Kind: EvUnreachable, Peer: e.Peer})
			default:
				w.link(n, to)
			}
		})
	case EfServe:
		n.admitted = true
	case EfBusy:
		n.refusal = e.Peers
		n.admitted = false
	case EfCooldown:
		n.cooled++
	case EfBan, EfClose, EfProvide, EfWithdraw:
		w.trace("%v %s: effect %d peer %s", time.Duration(w.now), n.id, e.Kind, e.Peer)
	default:
		w.t.Fatalf("unknown effect %+v", e)
	}
}

// sumOf is what the node says, and serves, for a chunk.
func (n *node) sumOf(d digest.Digest, i int) chunkindex.Sum {
	if n.corrupt {
		return n.wrong(d, i)
	}
	return n.stored[d].sum[i]
}

func (n *node) transfer(e Effect) {
	w, from := n.w, n.w.node(e.Peer)
	w.trace("%v %s: transfer %d of chunk %d from %s", time.Duration(w.now), n.id, e.ID, e.Chunk, e.Peer)
	core := n.core
	w.after(2*w.latency, func() {
		if n.core != core || n.cancels[e.ID] {
			return
		}
		if from == nil || !from.links[n] || from.down {
			n.event(Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultBroken})
			return
		}
		h := from.stored[e.Blob]
		if from.stalls {
			return
		}
		if from.busy > 0 {
			from.busy--
			n.event(Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultBusy})
			return
		}
		if h == nil && !from.corrupt || h != nil && !h.proven && !h.level[e.Chunk].Shareable() {
			n.event(Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultGone})
			return
		}
		if !e.Small && e.Size != w.blobs[e.Blob].size || e.Small && !w.blobs[e.Blob].small { // errSize
			n.event(Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultBroken})
			return
		}
		from.uploads++
		upload := from.uploads
		if from.admitted = true; !from.corrupt {
			from.event(Event{Kind: EvUpload, ID: upload, Peer: n.id, Blob: e.Blob, Chunk: e.Chunk})
		}
		if !from.admitted {
			n.event(Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultBusy, Peers: from.refusal})
			return
		}
		serving := from.core
		done := func() {
			if from.core == serving {
				from.event(Event{Kind: EvUploaded, ID: upload, N: 1 << 20})
			}
		}
		n.later(0, Event{Kind: EvTransferProgress, ID: e.ID})
		for d := progressEach; d < w.chunkTime; d += progressEach {
			n.later(d, Event{Kind: EvTransferProgress, ID: e.ID, N: int64(progressEach * mib / w.chunkTime)})
		}
		sum := from.sumOf(e.Blob, e.Chunk)
		var claims []chunkindex.Claim
		switch {
		case from.corrupt && !from.signs, e.Small:
		case from.corrupt || h.proven || h.level[e.Chunk] == chunkindex.Fetched:
			claims = []chunkindex.Claim{{Signer: from.id, Sum: sum}}
		case h.claim[e.Chunk] != nil:
			claims = []chunkindex.Claim{*h.claim[e.Chunk]}
		}
		w.after(w.chunkTime, func() {
			done()
			if n.core != core || n.cancels[e.ID] {
				return
			}
			if !from.links[n] {
				n.event(Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultBroken})
				return
			}
			if e.Small && sum != right(e.Blob, 0) {
				n.event(Event{Kind: EvTransferFailed, ID: e.ID, Fault: FaultCorrupt})
				return
			}
			n.inHand[hand{e.ID, e.Chunk}] = sum
			n.event(Event{Kind: EvTransferDone, ID: e.ID, Sum: sum, Claims: claims, N: 1 << 20})
		})
	})
}

func (n *node) originRead(e Effect) {
	w := n.w
	w.trace("%v %s: origin read %d from chunk %d, %d bytes", time.Duration(w.now), n.id, e.ID, e.Chunk, e.N)
	w.originReads++
	core, c := n.core, w.blobs[e.Blob]
	first, end := e.Chunk, c.n
	if !e.Small && e.Size != c.size || !c.small && e.N < 0 { // as fetcher/originread.go does
		n.later(2*w.latency, Event{Kind: EvOriginFailed, ID: e.ID, Status: 502})
		return
	}
	if !c.small {
		first, end = c.layout.Span(e.Off, e.N)
	}
	if w.unranged && !c.small {
		first, end = 0, c.n
	}
	var step func(i int)
	step = func(i int) {
		if n.core != core || n.down || n.cancels[e.ID] {
			return
		}
		if st := w.originStatus(n, e.Blob); st != 0 {
			n.event(Event{Kind: EvOriginFailed, ID: e.ID, Status: st})
			return
		}
		if w.originStalls {
			return
		}
		if i == first {
			n.event(Event{Kind: EvOriginHeaders, ID: e.ID, Size: c.size, Ranged: !w.unranged})
		}
		if n.cancels[e.ID] {
			return
		}
		if i == end {
			n.event(Event{Kind: EvOriginDone, ID: e.ID, Size: c.size})
			return
		}
		w.after(w.originTime, func() {
			if n.core != core || n.down || n.cancels[e.ID] {
				return
			}
			if st := w.originStatus(n, e.Blob); st != 0 {
				n.event(Event{Kind: EvOriginFailed, ID: e.ID, Status: st})
				return
			}
			w.originBytes[e.Blob] += c.chunkLength(i)
			n.originBytes += c.chunkLength(i)
			sum := right(e.Blob, i)
			if n.poisoned {
				sum = n.wrong(e.Blob, i)
			}
			n.inHand[hand{e.ID, i}] = sum
			n.event(Event{Kind: EvOriginChunk, ID: e.ID, Chunk: i, Sum: sum})
			step(i + 1)
		})
	}
	w.after(2*w.latency, func() { step(first) })
}

func (c *content) chunkLength(i int) int64 {
	if c.small {
		return c.size
	}
	_, n := c.layout.Chunk(i)
	return n
}

func (c *content) chunkOffset(i int) int64 {
	if c.small {
		return 0
	}
	off, _ := c.layout.Chunk(i)
	return off
}

func (n *node) store(e Effect) {
	c := n.w.blobs[e.Blob]
	sum, ok := n.inHand[hand{e.ID, e.Chunk}]
	if !ok {
		n.w.t.Fatalf("%s stores chunk %d of %d, which is not in hand", n.id, e.Chunk, e.ID)
	}
	delete(n.inHand, hand{e.ID, e.Chunk})
	if n.full {
		n.later(0, Event{Kind: EvStoreFailed, Blob: e.Blob, Chunk: e.Chunk})
		return
	}
	core := n.core
	n.w.after(0, func() {
		if n.core != core || n.down {
			return
		}
		h := n.stored[e.Blob]
		if e.Chunk >= c.n {
			n.w.t.Fatalf("store chunk %d of %d: %+v", e.Chunk, c.n, e)
		}
		if h == nil {
			h = &held{level: make([]chunkindex.Level, c.n), sum: make([]chunkindex.Sum, c.n), claim: make([]*chunkindex.Claim, c.n)}
			n.stored[e.Blob] = h
		}
		h.level[e.Chunk], h.sum[e.Chunk], h.claim[e.Chunk] = e.Level, sum, e.Claim
		h.proven = h.proven || e.Small
		n.event(Event{Kind: EvStored, Blob: e.Blob, Chunk: e.Chunk})
	})
}

func (n *node) deliver(e Effect) {
	w, cl, c := n.w, n.clients[e.Reader], n.w.blobs[e.Blob]
	if cl == nil {
		w.t.Fatalf("%s delivers to reader %d, which has ended", n.id, e.Reader)
	}
	upto := min(e.Off, cl.end)
	if e.Small {
		upto = cl.end
	}
	h := n.stored[e.Blob]
	if cl.first == 0 {
		cl.first = w.now
	}
	if upto == c.size && !h.proven {
		w.t.Errorf("%s releases the last byte of an unproven blob", n.id)
	}
	for i := range c.n {
		if off := c.chunkOffset(i); off < cl.upto || off >= upto {
			continue
		}
		if cl.got == nil {
			cl.got = map[int]chunkindex.Sum{}
		}
		cl.got[i] = h.sum[i]
		if h.sum[i] != right(e.Blob, i) {
			cl.wrong = true
		}
		if h.level[i] == chunkindex.Absent {
			w.t.Errorf("%s releases chunk %d, which it does not have", n.id, i)
		}
	}
	cl.upto = upto
	w.after(0, func() {
		if n.clients[e.Reader] != cl || n.down {
			return
		}
		n.event(Event{Kind: EvConsumed, Reader: e.Reader, Off: upto})
		if n.clients[e.Reader] == cl && cl.upto == cl.end {
			for i := range c.n {
				if off := c.chunkOffset(i); off >= cl.off && off < cl.end && (h.sum[i] != right(e.Blob, i) || !c.small && cl.got[i] != right(e.Blob, i)) {
					w.t.Errorf("%s completed a response with wrong bytes in chunk %d", n.id, i)
				}
			}
			cl.finished = w.now
			delete(n.clients, e.Reader)
			n.event(Event{Kind: EvCancel, Reader: e.Reader})
		}
	})
}

// read opens a reader; end -1 means to the end.
func (n *node) read(d digest.Digest, off, end int64) *client {
	return n.readSized(d, off, end, n.w.blobs[d].size)
}

func (n *node) readSized(d digest.Digest, off, end, size int64) *client {
	c := n.w.blobs[d]
	n.lastID++
	cl := &client{node: n, d: d, off: off, end: end, upto: off, started: n.w.now}
	if end < 0 {
		cl.end = c.size
	}
	n.clients[n.lastID] = cl
	n.event(Event{Kind: EvRead, Blob: d, Reader: n.lastID, Off: off, End: end, Size: size,
		Whole: off == 0 && end < 0, Small: c.small && size >= 0, Source: 1})
	return cl
}

func (n *node) cancel(cl *client) {
	for id, o := range n.clients {
		if o == cl {
			delete(n.clients, id)
			n.event(Event{Kind: EvCancel, Reader: id})
		}
	}
}

// wait runs until all clients are done, and fails the test for those that
// aren't by then or got an error.
func (w *world) wait(d time.Duration, clients ...*client) {
	w.t.Helper()
	w.run(d, func() bool {
		return !slices.ContainsFunc(clients, func(c *client) bool { return !c.done() })
	})
	for _, c := range clients {
		switch {
		case !c.done():
			w.t.Errorf("%v: client of %s has %d of [%d,%d) after %v", time.Duration(w.now), c.node.id, c.upto, c.off, c.end, d)
		case c.status != 0:
			w.t.Errorf("%v: client of %s failed: %d %s", time.Duration(w.now), c.node.id, c.status, c.reason)
		}
	}
}

// egress fails the test if the origin wrote more than most bytes of the blob.
func (w *world) egress(d digest.Digest, most int64) {
	w.t.Helper()
	if got := w.originBytes[d]; got > most {
		w.t.Errorf("origin wrote %d bytes of %s, want at most %d", got, d, most)
	}
}

// quiet checks that a world left alone ends with nothing under way.
func (w *world) quiet() {
	w.t.Helper()
	w.run(10*time.Minute, func() bool { return false })
	for _, n := range w.nodes {
		if n.down {
			continue
		}
		if left := n.core.Census(); left != (Census{}) || len(n.inHand) > 0 {
			w.t.Errorf("%s is left with %+v, %d chunks in hand", n.id, left, len(n.inHand))
			for _, b := range n.core.order {
				w.t.Errorf("blob %s: %d readers, whole %v, coordinator %+v, open %v, proving %v, proven %v, have %d of %d, due %d, idle since %d, now %d",
					b.id, len(b.readers), b.whole, b.coord, b.isOpen, b.proving, b.proven, b.have.Count(), b.n, b.due, b.idleSince, w.now)
			}
		}
	}
}

func fmtTo(w interface{ Write([]byte) (int, error) }, format string, args ...any) {
	fmt.Fprintf(w, format+"\n", args...)
}

func ids(nodes []*node) (list []chunkindex.NodeID) {
	for _, n := range nodes {
		list = append(list, n.id)
	}
	return list
}
