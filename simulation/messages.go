package simulation

import (
	"math/bits"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// How long it takes from one node to another. What is no flow of bytes takes
//
//	the latency of the way, by what the two have in common,
//	+ for each link on it that is full, what waits in its queue:
//	  none up to three quarters of its rate, then more and more, up to Latency.Queue
//	+ what waits in the connection's buffers, if a chunk is under way on it
//	+ a time-out for each time that the packet is lost
//
// and messages also the time that the CPU takes for it and for those that came
// before. What one node sends another arrives in order.

// letter is a message under way. Most are few numbers, and there are as many under way as
// there are nodes: so what else there may be to a message is kept apart.
type letter struct {
	from  int32
	kind  policy.MessageKind
	small bool
	chunk int
	n     int
	rest  [4]uint64
	size  int64
	blob  digest.Digest
	whole *policy.Message // of a kind that is more than these numbers; else nil
}

// isShort reports whether messages of a kind are few numbers.
func isShort(kind policy.MessageKind) bool {
	switch kind {
	case policy.MsgHave, policy.MsgFree, policy.MsgPing, policy.MsgPong:
		return true
	}
	return false
}

// write puts a message into a letter. It shares nothing with its sender: see own.
func (l *letter) write(m *policy.Message) {
	if isShort(m.Kind) {
		l.kind, l.small, l.chunk, l.n, l.rest, l.size, l.blob = m.Kind, m.Small, m.Chunk, m.N, m.Rest, m.Size, m.Blob
		return
	}
	whole := *m
	l.whole = &whole
}

// read gives the message that was written.
func (l *letter) read(m *policy.Message) {
	if l.whole != nil {
		*m = *l.whole
		return
	}
	m.Kind, m.Small, m.Chunk, m.N, m.Rest, m.Size, m.Blob = l.kind, l.small, l.chunk, l.n, l.rest, l.size, l.blob
}

// distance is the latency between two nodes.
func (c *cluster) distance(a, b *node) int64 {
	switch l := &c.run.Latency; {
	case a.zone != b.zone:
		return int64(l.Far)
	case a.rack != b.rack:
		return int64(l.Zone)
	default:
		return int64(l.Rack)
	}
}

// trip is how long a request or an answer takes from one node to another.
func (c *cluster) trip(from, to *node) int64 {
	d := c.distance(from, to)
	if c.run.Latency.Queue > 0 {
		p := c.topo.between(from.index, to.index)
		d += c.queues(&p)
	}
	if from.loss+to.loss > 0 {
		d += c.resent(from.loss, to.loss, 2*d)
	}
	return d
}

// queues is how long a packet waits in the queues on its way.
func (c *cluster) queues(p *path) (wait int64) {
	most := int64(c.run.Latency.Queue)
	for _, l := range p.links[:p.n] {
		k := &c.net.links[l]
		if above, room := k.load-k.rate/4*3, k.rate/4; above > 0 && room > 0 {
			wait += mulDiv(most, min(above, room), room)
		}
	}
	return wait
}

// buffered is how long the bytes of chunks take that are in the buffers of the
// connection from one node to another.
func (c *cluster) buffered(from, to *node) int64 {
	var left, rate int64
	for _, i := range to.transfers {
		if t := &c.transfers.all[i]; t.from == from.index && t.flow >= 0 {
			f := &c.net.flows[t.flow]
			c.net.settle(f, c.netNow())
			left += f.total - f.moved()
			rate += f.rate
		}
	}
	if rate == 0 {
		return 0
	}
	return mulDiv(min(left, c.run.Costs.Buffer), nanos, rate)
}

// send sends a message to a peer.
func (c *cluster) send(n *node, to *chunkindex.NodeID, m *policy.Message) {
	o := c.nodeOf(to)
	if o == nil || !n.isLinked(o.index) || n.mute > 0 {
		return
	}
	c.res.Messages[m.Kind]++
	c.messages++
	s := c.letters.add()
	l := &c.letters.all[s]
	l.from = n.index
	l.write(m)
	if n.lies > 0 && l.whole != nil {
		c.lie(l.whole)
	}
	arrives := c.now + c.trip(n, o)
	if c.varies {
		if c.run.Costs.Buffer > 0 {
			arrives += c.buffered(n, o)
		}
		// The order stays.
		last := &n.arrivals[slices.Index(n.peers, o.index)]
		arrives = max(arrives, *last)
		*last = arrives
	}
	c.carry(n, o, arrives+o.work, evMessage, o.index, o.life, uint64(s))
}

// ownEffect has a message that is to be sent share nothing with the core that sends it.
func ownEffect(e *policy.Effect) {
	if e.Kind == policy.EfSend && !isShort(e.Msg.Kind) {
		own(&e.Msg)
	}
}

// own has a message share nothing with its sender: it goes over a wire.
func own(m *policy.Message) {
	if m.Bits.Len() > 0 {
		m.Bits = m.Bits.Clone()
	}
	if m.InFlight.Len() > 0 {
		m.InFlight = m.InFlight.Clone()
	}
	if len(m.Peers) > 0 {
		m.Peers = slices.Clone(m.Peers)
	}
	if len(m.Labels) > 0 {
		m.Labels = slices.Clone(m.Labels)
	}
	if len(m.Sums) > 0 {
		m.Sums = slices.Clone(m.Sums)
	}
}

// arrived has a node take a message, once its CPU is done with those before. The
// message's own time on an idle CPU has gone by already.
func (c *cluster) arrived(n *node, i int32, life uint32) {
	if life != n.life || !c.stillLinked(n, c.letters.all[i].from) {
		c.letters.drop(i)
		return
	}
	if len(n.inbox) == 0 && n.busy+n.work <= c.now {
		c.hear(n, i)
		return
	}
	n.inbox = append(n.inbox, i)
	if len(n.inbox) == 1 {
		c.planNext(n)
	}
}

// planNext has the CPU take the first message of those that wait.
func (c *cluster) planNext(n *node) {
	n.next = c.q.push(max(n.busy+n.work, c.now), evTaken, n.index, n.life, 0)
}

func (c *cluster) takeNext(n *node) {
	i := n.inbox[0]
	n.inbox = slices.Delete(n.inbox, 0, 1)
	c.hear(n, i)
	if len(n.inbox) > 0 {
		c.planNext(n)
	}
}

// hear tells a core of a message.
func (c *cluster) hear(n *node, i int32) {
	n.busy = c.now
	l := &c.letters.all[i]
	if n.down || !c.stillLinked(n, l.from) {
		c.letters.drop(i)
		return
	}
	ev := c.toStep(n)
	*ev = policy.Event{Kind: policy.EvMessage, Peer: c.nodes[l.from].id}
	l.read(&ev.Msg)
	c.letters.drop(i)
	c.handOver(n)
}

// setWork changes what a message takes.
func (c *cluster) setWork(n *node, work int64) {
	n.work = work
	if len(n.inbox) > 0 {
		c.planNext(n)
	}
}

// lostBy is the part of the packets that one of two losses takes.
func lostBy(a, b int64) int64 {
	a, b = min(a, million), min(b, million)
	return a + b - a*b/million
}

// minRTO is the least that TCP waits before it sends a packet again, on Linux.
const minRTO = 200 * int64(time.Millisecond)

// resent is how much later a packet comes, since it has to be sent again: once for
// each time that it is lost at one end or the other, after twice as long each time
// (RFC 6298).
func (c *cluster) resent(a, b, rtt int64) (late int64) {
	lost := lostBy(a, b)
	for wait := max(minRTO, 2*rtt); wait < 64*minRTO && c.rng.Int64N(million) < lost; wait *= 2 {
		late += wait
	}
	return late
}

// segment is the payload of a TCP segment on Ethernet.
const segment = 1448

// lossCap is what one connection carries a second where a part of the packets is
// lost, in parts in a million: segment/RTT * sqrt(3/2) / sqrt(part), by Mathis,
// Semke, Mahdavi and Ott, "The macroscopic behavior of the TCP congestion avoidance
// algorithm" (1997). An RTT is no less than 1 ms.
func lossCap(part, rtt int64) int64 {
	if part == 0 {
		return 0
	}
	rtt = max(rtt, int64(time.Millisecond))
	root := isqrt(part * million) // 1000 * sqrt(part)
	return max(mulDiv(segment*nanos/rtt, 1_224_745, root), 1)
}

// isqrt is the integer square root, by Newton's method.
func isqrt(n int64) int64 {
	if n < 2 {
		return n
	}
	x := int64(1) << ((bits.Len64(uint64(n)) + 1) / 2)
	for {
		y := (x + n/x) / 2
		if y >= x {
			return x
		}
		x = y
	}
}

// peerCap bounds the rate of bytes from a node to another, 0 for no bound.
func (c *cluster) peerCap(from, to *node) int64 {
	if parted(from, to) {
		return halted
	}
	if from.loss+to.loss == 0 {
		return 0
	}
	return lossCap(lostBy(from.loss, to.loss), 2*c.distance(from, to))
}
