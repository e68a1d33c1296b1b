package simulation

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// node is the driver of one core: it carries out effects in virtual time.
type node struct {
	index  int32
	id     chunkindex.NodeID
	core   Core
	life   uint32 // grows when it dies: what was planned for it is void
	down   bool
	gone   bool  // is down, and will not come back
	up, in int32 // links

	zone, rack int32

	linked   []uint64 // set of the nodes that it is connected to
	peers    []int32  // the same
	arrivals []int64  // when the latest message to each of them arrives
	known    []int32  // those that it connects to when it starts

	transfers []int32    // slots of those that it asked for
	reads     []int32    // slots
	hand      []handed   // chunks in memory
	held      []*holding // by blob
	clients   []client   // by reader, from 1 on
	pulled    []bool     // blobs that its clients have
	pulls     []int32    // that are not over

	timerAt, timerDue int64 // as the core asked; the earliest event planned; 0 none
	view              originView
	timerWant         policy.Time // timerAt by its own clock
	clock             *clock      // nil for one that is right
	disk              int64       // its disk's rate
	writes            []write     // what waits for the disk
	writing, written  int64       // when the first of them was begun, and will be done
	used              int64       // bytes in its store
	inbox             []int32     // slots of messages that wait for the CPU
	work, busy        int64       // what a message takes; when the CPU is done with the latest
	next              int64       // when it will be done with the first of inbox
	loss              int64       // of packets, in parts in a million
	sides             uint64      // of partitions
	stale             int64       // as of when the DHT answers it, 0 as of now
	changes           []int64     // when it came or went, since the start
	window            uint64      // number of the latest window in which its core takes a step
	job               int32       // its latest in that

	// how many faults have it do so
	corrupt, forges, lies, stalls, mute, offline, full int
	wicked, leaving                                    bool // wicked: wrong bytes or words have come from it
}

func (n *node) isLinked(o int32) bool { return n.linked[o>>6]&(1<<(o&63)) != 0 }

// stillLinked is isLinked for two that were connected before. It saves a look at the set, which
// is the larger the more nodes there are, where no connection has ended.
func (c *cluster) stillLinked(n *node, o int32) bool { return c.unlinks == 0 || n.isLinked(o) }

func (n *node) unlink(o int32) {
	n.linked[o>>6] &^= 1 << (o & 63)
	if i := slices.Index(n.peers, o); i >= 0 {
		last := len(n.peers) - 1
		n.peers[i], n.arrivals[i] = n.peers[last], n.arrivals[last]
		n.peers, n.arrivals = n.peers[:last], n.arrivals[:last]
	}
}

// step hands an event to a core and carries out what follows, or, where time goes in
// windows, has that be done later. It is never called while effects are carried out: what
// they lead to goes through the queue.
func (c *cluster) step(n *node, ev policy.Event) {
	if n.down {
		return
	}
	*c.toStep(n) = ev
	c.handOver(n)
}

// stepThen is step, and continues once the effects have been carried out.
func (c *cluster) stepThen(n *node, ev policy.Event, next continuation, arg uint64) {
	c.step(n, ev)
	if c.ahead != nil && !n.down {
		c.ahead.continueWith(next, arg)
		return
	}
	c.proceed(n, next, arg)
}

// continuation is what there is to be done when a core has taken an event: see cluster.proceed.
type continuation uint8

const (
	nothingElse   continuation = iota
	afterUpload                // transfer: the peer has answered
	afterHeaders               // origin read: its body begins
	afterChunks                // origin read: that was the last chunk
	afterConsumed              // reader: it has taken all that there was
)

func (c *cluster) proceed(n *node, next continuation, arg uint64) {
	switch next {
	case afterUpload:
		c.uploadAnswered(arg)
	case afterHeaders:
		c.bodyBegins(arg)
	case afterChunks:
		if i, r := c.readAt(arg); r != nil {
			c.finishRead(i)
		}
	case afterConsumed:
		c.tookAll(n, policy.ID(arg))
	}
}

// toStep is where the next event of a core, which is up, goes. handOver follows. It is not on
// the stack because it is large and others get a pointer to it.
func (c *cluster) toStep(n *node) *policy.Event {
	if c.ahead != nil {
		return c.ahead.add(c, n)
	}
	return &c.event
}

// handOver is step for the event that is where toStep says. The node is up.
func (c *cluster) handOver(n *node) {
	if c.ahead != nil {
		return
	}
	ev := &c.event
	c.note(n, ev)
	effects := n.core.Step(policy.Time(c.clockOf(n)), *ev, c.effects[:0])
	for i := range effects {
		ownEffect(&effects[i])
	}
	c.carryOut(n, ev, effects)
	clear(effects)
	c.effects = effects
}

// note notes that a core is told something.
func (c *cluster) note(n *node, ev *policy.Event) {
	c.res.Steps++
	c.trace.mix(uint64(c.now), uint64(n.index)<<8|uint64(ev.Kind), uint64(ev.ID), uint64(ev.Chunk), uint64(ev.N))
	if ev.Kind == policy.EvMessage {
		c.trace.mix(uint64(ev.Msg.Kind), uint64(ev.Msg.Chunk), uint64(ev.Msg.N))
	}
}

