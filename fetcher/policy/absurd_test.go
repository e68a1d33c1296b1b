package policy

import (
	"fmt"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// absurd returns messages of a kind about a blob whose fields are the most, the
// least and the strangest that the encoding can carry.
func absurd(kind MessageKind, d digest.Digest, size int64) (ms []Message) {
	const most = int(chunkindex.MaxBlobSize / chunkindex.MinChunkLength)
	var strangers []chunkindex.NodeID
	var labels []Label
	var sums []chunkindex.Sum
	for i := range MaxPeers {
		strangers = append(strangers, chunkindex.NodeID{0xee, byte(i)})
		labels = append(labels, Label{math.MaxUint32, uint32(i)})
	}
	for i := range MaxSums {
		sums = append(sums, chunkindex.Sum{byte(i)})
	}
	n := chunksOf(size, false)
	for _, base := range []Message{
		{},
		{Chunk: most, N: most, Epoch: 1 << 20, Status: 999, Wait: 24 * time.Hour, Label: Label{math.MaxUint32, math.MaxUint32}},
		{Chunk: n - 1, N: 2, Epoch: 1 << 20, Status: 200, Bits: chunkindex.FullBitfield(n), InFlight: chunkindex.FullBitfield(n)},
		{Chunk: n, N: 1, Status: 429, Wait: 24 * time.Hour, Bits: chunkindex.FullBitfield(n + 1), InFlight: chunkindex.FullBitfield(n + 1)},
		{N: n, Status: 503, Bits: chunkindex.FullBitfield(n - 1), InFlight: chunkindex.FullBitfield(n - 1)},
		{N: most, Status: 401, Bits: chunkindex.FullBitfield(chunkindex.MaxChunks), InFlight: chunkindex.FullBitfield(chunkindex.MaxChunks)},
		{N: 1, Status: 404, Bits: chunkindex.FullBitfield(1), InFlight: chunkindex.NewBitfield(chunkindex.MaxChunks)},
		{N: MaxSums, Peers: strangers, Labels: labels, Sums: sums, Peer: strangers[0]},
		{Chunk: n - 1, N: 1, Peers: strangers[:1], Sums: sums[:2]},
	} {
		for _, s := range []int64{size, -1, 0, 1, size + 1, chunkindex.MaxBlobSize} {
			for flags := range 8 {
				m := base
				m.Kind, m.Blob, m.Size = kind, d, s
				m.Small, m.Want, m.Reply = flags&1 != 0, flags&2 != 0, flags&4 != 0
				ms = append(ms, m)
			}
		}
	}
	return ms
}

// A member that says what makes no sense, in each kind of message and in each field, costs
// those who pull beside it neither the pull nor memory: what is not about the
// blob is ignored, and what it promised and does not have is had elsewhere.
func TestAbsurdMessages(t *testing.T) {
	for kind := MsgState; kind <= MsgFree; kind++ {
		t.Run(fmt.Sprint("kind ", kind), func(t *testing.T) {
			for _, when := range []string{"before the pull", "in the pull"} {
				w := newWorld(t, 4, nil)
				d := w.blob("layer", 40*mib)
				size := w.blobs[d].size
				evil := w.nodes[3]
				say := func() {
					for _, m := range absurd(kind, d, size) {
						for _, n := range w.nodes[:3] {
							n.hears(evil, m)
						}
					}
				}
				var clients []*client
				if when == "before the pull" {
					say()
				}
				for _, n := range w.nodes[:3] {
					clients = append(clients, n.readSized(d, 0, -1, size))
				}
				if when == "in the pull" {
					w.run(time.Minute, func() bool { return w.originBytes[d] > 4*mib })
					say()
				}
				w.wait(2*time.Minute, clients...)
				for _, n := range w.nodes[:3] {
					if n.core.peers.n > 3+maxConnecting {
						t.Errorf("%s: %d peers are remembered", when, n.core.peers.n)
					}
					for _, o := range w.nodes[:3] {
						if p := n.core.peers.get(o.id); p != nil && p.banned > 0 {
							t.Errorf("%s: an honest node is banned", when)
						}
					}
				}
				w.quiet()
			}
		})
	}
}

// Messages about one blob after the other, each of which claims to be as large as
// a blob may be, leave a bounded number of them, for a bounded time, and what
// they say costs bounded memory.
func TestFloodOfBlobs(t *testing.T) {
	for kind := MsgState; kind <= MsgFree; kind++ {
		t.Run(fmt.Sprint("kind ", kind), func(t *testing.T) {
			w := newWorld(t, 2, nil)
			n, evil := w.nodes[0], w.nodes[1]
			evil.mute = true
			full := chunkindex.FullBitfield(chunkindex.MaxChunks)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range 4 * maxCoordinated {
				m := Message{Kind: kind, Blob: digest.FromString(fmt.Sprint("absent ", i)), Size: chunkindex.MaxBlobSize, Want: true, Reply: true,
					Chunk: i, N: 1, Status: 429, Wait: 24 * time.Hour, Peer: chunkindex.NodeID{1, byte(i), byte(i >> 8)},
					Bits: full, InFlight: full, Sums: make([]chunkindex.Sum, 1)}
				for j := range 8 {
					m.Peers = append(m.Peers, chunkindex.NodeID{2, byte(j), byte(i), byte(i >> 8)})
				}
				n.hears(evil, m)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			t.Logf("%d blobs, %d MiB", len(n.core.blobs), (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>20)
			if got := len(n.core.blobs); got > maxCoordinated {
				t.Errorf("%d blobs are kept, want at most %d", got, maxCoordinated)
			}
			if got := n.core.peers.n; got > 1+maxConnecting {
				t.Errorf("%d peers are remembered", got)
			}
			w.run(20*time.Minute, func() bool { return false })
			if got := len(n.core.blobs); got != 0 {
				t.Errorf("%d blobs are left", got)
			}
		})
	}
}
