package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A node that does not want the blob itself is asked by those who cannot reach
// the coordinator. It must relay, or grant.
func TestRelayThatDoesNotRead(t *testing.T) {
	w := newWorld(t, 4, nil)
	d := w.rankedBlob(200 * mib)
	w.unlink(w.nodes[2], w.nodes[0])
	w.unlink(w.nodes[3], w.nodes[0])
	begun := w.now
	x, y := w.nodes[2].read(d, 0, -1), w.nodes[3].read(d, 0, -1)
	w.run(time.Second, func() bool { return false })
	if x.upto == 0 && y.upto == 0 {
		t.Errorf("after 1 s nothing was read")
	}
	w.wait(time.Minute, x, y)
	t.Logf("took %v", time.Duration(w.now-begun))
	if n := w.nodes[2].counts[CountHedge] + w.nodes[3].counts[CountHedge]; n > 0 {
		t.Errorf("%d hedges", n)
	}
	w.egress(d, 204*mib)
}

// rankedBlob makes a blob for which the nodes rank in their order.
func (w *world) rankedBlob(size int64) digest.Digest {
	for i := 0; ; i++ {
		d := digest.FromString(fmt.Sprint("layer ", i))
		order := rank(d, ids(w.nodes))
		if order[0] == w.nodes[0].id && order[1] == w.nodes[1].id {
			return w.blob(fmt.Sprint("layer ", i), size)
		}
	}
}

// A relay asks for what its asker may not read at the moment; the grant comes
// back, is asked for again, and so on, as fast as the network is.
func TestRelayHotLoop(t *testing.T) {
	for _, status := range []int{401, 425, 503, 429} {
		w := newWorld(t, 3, nil)
		d := w.rankedBlob(200 * mib)
		c, r, a := w.nodes[0], w.nodes[1], w.nodes[2]
		// R holds a part of the blob from an earlier pull.
		w.wait(time.Minute, r.read(d, 0, mib))
		w.run(2*time.Minute, func() bool { return false })
		w.unlink(a, c)
		failing := false
		w.originStatus = func(*node, digest.Digest) int {
			if failing {
				return status
			}
			return 0
		}
		a.read(d, 0, -1)
		w.run(300*time.Millisecond, func() bool { return false })
		if r.core.blobs[d] == nil || r.core.blobs[d].coord == nil || c.core.blobs[d] == nil {
			t.Fatal("nothing is relayed")
		}
		failing = true
		before, grants := r.steps, c.counts[CountGrant]
		w.run(20*time.Second, func() bool { return false })
		t.Logf("origin says %d: the relay took %d steps in 20 s, %d grants", status, r.steps-before, c.counts[CountGrant]-grants)
		if n := r.steps - before; n > 1000 {
			t.Errorf("origin says %d: the relay took %d steps in 20 s", status, n)
		}
	}
}
