package simulation

import (
	"slices"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

const faultBroken = policy.FaultBroken

// node is the driver of one core: it carries out effects in virtual time.
type node struct {
	index  int32
	id     chunkindex.NodeID
	core   *policy.Core
	life   uint32 // grows when it is killed: what was planned for it is void
	down   bool
	up, in int32 // links

	linked []uint64 // set of the nodes that it is connected to
	peers  []int32  // the same
	known  []int32  // those that it connects to when it starts

	transfers map[policy.ID]int32
	reads     map[policy.ID]int32
	hand      map[hand]taint
	held      []*holding // by blob
	clients   []client   // by reader, from 1 on
	missing   int        // blobs that its client still waits for

	timerAt, timerDue int64 // as the core asked; the earliest event planned; 0 none
	cooldown          int64

	corrupt, forges, stalls, mute bool

	begun, first, done int64 // 0 not yet
	failed             int   // status
}

type hand struct {
	id    policy.ID
	chunk int
}

// client is one request for a blob.
type client struct {
	blob         int32
	upto, said   int64
	chunk        int // the next to check
	try          int
	wrong, ended bool
}

// transfer is one chunk asked of a peer.
type transfer struct {
	open      bool
	serial    uint32
	to, from  int32
	fromLife  uint32
	id        policy.ID
	blob      int32
	chunk     int
	flow      int32 // -1 none
	size      int64 // as the asker has it
	uploading bool  // the peer's core awaits its end
	upload    uint64
	busy      bool
	fault     policy.Fault
	peers     []chunkindex.NodeID
	bytes     taint
	claims    []chunkindex.Claim
}

// originRead is one request to the origin, or for a blob's size.
type originRead struct {
	open       bool
	serial     uint32
	node       int32
	id         policy.ID
	blob       int32
	chunk, end int
	flow       int32 // -1 none
	size       int64 // as the asker has it
	sizeOnly   bool
}

type letter struct {
	from int32
	msg  policy.Message
}

type question struct {
	blob     int32
	chunk, n int
}

func (n *node) isLinked(o int32) bool { return n.linked[o>>6]&(1<<(o&63)) != 0 }

func (n *node) unlink(o int32) {
	n.linked[o>>6] &^= 1 << (o & 63)
	if i := slices.Index(n.peers, o); i >= 0 {
		n.peers[i] = n.peers[len(n.peers)-1]
		n.peers = n.peers[:len(n.peers)-1]
	}
}

// step hands an event to a core and carries out what follows. It is never called
// while effects are carried out: what they lead to goes through the queue.
func (c *cluster) step(n *node, ev policy.Event) {
	if n.down {
		return
	}
	c.res.Steps++
	c.trace.mix(uint64(c.now), uint64(n.index)<<8|uint64(ev.Kind), uint64(ev.ID), uint64(ev.Chunk), uint64(ev.N))
	if ev.Kind == policy.EvMessage {
		c.trace.mix(uint64(ev.Msg.Kind), uint64(ev.Msg.Chunk), uint64(ev.Msg.N))
	}
	effects := n.core.Step(policy.Time(c.now), ev, c.effects[:0])
	if c.cfg.Observe != nil {
		seen := ev
		c.cfg.Observe(time.Duration(c.now-startTime), int(n.index), &seen, effects)
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
		c.send(n, e.Peer, e.Msg)
	case policy.EfConnect:
		if o, ok := c.index[e.Peer]; ok {
			c.q.push(c.now+4*c.latency, evConnect, n.index, n.life, uint64(o))
		} else {
			c.post(n, 2*c.latency, policy.Event{Kind: policy.EvUnreachable, Peer: e.Peer})
		}
	case policy.EfLookup:
		c.res.Lookups++
		s := c.questions.put(question{c.byDigest[e.Blob], e.Chunk, int(e.N)})
		c.q.push(c.now+int64(c.cfg.DHTDelay), evLooked, n.index, n.life, uint64(s))
	case policy.EfProvide:
		c.res.Provides++
		c.blobs[c.byDigest[e.Blob]].provide(n.index, e.Chunk, int(e.N))
	case policy.EfWithdraw:
		c.blobs[c.byDigest[e.Blob]].withdraw(n.index)
	case policy.EfOpen:
		ev := policy.Event{Kind: policy.EvOpened, Blob: e.Blob}
		k := c.byDigest[e.Blob]
		if h := n.held[k]; h != nil && !h.proven && !e.Small {
			ev.Levels = slices.Clone(h.level)
			ev.Sums = make([]chunkindex.Sum, len(h.level))
			for i := range ev.Sums {
				ev.Sums[i] = c.blobs[k].sum(i, h.bytes[i])
			}
		}
		c.post(n, int64(c.cfg.OpenTime), ev)
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
		n.cooldown = max(n.cooldown, c.now+int64(e.Wait))
	case policy.EfOriginSize, policy.EfOriginRead:
		c.readOrigin(n, e)
	case policy.EfCancelOrigin:
		if i, ok := n.reads[e.ID]; ok {
			c.stopRead(i)
			c.q.push(c.now, evOriginStop, n.index, n.life, uint64(e.ID))
		}
	case policy.EfStore:
		c.store(n, e)
	case policy.EfDiscard:
		delete(n.hand, hand{e.ID, e.Chunk})
	case policy.EfRaise:
		if h := n.held[c.byDigest[e.Blob]]; h.level[e.Chunk] != chunkindex.Absent {
			h.level[e.Chunk] = e.Level
		} else {
			h.storing[e.Chunk] = e.Level
		}
	case policy.EfDrop:
		h := n.held[c.byDigest[e.Blob]]
		h.level[e.Chunk] = chunkindex.Absent
		h.hashed = min(h.hashed, e.Chunk)
	case policy.EfProve:
		k := c.byDigest[e.Blob]
		c.q.push(max(c.now, n.held[k].hashing)+int64(c.cfg.PublishTime), evProve, n.index, n.life, uint64(k))
	case policy.EfSums:
		m := policy.Message{Kind: policy.MsgSums, Blob: e.Blob, Size: e.Size, Chunk: e.Chunk, N: int(e.N)}
		k := c.byDigest[e.Blob]
		for i := e.Chunk; i < e.Chunk+int(e.N); i++ {
			m.Sums = append(m.Sums, c.blobs[k].sum(i, n.serves(n.held[k], i)))
		}
		c.send(n, e.Peer, m)
	case policy.EfDeliver:
		c.deliver(n, e)
	case policy.EfFail, policy.EfBypass:
		c.failed(n, e)
	case policy.EfTimer:
		n.timerAt = int64(e.At)
		if n.timerAt != 0 {
			n.timerAt = max(n.timerAt, c.now)
			if n.timerDue == 0 || n.timerAt < n.timerDue {
				n.timerDue = n.timerAt
				c.q.push(n.timerAt, evTimer, n.index, n.life, uint64(n.timerAt))
			}
		}
	case policy.EfCount:
		c.res.Metrics[e.Metric] += e.N
		if e.Metric == policy.CountGrant {
			c.grantor = n
			c.closed(0, -1, 0)
		}
	case policy.EfBan:
		if o, ok := c.index[e.Peer]; ok {
			if b := c.nodes[o]; !b.corrupt && !b.forges {
				c.res.HonestBans++
			}
		}
	case policy.EfClose:
	}
}

// serves is what a node gives out for a chunk that it holds.
func (n *node) serves(h *holding, i int) taint {
	if n.corrupt || n.forges {
		return taint(n.index + 1)
	}
	return h.bytes[i]
}

func (c *cluster) send(n *node, to chunkindex.NodeID, m policy.Message) {
	o, ok := c.index[to]
	if !ok || !n.isLinked(o) || n.mute {
		return
	}
	c.res.Messages[m.Kind]++
	// What goes over a wire shares nothing with the sender.
	if m.Bits.Len() > 0 {
		m.Bits = m.Bits.Clone()
	}
	if m.InFlight.Len() > 0 {
		m.InFlight = m.InFlight.Clone()
	}
	m.Peers, m.Labels, m.Sums = slices.Clone(m.Peers), slices.Clone(m.Labels), slices.Clone(m.Sums)
	s := c.letters.put(letter{n.index, m})
	c.q.push(c.now+c.latency, evMessage, o, c.nodes[o].life, uint64(s))
}

// ask sends a request for a chunk to a peer.
func (c *cluster) ask(n *node, e *policy.Effect) {
	c.serial++
	t := transfer{open: true, serial: c.serial, to: n.index, id: e.ID, blob: c.byDigest[e.Blob], chunk: e.Chunk, flow: -1, size: e.Size}
	from, ok := c.index[e.Peer]
	if !ok {
		from = n.index
	}
	t.from, t.fromLife = from, c.nodes[from].life
	i := c.transfers.put(t)
	n.transfers[e.ID] = i
	c.res.Transfers++
	c.q.push(c.now+c.latency, evUpload, from, 0, t.arg(i))
}

func (t *transfer) arg(i int32) uint64 { return uint64(t.serial)<<32 | uint64(uint32(i)) }

// transferAt returns the transfer that arg names, nil if it is over.
func (c *cluster) transferAt(arg uint64) (int32, *transfer) {
	i := int32(uint32(arg))
	if t := &c.transfers.all[i]; t.open && t.serial == uint32(arg>>32) {
		return i, t
	}
	return i, nil
}

// upload has a peer answer a request.
func (c *cluster) upload(arg uint64) {
	i, t := c.transferAt(arg)
	if t == nil {
		return
	}
	from, to, b := c.nodes[t.from], c.nodes[t.to], c.blobs[t.blob]
	if from.down || from.life != t.fromLife || !from.isLinked(t.to) {
		c.refuse(i, policy.FaultBroken, c.latency)
		return
	}
	if from.mute || from.stalls {
		return
	}
	h := from.held[t.blob]
	if h == nil || !h.proven && !h.level[t.chunk].Shareable() {
		c.refuse(i, policy.FaultGone, c.latency)
		return
	}
	if !b.small && t.size != b.size {
		c.refuse(i, policy.FaultBroken, c.latency)
		return
	}
	t.bytes = from.serves(h, t.chunk)
	switch {
	case b.small:
	case from.forges:
		t.claims = b.claim(from, t.chunk, t.bytes)
	case h.proven || h.level[t.chunk] == chunkindex.Fetched:
		t.claims = b.claim(from, t.chunk, 0)
	case h.signer[t.chunk] >= 0:
		// A forger's claim goes on with the bytes that it is about.
		t.claims = b.claim(c.nodes[h.signer[t.chunk]], t.chunk, h.bytes[t.chunk])
	}
	t.uploading, t.upload = true, arg
	chunk := t.chunk
	c.step(from, policy.Event{Kind: policy.EvUpload, ID: policy.ID(arg), Peer: to.id, Blob: b.id, Chunk: chunk})
	if i, t = c.transferAt(arg); t == nil {
		return
	}
	if t.busy {
		t.uploading = false
		c.refuse(i, policy.FaultBusy, c.latency)
		return
	}
	c.q.push(c.now+c.latency, evFlowStart, t.to, 0, arg)
}

func (c *cluster) startFlow(arg uint64) {
	i, t := c.transferAt(arg)
	if t == nil {
		return
	}
	from := c.nodes[t.from]
	if from.down || from.life != t.fromLife || !from.isLinked(t.to) {
		c.refuse(i, policy.FaultBroken, 0)
		return
	}
	_, size := c.blobs[t.blob].chunk(t.chunk)
	t.flow = c.net.start(c.now, from.up, c.nodes[t.to].in, size, 0, i, false)
}

// refuse has a transfer fail after a while.
func (c *cluster) refuse(i int32, fault policy.Fault, delay int64) {
	t := &c.transfers.all[i]
	t.fault = fault
	c.q.push(c.now+delay, evRefused, t.to, 0, t.arg(i))
}

func (c *cluster) refused(arg uint64) {
	i, t := c.transferAt(arg)
	if t == nil {
		return
	}
	to := c.nodes[t.to]
	ev := policy.Event{Kind: policy.EvTransferFailed, Blob: c.blobs[t.blob].id, ID: t.id, Chunk: t.chunk,
		Peer: c.nodes[t.from].id, Fault: t.fault, Peers: t.peers}
	c.closeTransfer(i)
	c.step(to, ev)
}

// closeTransfer forgets a transfer whose flow, if it had one, has ended.
func (c *cluster) closeTransfer(i int32) {
	t := &c.transfers.all[i]
	c.endUpload(t, c.latency)
	delete(c.nodes[t.to].transfers, t.id)
	c.transfers.take(i)
}

func (c *cluster) endUpload(t *transfer, delay int64) {
	if t.uploading {
		t.uploading = false
		c.q.push(c.now+delay, evUploaded, t.from, t.fromLife, t.upload)
	}
}

func (c *cluster) cancelTransfer(n *node, id policy.ID) {
	i, ok := n.transfers[id]
	if !ok {
		return
	}
	if f := c.transfers.all[i].flow; f >= 0 {
		c.res.CutBytes += c.net.end(c.now, f)
	}
	c.closeTransfer(i)
	c.q.push(c.now, evCancelled, n.index, n.life, uint64(id))
}

// flowed is called at each milestone of a flow.
func (c *cluster) flowed(i int32, gen uint32) {
	f := &c.net.flows[i]
	if !f.active || f.gen != gen || f.due != c.now {
		return
	}
	f.due = 0
	c.net.settle(f, c.now)
	if f.left > 0 {
		moved := f.moved()
		if n := moved - f.said; n >= progressBytes || n > 0 && c.now-f.saidAt >= progressTime {
			f.said, f.saidAt = moved, c.now
			c.net.plan(i)
			c.progress(f.owner, f.origin, n)
			return
		}
		if c.now-f.saidAt >= progressTime {
			f.saidAt = c.now
		}
		c.net.plan(i)
		return
	}
	if f.origin {
		c.originChunk(f.owner)
	} else {
		c.transferred(f.owner)
	}
}

func (c *cluster) progress(owner int32, origin bool, n int64) {
	if origin {
		r := &c.reads.all[owner]
		c.step(c.nodes[r.node], policy.Event{Kind: policy.EvOriginProgress, Blob: c.blobs[r.blob].id, ID: r.id, N: n})
		return
	}
	t := &c.transfers.all[owner]
	c.step(c.nodes[t.to], policy.Event{Kind: policy.EvTransferProgress, Blob: c.blobs[t.blob].id, ID: t.id, N: n})
}

func (c *cluster) transferred(i int32) {
	t := &c.transfers.all[i]
	size := c.net.end(c.now, t.flow)
	t.flow = -1
	c.res.PeerBytes += size
	to, b := c.nodes[t.to], c.blobs[t.blob]
	ev := policy.Event{Kind: policy.EvTransferDone, Blob: b.id, ID: t.id, Chunk: t.chunk, Peer: c.nodes[t.from].id,
		N: size, Sum: b.sum(t.chunk, t.bytes), Claims: t.claims}
	switch {
	case !b.small:
		to.hand[hand{t.id, t.chunk}] = t.bytes
	case t.bytes != 0:
		ev = policy.Event{Kind: policy.EvTransferFailed, Blob: b.id, ID: t.id, Chunk: t.chunk, Peer: ev.Peer, Fault: policy.FaultCorrupt}
	default:
		to.hand[hand{t.id, t.chunk}] = 0
		ev.Size = b.size
	}
	c.closeTransfer(i)
	c.step(to, ev)
}

// readOrigin sends a request to the origin.
func (c *cluster) readOrigin(n *node, e *policy.Effect) {
	c.serial++
	k := c.byDigest[e.Blob]
	b := c.blobs[k]
	r := originRead{open: true, serial: c.serial, node: n.index, id: e.ID, blob: k, flow: -1,
		size: e.Size, sizeOnly: e.Kind == policy.EfOriginSize, chunk: e.Chunk, end: b.n}
	if !b.small && !r.sizeOnly {
		r.chunk, r.end = b.layout.Span(e.Off, e.N)
	}
	if !r.sizeOnly {
		c.closed(k, r.chunk, r.end)
	}
	i := c.reads.put(r)
	n.reads[e.ID] = i
	c.res.OriginRequests++
	delay := 2*c.latency + int64(c.cfg.OriginDelay)
	if c.now < n.cooldown {
		delay = 0
	}
	c.q.push(c.now+delay, evOrigin, n.index, 0, uint64(r.serial)<<32|uint64(uint32(i)))
}

func (c *cluster) readAt(arg uint64) (int32, *originRead) {
	i := int32(uint32(arg))
	if r := &c.reads.all[i]; r.open && r.serial == uint32(arg>>32) {
		return i, r
	}
	return i, nil
}

// answered is the origin's answer to a request.
func (c *cluster) answered(arg uint64) {
	i, r := c.readAt(arg)
	if r == nil {
		return
	}
	n, b := c.nodes[r.node], c.blobs[r.blob]
	ev := policy.Event{Kind: policy.EvOriginFailed, Blob: b.id, ID: r.id}
	ev.Status, ev.Wait = c.originStatus(n)
	if ev.Status == 0 && !r.sizeOnly && !b.small && r.size != b.size {
		ev.Status = 502
	}
	if ev.Status != 0 {
		c.closeRead(i)
		c.step(n, ev)
		return
	}
	if r.sizeOnly {
		c.closeRead(i)
		c.step(n, policy.Event{Kind: policy.EvOriginDone, Blob: b.id, ID: ev.ID, Size: b.size})
		return
	}
	c.step(n, policy.Event{Kind: policy.EvOriginHeaders, Blob: b.id, ID: r.id, Size: b.size, Ranged: true})
	if i, r = c.readAt(arg); r == nil {
		return
	}
	if r.chunk >= r.end {
		c.finishRead(i)
		return
	}
	_, size := b.chunk(r.chunk)
	r.flow = c.net.start(c.now, c.originUp, n.in, size, c.cfg.OriginConnRate, i, true)
}

func (c *cluster) originStatus(n *node) (int, time.Duration) {
	if c.now < n.cooldown {
		return 429, time.Duration(n.cooldown - c.now)
	}
	if k := c.cfg.Credentials; k > 0 && int(n.index) >= k {
		return 401, 0
	}
	for _, t := range c.cfg.Throttles {
		if at := time.Duration(c.now - startTime); at >= t.At && at < t.At+t.For {
			c.res.Throttled++
			return 429, t.Wait
		}
	}
	return 0, 0
}

// originChunk is called when a read has brought a chunk.
func (c *cluster) originChunk(i int32) {
	r := &c.reads.all[i]
	n, b, chunk := c.nodes[r.node], c.blobs[r.blob], r.chunk
	_, size := b.chunk(chunk)
	c.res.OriginBytes += size
	c.res.OriginDelivered += size
	n.hand[hand{r.id, chunk}] = 0
	r.chunk++
	last := r.chunk >= r.end
	if last {
		c.net.end(c.now, r.flow)
		r.flow = -1
	} else {
		_, next := b.chunk(r.chunk)
		c.net.next(c.now, r.flow, next)
	}
	serial := r.serial
	ev := policy.Event{Kind: policy.EvOriginChunk, Blob: b.id, ID: r.id, Chunk: chunk, Sum: b.sum(chunk, 0), N: size}
	if b.small {
		ev.Size = b.size
	}
	c.step(n, ev)
	if r := &c.reads.all[i]; last && r.open && r.serial == serial {
		c.finishRead(i)
	}
}

func (c *cluster) finishRead(i int32) {
	r := &c.reads.all[i]
	n := c.nodes[r.node]
	ev := policy.Event{Kind: policy.EvOriginDone, Blob: c.blobs[r.blob].id, ID: r.id, Size: c.blobs[r.blob].size}
	c.closeRead(i)
	c.step(n, ev)
}

func (c *cluster) stopRead(i int32) {
	if f := c.reads.all[i].flow; f >= 0 {
		moved := c.net.end(c.now, f)
		c.res.OriginBytes += moved
		c.res.CutBytes += moved
	}
	c.closeRead(i)
}

func (c *cluster) closeRead(i int32) {
	r := &c.reads.all[i]
	delete(c.nodes[r.node].reads, r.id)
	c.reads.take(i)
}

// perMiB is what bytes cost at a price for each MiB.
func perMiB(price time.Duration, n int64) int64 { return int64(price) * n >> 20 }

func (c *cluster) store(n *node, e *policy.Effect) {
	k := c.byDigest[e.Blob]
	b := c.blobs[k]
	bytes, ok := n.hand[hand{e.ID, e.Chunk}]
	if !ok {
		c.broken("%s stores chunk %d of %d, which is not in hand", n.id, e.Chunk, e.ID)
		return
	}
	delete(n.hand, hand{e.ID, e.Chunk})
	h := n.held[k]
	if h == nil {
		h = newHolding(b.n)
		n.held[k] = h
	}
	h.bytes[e.Chunk], h.storing[e.Chunk], h.signer[e.Chunk] = bytes, e.Level, -1
	if e.Claim != nil {
		h.signer[e.Chunk] = c.index[e.Claim.Signer]
	}
	_, size := b.chunk(e.Chunk)
	c.q.push(c.now+perMiB(c.cfg.StoreTime, size), evStored, n.index, n.life, uint64(k)<<32|uint64(e.Chunk))
}

func (c *cluster) stored(n *node, k, chunk int) {
	b, h := c.blobs[k], n.held[k]
	if h.storing[chunk] != chunkindex.Absent {
		h.level[chunk], h.storing[chunk] = h.storing[chunk], chunkindex.Absent
	}
	h.proven = h.proven || b.small
	// The hash of the whole follows the chunks.
	for h.hashed < b.n && h.level[h.hashed] != chunkindex.Absent {
		_, size := b.chunk(h.hashed)
		h.hashing = max(h.hashing, c.now) + perMiB(c.cfg.HashTime, size)
		h.hashed++
	}
	c.step(n, policy.Event{Kind: policy.EvStored, Blob: b.id, Chunk: chunk})
}

func (c *cluster) proved(n *node, k int) {
	b, h := c.blobs[k], n.held[k]
	kind := policy.EvProven
	for i := range b.n {
		if h.level[i] == chunkindex.Absent {
			c.broken("%s proves %s without chunk %d", n.id, b.id, i)
		}
		if h.bytes[i] != 0 {
			kind = policy.EvRefuted
		}
	}
	h.proven = kind == policy.EvProven
	c.step(n, policy.Event{Kind: kind, Blob: b.id})
}

// read has the node's client ask for a blob.
func (c *cluster) read(n *node, k int32, try int) {
	b := c.blobs[k]
	n.clients = append(n.clients, client{blob: k, try: try})
	c.step(n, policy.Event{Kind: policy.EvRead, Blob: b.id, Reader: policy.ID(len(n.clients)), End: -1, Size: b.size,
		Whole: true, Small: b.small, Source: 1, Origin: 1})
}

func (c *cluster) deliver(n *node, e *policy.Effect) {
	cl := &n.clients[e.Reader-1]
	b, h := c.blobs[cl.blob], n.held[cl.blob]
	if cl.ended {
		c.broken("%s delivers to reader %d, which has ended", n.id, e.Reader)
		return
	}
	upto := e.Off
	if b.small {
		upto = b.size
	}
	if upto >= b.size && !h.proven {
		c.broken("%s releases the last byte of an unproven blob", n.id)
	}
	for ; cl.chunk < b.n; cl.chunk++ {
		off, length := b.chunk(cl.chunk)
		if off+length > upto {
			break
		}
		if h.level[cl.chunk] == chunkindex.Absent && !h.proven {
			c.broken("%s releases chunk %d, which it does not have", n.id, cl.chunk)
		}
		if h.bytes[cl.chunk] != 0 {
			cl.wrong = true
			c.res.WrongReleases++
		}
	}
	if n.first == 0 {
		n.first = c.now
	}
	cl.upto = upto
	c.q.push(c.now, evConsumed, n.index, n.life, uint64(e.Reader))
}

func (c *cluster) consumed(n *node, reader policy.ID) {
	cl := &n.clients[reader-1]
	if cl.ended || cl.said >= cl.upto {
		return
	}
	cl.said = cl.upto
	blob, upto := cl.blob, cl.upto
	c.step(n, policy.Event{Kind: policy.EvConsumed, Reader: reader, Off: upto})
	cl = &n.clients[reader-1]
	if cl.ended || upto < c.blobs[blob].size {
		return
	}
	cl.ended = true
	if cl.wrong {
		c.res.WrongCompletions++
	}
	c.step(n, policy.Event{Kind: policy.EvCancel, Reader: reader})
	if n.missing--; n.missing == 0 && n.failed == 0 {
		n.done = c.now
		c.waiting--
	}
}

// failed is the end of a client that was told to go elsewhere.
func (c *cluster) failed(n *node, e *policy.Effect) {
	cl := &n.clients[e.Reader-1]
	cl.ended = true
	c.res.Failures++
	if cl.try < c.cfg.Retries {
		c.q.push(c.now+int64(retryWait), evClient, n.index, n.life, uint64(cl.blob)<<32|uint64(cl.try+1))
		return
	}
	if n.failed == 0 {
		n.failed = max(e.Status, 1)
		c.waiting--
	}
}

func (c *cluster) tellHeld(n *node, k int, h *holding) {
	b := c.blobs[k]
	c.step(n, policy.Event{Kind: policy.EvHeld, Blob: b.id, Size: b.size, Small: b.small, Whole: h.proven})
}
