package fetcher

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// liveOf asks for snapshots until one is as wanted.
func liveOf(t *testing.T, f *Fetcher, what string, ok func(*Live) bool) *Live {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		l, err := f.Live()
		if err == nil && ok(l) {
			return l
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s in time; the last snapshot: %+v, %v", what, l, err)
		}
		<-tick.C
	}
}

// Two nodes pull: while the origin is held back what is on its way shows, and
// afterwards where it came from.
func TestLive(t *testing.T) {
	data := random(1, 20*mib+12345)
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(data)
	gate := make(chan struct{})
	o.set(func() { o.gate = gate })
	nodes := []*fakeNode{net.join(t, 1, o, newFakeStore(t), nil), net.join(t, 2, o, newFakeStore(t), nil)}
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { n.want(t, blobRef(d), nil, data) })
	}
	wg.Go(func() {
		// Watchers disturb nobody: as many as want, all the time.
		for range 4 {
			wg.Go(func() {
				for range 200 {
					if _, err := nodes[0].f.Live(); err != nil {
						t.Error(err)
					}
				}
			})
		}
	})
	reading := func(f *Fetcher) {
		l := liveOf(t, f, "blob that is being read", func(l *Live) bool {
			return len(l.Blobs) == 1 && len(l.Blobs[0].Neighbours) == 1 && l.Blobs[0].Readers == 1 &&
				!l.Blobs[0].Coordinator.IsZero() && len(l.Blobs[0].Chunks) > 0
		})
		b := l.Blobs[0]
		if b.Blob != d || b.Size != int64(len(data)) || !b.Wanted || b.Proven || b.Have != 0 || l.Readers != 1 || l.At <= 0 {
			t.Errorf("%+v", b)
		}
	}
	reading(nodes[0].f)
	reading(nodes[1].f)
	// Sooner or later one of the two at least reads from the origin, and it shows in
	// the chunks.
	fromOrigin := func(l *Live) bool {
		return slices.ContainsFunc(l.Blobs, func(b LiveBlob) bool {
			for _, p := range b.Chunks {
				if p == policy.FromOrigin {
					return true
				}
			}
			return false
		})
	}
	liveOf(t, nodes[0].f, "chunk on its way from the origin to one of the two", func(l *Live) bool {
		other, err := nodes[1].f.Live()
		return fromOrigin(l) || err == nil && fromOrigin(other)
	})
	close(gate)
	wg.Wait()

	// The last bytes were counted before they were handed over.
	var all Sources
	for _, n := range nodes {
		s := n.f.Status().Received
		all.Peer += s.Peer
		all.Origin += s.Origin
		liveOf(t, n.f, "agreement of bytes by peer with bytes from peers", func(l *Live) bool {
			for _, b := range l.Blobs {
				for _, bytes := range b.ByPeer {
					b.Bytes.Peer -= bytes
				}
				if b.Bytes.Peer != 0 {
					return false
				}
			}
			return true
		})
	}
	if all.Origin != int64(len(data)) || all.Peer < int64(len(data)) {
		t.Errorf("%+v", all)
	}
	nodes[0].stop(t)
	liveOf(t, nodes[1].f, "end of the blob's time as a neighbour", func(l *Live) bool {
		return len(l.Blobs) == 0 || len(l.Blobs[0].Neighbours) == 0
	})
}

// A fetcher that does not run, or not any more, says so and keeps nobody waiting.
func TestLiveWithoutLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		// The script has no view; the counters are there all the same.
		if l, err := s.f.Live(); err != nil || len(l.Blobs) != 0 {
			t.Errorf("%+v, %v", l, err)
		}
		// Callers within liveAge share a snapshot.
		first, _ := s.f.Live()
		if again, _ := s.f.Live(); again != first {
			t.Error("a second snapshot at once")
		}
		time.Sleep(liveAge)
		if later, _ := s.f.Live(); later == first || later.At < first.At+liveAge {
			t.Error("the old snapshot later")
		}
		s.stop(t)
		time.Sleep(liveAge)
		start := time.Now()
		if _, err := s.f.Live(); err == nil || time.Since(start) != 0 {
			t.Errorf("stopped: %v after %v", err, time.Since(start))
		}

		f := New(newFakeStore(t), s.fakeNode, s.o, newKeyring(3), policy.DefaultConfig(newKeyring(3).Self()), nil)
		start = time.Now()
		if _, err := f.Live(); err == nil || time.Since(start) != liveTimeout {
			t.Errorf("not started: %v after %v", err, time.Since(start))
		}
		// Those who came meanwhile need not wait as long again.
		if _, err := f.Live(); err == nil || time.Since(start) != liveTimeout {
			t.Errorf("again: %v after %v", err, time.Since(start))
		}
	})
}

func TestTraffic(t *testing.T) {
	id := func(n int) (id chunkindex.NodeID) {
		id[0], id[1] = byte(n), byte(n>>8)
		return id
	}
	var tr traffic
	for n := range maxTraffic {
		tr.peer(id(n), policy.Time(n+1))(10)
	}
	tr.peer(id(0), maxTraffic+1)(5)
	tr.peer(id(maxTraffic), maxTraffic+2)(7) // takes the place of 1, idle for longest
	counts := tr.byPeer(maxTraffic+2, func(chunkindex.NodeID) bool { return false })
	if len(counts) != maxTraffic || counts[id(0)] != 15 || counts[id(maxTraffic)] != 7 {
		t.Errorf("%d peers, %v", len(counts), counts)
	}
	if _, ok := counts[id(1)]; ok {
		t.Error("the idlest is still there")
	}
	if s := tr.sources(); s.Peer != 10*maxTraffic+12 {
		t.Errorf("%+v", s)
	}
	// Long after, neighbours alone are left.
	later := policy.Time(maxTraffic + 3).Add(trafficLinger)
	counts = tr.byPeer(later, func(n chunkindex.NodeID) bool { return n == id(2) })
	if len(counts) != 1 || counts[id(2)] != 10 {
		t.Errorf("%v", counts)
	}
}
