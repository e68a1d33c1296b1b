package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// findProvider waits until n finds p as the provider of d and returns how long
// that took.
func findProvider(t testing.TB, n, p *node, d digest.Digest) time.Duration {
	t.Helper()
	begin := time.Now()
	until(t, "the provider to be found", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		nodes, err := n.Providers(ctx, d, 4)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(nodes, p.Self())
	})
	return time.Since(begin)
}

func TestProvideAndFind(t *testing.T) {
	a := start(t, nil)
	b := start(t, bootstrap(a.Addrs()...))
	c := start(t, bootstrap(a.Addrs()...))
	together(t, a, b, c)
	for i := range 3 {
		d := digestOf(fmt.Sprint("blob ", i))
		if err := b.Provide(d); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*node{a, c} {
			if took := findProvider(t, n, b, d); took > time.Second {
				t.Errorf("found after %v", took)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if nodes, err := b.Providers(ctx, digestOf("blob 0"), 4); err != nil || len(nodes) != 0 {
		t.Errorf("a provider finds itself: %v, %v", nodes, err)
	}
	if nodes, err := a.Providers(ctx, digestOf("nobody has it"), 4); err != nil || len(nodes) != 0 {
		t.Errorf("providers of nothing: %v, %v", nodes, err)
	}
	if _, err := a.Providers(ctx, "sha256:short", 4); !errors.Is(err, chunkindex.ErrDigest) {
		t.Errorf("malformed digest: %v", err)
	}
	if err := a.Provide("nonsense"); !errors.Is(err, chunkindex.ErrDigest) {
		t.Errorf("malformed digest: %v", err)
	}
}

// A record really travels: it is found at a third node once its provider is
// known to nobody but through it.
func TestProviderRecordIsStoredAtOthers(t *testing.T) {
	a := start(t, nil)
	b := start(t, bootstrap(a.Addrs()...))
	together(t, a, b)
	d := digestOf("far away")
	c, _ := chunkindex.CID(d)
	b.Provide(d)
	until(t, "the record to reach a's own store", func() bool {
		infos, err := a.routing.dht.ProviderStore().GetProviders(context.Background(), c.Hash())
		return err == nil && len(infos) == 1 && infos[0].ID == PeerID(b.Self())
	})
}

// What a lone node provides is announced as soon as it is not alone any more.
func TestProvideAlone(t *testing.T) {
	a := start(t, nil)
	d := digestOf("provided alone")
	if err := a.Provide(d); err != nil {
		t.Fatal(err)
	}
	until(t, "the digest to be written down", func() bool {
		all, err := a.Provided(testContext(t))
		return err == nil && slices.Equal(all, []digest.Digest{d})
	})
	b := start(t, bootstrap(a.Addrs()...))
	together(t, a, b)
	c, _ := chunkindex.CID(d)
	begin := time.Now()
	until(t, "the record to reach b", func() bool {
		infos, err := b.routing.dht.ProviderStore().GetProviders(context.Background(), c.Hash())
		return err == nil && len(infos) == 1
	})
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("announced after %v", took)
	}
	findProvider(t, b, a, d)
}

func TestWithdrawAndRestart(t *testing.T) {
	a := start(t, nil)
	keep, drop := digestOf("keep"), digestOf("drop")
	a.Provide(keep)
	a.Provide(drop)
	provided := func(want ...digest.Digest) {
		t.Helper()
		until(t, fmt.Sprint("provided to be ", want), func() bool {
			got, err := a.Provided(testContext(t))
			slices.Sort(got)
			slices.Sort(want)
			return err == nil && slices.Equal(got, want)
		})
	}
	provided(keep, drop)
	if err := a.Withdraw(drop); err != nil {
		t.Fatal(err)
	}
	provided(keep)
	// The last of several changes counts, and what is asked for at the end is
	// not lost.
	last := digestOf("last")
	a.Provide(drop)
	a.Withdraw(drop)
	a.Provide(last)
	a.stop()
	a.run(t)
	provided(keep, last)
	// After a restart it announces again, unasked, and only what it kept.
	b := start(t, bootstrap(a.Addrs()...))
	together(t, a, b)
	findProvider(t, b, a, last)
	c, _ := chunkindex.CID(drop)
	infos, err := b.routing.dht.ProviderStore().GetProviders(context.Background(), c.Hash())
	if err != nil || len(infos) != 0 {
		t.Errorf("withdrawn digest announced: %v, %v", infos, err)
	}
}

// Records are announced again at a third of their validity, and withdrawn ones
// expire.
func TestReprovide(t *testing.T) {
	const validity = 3 * time.Second
	short := func(o *Options) { o.ProviderValidity = validity }
	a, b := pair(t, short)
	d, gone := digestOf("again"), digestOf("gone")
	a.Provide(d)
	a.Provide(gone)
	stored := func(d digest.Digest) bool {
		c, _ := chunkindex.CID(d)
		infos, err := b.routing.dht.ProviderStore().GetProviders(context.Background(), c.Hash())
		return err == nil && len(infos) > 0
	}
	until(t, "both records to reach b", func() bool { return stored(d) && stored(gone) })
	a.Withdraw(gone)
	until(t, "the withdrawn record to expire", func() bool { return !stored(gone) })
	end := time.Now().Add(validity)
	until(t, "another validity to pass", func() bool {
		if !stored(d) {
			t.Fatal("record expired although it is provided")
		}
		return time.Now().After(end)
	})
}

func TestDeadProvidersAreLeftOut(t *testing.T) {
	a := start(t, nil)
	b := start(t, bootstrap(a.Addrs()...))
	c := start(t, bootstrap(a.Addrs()...))
	together(t, a, b, c)
	d := digestOf("two copies")
	b.Provide(d)
	c.Provide(d)
	findProvider(t, a, b, d)
	findProvider(t, a, c, d)
	b.stop()
	// The session ends before the connection does.
	until(t, "a to notice", func() bool { return len(a.host.Network().ConnsToPeer(b.host.ID())) == 0 })
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	nodes, err := a.Providers(ctx, d, 4)
	if err != nil || !slices.Equal(nodes, []chunkindex.NodeID{c.Self()}) {
		t.Errorf("providers %v, %v, want %v", nodes, err, c.Self())
	}
	if ctx.Err() != nil {
		t.Error("a dead provider took all the time")
	}
}

func TestClosest(t *testing.T) {
	nodes := []*node{start(t, nil)}
	for range 4 {
		nodes = append(nodes, start(t, bootstrap(nodes[0].Addrs()...)))
	}
	together(t, nodes...)
	for _, d := range []digest.Digest{digestOf("x"), digestOf("y"), digest.SHA512.FromString("z")} {
		c, _ := chunkindex.CID(d)
		var ids []peer.ID
		for _, n := range nodes {
			ids = append(ids, PeerID(n.Self()))
		}
		var want []chunkindex.NodeID
		for _, p := range kb.SortClosestPeers(ids, kb.ConvertKey(string(c.Hash()))) {
			n, _ := NodeOf(p)
			want = append(want, n)
		}
		for _, n := range nodes {
			until(t, "the same answer everywhere", func() bool {
				ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
				defer cancel()
				got, err := n.Closest(ctx, d)
				if err != nil {
					t.Fatal(err)
				}
				return slices.Equal(got, want)
			})
		}
	}
	if _, err := nodes[0].Closest(context.Background(), "sha256:"); !errors.Is(err, chunkindex.ErrDigest) {
		t.Errorf("malformed digest: %v", err)
	}
}

// With no time at all, and alone, there still is an answer.
func TestClosestAlone(t *testing.T) {
	a := start(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	got, err := a.Closest(ctx, digestOf("x"))
	if err != nil || !slices.Equal(got, []chunkindex.NodeID{a.Self()}) {
		t.Errorf("%v, %v", got, err)
	}
}

// A node that leaves is soon out of everybody's committee.
func TestClosestForgetsTheDead(t *testing.T) {
	a := start(t, nil)
	b := start(t, bootstrap(a.Addrs()...))
	c := start(t, bootstrap(a.Addrs()...))
	together(t, a, b, c)
	size := func(n *node) int {
		got, err := n.Closest(testContext(t), digestOf("x"))
		if err != nil {
			t.Fatal(err)
		}
		return len(got)
	}
	until(t, "three", func() bool { return size(a) == 3 && size(c) == 3 })
	b.stop()
	begin := time.Now()
	until(t, "two", func() bool { return size(a) == 2 && size(c) == 2 })
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("forgotten after %v", took)
	}
}
