package simulation

import (
	"slices"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// How chunks go from node to node: a request, its answer, and a flow of bytes.

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

// ask sends a request for a chunk to a peer.
func (c *cluster) ask(n *node, e *policy.Effect) {
	c.serial++
	t := transfer{open: true, serial: c.serial, to: n.index, id: e.ID, blob: c.blobOf(e.Blob), chunk: e.Chunk, flow: -1, size: e.Size}
	from := c.nodeOf(&e.Peer)
	if from == nil {
		from = n
	}
	t.from, t.fromLife = from.index, from.life
	i := c.transfers.put(t)
	n.transfers = append(n.transfers, i)
	c.res.Transfers++
	c.carry(n, from, c.now+c.trip(n, from), evUpload, from.index, 0, t.arg(i))
}

// transferOf is the slot of a node's transfer, -1 if it is over.
func (c *cluster) transferOf(n *node, id policy.ID) int32 {
	for _, i := range n.transfers {
		if c.transfers.all[i].id == id {
			return i
		}
	}
	return -1
}

// without takes a slot out of a list of them.
func without(list []int32, i int32) []int32 {
	k := slices.Index(list, i)
	list[k] = list[len(list)-1]
	return list[:len(list)-1]
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
		c.refuse(i, policy.FaultBroken, c.trip(from, to))
		return
	}
	if from.mute > 0 || from.stalls > 0 {
		return
	}
	h := from.held[t.blob]
	if h == nil || !h.proven && !h.level[t.chunk].Shareable() {
		c.refuse(i, policy.FaultGone, c.trip(from, to))
		return
	}
	if !b.small && t.size != b.size {
		c.refuse(i, policy.FaultBroken, c.trip(from, to))
		return
	}
	t.bytes = from.serves(h, t.chunk)
	switch {
	case b.small:
	case from.forges > 0:
		t.claims = b.claim(from, t.chunk, t.bytes)
	case h.proven || h.level[t.chunk] == chunkindex.Fetched:
		t.claims = b.claim(from, t.chunk, 0)
	case h.signer[t.chunk] >= 0:
		// A forger's claim goes on with the bytes that it is about.
		t.claims = b.claim(c.nodes[h.signer[t.chunk]], t.chunk, max(h.bytes[t.chunk], 0)) // rot changes no claim
	}
	c.stepThen(from, policy.Event{Kind: policy.EvUpload, ID: policy.ID(arg), Peer: to.id, Blob: b.id, Chunk: t.chunk}, afterUpload, arg)
}

// uploadAnswered sends the answer that a peer's core gave to a request.
func (c *cluster) uploadAnswered(arg uint64) {
	i, t := c.transferAt(arg)
	if t == nil {
		return
	}
	from, to := c.nodes[t.from], c.nodes[t.to]
	if t.busy {
		c.refuse(i, policy.FaultBusy, c.trip(from, to))
		return
	}
	t.uploading, t.upload = true, arg
	c.carry(from, to, c.now+c.trip(from, to)+int64(c.run.Costs.Request), evFlowStart, t.to, 0, arg)
}

func (c *cluster) startFlow(arg uint64) {
	i, t := c.transferAt(arg)
	if t == nil {
		return
	}
	from := c.nodes[t.from]
	if from.down || from.life != t.fromLife || !c.stillLinked(from, t.to) {
		c.refuse(i, policy.FaultBroken, 0)
		return
	}
	_, size := c.blobs[t.blob].chunk(t.chunk)
	t.flow = c.net.start(c.now, c.topo.between(t.from, t.to), size, c.peerCap(from, c.nodes[t.to]), i, false)
	// The answer comes with the first bytes.
	c.step(c.nodes[t.to], policy.Event{Kind: policy.EvTransferProgress, ID: t.id})
}

// refuse has a transfer fail after a while.
func (c *cluster) refuse(i int32, fault policy.Fault, delay int64) {
	t := &c.transfers.all[i]
	t.fault = fault
	c.carry(c.nodes[t.from], c.nodes[t.to], c.now+delay, evRefused, t.to, 0, t.arg(i))
}

func (c *cluster) transferFailed(arg uint64) {
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

// endFlow ends the flow of a transfer, if it has one, in vain.
func (c *cluster) endFlow(t *transfer) {
	if t.flow >= 0 {
		c.res.CutBytes += c.net.end(c.netNow(), t.flow)
		t.flow = -1
	}
}

// closeTransfer forgets a transfer whose flow, if it had one, has ended.
func (c *cluster) closeTransfer(i int32) {
	t := &c.transfers.all[i]
	c.endUpload(t)
	to := c.nodes[t.to]
	to.transfers = without(to.transfers, i)
	c.transfers.drop(i)
}

// endUpload has the peer's core know that it serves no more.
func (c *cluster) endUpload(t *transfer) {
	if t.uploading {
		t.uploading = false
		c.q.push(c.now+c.distance(c.nodes[t.to], c.nodes[t.from]), evUploaded, t.from, t.fromLife, t.upload)
	}
}

func (c *cluster) cancelTransfer(n *node, id policy.ID) {
	i := c.transferOf(n, id)
	if i < 0 {
		return
	}
	c.endFlow(&c.transfers.all[i])
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
		if r.reader != 0 {
			return
		}
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
		to.hand = append(to.hand, handed{t.id, t.chunk, t.bytes})
	case t.bytes != 0:
		ev = policy.Event{Kind: policy.EvTransferFailed, Blob: b.id, ID: t.id, Chunk: t.chunk, Peer: ev.Peer, Fault: policy.FaultCorrupt}
	default:
		to.hand = append(to.hand, handed{t.id, t.chunk, 0})
		ev.Size = b.size
	}
	c.closeTransfer(i)
	c.step(to, ev)
}
