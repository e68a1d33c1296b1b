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

	// how many faults have it do so
	corrupt, forges, lies, stalls, mute, offline, full int
	wicked, leaving                                    bool // wicked: wrong bytes or words have come from it
}

func (n *node) isLinked(o int32) bool { return n.linked[o>>6]&(1<<(o&63)) != 0 }

func (n *node) unlink(o int32) {
	n.linked[o>>6] &^= 1 << (o & 63)
	if i := slices.Index(n.peers, o); i >= 0 {
		last := len(n.peers) - 1
		n.peers[i], n.arrivals[i] = n.peers[last], n.arrivals[last]
		n.peers, n.arrivals = n.peers[:last], n.arrivals[:last]
	}
}

// step hands an event to a core and carries out what follows. It is never called
// while effects are carried out: what they lead to goes through the queue.
func (c *cluster) step(n *node, ev policy.Event) {
	if n.down {
		return
	}
	c.event = ev
	c.handOver(n)
}

// handOver is step for the event in c.event, which is there, and not on the stack,
// because it is large and others get a pointer to it. The node is up.
func (c *cluster) handOver(n *node) {
	ev := &c.event
	c.res.Steps++
	c.trace.mix(uint64(c.now), uint64(n.index)<<8|uint64(ev.Kind), uint64(ev.ID), uint64(ev.Chunk), uint64(ev.N))
	if ev.Kind == policy.EvMessage {
		c.trace.mix(uint64(ev.Msg.Kind), uint64(ev.Msg.Chunk), uint64(ev.Msg.N))
	}
	effects := n.core.Step(policy.Time(c.clockOf(n)), *ev, c.effects[:0])
	c.rules.stepped(n, ev, effects)
	if c.opt.Observe != nil {
		c.opt.Observe(time.Duration(c.now-startTime), int(n.index), ev, effects)
	}
	for i := range effects {
		c.do(n, &effects[i])
	}
	clear(effects)
	c.effects = effects
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
	for i := e.Chunk; i < e.Chunk+int(e.N); i++ {
		m.Sums = append(m.Sums, c.blobs[k].sum(i, n.serves(n.held[k], i).recorded()))
	}
	c.send(n, &e.Peer, &m)
}
