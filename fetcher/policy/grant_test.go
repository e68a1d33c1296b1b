package policy

import (
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// What is lacked by the one to whom the blob was refuted is granted to that one, since
// what is read for the others does not count for it: it was granted to one after the
// other of those who asked for it too, so that two read it at once.
func TestGrantsToWhomTheBlobWasRefuted(t *testing.T) {
	w := newWorld(t, 16, nil)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	for _, n := range nodes[1:] {
		n.mute = true
	}
	for k, n := range nodes[1:] {
		epoch := 0
		if k == 14 {
			epoch = 1
		}
		nodes[0].hears(n, Message{Kind: MsgAsk, Blob: d, Size: 60 * mib, Epoch: epoch, Bits: chunkindex.FullBitfield(chunksOf(60*mib, false))})
	}
	b := nodes[0].core.blobs[d]
	b.progress = w.now // so that more than one stripe is granted at once
	w.run(400*time.Millisecond, func() bool { return false })
	if len(b.coord.grants) < 2 || b.coord.grants[0].to != nodes[15].id || b.coord.grants[0].epoch != 1 {
		t.Errorf("of %d grants, the first is not that of the node to which the blob was refuted", len(b.coord.grants))
	}
	of := map[int]int{}
	for _, g := range b.coord.grants {
		for i := g.first; i < g.end; i++ {
			if of[i]++; of[i] > 1 {
				t.Errorf("chunk %d is granted twice", i)
			}
		}
	}
}
