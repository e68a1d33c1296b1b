package simulation

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// lookUps has a node ask for blob 0, and returns what it was told and when.
func lookUps(t *testing.T, c *cluster, node int) (ev policy.Event, at time.Duration) {
	t.Helper()
	c.opt.Observe = func(d time.Duration, n int, e *policy.Event, _ []policy.Effect) {
		if n == node && e.Kind == policy.EvLooked {
			ev, at = *e, d
		}
	}
	from := time.Duration(c.now - startTime)
	c.lookUp(c.nodes[node], &policy.Effect{Kind: policy.EfLookup, Blob: c.blobs[0].id})
	c.wait(time.Second)
	if ev.Kind != policy.EvLooked {
		t.Fatal("no answer")
	}
	return ev, at - from
}

// A look-up takes as long as one that was measured, or as between two of them.
func TestLookUpTimes(t *testing.T) {
	r := crowd{nodes: 2, size: mib}.run()
	r.DHT.Delays = []time.Duration{ms, 3 * ms, 100 * ms}
	c, _ := quiet(t, r)
	var took []time.Duration
	for range 1000 {
		_, d := lookUps(t, c, 0)
		took = append(took, d)
	}
	slices.Sort(took)
	if took[0] < ms || took[0] > ms+ms/10 || took[999] > 100*ms || took[999] < 99*ms {
		t.Errorf("from %v to %v", took[0], took[999])
	}
	if m := took[500]; m < 2*ms || m > 10*ms {
		t.Errorf("median %v", m)
	}
	if q := took[750]; q < 40*ms || q > 60*ms {
		t.Errorf("third quartile %v", q)
	}
}

// Each node's own view lacks some members, the same for as long as the run is.
func TestViewsLackMembers(t *testing.T) {
	r := crowd{nodes: 400, size: mib}.run()
	r.DHT.Misses = 100_000
	c, _ := quiet(t, r)
	var pairs, missed int
	for _, n := range c.nodes {
		if c.misses(n, n) {
			t.Fatal("a node's view lacks itself")
		}
		for _, o := range c.nodes {
			pairs++
			if c.misses(n, o) {
				missed++
			}
		}
	}
	if e := missed * 1000 / pairs; e < 95 || e > 105 {
		t.Errorf("%d of 1000 are missed", e)
	}
	for _, n := range c.nodes {
		c.blobs[0].provide(0, n.index, 0, 0)
	}
	differ := 0
	first, _ := lookUps(t, c, 0)
	for i := range 20 {
		ev, _ := lookUps(t, c, i)
		if len(ev.Closest) != replication || len(ev.Providers) != replication {
			t.Fatalf("%d closest, %d providers", len(ev.Closest), len(ev.Providers))
		}
		for _, id := range append(ev.Closest, ev.Providers...) {
			if c.misses(c.nodes[i], c.nodeOf(&id)) {
				t.Errorf("node %d is told of %v, which its view lacks", i, id)
			}
		}
		again, _ := lookUps(t, c, i)
		if fmt.Sprint(again.Closest) != fmt.Sprint(ev.Closest) {
			t.Error("two look-ups of a node name other nodes as the closest")
		}
		if fmt.Sprint(first.Closest) != fmt.Sprint(ev.Closest) {
			differ++
		}
	}
	if differ < 10 {
		t.Errorf("%d views of 20 differ from the first", differ)
	}
}

// What a node announces is found when that has had its time.
func TestAnnouncingTakesTime(t *testing.T) {
	r := crowd{nodes: 3, size: mib}.run()
	r.DHT.Publish = 5 * time.Second
	c, _ := quiet(t, r)
	c.do(c.nodes[1], &policy.Effect{Kind: policy.EfProvide, Blob: c.blobs[0].id})
	for i := range 7 { // a second each
		ev, _ := lookUps(t, c, 0)
		if found := len(ev.Providers) == 1; found != (i >= 5) {
			t.Errorf("after %d s: %d providers", i, len(ev.Providers))
		}
	}
}

// A DHT that is stale names those that it knew of when it went so, dead or not.
func TestStaleDHT(t *testing.T) {
	r := crowd{nodes: 5, size: mib}.run()
	r.Nodes[4].Joins = time.Second
	r.Faults = []scenario.Fault{{Kind: scenario.StaleDHT, Nodes: []int{0}, For: 10 * time.Second},
		{Kind: scenario.Crash, Nodes: []int{2}}, {Kind: scenario.Drain, Nodes: []int{3}}}
	c, _ := quiet(t, r)
	all := func(ids []chunkindex.NodeID) (nodes []int32) {
		for i := range ids {
			nodes = append(nodes, c.nodeOf(&ids[i]).index)
		}
		slices.Sort(nodes)
		return nodes
	}
	for _, i := range []int32{1, 2, 3} {
		c.blobs[0].provide(c.now, i, 0, 0)
	}
	c.wait(time.Second)
	c.begin(0)
	c.wait(time.Second)
	c.begin(1)
	c.begin(2)
	c.join(c.nodes[4], nil)
	c.blobs[0].provide(c.now, 4, 0, 0)
	for _, tc := range []struct {
		asks               int
		closest, providers []int32
	}{
		{0, []int32{0, 1, 2, 3}, []int32{1, 2, 3}},
		// What a dead node announced stays, what one that left did does not.
		{1, []int32{0, 1, 4}, []int32{2, 4}},
	} {
		ev, _ := lookUps(t, c, tc.asks)
		if got := all(ev.Closest); !slices.Equal(got, tc.closest) {
			t.Errorf("node %d is told of %v, want %v", tc.asks, got, tc.closest)
		}
		if got := all(ev.Providers); !slices.Equal(got, tc.providers) {
			t.Errorf("node %d is told of the providers %v, want %v", tc.asks, got, tc.providers)
		}
	}
	c.wait(10 * time.Second)
	if ev, _ := lookUps(t, c, 0); len(ev.Closest) != 3 {
		t.Errorf("healed, node 0 is told of %v", all(ev.Closest))
	}
}
