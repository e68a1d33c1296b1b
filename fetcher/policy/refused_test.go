package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A reader that the origin refuses waits while a node that it lets in brings the bytes;
// credentials that are renewed meanwhile count once that node is gone.
func TestRenewedWhileOthersRead(t *testing.T) {
	for k, test := range slices.Repeat([]struct {
		status, want int
		renewed      time.Duration
	}{
		{status: 401, renewed: 2 * time.Second},
		{status: 403, renewed: 2 * time.Second},
		{status: 401, renewed: time.Minute, want: 401},
		{status: 404, renewed: 2 * time.Second, want: 404},
	}, 4) {
		w := newWorld(t, 2, nil)
		// How many reads are refused at once depends on when the first of them end.
		w.originTime = time.Duration(100+k/4*100) * time.Millisecond
		d := w.blob("layer", 100*mib)
		in, out := w.nodes[0], w.nodes[1]
		asked := 0
		w.originStatus = func(n *node, _ digest.Digest) int {
			if n == out && w.now > Time(time.Second) {
				asked++
			}
			if n == out && w.now > Time(time.Second) && w.now < Time(test.renewed) {
				return test.status
			}
			return 0
		}
		in.read(d, 0, -1)
		cl := out.read(d, 0, -1)
		w.after(4*time.Second, func() { w.kill(in) })
		w.run(time.Minute, cl.done)
		if !cl.done() || cl.status != test.want {
			t.Errorf("%d until %v: got %d after %v, want %d", test.status, test.renewed, cl.status, time.Duration(w.now), test.want)
		}
		if test.want != 0 && (w.now > Time(8*time.Second) || asked > 3) {
			t.Errorf("%d: told after %v and %d requests", test.status, time.Duration(w.now), asked)
		}
	}
}
