package policy

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

const mib = 1 << 20

func strict(_ int, c *Config) { c.Verify = VerifyStrict }

// The worked sequences of DESIGN.md.

func TestColdPull(t *testing.T) {
	for _, n := range []int{1, 2, 3, 8} {
		for _, mode := range []Verify{VerifyMember, VerifyStrict} {
			w := newWorld(t, n, func(_ int, c *Config) { c.Verify = mode })
			d := w.blob("layer", 100*mib+5)
			var all []*client
			for _, node := range w.nodes {
				all = append(all, node.read(d, 0, -1))
			}
			w.wait(time.Minute, all...)
			w.egress(d, 100*mib+5)
			w.quiet()
		}
	}
}

func TestSmallBlob(t *testing.T) {
	for _, size := range []int64{1, 7000, mib} {
		w := newWorld(t, 4, nil)
		d := w.blob("config", size)
		var all []*client
		for _, node := range w.nodes {
			all = append(all, node.read(d, 0, -1))
		}
		w.wait(time.Minute, all...)
		w.egress(d, size)
		w.quiet()
	}
}

func TestSecondNodeReadsNothingFromTheOrigin(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 50*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	w.originStatus = func(*node, digest.Digest) int { return 503 }
	w.wait(time.Minute, w.nodes[1].read(d, 0, -1))
	w.wait(time.Minute, w.nodes[2].readSized(d, 0, -1, -1))
	w.egress(d, 50*mib)
	w.quiet()
}

func TestPrivateImageWhoseCoordinatorHasNoCredential(t *testing.T) {
	w := newWorld(t, 4, nil)
	d := w.blob("private", 60*mib)
	may := w.nodes[3]
	// The one that may is not the coordinator.
	if rank(d, []chunkindex.NodeID{w.nodes[0].id, w.nodes[1].id, w.nodes[2].id, may.id})[0] == may.id {
		may = w.nodes[2]
	}
	w.originStatus = func(n *node, _ digest.Digest) int {
		if n != may {
			return 401
		}
		return 0
	}
	w.wait(time.Minute, may.read(d, 0, -1))
	w.egress(d, 60*mib)
	w.quiet()
}

func TestRefusedEverywhere(t *testing.T) {
	for _, n := range []int{1, 3} {
		for _, status := range []int{401, 403, 404} {
			w := newWorld(t, n, nil)
			d := w.blob("absent", 60*mib)
			w.originStatus = func(*node, digest.Digest) int { return status }
			cl := w.nodes[0].read(d, 0, -1)
			w.run(time.Minute, cl.done)
			if cl.status != status || w.now > Time(3*time.Second) {
				t.Errorf("n=%d: got %d after %v, want the origin's %d soon", n, cl.status, time.Duration(w.now), status)
			}
			w.quiet()
		}
	}
}

func TestJoinerInTheMiddle(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 100*mib)
	a := w.nodes[0].read(d, 0, -1)
	w.run(300*time.Millisecond, a.done)
	b := w.nodes[1].read(d, 0, -1)
	w.wait(time.Minute, a, b)
	w.egress(d, 100*mib)
	w.quiet()
}

func TestRestartInMidPull(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 100*mib)
	n := w.nodes[0]
	cl := n.read(d, 0, -1)
	w.run(300*time.Millisecond, cl.done)
	cfg := n.core.cfg
	w.kill(n)
	w.restart(n, cfg)
	w.wait(time.Minute, n.read(d, 0, -1))
	// What is lost is what was on its way: no more than a chunk a connection.
	w.egress(d, 104*mib)
	w.quiet()
}

func TestCoordinatorDies(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		w := newWorld(t, 4, nil)
		d := w.blob("layer", 100*mib)
		var all []*client
		ids := []chunkindex.NodeID{}
		for _, n := range w.nodes {
			ids = append(ids, n.id)
		}
		first := w.node(rank(d, ids)[0])
		for _, n := range w.nodes {
			if n != first {
				all = append(all, n.read(d, 0, -1))
			}
		}
		w.after(200*time.Millisecond, func() {
			if hangs {
				first.mute = true
			} else {
				w.kill(first)
			}
		})
		w.wait(time.Minute, all...)
		w.egress(d, 116*mib)
		w.quiet()
	}
}

func TestFetcherDies(t *testing.T) {
	w := newWorld(t, 4, nil)
	d := w.blob("layer", 100*mib)
	var all []*client
	for _, n := range w.nodes[1:] {
		all = append(all, n.read(d, 0, -1))
	}
	w.nodes[0].read(d, 0, -1)
	w.after(200*time.Millisecond, func() { w.kill(w.nodes[0]) })
	w.wait(time.Minute, all...)
	w.egress(d, 133*mib)
	w.quiet()
}

