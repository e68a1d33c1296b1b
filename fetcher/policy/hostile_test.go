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
