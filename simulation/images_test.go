package simulation

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/simulation/scenario"
)

// twoImages is a lone node's run with two images that share a layer: 1 MiB a second,
// blobs of 1 MiB, manifests of 1 byte.
func twoImages() *scenario.Run {
	r := crowd{nodes: 1, size: 3 * mib, layers: 3, up: mib}.run()
	r.Blobs = append(r.Blobs, scenario.Blob{Name: "a", Size: 1, Manifest: true}, scenario.Blob{Name: "b", Size: 1, Manifest: true})
	r.Images = []scenario.Image{{Name: "a", Manifest: 3, Layers: []int{0, 1}}, {Name: "b", Manifest: 4, Layers: []int{1, 2, 1}}}
	return r
}

// A client asks for the manifest and then for what it has not pulled before.
func TestSharedLayersArePulledOnce(t *testing.T) {
	for _, parallel := range []int{0, 1} {
		r := twoImages()
		r.Pulls = []scenario.Pull{{Parallel: parallel}, {At: 10 * time.Second, Image: 1, Parallel: parallel}}
		got := simulate(t, r, Options{})
		if got.OriginBytes != 3*mib+2 || got.UniqueBytes != 3*mib+2 || got.Wanted != 3*mib+2 || got.OriginRequests != 5 || got.ManifestRequests != 2 {
			t.Errorf("%d bytes of %d, wanted %d, in %d requests, %d of manifests", got.OriginBytes, got.UniqueBytes, got.Wanted, got.OriginRequests, got.ManifestRequests)
		}
		for i, least := range []time.Duration{2 * time.Second, time.Second} {
			p := got.Pulls[i]
			if took := p.Done - p.Begun; took < least || took > least+100*time.Millisecond {
				t.Errorf("parallel %d: pull %d took %v, its bytes %v", parallel, i, took, least)
			}
			// Side by side, both layers come at the end.
			first := least
			if parallel == 1 {
				first = time.Second
			}
			if got := p.First - p.Begun; got < first || got > first+100*time.Millisecond {
				t.Errorf("parallel %d: pull %d had its first byte after %v, want %v", parallel, i, got, first)
			}
		}
	}
}

// Two clients that want a layer at the same time share the request for it.
func TestPullsOfANodeShareRequests(t *testing.T) {
	r := twoImages()
	r.Pulls = []scenario.Pull{{}, {Image: 1}}
	got := simulate(t, r, Options{})
	if got.OriginBytes != 3*mib+2 || got.OriginRequests != 5 || len(got.Completion) != 2 {
		t.Errorf("%d bytes in %d requests, %d complete", got.OriginBytes, got.OriginRequests, len(got.Completion))
	}
}

// A client that gives up takes no blob away from one that came to want it in the same instant: that
// one would wait for ever.
func TestGivingUpIsForOneClient(t *testing.T) {
	r := twoImages()
	r.Pulls = []scenario.Pull{{}, {At: time.Hour}}
	c, err := newCluster(r, Options{Points: 10})
	if err != nil {
		t.Fatal(err)
	}
	c.play(t.Context(), startTime+int64(20*time.Millisecond))
	n, k := c.nodes[0], c.pulls[0].open[0]
	c.abandon(n, 0, k)
	c.end(n, 0)
	c.pull(1)
	c.play(t.Context(), startTime+int64(time.Minute))
	if p := c.res.Pulls[1]; p.Done == 0 {
		t.Errorf("the other client is not done after a minute: %+v", p)
	}
}

// What a node's store holds is not fetched again after a restart.
func TestRestartServesFromTheStore(t *testing.T) {
	r := twoImages()
	r.Pulls = []scenario.Pull{{Parallel: 1}}
	r.Faults = []scenario.Fault{{Kind: scenario.Crash, Nodes: []int{0}, At: 1500 * time.Millisecond, Restart: time.Second}}
	got := simulate(t, r, Options{})
	if len(got.Completion) != 1 || got.OriginDelivered != 2*mib+1 {
		t.Errorf("%d complete, %d bytes", len(got.Completion), got.OriginDelivered)
	}
	if least := 3500 * time.Millisecond; got.Completion[0] < least || got.Completion[0] > least+100*time.Millisecond {
		t.Errorf("done after %v, want %v", got.Completion[0], least)
	}
}

