package fetcher

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// coreFunc is a core that answers each event by itself.
type coreFunc func(policy.Event) []policy.Effect

func (c coreFunc) Step(_ policy.Time, ev policy.Event, dst []policy.Effect) []policy.Effect {
	return append(dst, c(ev)...)
}

// doorman is a core that answers uploads as the test says, and counts.
type doorman struct {
	mu     sync.Mutex
	answer func(policy.Event) []policy.Effect
	asked  []policy.Event
	over   map[policy.ID]int
	sent   int64
}

func (d *doorman) step(ev policy.Event) []policy.Effect {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch ev.Kind {
	case policy.EvUpload:
		d.asked = append(d.asked, ev)
		if d.answer != nil {
			return d.answer(ev)
		}
	case policy.EvUploaded:
		d.over[ev.ID]++
		d.sent += ev.N
	}
	return nil
}

func (d *doorman) ended() map[policy.ID]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	over := map[policy.ID]int{}
	for id, n := range d.over {
		over[id] = n
	}
	return over
}

func serve(ev policy.Event) []policy.Effect {
	return []policy.Effect{{Kind: policy.EfServe, ID: ev.ID}}
}

func newDoorman(t testing.TB, answer func(policy.Event) []policy.Effect, change func(*Options)) (*doorman, *fakeNode) {
	d := &doorman{answer: answer, over: map[policy.ID]int{}}
	n := newFakeNet().join(t, 1, newFakeOrigin(), newFakeStore(t), func(_ *policy.Config, o *Options) {
		o.core = coreFunc(d.step)
		if change != nil {
			change(o)
		}
	})
	return d, n
}

// hold puts a complete blob into the node's store.
func (n *fakeNode) hold(t testing.TB, data []byte) digest.Digest {
	d := digest.FromBytes(data)
	if err := n.store.Put(context.Background(), d, KindLayer, data); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestUploadIsAdmittedByTheCore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, n := newDoorman(t, serve, nil)
		data := random(1, 3*mib)
		d := n.hold(t, data)
		small := n.hold(t, data[:1000])
		peer := newKeyring(2).Self()
		l, _ := chunkindex.LayoutFor(3 * mib)
		last, length := l.Chunk(l.Count() - 1)
		for i, req := range []RangeRequest{{d, last, length}, {d, last - 5, 10}, {small, 0, -1}} {
			src, err := n.f.OpenRange(t.Context(), peer, req)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(src.Body); err != nil || int64(len(got)) != src.Length {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			synctest.Wait()
			if over := core.ended(); len(over) != i {
				t.Errorf("over before the body is closed: %v", over)
			}
			src.Body.Close()
			src.Body.Close()
			synctest.Wait()
			if over := core.ended(); len(over) != i+1 {
				t.Errorf("%d uploads: %v", i+1, over)
			}
		}
		for i, want := range []policy.Event{{Blob: d, Chunk: l.Count() - 1}, {Blob: d, Chunk: l.At(last - 5)}, {Blob: small}} {
			if ev := core.asked[i]; ev.Blob != want.Blob || ev.Chunk != want.Chunk || ev.Peer != peer {
				t.Errorf("%+v", ev)
			}
		}
		for id, times := range core.ended() {
			if times != 1 {
				t.Errorf("upload %d ended %d times", id, times)
			}
		}
		if want := length + 10 + 1000; core.sent != want {
			t.Errorf("%d bytes were sent, the core heard of %d", want, core.sent)
		}
		n.stop(t)
	})
}

// A busy core's word reaches the peer, with no more than 8 alternatives, after
// the addresses of those; and on the other side the core.
func TestBusyNamesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var others []chunkindex.NodeID
		for i := range byte(10) {
			others = append(others, newKeyring(20+i).Self())
		}
		net, data := newFakeNet(), random(1, 2*mib)
		server := net.join(t, 1, newFakeOrigin(), newFakeStore(t), func(_ *policy.Config, o *Options) {
			o.core = coreFunc(func(ev policy.Event) []policy.Effect {
				if ev.Kind != policy.EvUpload {
					return nil
				}
				return []policy.Effect{{Kind: policy.EfBusy, ID: ev.ID, Peers: others}}
			})
		})
		s := &script{heard: make(chan policy.Event, 10000)}
		asker := &scripted{net.join(t, 2, newFakeOrigin(), newFakeStore(t), func(_ *policy.Config, o *Options) { o.core = s }), s, nil}
		named := net.join(t, 20, newFakeOrigin(), newFakeStore(t), func(_ *policy.Config, o *Options) {
			o.core = coreFunc(func(policy.Event) []policy.Effect { return nil })
		})
		d := server.hold(t, data)
		l, _ := chunkindex.LayoutFor(2 * mib)
		off, length := l.Chunk(0)
		asker.do(policy.Effect{Kind: policy.EfTransfer, ID: 3, Blob: d, Peer: server.id, Off: off, N: length, Size: 2 * mib})
		ev, _ := asker.until(policy.EvTransferFailed)
		if ev.Fault != policy.FaultBusy || len(ev.Peers) != 8 || ev.Peers[7] != others[7] {
			t.Errorf("%+v", ev)
		}
		if at := asker.learnt[named.id]; len(at) != 1 || len(asker.learnt) != 1 {
			t.Errorf("learnt %v", asker.learnt)
		}
		if n := server.f.count.refusals[refusedByCore].Load(); n != 1 {
			t.Errorf("%d refusals are counted", n)
		}
		synctest.Wait()
		for _, n := range []*fakeNode{server, asker.fakeNode, named} {
			n.stop(t)
		}
	})
}

