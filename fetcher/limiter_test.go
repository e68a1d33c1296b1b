package fetcher

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// within reports whether got is want but for a part.
func within(got, want, part float64) bool { return math.Abs(got-want) <= part*want }

// taking takes quanta until ctx ends, gives back a part of each, and counts what
// it keeps and the longest wait.
type taking struct {
	kept    atomic.Int64
	longest atomic.Int64 // nanoseconds
}

func (k *taking) run(ctx context.Context, s *share, use func(got int) int) {
	defer s.close()
	last := time.Now()
	for {
		got, err := s.take(256 << 10)
		if err != nil {
			return
		}
		k.longest.Store(max(k.longest.Load(), int64(time.Since(last))))
		last = time.Now()
		used := use(got)
		s.giveBack(got - used)
		k.kept.Add(int64(used))
	}
}

func all(got int) int { return got }

func TestLimiterRate(t *testing.T) {
	for _, rate := range []int64{20_000, 1_000_000, 12_500_000, 1_250_000_000} {
		for name, use := range map[string]func(int) int{
			"whole":  all,
			"pieces": func(got int) int { return 1 + rand.IntN(got) },
		} {
			for _, bodies := range []int{1, 16} {
				synctest.Test(t, func(t *testing.T) {
					l, k := newLimiter(rate), &taking{}
					seconds := 10.0
					if rate > 1e9 {
						seconds = 1
					}
					time.Sleep(time.Minute) // what an idle time saves is little
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(seconds*float64(time.Second)))
					defer cancel()
					var wg sync.WaitGroup
					for range bodies {
						wg.Go(func() { k.run(ctx, l.share(ctx, chunkindex.NodeID{}), use) })
					}
					wg.Wait()
					if got := float64(k.kept.Load()) / seconds; !within(got, float64(rate), 0.05) {
						t.Errorf("%d bytes a second, %s, %d bodies: %.0f", rate, name, bodies, got)
					}
					if len(l.flows) != 0 {
						t.Errorf("%d flows stay", len(l.flows))
					}
				})
			}
		}
	}
}

// A peer with eight ranges gets as much as one with one, one that comes later
// nothing for the time before, and every range something often.
func TestLimiterIsFair(t *testing.T) {
	for _, rate := range []int64{100_000, 2_000_000, 125_000_000} {
		synctest.Test(t, func(t *testing.T) {
			l := newLimiter(rate)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var many, one, late taking
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() { many.run(ctx, l.share(ctx, newKeyring(1).Self()), all) })
			}
			// The one moves its bytes as a socket does: it asks a moment later.
			wg.Go(func() {
				one.run(ctx, l.share(ctx, newKeyring(2).Self()), func(got int) int {
					time.Sleep(time.Duration(float64(got) / float64(rate) / 4 * float64(time.Second)))
					return got
				})
			})
			time.Sleep(5 * time.Second)
			before := [2]float64{float64(many.kept.Load()), float64(one.kept.Load())}
			wg.Go(func() { late.run(ctx, l.share(ctx, newKeyring(3).Self()), all) })
			wg.Wait()
			for i, got := range before {
				if !within(got, 2.5*float64(rate), 0.05) {
					t.Errorf("rate %d: peer %d got %.0f", rate, i, got)
				}
			}
			for i, k := range []*taking{&many, &one, &late} {
				got := float64(k.kept.Load())
				if i < 2 {
					got -= before[i]
				}
				if !within(got, 5*float64(rate)/3, 0.05) {
					t.Errorf("rate %d: peer %d got %.0f in the second half", rate, i, got)
				}
			}
			if longest := time.Duration(many.longest.Load()); longest > 2*quantumEvery {
				t.Errorf("rate %d: a range waited %v", rate, longest)
			}
		})
	}
}

func TestLimiterWaitsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(1)
		ctx, cancel := context.WithCancel(t.Context())
		a, b := l.share(ctx, newKeyring(1).Self()), l.share(t.Context(), newKeyring(1).Self())
		failed := make(chan error, 2)
		go func() { _, err := a.take(1000); failed <- err }()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		go func() { _, err := b.take(1000); failed <- err }()
		synctest.Wait()
		b.close()
		if err := <-failed; err == nil {
			t.Error("the wait outlived the body")
		}
		a.close()
		if len(l.flows) != 0 {
			t.Error("flows stay")
		}
	})
}

