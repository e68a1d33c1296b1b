package policy

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// While the origin is asked for a blob's size, a peer's word for it must not count.
func TestPeerSetsSizeWhileOriginIsAsked(t *testing.T) {
	for _, kind := range []MessageKind{MsgJoin, MsgAsk} {
		w := newWorld(t, 2, nil)
		d := w.blob("layer", 64*mib)
		n, liar := w.nodes[0], w.nodes[1]
		liar.mute = true
		w.originTime = 50 * time.Millisecond
		cl := n.readSized(d, 0, -1, -1)
		w.run(10*time.Millisecond, cl.done)
		n.event(Event{Kind: EvMessage, Peer: liar.id, Msg: Message{Kind: kind, Blob: d, Size: 20 * mib,
			Bits: chunkindex.NewBitfield(chunksOf(20*mib, false))}})
		w.wait(time.Minute, cl)
	}
}

// What a peer's words about blobs of any size cost in memory.
func TestJoinFloodMemory(t *testing.T) {
	w := newWorld(t, 2, nil)
	n, liar := w.nodes[0], w.nodes[1]
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 256 {
		n.event(Event{Kind: EvMessage, Peer: liar.id, Msg: Message{Kind: MsgJoin, Blob: digest.FromString(fmt.Sprint(i)), Size: 1 << 40}})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32*mib {
		t.Errorf("256 messages of 60 bytes made the node keep %d MiB", grown>>20)
	}
	runtime.KeepAlive(n)
}

// A peer that joins many blobs that do not exist must not keep the members of the
// committee from coordinating those that do.
func TestJoinFloodStopsCoordination(t *testing.T) {
	w := newWorld(t, 6, nil)
	d := w.blob("layer", 200*mib)
	order := w.ranked(d)
	// The best three do not read; who asks is the rest; one of all lies.
	liar, readers := order[5], order[3:5]
	liar.mute = true
	for i := range 300 {
		for _, n := range order[:3] {
			n.event(Event{Kind: EvMessage, Peer: liar.id, Msg: Message{Kind: MsgJoin, Blob: digest.FromString(fmt.Sprint(i)), Size: -1}})
		}
	}
	w.run(time.Second, func() bool { return false })
	begun := w.now
	var all []*client
	hedges := int64(0)
	for _, n := range readers {
		all = append(all, n.read(d, 0, -1))
	}
	w.wait(time.Minute, all...)
	for _, n := range readers {
		hedges += n.counts[CountHedge]
	}
	if took := time.Duration(w.now - begun); took > 4*time.Second || hedges > 0 {
		t.Errorf("took %v, %d hedges", took, hedges)
	}
	w.egress(d, 204*mib)
}

// A peer's word for the size of the crowd must not end the announcing.
func TestForgedCrowdEndsAnnouncing(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 50*mib)
	w.wait(time.Minute, w.nodes[1].read(d, 0, -1))
	n, liar := w.nodes[0], w.nodes[2]
	provides := 0
	core := n.core
	cl := n.read(d, 0, -1)
	n.event(Event{Kind: EvMessage, Peer: liar.id, Msg: Message{Kind: MsgPeers, Blob: d, Size: 50 * mib, N: 1 << 20}})
	b := core.blobs[d]
	w.wait(time.Minute, cl)
	if b.provided {
		provides++
	}
	if provides == 0 {
		t.Error("one of two holders does not announce the blob: a peer said that there are a million")
	}
}
