package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// newCrowd is a world too large for everybody to know everybody: each node is linked
// to about degree others, wants 8 neighbours, and is told by the DHT of the 20 nodes
// that are nearest to d.
func newCrowd(t tester, nodes, degree int, seed uint64, d *digest.Digest) *world {
	w := newStrangers(t, nodes, func(i int, c *Config) { c.Neighbours, c.Seed = 8, seed })
	*d = w.blob(fmt.Sprintf("layer %d", seed), 100*mib)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, n := range w.nodes {
		for range degree / 2 {
			if o := w.nodes[rng.IntN(nodes)]; o != n && !n.links[o] {
				w.link(n, o)
			}
		}
		n.closest = func() []chunkindex.NodeID { return w.nearest(*d, 20) }
	}
	return w
}

// nearest stands for the DHT's metric: some of the living, the same for everybody.
func (w *world) nearest(d digest.Digest, n int) []chunkindex.NodeID {
	var ids []chunkindex.NodeID
	for _, o := range w.nodes {
		if !o.down {
			ids = append(ids, o.id)
		}
	}
	ids = Rank("distance from "+string(d), ids)
	return ids[:min(n, len(ids))]
}

func (w *world) readAll(d digest.Digest, readers []*node) []*client {
	var all []*client
	for _, n := range readers {
		all = append(all, n.read(d, 0, -1))
	}
	return all
}

// Nobody of a crowd knows all others, and still there is one copy, and one node that
// grants it: the first in rank, whether it wants the blob or not, although most have
// no connection to it when they begin.
func TestCrowd(t *testing.T) {
	for _, tc := range []struct {
		nodes, degree int
		idle          bool // the coordinator does not want the blob
	}{
		{40, 10, false}, {40, 10, true}, {60, 10, false}, {60, 16, true}, {60, 30, false},
	} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%+v seed %d", tc, seed), func(t *testing.T) {
				var d digest.Digest
				w := newCrowd(t, tc.nodes, tc.degree, seed, &d)
				first := w.node(rank(d, w.nearest(d, 20))[0])
				readers := w.nodes
				if tc.idle {
					readers = slices.DeleteFunc(slices.Clone(readers), func(n *node) bool { return n == first })
				}
				began := w.now
				all := w.readAll(d, readers)
				w.wait(time.Minute, all...)
				w.egress(d, 100*mib)
				for _, n := range w.nodes {
					if n != first && n.counts[CountGrant] > 0 {
						t.Errorf("%s grants, which is not the first in rank", n.id)
					}
				}
				for _, cl := range all {
					if cl.first > began.Add(500*time.Millisecond) {
						t.Errorf("%s waited for %v for its first byte", cl.node.id, time.Duration(cl.first-began))
					}
				}
				if tc.idle && first.stored[d] != nil {
					t.Error("the coordinator fetched what it does not want")
				}
				w.quiet()
			})
		}
	}
}

// The first in rank of a crowd dies, before anybody asks or in the middle.
func TestCrowdLosesCoordinator(t *testing.T) {
	for _, at := range []time.Duration{0, 300 * time.Millisecond} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("after %v seed %d", at, seed), func(t *testing.T) {
				var d digest.Digest
				w := newCrowd(t, 40, 12, seed, &d)
				// The DHT goes on naming the dead.
				near := w.nearest(d, 20)
				for _, n := range w.nodes {
					n.closest = func() []chunkindex.NodeID { return near }
				}
				first := w.node(rank(d, near)[0])
				readers := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == first })
				w.after(at, func() { w.kill(first) })
				w.run(0, func() bool { return false })
				w.wait(time.Minute, w.readAll(d, readers)...)
				w.egress(d, 116*mib) // a stripe that was on its way, at most
				w.quiet()
			})
		}
	}
}

// Those who come one after the other find those who came before.
func TestCrowdStaggered(t *testing.T) {
	for seed := range uint64(4) {
		var d digest.Digest
		w := newCrowd(t, 50, 12, seed, &d)
		var all []*client
		for i, n := range w.nodes {
			w.after(time.Duration(i)*40*time.Millisecond, func() { all = append(all, n.read(d, 0, -1)) })
		}
		w.run(2*time.Second, func() bool { return false })
		w.wait(time.Minute, all...)
		w.egress(d, 100*mib)
		w.quiet()
	}
}

// Some pairs of nodes cannot reach each other: who cannot reach the coordinator has
// others ask for it.
func TestPartialMesh(t *testing.T) {
	for _, tc := range []struct{ nodes, percent int }{{8, 20}, {12, 30}, {16, 30}, {40, 20}} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%+v seed %d", tc, seed), func(t *testing.T) {
				w := newWorld(t, tc.nodes, nil)
				d := w.blob(fmt.Sprintf("layer %d", seed), 100*mib)
				rng := rand.New(rand.NewPCG(seed, 1))
				for i, a := range w.nodes {
					for _, b := range w.nodes[:i] {
						if rng.IntN(100) < tc.percent {
							w.unlink(a, b)
						}
					}
				}
				for _, n := range w.nodes {
					n.closest = func() []chunkindex.NodeID { return w.nearest(d, 20) }
				}
				w.wait(2*time.Minute, w.readAll(d, w.nodes)...)
				w.egress(d, 105*mib)
				w.quiet()
			})
		}
	}
}