// carryOut does what followed from a step.
func (c *cluster) carryOut(n *node, ev *policy.Event, effects []policy.Effect) {
	c.rules.stepped(n, ev, effects)
	if c.opt.Observe != nil {
		c.opt.Observe(time.Duration(c.now-startTime), int(n.index), ev, effects)
	}
	for i := range effects {
		c.do(n, &effects[i])
	}
}

// post has an event happen to a node later.
func (c *cluster) post(n *node, delay int64, ev policy.Event) {
	c.q.push(c.now+delay, evPost, n.index, n.life, uint64(c.posts.put(ev)))
}

func (c *cluster) do(n *node, e *policy.Effect) {
	switch e.Kind {
	case policy.EfSend:
		c.send(n, &e.Peer, &e.Msg)
	case policy.EfConnect:
		if o := c.nodeOf(&e.Peer); o != nil {
			c.q.push(c.now+4*c.distance(n, o), evConnect, n.index, n.life, uint64(o.index))
		} else {
			c.post(n, 0, policy.Event{Kind: policy.EvUnreachable, Peer: e.Peer})
		}
	case policy.EfLookup:
		c.lookUp(n, e)
	case policy.EfProvide:
		c.res.Provides++
		c.blobs[c.blobOf(e.Blob)].provide(c.now, n.index, e.Chunk, int(e.N))
	case policy.EfWithdraw:
		c.blobs[c.blobOf(e.Blob)].withdraw(c.now, n.index)
	case policy.EfOpen:
		c.open(n, e)
	case policy.EfTransfer:
		c.ask(n, e)
	case policy.EfCancelTransfer:
		c.cancelTransfer(n, e.ID)
	case policy.EfServe, policy.EfBusy:
		i := int32(uint32(e.ID))
		if t := &c.transfers.all[i]; t.open && t.serial == uint32(e.ID>>32) && t.from == n.index {
			t.busy = e.Kind == policy.EfBusy
			t.peers = slices.Clone(e.Peers)
		} else if e.Kind == policy.EfServe && c.ahead != nil {
			// The asker has cancelled it meanwhile.
			c.q.push(c.now, evUploaded, n.index, n.life, uint64(e.ID))
		}
	case policy.EfCooldown:
		n.view.pauseAll = max(n.view.pauseAll, c.now+min(int64(e.Wait), maxPause))
	case policy.EfOriginSize, policy.EfOriginRead:
		c.readOrigin(n, e)
	case policy.EfCancelOrigin:
		if i := c.readOf(n, e.ID); i >= 0 {
			c.stopRead(i)
			c.q.push(c.now, evOriginStop, n.index, n.life, uint64(e.ID))
		}
	case policy.EfStore:
		c.store(n, e)
	case policy.EfDiscard:
		n.take(e.ID, e.Chunk)
	case policy.EfRaise:
		if h := n.held[c.blobOf(e.Blob)]; h.level[e.Chunk] != chunkindex.Absent {
			h.level[e.Chunk] = e.Level
		} else {
			h.storing[e.Chunk] = e.Level
		}
	case policy.EfDrop:
		c.drop(n, c.blobOf(e.Blob), e.Chunk)
	case policy.EfProve:
		c.prove(n, c.blobOf(e.Blob))
	case policy.EfSums:
		c.sendSums(n, e)
	case policy.EfDeliver:
		c.deliver(n, e)
	case policy.EfFail:
		c.refused(n, e)
	case policy.EfBypass:
		c.bypass(n, e)
	case policy.EfTimer:
		c.setTimer(n, e.At)
	case policy.EfCount:
		c.res.Metrics[e.Metric] += e.N
		if e.Metric == policy.CountGrant {
			c.grantor = n
			c.closed(0, -1, 0)
		}
	case policy.EfBan:
		if b := c.nodeOf(&e.Peer); b != nil && !b.wicked {
			c.res.HonestBans++
		}
	case policy.EfClose:
	}
}

// open opens a blob in the node's store, which says what is there of it.
func (c *cluster) open(n *node, e *policy.Effect) {
	ev := policy.Event{Kind: policy.EvOpened, Blob: e.Blob}
	k := c.blobOf(e.Blob)
	if h := n.held[k]; h != nil && !h.proven && !e.Small {
		ev.Levels = slices.Clone(h.level)
		ev.Sums = make([]chunkindex.Sum, len(h.level))
		for i := range ev.Sums {
			ev.Sums[i] = c.blobs[k].sum(i, h.bytes[i].recorded())
		}
	}
	c.post(n, int64(c.run.Costs.Open), ev)
}

func (c *cluster) sendSums(n *node, e *policy.Effect) {
	m := policy.Message{Kind: policy.MsgSums, Blob: e.Blob, Size: e.Size, Chunk: e.Chunk, N: int(e.N)}
	k := c.blobOf(e.Blob)
	for i := e.Chunk; i < e.Chunk+int(e.N) && n.held[k] != nil; i++ {
		m.Sums = append(m.Sums, c.blobs[k].sum(i, n.serves(n.held[k], i).recorded()))
	}
	c.send(n, &e.Peer, &m)
}
