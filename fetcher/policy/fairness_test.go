package policy

import (
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// Nobody, neither a blob nor a peer nor a reader, may starve behind others.

// A peer on a slow link that asks for as many chunks as a node may (or one that
// takes its time on purpose) must not keep a node from serving everybody else.
func TestSlowPeerHoldsAllUploads(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 100*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	core := w.nodes[0].core
	now := w.now
	id := ID(1 << 40)
	ask := func(peer chunkindex.NodeID, chunk int) bool {
		id++
		for _, e := range core.Step(now, Event{Kind: EvUpload, ID: id, Peer: peer, Blob: d, Chunk: chunk}, nil) {
			if e.Kind == EfServe {
				return true
			}
		}
		return false
	}
	slow, fast := w.nodes[1].id, w.nodes[2].id
	open := 0
	for i := range core.cfg.TransfersPerPeer {
		if ask(slow, i) {
			open++
		}
	}
	// 40 s for a MiB is 25 KiB/s, the least that the transport lets pass.
	for range 300 {
		now = now.Add(100 * time.Millisecond)
		if ask(fast, 50) {
			return
		}
	}
	t.Errorf("a fast peer is refused for 30 s, while one slow peer takes its %d chunks", open)
}

// The same with small blobs.
func TestSlowPeerHoldsAllSmallUploads(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("config", 5000)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	core := w.nodes[0].core
	now := w.now
	id := ID(1 << 40)
	ask := func(peer chunkindex.NodeID) bool {
		id++
		for _, e := range core.Step(now, Event{Kind: EvUpload, ID: id, Peer: peer, Blob: d}, nil) {
			if e.Kind == EfServe {
				return true
			}
		}
		return false
	}
	for range 64 {
		ask(w.nodes[1].id)
	}
	for range 300 {
		now = now.Add(100 * time.Millisecond)
		if ask(w.nodes[2].id) {
			return
		}
	}
	t.Error("one peer holds all places for small blobs for 30 s")
}

// Blobs of 16 MiB chunks that wait for an origin must leave memory for others.
func TestBigChunksStarveOtherBlobs(t *testing.T) {
	w := newWorld(t, 2, nil)
	y := w.blob("held by a peer", 64*mib)
	w.wait(time.Minute, w.nodes[1].read(y, 0, -1))
	w.originTime = 50 * time.Millisecond
	for _, name := range []string{"model 1", "model 2", "model 3"} {
		w.nodes[0].read(w.blob(name, 20<<30), 0, -1)
	}
	w.run(2*time.Second, func() bool { return false })
	for _, n := range w.nodes {
		for _, r := range n.core.reads {
			n.cancels[r.id] = true
		}
	}
	w.originStalls = true
	w.run(time.Second, func() bool { return false })
	t.Logf("%d reads, %d bytes in flight", len(w.nodes[0].core.reads), w.nodes[0].core.inFlight)
	cl := w.nodes[0].read(y, 0, -1)
	w.wait(25*time.Second, cl)
}

// Reads at an origin that brings nothing must not throttle the transfers of other
// blobs, which peers hold.
func TestStalledOriginThrottlesOtherBlobs(t *testing.T) {
	took := func(stalled bool) time.Duration {
		w := newWorld(t, 4, nil)
		y := w.blob("held by peers", 256*mib)
		for _, n := range w.nodes[1:] {
			w.wait(time.Minute, n.read(y, 0, -1))
		}
		w.chunkTime = 50 * time.Millisecond
		if stalled {
			x := w.blob("at a slow origin", 256*mib)
			w.nodes[0].read(x, 0, -1)
			w.run(300*time.Millisecond, func() bool { return false })
			w.originStalls = true
			for _, n := range w.nodes {
				for _, r := range n.core.reads {
					n.cancels[r.id] = true
				}
			}
			if len(w.nodes[0].core.reads) == 0 {
				t.Fatal("nothing is read")
			}
			w.run(500*time.Millisecond, func() bool { return false })
		}
		begun := w.now
		w.wait(time.Minute, w.nodes[0].read(y, 0, -1))
		return time.Duration(w.now - begun)
	}
	alone, beside := took(false), took(true)
	t.Logf("alone %v, beside a stalled read %v", alone, beside)
	if beside > 2*alone {
		t.Errorf("beside a blob whose origin stalls, another one takes %v instead of %v", beside, alone)
	}
}

// A peer that holds a blob by its own word, and answers busy for ever, must not
// slow a pull down to one stripe in ten seconds where the origin is well.
func TestBusyForEver(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 128*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	w.nodes[0].busy = 1 << 40
	begun := w.now
	cl := w.nodes[1].read(d, 0, -1)
	w.wait(5*time.Minute, cl)
	if took := time.Duration(w.now - begun); took > 20*time.Second {
		t.Errorf("the pull took %v: a peer that is always busy is waited for at each stripe", took)
	}
}

// One read of the origin trickles (a byte now and then, so that nothing times it
// out), those of other stripes go on. The readers that wait
// for the slow one must not be kept waiting because others get something.
func TestHungReadWhileOthersProgress(t *testing.T) {
	w := newWorld(t, 3, nil)
	w.originTime = 400 * time.Millisecond
	d := w.blob("layer", 240*mib)
	var all []*client
	for _, n := range w.nodes {
		all = append(all, n.read(d, 0, -1))
	}
	hung := false
	w.run(20*time.Second, func() bool {
		for _, n := range w.nodes {
			for _, r := range n.core.reads {
				if !r.sizeOnly && r.first > 0 && n.core.blobs[d].have.Count() > 6 && !hung {
					n.cancels[r.id] = true // no chunk of it comes any more
					hung = true
				}
			}
		}
		return hung
	})
	if !hung {
		t.Fatal("no read to hang")
	}
	w.wait(5*time.Minute, all...)
}

// A peer that says again and again that it has one chunk, and that it is reading
// all others, must not keep a reader from an origin that is well.
func TestRepeatedHaveStarvesReader(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 64*mib)
	n, liar := w.nodes[0], w.nodes[1]
	liar.mute = true
	c := w.blobs[d]
	cl := n.read(d, 0, -1)
	n.event(Event{Kind: EvMessage, Peer: liar.id, Msg: Message{Kind: MsgState, Blob: d, Size: c.size, Want: true,
		Bits: chunkindex.NewBitfield(c.n), InFlight: chunkindex.FullBitfield(c.n)}})
	var again func()
	again = func() {
		n.event(Event{Kind: EvMessage, Peer: liar.id, Msg: Message{Kind: MsgHave, Blob: d, Size: c.size, Chunk: c.n - 1, N: 1}})
		w.after(400*time.Millisecond, again)
	}
	again()
	w.wait(25*time.Second, cl)
}

// Small blobs say nothing about how long a chunk of a large one takes.
func TestMedianOfSmallBlobs(t *testing.T) {
	w := newWorld(t, 2, nil)
	core := w.nodes[0].core
	for range 15 {
		// A manifest of 500 bytes in 5 ms.
		core.now = core.now.Add(time.Second)
		core.transferred(&transfer{from: &peer{}, started: core.now.Add(-5 * time.Millisecond)}, 500)
	}
	if m := core.transferTimes.median(mib); m > time.Second || m < 0 {
		t.Errorf("after 15 manifests a chunk of 1 MiB is expected to take %v", m)
	}
	for range 15 {
		core.now = core.now.Add(time.Second)
		core.transferred(&transfer{from: &peer{}, started: core.now.Add(-time.Second)}, 1)
	}
	if m := core.transferTimes.median(16 * mib); m < 0 {
		t.Errorf("a chunk of 16 MiB is expected to take %v", m)
	}
}