// A node that comes later takes part, and its client begins when it has come.
func TestNodesJoin(t *testing.T) {
	for _, nodes := range []int{4, 80} {
		r := crowd{nodes: nodes, size: 20 * mib, up: 50 * mib, manifest: 1000}.run()
		for i := nodes / 2; i < nodes; i++ {
			r.Nodes[i].Joins = time.Second
		}
		got := simulate(t, r, Options{})
		if len(got.Completion) != nodes || got.Copies() > 1.001 {
			t.Errorf("%d nodes: %d complete, %.3f copies", nodes, len(got.Completion), got.Copies())
		}
		for i, p := range got.Pulls {
			if late := i >= nodes/2; late != (p.Begun >= time.Second) || p.Done < p.Begun {
				t.Errorf("%d nodes: the client of node %d began after %v and was done after %v", nodes, i, p.Begun, p.Done)
			}
		}
	}
}

// A wave that waits begins in the moment in which the last client of the one before is served, gives
// up or dies with its node, and never before its own time.
func TestWavesThatWait(t *testing.T) {
	r := crowd{nodes: 5, size: mib, up: mib, latency: ms, open: 3 * ms, store: 11 * ms}.run()
	for i := range r.Pulls {
		r.Pulls[i].Wave, r.Pulls[i].After = i+1, i
	}
	r.Pulls[3].At, r.Pulls[4].At = 10*time.Second, 10*time.Second
	// Node 1 dies for good in the middle of its pull, which ends its wave.
	r.Faults = []scenario.Fault{{Kind: scenario.Crash, Nodes: []int{1}, At: 1516 * ms}}
	r.Limits.Deadline = 3 * time.Second
	res := simulate(t, r, Options{})
	// Alone with the origin a node needs 3 ms to open, 2 ms for the request, 1 s for the MiB and
	// 11 ms to store it; with others it asks around first.
	between(t, "the first is done", res.Pulls[0].Done, 1016*ms, 1030*ms)
	begins := []time.Duration{0, res.Pulls[0].Done, 1516 * ms, 10 * time.Second, res.Pulls[3].Done}
	for i, p := range res.Pulls {
		if p.At != begins[i] || p.Begun != begins[i] {
			t.Errorf("client %d was to begin at %v and did at %v, want %v", i, p.At, p.Begun, begins[i])
		}
		if p.Done == 0 && i != 1 {
			t.Errorf("client %d is not served", i)
		}
	}
	// The deadline counts from there.
	for _, v := range res.Violated() {
		t.Errorf("%s: %s", v.Name, v.First)
	}
	// Whoever gives up holds up nobody, and who never begins is not late: those before are.
	r.Faults = []scenario.Fault{{Kind: scenario.OriginError, Status: 404}}
	for i, p := range simulate(t, r, Options{}).Pulls {
		if p.Status != 404 || i < 3 && p.At > time.Second {
			t.Errorf("client %d: status %d, begun at %v", i, p.Status, p.At)
		}
	}
	r.Faults = []scenario.Fault{{Kind: scenario.OriginStall}}
	for i := range r.Pulls {
		r.Pulls[i].Retries = 1 << 20
	}
	res = simulate(t, r, Options{})
	if p := res.Pulls[1]; p.At != 0 || p.Begun != 0 || res.Unserved != 5 {
		t.Errorf("behind one that is never done a client begins at %v; %d unserved", p.Begun, res.Unserved)
	}
	r.Pulls[1].After = 2
	if err := sensible(r); err == nil {
		t.Error("a wave may wait for itself")
	}
}

