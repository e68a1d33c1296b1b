package policy

import (
	"testing"
	"unsafe"

	"github.com/peercache/peercache/chunkindex"
)

// What a neighbour has nothing of takes no memory, however many chunks there are, and
// answers as an empty set does.
func TestEmptySets(t *testing.T) {
	b := &blob{n: 1000, avail: make([]uint16, 1000)}
	n := &neighbour{size: -1, unusual: &unusual{inFlight: chunkindex.FullBitfield(7)}} // of another blob
	n.fit(b)
	for name, set := range map[string]*chunkindex.Bitfield{"inFlight": &n.inFlight, "sumsAsked": &n.sumsAsked, "differs": &n.differs, "refused": &n.refused} {
		if set.Len() != 0 || set.Count() != 0 || set.Has(999) || set.Next(0) != -1 || set.Clear(999) {
			t.Errorf("%s: length %d, not an empty set", name, set.Len())
		}
		b.mark(set, 999)
		b.mark(set, 3)
		if set.Len() != b.n || set.Count() != 2 || !set.Has(999) || set.Next(4) != 999 || !set.Clear(3) {
			t.Errorf("%s: length %d with %d chunks after two were added", name, set.Len(), set.Count())
		}
	}
	if n.bits.Len() != b.n {
		t.Errorf("bits has length %d", n.bits.Len())
	}
}

// A peer and a neighbour take few bytes, and what each message touches of them lies side
// by side: a simulated node has a hundred of them, and ten thousand nodes have a million.
func TestSizes(t *testing.T) {
	var p peer
	var n neighbour
	if size, line := unsafe.Sizeof(p), unsafe.Offsetof(p.busy); size > 128 || line != 64 {
		t.Errorf("a peer has %d bytes, what is first of it %d", size, line)
	}
	if size, line := unsafe.Sizeof(n), unsafe.Offsetof(n.size); size > 112 || line != 64 {
		t.Errorf("a neighbour has %d bytes, what is first of it %d", size, line)
	}
}
