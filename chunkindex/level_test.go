package chunkindex_test

import (
	"testing"

	"github.com/peercache/peercache/chunkindex"
)

func TestLevels(t *testing.T) {
	// The order, the names and what may be shared are on the wire, on disk and
	// in the admin API: a change here is a change of all three.
	for i, want := range []struct {
		level     chunkindex.Level
		name      string
		shareable bool
	}{
		{chunkindex.Absent, "absent", false},
		{chunkindex.Received, "received", false},
		{chunkindex.Attested, "attested", true},
		{chunkindex.Agreed, "agreed", true},
		{chunkindex.Fetched, "fetched", true},
		{chunkindex.Proven, "proven", true},
	} {
		l := want.level
		if int(l) != i || l.String() != want.name || l.Shareable() != want.shareable || !l.Valid() {
			t.Errorf("level %d is %d %q, shareable %t, valid %t", i, l, l, l.Shareable(), l.Valid())
		}
	}
	if l := chunkindex.Proven + 1; l.Valid() || l.String() != "invalid" {
		t.Errorf("%d is %q, valid %t", l, l, l.Valid())
	}
}

func TestNodeID(t *testing.T) {
	var zero chunkindex.NodeID
	a, b := chunkindex.NodeID{0xab, 0xcd, 0xef, 0x01, 0x02}, chunkindex.NodeID{0xac}
	if !zero.IsZero() || a.IsZero() || a.String() != "abcdef01" {
		t.Errorf("zero %t, a %q", zero.IsZero(), a)
	}
	if a.Compare(b) >= 0 || b.Compare(a) <= 0 || a.Compare(a) != 0 {
		t.Error("nodes are not ordered by their bytes")
	}
}