func TestLiar(t *testing.T) {
	for _, mode := range []Verify{VerifyMember, VerifyStrict} {
		for _, signs := range []bool{false, true} {
			w := newWorld(t, 4, func(_ int, c *Config) { c.Verify = mode })
			d := w.blob("layer", 60*mib)
			w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
			liar := w.nodes[1]
			w.wait(time.Minute, liar.read(d, 0, -1))
			w.run(time.Minute, func() bool { return false })
			liar.corrupt, liar.signs = true, signs
			cl := w.nodes[2].read(d, 0, -1)
			w.run(2*time.Minute, cl.done)
			if cl.status == 503 && mode == VerifyMember {
				// It was given bytes that turned out wrong; the next try must do.
				cl = w.nodes[2].read(d, 0, -1)
			}
			w.wait(time.Minute, cl)
			if w.nodes[2].core.peers.get(liar.id).banned == 0 {
				t.Errorf("mode %d, signs %v: the liar was not banned", mode, signs)
			}
			if p := w.nodes[2].core.peers.get(w.nodes[0].id); p.banned != 0 {
				t.Errorf("mode %d, signs %v: an honest peer was banned", mode, signs)
			}
			// What one node found out, the next finds out for itself.
			cl = w.nodes[3].read(d, 0, -1)
			w.run(2*time.Minute, cl.done)
			if cl.status == 503 && mode == VerifyMember {
				cl = w.nodes[3].read(d, 0, -1)
			}
			w.wait(time.Minute, cl)
			w.quiet()
		}
	}
}

func TestSmallLiarIsBanned(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("config", 7000)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1), w.nodes[1].read(d, 0, -1))
	w.nodes[0].corrupt, w.nodes[1].corrupt = true, true
	w.wait(time.Minute, w.nodes[2].read(d, 0, -1))
	w.egress(d, 14000)
}

func TestStallingPeerIsReplaced(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 60*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1), w.nodes[1].read(d, 0, -1))
	w.nodes[0].stalls = true
	start := w.now
	w.wait(time.Minute, w.nodes[2].read(d, 0, -1))
	w.egress(d, 60*mib)
	if took := time.Duration(w.now - start); took > 6*time.Second {
		t.Errorf("took %v", took)
	}
	w.quiet()
}

func TestRangeReaderBesideFullReader(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 200*mib)
	full := w.nodes[0].read(d, 0, -1)
	part := w.nodes[0].read(d, 150*mib, 152*mib)
	w.run(time.Minute, part.done)
	if full.done() {
		t.Error("the range reader waited for the full one")
	}
	w.wait(time.Minute, full, part)
	w.egress(d, 200*mib)
	w.quiet()
}

// containerd 2 asks for [0,-), [8 MiB,-), ... at once, takes its piece of each
// and hangs up.
func TestParallelOpenEndedRanges(t *testing.T) {
	for _, n := range []int{1, 3} {
		w := newWorld(t, n, nil)
		d := w.blob("layer", 90*mib)
		for off := int64(0); off < 90*mib; off += 8 * mib {
			n0 := w.nodes[0]
			cl := n0.readSized(d, off, -1, 90*mib)
			piece := min(off+8*mib, 90*mib)
			w.run(time.Minute, func() bool { return cl.upto >= piece })
			if cl.status != 0 || cl.upto < piece {
				t.Fatalf("piece at %d: %d of %d, status %d", off, cl.upto, piece, cl.status)
			}
			n0.cancel(cl)
		}
		w.egress(d, 90*mib)
		w.quiet()
	}
}

func TestRangeReadCostsItsRange(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 900*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 500*mib, 501*mib))
	w.quiet()
	w.egress(d, 2*mib)
}

func TestOriginThatIgnoresRanges(t *testing.T) {
	for _, n := range []int{1, 3} {
		w := newWorld(t, n, nil)
		w.unranged = true
		d := w.blob("layer", 100*mib)
		var all []*client
		for _, node := range w.nodes {
			all = append(all, node.read(d, 0, -1))
		}
		w.wait(time.Minute, all...)
		// The second stripe may have been granted before the first answer.
		w.egress(d, 110*mib)
		w.quiet()
	}
}

func TestOriginFailsForAWhile(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 100*mib)
	down := false
	w.originStatus = func(*node, digest.Digest) int {
		if down {
			return 503
		}
		return 0
	}
	a := w.nodes[0].read(d, 0, -1)
	w.run(200*time.Millisecond, a.done)
	down = true
	w.run(10*time.Second, a.done)
	if a.status != 503 {
		t.Errorf("got %d, want 503 soon, so that the client falls back", a.status)
	}
	down = false
	w.wait(time.Minute, w.nodes[1].read(d, 0, -1))
	w.egress(d, 104*mib)
	w.quiet()
}

func TestOriginHangs(t *testing.T) {
	w := newWorld(t, 1, nil)
	w.originStalls = true
	d := w.blob("layer", 100*mib)
	a := w.nodes[0].read(d, 0, -1)
	w.run(time.Minute, a.done)
	if a.status != 504 {
		t.Errorf("got %d, want 504", a.status)
	}
	if took := time.Duration(a.finished - a.started); took > 31*time.Second {
		t.Errorf("silence for %v", took)
	}
	w.quiet()
}

