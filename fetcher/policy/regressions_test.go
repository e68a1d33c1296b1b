package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// first is the node that ranks first for d, and the others.
func (w *world) ranked(d digest.Digest) []*node {
	var ids []chunkindex.NodeID
	for _, n := range w.nodes {
		ids = append(ids, n.id)
	}
	var out []*node
	for _, id := range rank(d, ids) {
		out = append(out, w.node(id))
	}
	return out
}

func (n *node) hears(from *node, m Message) {
	m2, err := DecodeMessage(AppendMessage(nil, &m))
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.event(Event{Kind: EvMessage, Peer: from.id, Msg: m2})
}

// A peer's Ask fixes the size of a blob that nobody here knows.
func TestAskFixesSize(t *testing.T) {
	for _, m := range []Message{
		{Kind: MsgAsk, Size: 77 * mib},
		{Kind: MsgAsk, Size: 5, Small: true, Bits: chunkindex.FullBitfield(1)},
	} {
		w := newWorld(t, 2, nil)
		d := w.blob("layer", 50*mib)
		m.Blob = d
		w.nodes[0].hears(w.nodes[1], m)
		w.run(time.Second, func() bool { return false })
		w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	}
}

// A wrong hint of one client keeps failing those who know better, as long as they retry.
func TestWrongHintSticks(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 50*mib)
	a := w.nodes[0].readSized(d, 0, -1, 51*mib)
	w.run(time.Minute, a.done)
	for range 3 {
		w.run(10*time.Second, func() bool { return false })
		cl := w.nodes[0].readSized(d, 0, -1, 50*mib)
		w.run(time.Minute, cl.done)
		if cl.status != 0 {
			t.Errorf("the origin is fine and the size is right: %d %s", cl.status, cl.reason)
		}
	}
}

// One liar's size, while the origin is down, hides the honest copy.
func TestClaimedSizeSticks(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 50*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	w.originStatus = func(*node, digest.Digest) int { return 503 }
	cl := w.nodes[1].readSized(d, 0, -1, -1)
	n := chunksOf(60*mib, false)
	w.nodes[1].hears(w.nodes[2], Message{Kind: MsgState, Blob: d, Size: 60 * mib, Bits: chunkindex.FullBitfield(n), InFlight: chunkindex.NewBitfield(n)})
	w.run(2*time.Minute, cl.done)
	for range 3 {
		if cl.status == 0 {
			break
		}
		cl = w.nodes[1].readSized(d, 0, -1, -1)
		w.run(2*time.Minute, cl.done)
	}
	if cl.status != 0 {
		t.Errorf("a copy is reachable, but %d %s", cl.status, cl.reason)
	}
}

// A manifest request for a digest whose blob is being fetched in chunks.
func TestSmallReadOfChunkedBlob(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 200*mib)
	n := w.nodes[0]
	full := n.read(d, 0, -1)
	w.run(300*time.Millisecond, full.done)
	n.lastID++
	id := n.lastID
	n.clients[id] = &client{node: n, d: d, end: 200 * mib}
	n.event(Event{Kind: EvRead, Blob: d, Reader: id, Off: 0, End: -1, Size: -1, Whole: true, Small: true, Source: 2})
	w.run(100*time.Millisecond, func() bool { return false })
	n.cancel(n.clients[id])
	w.wait(time.Minute, full)
}

// A single busy answer while the origin refuses fails the reader, though a copy is there.
func TestBusyPeerAndRefusingOrigin(t *testing.T) {
	for _, status := range []int{404, 401} {
		w := newWorld(t, 2, nil)
		d := w.blob("layer", 50*mib)
		w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
		w.run(time.Minute, func() bool { return false })
		w.originStatus = func(*node, digest.Digest) int { return status }
		w.nodes[0].busy = 3
		w.wait(time.Minute, w.nodes[1].readSized(d, 0, -1, -1)) // size asked of origin first
		w.quiet()
	}
}

// The same with a stall of the only holder for a moment.
func TestStalledPeerAndRefusingOrigin(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 50*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	w.originStatus = func(*node, digest.Digest) int { return 404 }
	w.nodes[0].stalls = true
	w.after(2500*time.Millisecond, func() { w.nodes[0].stalls = false })
	w.wait(time.Minute, w.nodes[1].readSized(d, 0, -1, -1))
}