// A client whose node died for good is excused.
func TestDeadNodesAreExcused(t *testing.T) {
	w := crowd{nodes: 4, size: 20 * mib, up: 50 * mib, stagger: time.Second,
		faults: []scenario.Fault{{Kind: scenario.Crash, Nodes: []int{1, 3}, At: 400 * time.Millisecond}}}
	r := w.simulate(t)
	if r.Killed != 2 || len(r.Completion) != 2 || r.Unserved != 0 || !r.Pulls[1].Excused || !r.Pulls[3].Excused || r.Pulls[0].Excused {
		t.Errorf("%d killed, %d complete, %d unserved: %+v", r.Killed, len(r.Completion), r.Unserved, r.Pulls)
	}
}

// The course of a run ends with its result, and its points are at equal distances.
func TestSeries(t *testing.T) {
	r := crowd{nodes: 4, size: 20 * mib, up: 50 * mib, manifest: 1000, opt: Options{Points: 10}}.simulate(t)
	n := len(r.Series)
	if n < 5 || n > 12 {
		t.Fatalf("%d points", n)
	}
	step := r.Series[1].At
	for i, p := range r.Series[:n-1] {
		if p.At != time.Duration(i)*step {
			t.Errorf("point %d is at %v, with %v between them", i, p.At, step)
		}
		if q := r.Series[i+1]; q.FromPeers < p.FromPeers || q.FromOrigin < p.FromOrigin || q.Egress < p.Egress || q.Messages < p.Messages || q.Done < p.Done || q.Links[Access] < p.Links[Access] {
			t.Errorf("point %d: %+v, then %+v", i, p, q)
		}
	}
	if p := r.Series[n-1]; p.Done != 4 || p.FromPeers != r.PeerBytes || p.FromOrigin != r.OriginDelivered || p.Egress != r.OriginBytes ||
		p.Messages != r.MessageCount() || p.Links != r.Links || p.Links[OriginLink] != r.OriginBytes || p.Links[Access] != r.PeerBytes+r.OriginBytes+r.CutBytes-(r.OriginBytes-r.OriginDelivered) {
		t.Errorf("the last point is %+v, the result %+v", p, r)
	}
}

// A run that is ended from outside tells how far it came, and a run tells of its
// progress.
func TestPartialRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var seen []Progress
	r, err := Simulate(ctx, crowd{nodes: 30, size: 200 * mib}.run(), Options{Progress: func(p Progress) {
		seen = append(seen, p)
		cancel()
	}})
	if err != nil || !r.Partial || len(seen) != 1 || seen[0].Pulls != 30 || seen[0].Wanted != 30*200*mib || r.Unserved == 0 {
		t.Errorf("%v, partial %v, %d unserved, progress %+v", err, r.Partial, r.Unserved, seen)
	}
	if !slices.IsSorted(r.Completion) {
		t.Error("completion is out of order")
	}
}

// What a node's store takes is what it holds, whatever befell it: a node whose store seemed fuller
// than it is would evict, and refuse, what there is room for.
func TestSpaceIsWhatIsHeld(t *testing.T) {
	for seed := range uint64(4) {
		run := mixed(seed)
		for i := range run.Nodes {
			run.Nodes[i].Disk = 20 * mib // so that something is always being written
		}
		c, err := newCluster(run, Options{Points: 10})
		if err != nil {
			t.Fatal(err)
		}
		c.play(t.Context(), startTime+int64(5*time.Minute))
		for _, n := range c.nodes {
			var held int64
			for k, h := range n.held {
				for i := 0; h != nil && i < len(h.level); i++ {
					if h.level[i] != chunkindex.Absent || h.storing[i] != chunkindex.Absent {
						held += c.lengthOf(k, i)
					}
				}
			}
			if held != n.used {
				t.Errorf("seed %d, node %d: %d bytes are held, %d counted", seed, n.index, held, n.used)
			}
		}
	}
}