func TestFullDisk(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 100*mib)
	w.nodes[0].full = true
	a := w.nodes[0].read(d, 0, -1)
	w.run(time.Minute, a.done)
	if !a.bypassed {
		t.Error("the reader was not handed over")
	}
	w.quiet()
}

// A disk that fails at the very end must not cost the client its bytes.
func TestProofThatTheStoreFails(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 40*mib)
	w.nodes[0].noProof = true
	a := w.nodes[0].read(d, 0, -1)
	w.run(time.Minute, a.done)
	if !a.bypassed || w.now > Time(10*time.Second) {
		t.Errorf("status %d after %v, want to be served past the store", a.status, time.Duration(w.now))
	}
	w.quiet()
}

// A manifest or a peer may be wrong about a size. The client that ran into it is
// told at once, and the next one is served.
func TestWrongSize(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 40*mib)
	a := w.nodes[0].readSized(d, 0, -1, 30*mib)
	w.run(time.Minute, a.done)
	if a.status != 502 || w.now > Time(time.Second) {
		t.Errorf("status %d after %v, want 502 at once", a.status, time.Duration(w.now))
	}
	w.wait(time.Minute, w.nodes[0].readSized(d, 0, -1, -1))
	w.quiet()
}

// Podman's pull fails with its connection: one failure in mid-blob is tried once
// more first.
func TestLoneNodeTriesOnceMore(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 100*mib)
	failures := 1
	w.originStatus = func(*node, digest.Digest) int {
		if w.originBytes[d] > 20*mib && failures > 0 {
			failures--
			return 503
		}
		return 0
	}
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	w.egress(d, 100*mib)
	w.quiet()
}

// A slow origin is read once all the same: nobody loses patience while others'
// reads make progress.
func TestSlowOriginIsReadOnce(t *testing.T) {
	for _, chunk := range []time.Duration{700 * time.Millisecond, 4 * time.Second} {
		w := newWorld(t, 4, nil)
		w.originTime = chunk
		d := w.blob("layer", 60*mib)
		var all []*client
		for _, n := range w.nodes {
			all = append(all, n.read(d, 0, -1))
		}
		w.wait(10*time.Minute, all...)
		w.egress(d, 60*mib)
		w.quiet()
	}
}

func TestStrictHoldsBytesBackButNotForEver(t *testing.T) {
	w := newWorld(t, 2, strict)
	w.chunkTime = time.Second // 16 at a time: 600 MiB take well over 20 s
	d := w.blob("layer", 600*mib)
	w.wait(10*time.Minute, w.nodes[0].read(d, 0, -1))
	b := w.nodes[1].read(d, 0, -1)
	w.wait(10*time.Minute, b)
	if w.nodes[1].counts[CountStrict] == 0 {
		t.Error("nothing was read from the origin for the waiting client")
	}
	if took := time.Duration(b.first - b.started); took > 25*time.Second {
		t.Errorf("first byte after %v", took)
	}
	w.quiet()
}

// A reader of a range from peers waits for the proof, so the rest must come too:
// it used to wait for the limit, and then read from the origin what a peer has.
func TestStrictRangeReaderHasTheRestFetched(t *testing.T) {
	w := newWorld(t, 2, strict)
	d := w.blob("layer", 100*mib)
	w.wait(time.Minute, w.nodes[0].read(d, 0, -1))
	b := w.nodes[1].read(d, 24*mib, 32*mib)
	w.wait(time.Minute, b)
	if took := time.Duration(b.first - b.started); took > 10*time.Second {
		t.Errorf("first byte after %v", took)
	}
	w.egress(d, 100*mib)
	w.quiet()
}

func TestBadRange(t *testing.T) {
	w := newWorld(t, 1, nil)
	d := w.blob("layer", 10*mib)
	a := w.nodes[0].readSized(d, 20*mib, 21*mib, -1)
	w.run(time.Minute, a.done)
	if a.status != 416 || w.originReads != 0 {
		t.Errorf("got %d and %d origin reads, want 416 and none", a.status, w.originReads)
	}
	w.quiet()
}

func TestSameSeedSameTrace(t *testing.T) {
	trace := func() digest.Digest {
		h := digest.Canonical.Digester()
		w := newWorld(t, 5, nil)
		w.trace = func(format string, args ...any) { fmtTo(h.Hash(), format, args...) }
		d := w.blob("layer", 100*mib)
		var all []*client
		for _, n := range w.nodes {
			all = append(all, n.read(d, 0, -1))
		}
		w.after(100*time.Millisecond, func() { w.unlink(w.nodes[0], w.nodes[1]) })
		w.wait(time.Minute, all...)
		return h.Digest()
	}
	if a, b := trace(), trace(); a != b {
		t.Errorf("two runs differ: %s, %s", a, b)
	}
}
