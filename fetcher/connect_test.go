package fetcher

import (
	"context"
	"errors"
	"reflect"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// dialler is a Peers whose Connect the test gives.
type dialler struct {
	*fakeNode
	connect func(context.Context, chunkindex.NodeID) error
}

func (d dialler) Connect(ctx context.Context, to chunkindex.NodeID) error { return d.connect(ctx, to) }

// ended returns how each Connect ended, and when.
func (s *scripted) ended(start time.Time, n int) (kinds map[chunkindex.NodeID]policy.EventKind, last time.Duration) {
	kinds = map[chunkindex.NodeID]policy.EventKind{}
	for len(kinds) < n {
		ev := <-s.s.heard
		if ev.Kind == policy.EvPeerUp || ev.Kind == policy.EvUnreachable {
			if kinds[ev.Peer] != 0 {
				kinds[ev.Peer] = 255 // twice
				return kinds, 0
			}
			kinds[ev.Peer] = ev.Kind
		}
	}
	return kinds, time.Since(start)
}

func TestConnect(t *testing.T) {
	up := newKeyring(2).Self()
	for name, c := range map[string]struct {
		connect func(*scripted, context.Context) error
		want    policy.EventKind
		after   time.Duration
		result  connectResult
	}{
		"up": {func(s *scripted, _ context.Context) error { s.f.PeerUp(up); return nil }, policy.EvPeerUp, 0, connectUp},
		"up a little later": {func(s *scripted, _ context.Context) error {
			time.AfterFunc(time.Second, func() { s.f.PeerUp(up) })
			return nil
		}, policy.EvPeerUp, time.Second, connectUp},
		"up and no word": {func(*scripted, context.Context) error { return nil }, policy.EvUnreachable, connectTimeout, connectSilent},
		"refused":        {func(*scripted, context.Context) error { return errors.New("refused") }, policy.EvUnreachable, 0, connectFailed},
		"hangs": {func(_ *scripted, ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			policy.EvUnreachable, connectTimeout, connectFailed},
		"comes by itself": {func(s *scripted, _ context.Context) error { s.f.PeerUp(up); return errors.New("refused") },
			policy.EvPeerUp, 0, connectUp},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, nil)
				s.f.peers = dialler{s.fakeNode, func(ctx context.Context, _ chunkindex.NodeID) error { return c.connect(s, ctx) }}
				start := time.Now()
				// Asked twice, ended once.
				s.do(policy.Effect{Kind: policy.EfConnect, Peer: up}, policy.Effect{Kind: policy.EfConnect, Peer: up})
				kinds, after := s.ended(start, 1)
				if kinds[up] != c.want || after != c.after {
					t.Errorf("event %d after %v", kinds[up], after)
				}
				time.Sleep(time.Minute)
				s.do()
				for len(s.s.heard) > 0 {
					if ev := <-s.s.heard; ev.Kind == policy.EvUnreachable {
						t.Error("ended again")
					}
				}
				if n := s.f.count.connects[c.result].Load(); n != 1 {
					t.Errorf("counted %d times", n)
				}
				s.stop(t)
				if len(s.f.connects.wanted) != 0 || s.f.connects.active != 0 {
					t.Errorf("%d, %d stay", len(s.f.connects.wanted), s.f.connects.active)
				}
			})
		})
	}
}

// Connections are made a few at a time, and no more are asked for than wait.
func TestConnectsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		var now, most atomic.Int64
		s.f.peers = dialler{s.fakeNode, func(ctx context.Context, _ chunkindex.NodeID) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Second)
			return errors.New("refused")
		}}
		var effects []policy.Effect
		for i := range maxConnects + 10 {
			id := chunkindex.NodeID{1: byte(i), 2: byte(i >> 8)}
			effects = append(effects, policy.Effect{Kind: policy.EfConnect, Peer: id})
		}
		start := time.Now()
		s.do(effects...)
		kinds, after := s.ended(start, len(effects))
		for id, kind := range kinds {
			if kind != policy.EvUnreachable {
				t.Errorf("%s: %d", id, kind)
			}
		}
		if most.Load() != maxConnecting || after != maxConnects/maxConnecting*time.Second {
			t.Errorf("%d at once, %v", most.Load(), after)
		}
		if n := s.f.count.connects[connectRefused].Load(); n != 10 {
			t.Errorf("%d were too many", n)
		}
		synctest.Wait()
		s.stop(t)
	})
}

// Stopping ends what is being connected.
func TestConnectEndsWithTheFetcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		s.f.peers = dialler{s.fakeNode, func(ctx context.Context, _ chunkindex.NodeID) error { <-ctx.Done(); return ctx.Err() }}
		for i := range byte(40) {
			s.do(policy.Effect{Kind: policy.EfConnect, Peer: chunkindex.NodeID{1: i}})
		}
		synctest.Wait()
		start := time.Now()
		s.stop(t)
		if time.Since(start) != 0 {
			t.Errorf("after %v", time.Since(start))
		}
	})
}

func TestCooldownAndOriginNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		read := func(origin, repository string, seed uint64) (policy.Event, func()) {
			d := s.o.add(random(seed, 2*mib))
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				if c, err := s.f.Open(ctx, Ref{Source: Source{origin, repository}, Digest: d}, nil); err == nil {
					c.Close()
				}
			}()
			ev, _ := s.until(policy.EvRead)
			return ev, func() {
				cancel()
				<-done
				s.do(policy.Effect{Kind: policy.EfClose, Blob: d})
				synctest.Wait()
			}
		}
		a, endA := read("a.test", "one", 1)
		b, endB := read("a.test", "two", 2)
		c, endC := read("c.test", "one", 3)
		if a.Origin == 0 || a.Origin != b.Origin || a.Source == b.Source || c.Origin == 0 || c.Origin == a.Origin {
			t.Errorf("origins %d, %d, %d, sources %d, %d, %d", a.Origin, b.Origin, c.Origin, a.Source, b.Source, c.Source)
		}
		s.do(policy.Effect{Kind: policy.EfCooldown, Source: b.Source, Wait: 3 * time.Second},
			policy.Effect{Kind: policy.EfCooldown, Source: c.Source + 100, Wait: time.Second})
		synctest.Wait()
		if want := []string{"a.test 3s"}; !reflect.DeepEqual(s.o.cooldowns, want) {
			t.Errorf("%v", s.o.cooldowns)
		}
		endA()
		endB()
		// It outlives the sources: a cooldown may go on.
		again, endAgain := read("a.test", "one", 4)
		if again.Origin != a.Origin {
			t.Errorf("%d, %d", again.Origin, a.Origin)
		}
		endAgain()
		endC()
		s.stop(t)
	})
}