// A chunk that was released on a liar's word is replaced under the reader by the origin's.
func TestReplacedUnderTheReader(t *testing.T) {
	w := newWorld(t, 2, nil) // member
	d := w.blob("layer", 60*mib)
	liar, n := w.nodes[0], w.nodes[1]
	w.wait(time.Minute, liar.read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	liar.corrupt, liar.signs = true, true
	w.unranged = true
	cl := n.read(d, 0, -1)
	w.run(time.Minute, func() bool { return cl.upto > 5*mib || cl.done() })
	w.kill(liar)
	w.run(time.Minute, cl.done)
	if !cl.done() || cl.status == 0 && cl.wrong {
		t.Errorf("the client got %d bytes, some of them wrong, and status %d", cl.upto, cl.status)
	}
}

// Strict: one liar's word, relayed by an honest node, counts as two.
func TestAgreedByOne(t *testing.T) {
	w := newWorld(t, 3, strict)
	d := w.blob("layer", 300*mib)
	liar, relay, n := w.nodes[0], w.nodes[1], w.nodes[2]
	w.wait(time.Minute, liar.read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	liar.corrupt, liar.signs = true, true
	r := relay.read(d, 0, -1)
	w.run(50*time.Millisecond, r.done)
	cl := n.read(d, 0, -1)
	w.run(5*time.Second, cl.done)
	for _, c := range []*client{r, cl} {
		if c.wrong {
			t.Errorf("client of %s was given wrong bytes (up to %d) on the word of one liar", c.node.id, c.upto)
		}
	}
}

// A process that stands still for 3 s is forgotten by its coordinator.
func TestPausedAsker(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 600*mib)
	rk := w.ranked(d)
	a := rk[1]
	cl := a.read(d, 0, -1)
	w.run(300*time.Millisecond, cl.done)
	a.paused = w.now.Add(3 * time.Second)
	start := w.now
	w.wait(5*time.Minute, cl)
	took := time.Duration(cl.finished - start)
	if a.counts[CountHedge] > 2 {
		t.Errorf("goes on by %d hedges: took %v (origin needs 3 s at two stripes)", a.counts[CountHedge], took)
	}
}

// A coordinator whose disk fills forgets what it coordinates.
func TestCoordinatorBypasses(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 600*mib)
	rk := w.ranked(d)
	c0 := rk[0].read(d, 0, -1)
	a, b := rk[1].read(d, 0, -1), rk[2].read(d, 0, -1)
	w.run(500*time.Millisecond, a.done)
	rk[0].full = true
	w.wait(5*time.Minute, a, b)
	_ = c0
	h := rk[1].counts[CountHedge] + rk[2].counts[CountHedge]
	if h > 4 {
		t.Errorf("goes on by %d hedges", h)
	}
}

// A peer that says it holds all and serves nothing.
func TestStallingLiar(t *testing.T) {
	for _, n := range []int{2, 4} {
		w := newWorld(t, n, nil)
		d := w.blob("layer", 300*mib)
		w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
		w.run(time.Minute, func() bool { return false })
		w.nodes[0].stalls = true
		start := w.now
		var all []*client
		for _, o := range w.nodes[1:] {
			all = append(all, o.read(d, 0, -1))
		}
		w.wait(5*time.Minute, all...)
		var last Time
		for _, c := range all {
			last = max(last, c.finished)
		}
		if time.Duration(last-start) > 8*time.Second {
			t.Errorf("n=%d: %v", n, time.Duration(last-start))
		}
	}
}

// A slow origin with long chunks: everybody hedges all the time.
func TestSlowOrigin(t *testing.T) {
	w := newWorld(t, 4, nil)
	d := w.blob("layer", 17<<30)
	w.originTime = 2500 * time.Millisecond // 16 MiB at 6.4 MB/s
	var all []*client
	for _, o := range w.nodes {
		all = append(all, o.read(d, 0, -1))
	}
	w.run(5*time.Minute, func() bool { return false })
	var h int64
	most := int64(0)
	for _, o := range w.nodes {
		h += o.counts[CountHedge]
		if hb := o.stored[d]; hb != nil {
			k := int64(0)
			for _, l := range hb.level {
				if l != chunkindex.Absent {
					k++
				}
			}
			most = max(most, k)
		}
	}
	_ = all
	if h > 4 {
		t.Errorf("%d hedges with a healthy, slow origin", h)
	}
}

