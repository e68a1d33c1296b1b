package simulation

import (
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// originRead is what a node reads from the origin: a run of chunks, a small blob, or
// only a size. It may take several requests: see originclient.go.
type originRead struct {
	open       bool
	serial     uint32 // of its latest request: events of others are void
	node       int32
	id         policy.ID // of the core's effect
	reader     policy.ID // the client that reads past the store, 0: the core reads
	blob       int32
	chunk, end int
	have       int64 // what came of the chunk before its answer broke off
	flow       int32 // -1 none
	size       int64 // as the asker has it
	sizeOnly   bool

	attempt, resumes int
	progress         int64 // bytes since the read was last resumed
	since, sent      int64 // when the first attempt and the latest were made
	lastByte         int64
	told             bool // the headers came, the body has begun
	connected        bool // the origin serves it
	stalled          bool // the origin has it, and says nothing
	breaks           int  // in which chunk the origin will break its answer off, -1 not at all
	why              refusal
}

func (r *originRead) arg(i int32) uint64 { return uint64(r.serial)<<32 | uint64(uint32(i)) }

// toOrigin is how long it takes from a node to the origin, fromOrigin the way back.
func (c *cluster) toOrigin(n *node) int64 {
	if c.run.Latency.Queue == 0 {
		return c.originTrip(n, nil)
	}
	p := pathOf(n.up, c.topo.racks[n.rack].up, c.topo.zones[n.zone].up)
	return c.originTrip(n, &p)
}

func (c *cluster) fromOrigin(n *node) int64 {
	if c.run.Latency.Queue == 0 {
		return c.originTrip(n, nil)
	}
	p := c.topo.fromOrigin(n.index)
	return c.originTrip(n, &p)
}

func (c *cluster) originTrip(n *node, p *path) int64 {
	d := int64(c.run.Latency.Origin)
	if p != nil {
		d += c.queues(p)
	}
	if n.loss > 0 {
		d += c.resent(n.loss, 0, 2*d)
	}
	return d
}

// readOrigin begins a read for a core.
func (c *cluster) readOrigin(n *node, e *policy.Effect) {
	k := c.blobOf(e.Blob)
	b := c.blobs[k]
	r := originRead{open: true, node: n.index, id: e.ID, blob: k, flow: -1,
		size: e.Size, sizeOnly: e.Kind == policy.EfOriginSize, chunk: e.Chunk, end: b.n}
	if !b.small && !r.sizeOnly {
		r.chunk, r.end = b.layout.Span(e.Off, e.N)
	}
	if !r.sizeOnly {
		c.closed(k, r.chunk, r.end)
	}
	c.beginRead(n, r)
}

func (c *cluster) beginRead(n *node, r originRead) {
	i := c.reads.put(r)
	n.reads = append(n.reads, i)
	c.request(i)
}

// readOf is the slot of a core's read, -1 if it is over.
func (c *cluster) readOf(n *node, id policy.ID) int32 {
	for _, i := range n.reads {
		if r := &c.reads.all[i]; r.id == id && r.reader == 0 {
			return i
		}
	}
	return -1
}

func (c *cluster) readAt(arg uint64) (int32, *originRead) {
	i := int32(uint32(arg))
	if r := &c.reads.all[i]; r.open && r.serial == uint32(arg>>32) {
		return i, r
	}
	return i, nil
}

// asked has the origin make up its mind about a request.
func (c *cluster) asked(arg uint64) {
	i, r := c.readAt(arg)
	if r == nil {
		return
	}
	n := c.nodes[r.node]
	r.stalled = n.offline > 0 || c.suffers(scenario.OriginStall, n) != nil
	if r.stalled {
		// Whoever hears nothing gives up at some time; until then an end of
		// the fault brings the answer.
		patience := r.sent + firstByteTimeout
		if r.told {
			patience = min(patience, r.lastByte+stallTimeout)
		}
		c.comeToNothing(i, refusal{status: 504, weight: 2}, max(patience-c.now, 0))
		return
	}
	status, wait := c.originStatus(n, r)
	if status != 0 {
		c.comeToNothing(i, refusal{status: status, wait: int64(wait)}, c.fromOrigin(n))
		return
	}
	if !r.sizeOnly {
		r.connected = true
		c.origin.connections++
		f := c.suffers(scenario.OriginReset, n)
		if r.breaks = -1; f != nil && c.rng.IntN(1_000_000) < f.Part {
			r.breaks = (r.chunk + r.end) / 2
		}
	}
	c.q.push(c.now+c.fromOrigin(n), evOrigin, n.index, 0, arg)
}

// answered is the begin of the origin's answer.
func (c *cluster) answered(arg uint64) {
	i, r := c.readAt(arg)
	if r == nil {
		return
	}
	n, b := c.nodes[r.node], c.blobs[r.blob]
	c.heard(&n.view)
	if !r.sizeOnly && !b.small && r.size != b.size {
		c.failRead(i, refusal{status: 502})
		return
	}
	if r.sizeOnly {
		id := r.id
		c.closeRead(i)
		c.step(n, policy.Event{Kind: policy.EvOriginDone, Blob: b.id, ID: id, Size: b.size})
		return
	}
	r.lastByte = c.now
	if !r.told {
		r.told = true
		if r.reader == 0 {
			c.stepThen(n, policy.Event{Kind: policy.EvOriginHeaders, Blob: b.id, ID: r.id, Size: b.size, Ranged: true}, afterHeaders, arg)
			return
		}
	}
	c.bodyBegins(arg)
}

// bodyBegins has the bytes of an answer come, if the core still wants them.
func (c *cluster) bodyBegins(arg uint64) {
	i, r := c.readAt(arg)
	if r == nil {
		return
	}
	n := c.nodes[r.node]
	if r.chunk >= r.end {
		c.finishRead(i)
		return
	}
	r.flow = c.net.start(c.netNow(), c.topo.fromOrigin(r.node), c.nextBytes(r), c.originCap(n), i, true)
	if n.offline > 0 || c.suffers(scenario.OriginStall, n) != nil {
		c.halt(i)
	}
}

// originCap bounds the rate of one connection to the origin, 0 for no bound.
func (c *cluster) originCap(n *node) int64 {
	most := c.run.Origin.Connection
	if n.loss > 0 {
		if lossy := lossCap(n.loss, 2*int64(c.run.Latency.Origin)); most == 0 || lossy < most {
			most = lossy
		}
	}
	return most
}

// nextBytes is how much of the read's next chunk its answer will bring: not all,
// where it is to break off.
func (c *cluster) nextBytes(r *originRead) int64 {
	_, size := c.blobs[r.blob].chunk(r.chunk)
	size -= r.have
	if r.chunk == r.breaks {
		return max(size/2, 1)
	}
	return size
}

// originChunk is called when the bytes of a read's flow have come.
func (c *cluster) originChunk(i int32) {
	r := &c.reads.all[i]
	n, b, chunk := c.nodes[r.node], c.blobs[r.blob], r.chunk
	_, size := b.chunk(chunk)
	got := c.net.flows[r.flow].total
	c.res.OriginBytes += got
	r.lastByte = c.now
	if r.progress += got; r.progress >= resumeProgress {
		r.progress, r.resumes = 0, 0
	}
	if r.have+got < size {
		c.net.end(c.now, r.flow)
		r.flow = -1
		r.have += got
		c.rules.originSent(n, r.blob, chunk, got, false)
		c.judge(n, b, r.sent, &refusal{status: 502, weight: 1})
		c.disconnect(r)
		c.goOn(i)
		return
	}
	c.rules.originSent(n, r.blob, chunk, got, true)
	c.res.OriginDelivered += size
	r.have = 0
	r.chunk++
	last := r.chunk >= r.end
	if last {
		c.net.end(c.now, r.flow)
		r.flow = -1
	} else {
		c.net.next(c.now, r.flow, c.nextBytes(r))
	}
	if r.reader == 0 {
		n.hand = append(n.hand, handed{r.id, chunk, 0})
		ev := policy.Event{Kind: policy.EvOriginChunk, Blob: b.id, ID: r.id, Chunk: chunk, Sum: b.sum(chunk, 0), N: size}
		if b.small {
			ev.Size = b.size
		}
		next := nothingElse
		if last {
			next = afterChunks
		}
		c.stepThen(n, ev, next, r.arg(i))
	} else if last {
		c.finishRead(i)
	}
}

func (c *cluster) finishRead(i int32) {
	r := c.reads.all[i]
	n, b := c.nodes[r.node], c.blobs[r.blob]
	c.closeRead(i)
	if r.reader != 0 {
		c.bypassDone(n, r.reader)
		return
	}
	c.step(n, policy.Event{Kind: policy.EvOriginDone, Blob: b.id, ID: r.id, Size: b.size})
}

// stopRead ends a read in the middle.
func (c *cluster) stopRead(i int32) {
	r := &c.reads.all[i]
	c.cutRead(r)
	c.res.CutBytes += r.have
	c.closeRead(i)
}

// cutRead ends the flow of a read, if it has one: what came of the chunk is kept for
// as long as the read is.
func (c *cluster) cutRead(r *originRead) {
	if r.flow < 0 {
		return
	}
	moved := c.net.end(c.netNow(), r.flow)
	r.flow = -1
	r.have += moved
	c.res.OriginBytes += moved
	c.rules.originSent(c.nodes[r.node], r.blob, r.chunk, moved, false)
}

// closeRead forgets a read whose flow, if it had one, has ended.
func (c *cluster) closeRead(i int32) {
	r := &c.reads.all[i]
	c.disconnect(r)
	n := c.nodes[r.node]
	n.reads = without(n.reads, i)
	c.reads.drop(i)
}

// answerStalled has the origin answer those that it left waiting, if it does again.
func (c *cluster) answerStalled() {
	for i := range c.reads.all {
		r := &c.reads.all[i]
		if r.open && r.stalled && c.nodes[r.node].offline == 0 && c.suffers(scenario.OriginStall, c.nodes[r.node]) == nil {
			c.renew(r)
			c.q.push(c.now, evAsked, r.node, 0, r.arg(int32(i)))
		}
	}
}

func (c *cluster) disconnect(r *originRead) {
	if r.connected {
		r.connected = false
		c.origin.connections--
	}
}

// originState is how the origin fares.
type originState struct {
	connections int
	limits      []limitState
}

// limitState is how much of a rate limit is used up.
type limitState struct {
	window int64   // which it is about
	used   []int32 // by node, or by all in one
}

// originAnswers reports whether the origin answers a node at all.
func (c *cluster) originAnswers(n *node) bool {
	if f := c.suffers(scenario.OriginError, n); f != nil && f.Status >= 502 && f.Status <= 504 {
		return false
	}
	return c.suffers(scenario.OriginOutage, n) == nil && c.suffers(scenario.OriginStall, n) == nil
}

// originStatus is what the origin has against a request, 0 for nothing.
func (c *cluster) originStatus(n *node, r *originRead) (status int, wait time.Duration) {
	o := &c.origin
	if c.suffers(scenario.OriginOutage, n) != nil {
		return 502, 0
	}
	if f := c.suffers(scenario.OriginError, n); f != nil {
		return f.Status, 0
	}
	if k := c.run.Origin.Readers; k > 0 && int(n.index) >= k || c.suffers(scenario.ExpiredToken, n) != nil {
		return 401, 0
	}
	if f := c.suffers(scenario.OriginThrottle, n); f != nil {
		c.res.Throttled++
		return 429, f.Delay
	}
	if wait := c.overLimit(n, r); wait > 0 {
		c.res.Throttled++
		return 429, wait
	}
	if most := c.run.Origin.Connections; most > 0 && !r.sizeOnly && o.connections >= most {
		return 503, 0
	}
	return 0, 0
}

// overLimit counts a request for the limits that it counts for, if all have room,
// and else says for how long one of them has none. Windows follow one another from
// the start of the run.
func (c *cluster) overLimit(n *node, r *originRead) (wait time.Duration) {
	o := &c.origin
	if o.limits == nil {
		o.limits = make([]limitState, len(c.run.Origin.Limits))
	}
	var counts [8]*int32
	at := counts[:0]
	for k := range c.run.Origin.Limits {
		l, s := &c.run.Origin.Limits[k], &o.limits[k]
		if l.Manifests && (!c.blobs[r.blob].manifest || r.sizeOnly) {
			continue
		}
		if w := (c.now - startTime) / int64(l.Window); s.used == nil || w != s.window {
			s.window = w
			if l.PerNode {
				s.used = make([]int32, len(c.nodes))
			} else {
				s.used = make([]int32, 1)
			}
		}
		i := 0
		if l.PerNode {
			i = int(n.index)
		}
		if int(s.used[i]) >= l.Requests {
			wait = max(wait, time.Duration(startTime+(s.window+1)*int64(l.Window)-c.now))
		}
		at = append(at, &s.used[i])
	}
	if wait == 0 {
		for _, used := range at {
			*used++
		}
	}
	return wait
}
