package policy

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// While the origin fails everybody, one node at a time looks whether it still does, and
// after longer and longer pauses; the others wait. Each of them asked, was granted a read,
// failed and told all its neighbours so, without end.
func TestOriginThatFailsEverybody(t *testing.T) {
	for k := range 12 {
		name, w := "small", newWorld(t, 8, nil)
		if k%2 == 1 {
			name, w = "large", newSparse(t, 14, 8)
		}
		d := w.blob("layer", 60*mib)
		fails := false
		w.originStatus = func(*node, digest.Digest) int {
			if fails {
				return 502
			}
			return 0
		}
		all := w.readAll(d, w.nodes)
		w.run(100*time.Millisecond, func() bool { return w.originBytes[d] > 4*mib })
		fails = true
		w.run(3*time.Second, notDone) // what came is passed on
		reads, asks := w.originReads, 0
		w.tells(func(_, _ chunkindex.NodeID, kind MessageKind) {
			if kind == MsgAsk {
				asks++
			}
		})
		// However long ago the last look was when the origin comes back.
		w.run(20*time.Second+time.Duration(k/2)*700*time.Millisecond, notDone)
		if n := w.originReads - reads; n < 4 || n > 12 {
			t.Errorf("%s: the origin is asked %d times in 20 s", name, n)
		}
		if asks > 10*len(w.nodes) {
			t.Errorf("%s: %d nodes ask %d times in 20 s", name, len(w.nodes), asks)
		}
		for _, cl := range all {
			if cl.status == 504 {
				t.Errorf("%s: a client gave up", name)
			}
		}
		fails = false
		for _, n := range w.nodes {
			all = append(all, n.read(d, 0, -1)) // for those that were told so
		}
		began := w.now
		w.wait(time.Minute, all[len(w.nodes):]...)
		if took := time.Duration(w.now - began); took > 6*time.Second {
			t.Errorf("%s: all have it %v after the origin came back", name, took)
		}
		w.egress(d, 60*mib)
		w.quiet()
	}
}

// A node's circuit breaker fails the first read after the origin came back. If each read
// was granted to another node, all of them would have to fail first.
func TestOriginBehindBreakers(t *testing.T) {
	w := newSparse(t, 24, 8)
	d := w.blob("layer", 60*mib)
	fails, open := false, map[*node]bool{}
	w.originStatus = func(n *node, _ digest.Digest) int {
		if fails || open[n] {
			open[n] = fails
			return 503
		}
		return 0
	}
	w.readAll(d, w.nodes)
	w.run(time.Second, func() bool { return w.originBytes[d] > 4*mib })
	fails = true
	for range 6 {
		for _, n := range w.nodes {
			open[n] = true
			if len(n.clients) == 0 {
				n.read(d, 0, -1)
			}
		}
		w.run(10*time.Second, notDone)
	}
	fails = false
	w.run(20*time.Second, notDone)
	if w.originBytes[d] < 60*mib {
		t.Errorf("20 s after the origin came back, it wrote %d MiB", w.originBytes[d]>>20)
	}
}