// The DHT names only the node itself (p2p.Closest with an empty routing table).
func TestClosestIsSelf(t *testing.T) {
	w := newWorld(t, 4, nil)
	for _, n := range w.nodes {
		n.closest = func() []chunkindex.NodeID { return []chunkindex.NodeID{n.id} }
	}
	d := w.blob("layer", 100*mib)
	var all []*client
	for _, n := range w.nodes {
		all = append(all, n.read(d, 0, -1))
	}
	w.wait(5*time.Minute, all...)
	w.egress(d, 101*mib)
}

// Grants pile up.
func TestGrantMemory(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 300*mib)
	rk := w.ranked(d)
	w.originStalls = true
	rk[1].read(d, 0, -1)
	w.run(100*time.Millisecond, func() bool { return false })
	for range 200 {
		for s := range 18 {
			first, end := w.blobs[d].layout.Stripe(s)
			rk[1].hears(rk[0], Message{Kind: MsgGrant, Blob: d, Size: 300 * mib, Chunk: first, N: end - first})
		}
	}
	if n := len(rk[1].core.blobs[d].grants); n > 1000 {
		t.Errorf("%d grants wait", n)
	}
}

// Peers nobody ever met.
func TestPeersMemory(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 300*mib)
	rk := w.ranked(d)
	w.originStalls = true
	rk[1].read(d, 0, -1)
	w.run(100*time.Millisecond, func() bool { return false })
	for i := range 200 {
		m := Message{Kind: MsgPeers, Blob: d, Size: 300 * mib}
		for j := range 32 {
			m.Peers = append(m.Peers, chunkindex.NodeID{byte(i), byte(j), 1})
		}
		rk[1].hears(rk[0], m)
		for _, id := range m.Peers { // as fetcher.send does
			rk[1].event(Event{Kind: EvPeerDown, Peer: id})
		}
	}
	if n := rk[1].core.peers.n; n > 100 {
		t.Errorf("%d peers are remembered", n)
	}
}

// A coordinator with a partial that takes a while to open.
func TestCoordinatorStillOpening(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 100*mib)
	rk := w.ranked(d)
	cl := rk[0].readSized(d, 0, 50*mib, 100*mib)
	w.wait(time.Minute, cl)
	cfg := rk[0].core.cfg
	w.kill(rk[0])
	rk[0].openTime = 1500 * time.Millisecond
	w.restart(rk[0], cfg)
	w.wait(time.Minute, rk[1].read(d, 0, -1))
	w.egress(d, 101*mib)
}

// The origin ignores ranges and fails for a moment.
func TestUnrangedFailsOnce(t *testing.T) {
	for _, n := range []int{2, 4} {
		w := newWorld(t, n, nil)
		w.unranged = true
		d := w.blob("layer", 100*mib)
		var all []*client
		down := false
		w.originStatus = func(*node, digest.Digest) int {
			if down {
				return 503
			}
			return 0
		}
		for _, o := range w.nodes {
			all = append(all, o.read(d, 0, -1))
		}
		w.after(400*time.Millisecond, func() { down = true })
		w.after(450*time.Millisecond, func() { down = false })
		w.wait(time.Minute, all...)
		var h int64
		var last Time
		for _, c := range all {
			h += c.node.counts[CountHedge]
			last = max(last, c.finished)
		}
		if h > 0 {
			t.Errorf("%d hedges", h)
		}
	}
}

// A node whose range reader came, went, and came again hears nothing of what a
// peer got that introduced itself in between.
func TestWantAgain(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 60*mib)
	rk := w.ranked(d)
	a, b := rk[1], rk[2]
	w.wait(time.Minute, a.readSized(d, 40*mib, 41*mib, 60*mib))
	full := b.read(d, 0, -1)
	w.run(100*time.Millisecond, full.done)
	again := a.readSized(d, 0, 30*mib, 60*mib)
	w.wait(time.Minute, full, again)
	if h := a.counts[CountHedge]; h > 0 {
		t.Errorf("%d hedges, %v, egress %d MiB", h, time.Duration(again.finished-again.started), w.originBytes[d]/mib)
	}
}

