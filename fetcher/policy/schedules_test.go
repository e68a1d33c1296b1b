package policy

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Without faults the origin writes each byte once, save reads that were counted,
// whatever the readers, and a cluster at rest is at rest.
func TestEachByteOnceWithoutFaults(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 7))
		n := 2 + rng.IntN(7)
		mode := Verify(rng.IntN(2))
		w := newWorld(t, n, func(_ int, c *Config) { c.Verify = mode; c.Seed = seed })
		kind := []string{"full", "ranges", "unknown", "unranged"}[rng.IntN(4)]
		if kind == "unranged" {
			w.unranged = true
		}
		nb := 1 + rng.IntN(4)
		var ds []digest.Digest
		for i := range nb {
			size := 1 + rng.Int64N(120*mib)
			if rng.IntN(4) == 0 {
				size = 1 + rng.Int64N(mib)
			}
			ds = append(ds, w.blob(fmt.Sprint("b", seed, i), size))
		}
		var all []*client
		for _, node := range w.nodes {
			for _, d := range ds {
				w.after(time.Duration(rng.Int64N(int64(time.Second))), func() {
					size := w.blobs[d].size
					switch {
					case kind == "ranges" && size > 2*mib && rng.IntN(2) == 0:
						off := rng.Int64N(size)
						end := min(off+1+rng.Int64N(20*mib), size)
						all = append(all, node.readSized(d, off, end, size))
					case kind == "unknown":
						all = append(all, node.readSized(d, 0, -1, -1))
					default:
						all = append(all, node.read(d, 0, -1))
					}
				})
			}
		}
		w.run(1100*time.Millisecond, func() bool { return false })
		w.wait(2*time.Minute, all...)
		var h, s int64
		steps := 0
		for _, o := range w.nodes {
			h += o.counts[CountHedge]
			s += o.counts[CountStrict]
			steps += o.steps
		}
		for _, d := range ds {
			if w.originBytes[d] > w.blobs[d].size && h+s == 0 {
				t.Errorf("seed %d kind %s n=%d mode %d: %.2f copies of %d bytes without a reason", seed, kind, n, mode, float64(w.originBytes[d])/float64(w.blobs[d].size), w.blobs[d].size)
			}
		}
		before := steps
		w.quiet()
		after := 0
		for _, o := range w.nodes {
			after += o.steps
		}
		if after-before > 3000*n {
			t.Errorf("seed %d kind %s: %d steps while idle", seed, kind, after-before)
		}
	}
}

// Whatever a peer says, the core does not panic, does not spin, and ends with
// nothing left over.
func TestHostileMessages(t *testing.T) {
	for seed := range uint64(400) {
		func() {
			rng := rand.New(rand.NewPCG(seed, 9))
			w := newWorld(t, 3, func(_ int, c *Config) { c.Verify = Verify(rng.IntN(2)); c.Seed = seed })
			sizes := []int64{5, mib, mib + 1, 20 * mib, 90 * mib}
			var ds []digest.Digest
			for i := range 3 {
				ds = append(ds, w.blob(fmt.Sprint("b", i), sizes[rng.IntN(len(sizes))]))
			}
			var last Message
			defer func() {
				if e := recover(); e != nil {
					t.Fatalf("seed %d: %v after %+v\n%s", seed, e, last.Kind, debug.Stack())
				}
			}()
			bits := func(n int) chunkindex.Bitfield {
				switch rng.IntN(4) {
				case 0:
					n = rng.IntN(100)
				case 1:
					n = 0
				}
				b := chunkindex.NewBitfield(n)
				for i := range n {
					if rng.IntN(2) == 0 {
						b.Set(i)
					}
				}
				return b
			}
			num := func(n int) int {
				switch rng.IntN(6) {
				case 0:
					return 1 << 20
				case 1:
					return 0
				}
				return rng.IntN(n + 1)
			}
			for range 120 {
				n := w.nodes[rng.IntN(2)]
				d := ds[rng.IntN(3)]
				c := w.blobs[d]
				switch rng.IntN(12) {
				case 0:
					size := c.size
					if rng.IntN(2) == 0 {
						size = -1
					}
					n.readSized(d, 0, -1, size)
				case 1:
					n.readSized(d, rng.Int64N(c.size), -1, c.size)
				case 2:
					for _, cl := range n.clients {
						n.cancel(cl)
						break
					}
				case 3:
					cfg := n.core.cfg
					w.kill(n)
					w.restart(n, cfg)
				}
				size := c.size
				switch rng.IntN(4) {
				case 0:
					size = sizes[rng.IntN(len(sizes))]
				case 1:
					size = -1
				}
				m := Message{Kind: MessageKind(1 + rng.IntN(12)), Blob: d, Size: size, Small: rng.IntN(4) == 0,
					Want: rng.IntN(2) == 0, Reply: rng.IntN(2) == 0, Chunk: num(c.n), N: num(c.n), Epoch: rng.IntN(3),
					Status: []int{0, 401, 404, 503}[rng.IntN(4)], Peer: w.nodes[rng.IntN(3)].id,
					Bits: bits(c.n), InFlight: bits(c.n)}
				if rng.IntN(4) == 0 {
					m.Peer = chunkindex.NodeID{byte(rng.IntN(3))}
				}
				for range rng.IntN(4) {
					m.Peers = append(m.Peers, chunkindex.NodeID{byte(rng.IntN(9))}, w.nodes[rng.IntN(3)].id)
				}
				for range rng.IntN(5) {
					m.Sums = append(m.Sums, right(d, rng.IntN(9)))
				}
				last = m
				n.hears(w.nodes[2], m)
				if rng.IntN(3) == 0 {
					before, at := n.steps, w.now
					w.run(time.Duration(rng.Int64N(int64(700*time.Millisecond))), func() bool { return false })
					if n.steps-before > 20000 {
						t.Fatalf("seed %d: %d steps in %v", seed, n.steps-before, time.Duration(w.now-at))
					}
				}
			}
			before := w.nodes[0].steps + w.nodes[1].steps
			w.run(10*time.Minute, func() bool { return false })
			if s := w.nodes[0].steps + w.nodes[1].steps - before; s > 100000 {
				t.Errorf("seed %d: %d steps while left alone", seed, s)
			}
			for _, n := range w.nodes {
				if len(n.core.blobs) > 0 || len(n.core.transfers) > 0 || len(n.core.reads) > 0 || n.core.inFlight != 0 || len(n.inHand) > 0 || len(n.core.readers) > 0 {
					t.Errorf("seed %d: left: blobs %d transfers %d reads %d inflight %d hand %d readers %d", seed, len(n.core.blobs), len(n.core.transfers), len(n.core.reads), n.core.inFlight, len(n.inHand), len(n.core.readers))
				}
			}
		}()
	}
}