// Peers' ranges leave the node at its rate, and closing one ends its wait.
func TestUploadRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, n := newDoorman(t, serve, func(o *Options) { o.UploadRate = mib })
		data := random(1, 8*mib)
		d := n.hold(t, data)
		start := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var took [2]time.Duration
		for peer, ranges := range []int{8, 1} {
			for range ranges {
				wg.Go(func() {
					src, err := n.f.OpenRange(t.Context(), newKeyring(byte(2+peer)).Self(), RangeRequest{d, 4 * mib, mib})
					if err != nil {
						t.Error(err)
						return
					}
					defer src.Body.Close()
					var buf bytes.Buffer
					// Not through any shortcut past Read.
					if _, err := io.Copy(&buf, src.Body); err != nil || !bytes.Equal(buf.Bytes(), data[4*mib:5*mib]) {
						t.Errorf("%d bytes, %v", buf.Len(), err)
					}
					mu.Lock()
					took[peer] = max(took[peer], time.Since(start))
					mu.Unlock()
				})
			}
		}
		wg.Wait()
		if !within(took[0].Seconds(), 9, 0.05) || !within(took[1].Seconds(), 2, 0.05) {
			t.Errorf("%v", took)
		}
		src, err := n.f.OpenRange(t.Context(), newKeyring(2).Self(), RangeRequest{d, 4 * mib, mib})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error)
		go func() { _, err := io.Copy(io.Discard, src.Body); ended <- err }()
		synctest.Wait()
		src.Body.Close()
		if err := <-ended; err == nil {
			t.Error("no error after Close")
		}
		n.stop(t)
	})
}

// A rate that is slower than a stall is no stall: neither here nor for the core.
func TestDownloadRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 50_000
		s := newScripted(t, func(_ *policy.Config, o *Options) { o.DownloadRate = rate })
		data := random(2, 2*mib)
		d := digest.FromBytes(data)
		s.f.peers = readerOf{s.fakeNode, func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data[:mib])), 2 * mib, mib, nil}, nil
		}}
		start := time.Now()
		s.do(policy.Effect{Kind: policy.EfTransfer, ID: 1, Blob: d, N: mib, Size: 2 * mib},
			policy.Effect{Kind: policy.EfTransfer, ID: 2, Blob: d, N: mib, Size: 2 * mib})
		last := map[policy.ID]time.Time{1: start, 2: start}
		for done := 0; done < 2; {
			ev := <-s.s.heard
			switch ev.Kind {
			case policy.EvTransferFailed:
				t.Fatalf("%+v", ev)
			case policy.EvTransferDone:
				done++
				fallthrough
			case policy.EvTransferProgress:
				if silent := time.Since(last[ev.ID]); silent >= s.f.cfg.TransferStall {
					t.Errorf("nothing was heard of transfer %d for %v", ev.ID, silent)
				}
				last[ev.ID] = time.Now()
			}
		}
		if took := time.Since(start).Seconds(); !within(took, 2*mib/float64(rate), 0.05) {
			t.Errorf("took %.1f s", took)
		}
		if waited := time.Duration(s.f.limits.download.waited.Load()).Seconds(); waited < 60 {
			t.Errorf("%.1f s of waiting are counted", waited)
		}
		s.do(policy.Effect{Kind: policy.EfDiscard, ID: 1, Blob: d}, policy.Effect{Kind: policy.EfDiscard, ID: 2, Blob: d})
		synctest.Wait()
		// A stalled peer is one all the same.
		s.f.peers = readerOf{s.fakeNode, func(context.Context) (*PeerBody, error) {
			r, w := io.Pipe()
			go w.Write(data[:1000])
			return &PeerBody{r, 2 * mib, mib, nil}, nil
		}}
		s.do(policy.Effect{Kind: policy.EfTransfer, ID: 3, Blob: d, N: mib, Size: 2 * mib})
		if ev, _ := s.until(policy.EvTransferFailed); ev.Fault != policy.FaultStalled {
			t.Errorf("%+v", ev)
		}
		synctest.Wait()
		s.stop(t)
	})
}

// All reads from origins share one rate: for the store, and past it.
func TestOriginRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 4 * mib
		o, net := newFakeOrigin(), newFakeNet()
		change := func(_ *policy.Config, opts *Options) { opts.OriginRate = rate }
		n := net.join(t, 1, o, newFakeStore(t), change)
		full := newFakeStore(t)
		full.limit = 1
		bypassing := newFakeNet().join(t, 2, o, full, change)
		for seed, node := range []*fakeNode{n, bypassing} {
			data := random(uint64(seed), 40*mib)
			start := time.Now()
			node.want(t, blobRef(o.add(data)), nil, data)
			received := float64(node.f.Status().Received.Origin)
			if took := time.Since(start).Seconds(); !within(took, received/rate, 0.05) || received < 40*mib {
				t.Errorf("node %d: %.0f bytes in %.1f s", seed, received, took)
			}
		}
		n.stop(t)
		bypassing.stop(t)
	})
}