// What others can make a member remember is bounded, and forgotten.
func TestJoinsAreBounded(t *testing.T) {
	stranger := func(i int) chunkindex.NodeID { return chunkindex.NodeID{byte(i >> 16), byte(i >> 8), byte(i), 7} }
	var d digest.Digest
	w := newCrowd(t, 40, 30, 1, &d)
	n := w.nodes[0]
	for i := range 4 * maxJoiners {
		n.event(Event{Kind: EvPeerUp, Peer: stranger(i)})
		n.event(Event{Kind: EvMessage, Peer: stranger(i), Msg: Message{Kind: MsgJoin, Blob: d, Size: 100 * mib}})
		n.event(Event{Kind: EvPeerDown, Peer: stranger(i)})
	}
	if s := n.core.blobs[d].swarm; len(s.joiners) != maxJoiners || s.joiners[maxJoiners-1].id != stranger(4*maxJoiners-1) {
		t.Errorf("%d joiners are remembered", len(s.joiners))
	}
	for i := range 4 * maxCoordinated {
		n.hears(w.nodes[1], Message{Kind: MsgJoin, Blob: digest.FromString(fmt.Sprint("flood ", i)), Size: int64(i+2) * mib})
	}
	if k := len(n.core.blobs); k > maxCoordinated {
		t.Errorf("a flood of joins made %d blobs", k)
	}
	w.quiet() // swarmTTL is over then
}

// A member that is asked to pass on names does so once.
func TestGossipEnds(t *testing.T) {
	var d digest.Digest
	w := newCrowd(t, 40, 12, 3, &d)
	w.wait(time.Minute, w.readAll(d, w.nodes)...)
	w.run(10*time.Second, func() bool { return false })
	var before, after int
	for _, n := range w.nodes {
		before += n.steps
	}
	w.run(4*time.Minute, func() bool { return false })
	for _, n := range w.nodes {
		after += n.steps
	}
	if steps := after - before; steps > 20*len(w.nodes) {
		t.Errorf("%d steps in four minutes after everybody was done", steps)
	}
	w.quiet()
}

// Names that lead nowhere cost a bounded number of attempts and bytes, and those who
// want a blob still find one another.
func TestHostilePeers(t *testing.T) {
	var d digest.Digest
	w := newCrowd(t, 40, 16, 2, &d)
	w.originTime = 200 * time.Millisecond
	victim, liar := w.nodes[0], w.nodes[1]
	if !victim.links[liar] {
		w.link(victim, liar)
	}
	all := w.readAll(d, w.nodes)
	w.run(100*time.Millisecond, func() bool { return false })
	peers := victim.core.peers.n
	for i := range 200 {
		m := Message{Kind: MsgPeers, Blob: d, Size: 100 * mib, N: 1 << 20}
		for j := range MaxPeers {
			m.Peers = append(m.Peers, chunkindex.NodeID{byte(i), byte(j), 9})
		}
		victim.hears(liar, m)
		c := victim.core
		if c.connecting > maxConnecting+committeeSize || len(c.blobs[d].candidates) > maxCandidates || c.peers.n > peers+maxConnecting+committeeSize {
			t.Fatalf("after %d messages: %d attempts, %d candidates, %d peers", i+1, c.connecting, len(c.blobs[d].candidates), c.peers.n)
		}
		w.run(5*time.Millisecond, func() bool { return false })
	}
	w.originTime = 10 * time.Millisecond
	w.wait(2*time.Minute, all...)
	w.quiet()
	if k := victim.core.peers.n; k > len(w.nodes) {
		t.Errorf("%d peers are remembered, there are %d nodes", k, len(w.nodes))
	}
}

// A node that reads when it knows just as many peers as it wants for neighbours, none of
// whom has to do with the blob yet, and then meets more, must not take those for a
// mesh: it would hear of chunks only from those whom the DHT names, who are busy with
// everybody else.
func TestIdleNeighboursLeaveRoom(t *testing.T) {
	const most = 8
	var d digest.Digest
	w := newCrowd(t, 40, 0, 1, &d)
	n := w.nodes[0]
	for _, o := range w.nodes[1 : most+1] {
		w.link(n, o)
	}
	n.closest = func() []chunkindex.NodeID { return nil }
	n.read(d, 0, -1)
	b := n.core.blobs[d]
	w.run(200*time.Millisecond, func() bool { return len(b.neighbours) == most && b.neighbours[most-1].replied })
	if len(b.neighbours) != most {
		t.Fatalf("%d neighbours of those that it knew first, not %d", len(b.neighbours), most)
	}
	if b.active() != 0 {
		t.Errorf("%d of them, which have nothing to do with the blob, take a place", b.active())
	}
	n.closest = func() []chunkindex.NodeID { return ids(w.nodes[most+1 : most+3]) }
	joined := 0
	for _, o := range w.nodes[most+1 : most+3] {
		w.link(n, o)
	}
	b.closest = n.closest()
	w.run(5*time.Second, func() bool {
		joined = 0
		for _, o := range w.nodes[most+1 : most+3] {
			if s := o.core.blobs[d]; s != nil && s.swarm != nil && len(s.swarm.joiners) > 0 {
				joined++
			}
		}
		return joined == 2
	})
	if joined != 2 {
		t.Errorf("it joins through %d members of the committee, not 2", joined)
	}
}