// silent is a tester that notes nothing: for worlds in which member mode may
// release a part of a blob on a liar's word.
type silent struct{ *testing.T }

func (silent) Errorf(string, ...any) {}

// The liar that signed a chunk has left before this node restarted, so that its
// key is a stranger's. Who handed the chunk on was deceived and is not banned.
func TestHonestRelayIsNotBanned(t *testing.T) {
	w := newWorld(silent{t}, 3, nil)
	d := w.blob("layer", 60*mib)
	liar, relay, n := w.nodes[0], w.nodes[1], w.nodes[2]
	w.wait(time.Minute, liar.read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	liar.corrupt, liar.signs = true, true
	r := relay.readSized(d, 0, 40*mib, 60*mib)
	w.run(time.Minute, func() bool { return r.upto > 20*mib || r.done() })
	w.kill(liar)
	cfg := n.core.cfg
	w.kill(n)
	w.restart(n, cfg)
	refuted := func() int64 { return n.counts[CountRefuted] }
	cl := n.read(d, 0, -1)
	w.run(time.Minute, cl.done)
	w.run(time.Minute, func() bool { return false })
	if p := n.core.peers.get(relay.id); p.banned != 0 {
		t.Errorf("the honest relay is banned; %d refutations, status %d", refuted(), cl.status)
	}
}

// A peer that asks about blob after blob makes this node keep a bounded number of
// them, for a bounded time; one that makes no sense, none.
func TestAsksAreBounded(t *testing.T) {
	w := newWorld(t, 2, nil)
	n, peer := w.nodes[0], w.nodes[1]
	ask := func(i int, size int64, bits int) {
		n.hears(peer, Message{Kind: MsgAsk, Blob: digest.FromString(fmt.Sprint("absent ", i)), Size: size,
			Bits: chunkindex.FullBitfield(bits)})
	}
	chunks := chunksOf(20*mib, false)
	for i := range 3 * maxCoordinated {
		ask(i, 20*mib, chunks-1)
		ask(i, -1, chunks)
	}
	if got := len(n.core.blobs); got != 0 {
		t.Errorf("%d blobs are kept for asks that make no sense", got)
	}
	for i := range 3 * maxCoordinated {
		ask(i, 20*mib, chunks)
	}
	if got := len(n.core.blobs); got == 0 || got > maxCoordinated {
		t.Errorf("%d blobs are kept, want at most %d", got, maxCoordinated)
	}
	w.run(10*time.Minute, func() bool { return false })
	if got := len(n.core.blobs); got != 0 {
		t.Errorf("%d blobs are left", got)
	}
}

// Two nodes that asked each other, each while it saw another committee, do not keep
// each other from forgetting the blob. (Fault search, seed 81.)
func TestTwoThatAskedEachOtherLetGo(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("mutual", 20*mib)
	a, b := w.nodes[0], w.nodes[1]
	all := ids(w.nodes)
	n := w.blobs[d].n
	ask := func(to, from *node) {
		to.hears(from, Message{Kind: MsgAsk, Blob: d, Size: 20 * mib, Bits: chunkindex.FullBitfield(n), Peers: all})
	}
	ask(a, b)
	ask(b, a)
	for _, x := range []*node{a, b} {
		if x.core.Census().Askers != 1 {
			t.Fatalf("%s has not taken the wish: %+v", x.id, x.core.Census())
		}
	}
	w.wait(time.Minute, w.nodes[2].read(d, 0, -1))
	w.quiet()
}

// A grant that never arrived, from a coordinator that was mute for a while, does not
// keep it busy for ever with a node that lives. (Fault search, seed 67.)
func TestLostGrantIsForgotten(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("lost", 20*mib)
	first := w.node(rank(d, ids(w.nodes))[0])
	first.mute = true
	var clients []*client
	for _, n := range w.nodes {
		if n != first {
			clients = append(clients, n.read(d, 0, -1))
		}
	}
	w.wait(time.Minute, clients...)
	if first.core.Census().Grants == 0 {
		t.Fatal("nothing was granted in vain")
	}
	first.mute = false
	w.quiet()
}