// Whoever does not wait for the answer leaves nothing behind: each Serve ends
// once, whether its asker is there or not.
func TestUploadsOfAskersThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		core, n := newDoorman(t, func(ev policy.Event) []policy.Effect {
			<-hold
			return serve(ev)
		}, nil)
		d := n.hold(t, random(1, 2*mib))
		ctx, cancel := context.WithCancel(t.Context())
		var failed atomic.Int64
		for range 5 {
			go func() {
				src, err := n.f.OpenRange(ctx, newKeyring(2).Self(), RangeRequest{d, 0, 10})
				if err == nil {
					src.Body.Close()
				} else if errors.Is(err, context.Canceled) {
					failed.Add(1)
				}
			}()
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if failed.Load() != 5 {
			t.Errorf("%d of 5 waited on", 5-failed.Load())
		}
		close(hold)
		synctest.Wait()
		if over := core.ended(); len(over) != 5 {
			t.Errorf("%v", over)
		}
		for id, times := range core.ended() {
			if times != 1 {
				t.Errorf("upload %d ended %d times", id, times)
			}
		}
		n.stop(t)
	})
}

// A loop without time makes a node that is busy, not a peer that waits.
func TestUploadPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		core, n := newDoorman(t, func(ev policy.Event) []policy.Effect {
			<-hold
			return serve(ev)
		}, nil)
		d := n.hold(t, random(1, 2*mib))
		start := time.Now()
		_, err := n.f.OpenRange(t.Context(), newKeyring(2).Self(), RangeRequest{d, 0, 10})
		if busy := (BusyError{}); !errors.As(err, &busy) || time.Since(start) != uploadPatience {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		close(hold)
		synctest.Wait()
		if len(core.ended()) != 1 {
			t.Errorf("%v", core.ended())
		}
		n.stop(t)
	})
}

// What the core says nothing about is bounded by the number of open files.
func TestUploadsWithoutAWord(t *testing.T) {
	core, n := newDoorman(t, nil, func(o *Options) { o.Uploads = 2 })
	data := random(1, 2*mib)
	d := n.hold(t, data)
	var open []*RangeSource
	for range 2 {
		src, err := n.f.OpenRange(t.Context(), newKeyring(2).Self(), RangeRequest{d, 0, 10})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, src)
	}
	if _, err := n.f.OpenRange(t.Context(), newKeyring(2).Self(), RangeRequest{d, 0, 10}); !errors.As(err, new(BusyError)) {
		t.Errorf("%v", err)
	}
	for _, src := range open {
		if got, _ := io.ReadAll(src.Body); !bytes.Equal(got, data[:10]) {
			t.Error("wrong bytes")
		}
		src.Body.Close()
	}
	n.stop(t)
	if len(core.asked) != 2 || len(core.over) != 0 {
		t.Errorf("%d asked, %v over", len(core.asked), core.over)
	}
}

// A range that the store does not have after all ends its upload.
func TestAbsentUploadEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, n := newDoorman(t, serve, nil)
		n.store.proof = func(digest.Digest) error { return os.ErrInvalid }
		d := n.hold(t, random(1, 2*mib))
		if _, err := n.f.OpenRange(t.Context(), newKeyring(2).Self(), RangeRequest{d, 0, 10}); !errors.Is(err, os.ErrInvalid) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if len(core.ended()) != 1 {
			t.Errorf("%v", core.ended())
		}
		n.stop(t)
	})
}

// What the way through the loop costs an upload: go test ./fetcher -run '^$'
// -bench Upload. One asker sees the latency, several the rate.
func BenchmarkUploadAdmission(b *testing.B) {
	core := coreFunc(func(ev policy.Event) []policy.Effect {
		if ev.Kind == policy.EvUpload {
			return serve(ev)
		}
		return nil
	})
	n := newFakeNet().join(b, 1, newFakeOrigin(), newFakeStore(b), func(_ *policy.Config, o *Options) { o.core = core })
	d, peer := n.hold(b, random(1, 2*mib)), newKeyring(2).Self()
	for name, run := range map[string]func(*testing.B, func()){
		"one": func(b *testing.B, once func()) {
			for b.Loop() {
				once()
			}
		},
		"parallel": func(b *testing.B, once func()) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					once()
				}
			})
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			run(b, func() {
				over, err := n.f.admitUpload(b.Context(), peer, d, 0)
				if err != nil {
					b.Error(err)
					return
				}
				over(mib)
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "uploads/s")
		})
	}
	n.stop(b)
}
