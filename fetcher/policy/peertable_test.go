package policy

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

// all are the peers, in no order that means anything.
func (t *peerTable) all() []*peer {
	var peers []*peer
	for _, s := range t.slots {
		if s.p != nil {
			peers = append(peers, s.p)
		}
	}
	return peers
}

// TestPeerTable does the same to a table and to a map. Half of the IDs begin alike, as
// whoever wants a table to be slow would choose them, and many have one place in it.
func TestPeerTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, want := hashPeers(rapid.Uint64().Draw(t, "seed")), map[chunkindex.NodeID]*peer{}
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			var id chunkindex.NodeID
			k := rapid.Uint64Range(0, 60).Draw(t, "id")
			if k%2 == 0 {
				binary.LittleEndian.PutUint64(id[:], k<<58)
			}
			binary.LittleEndian.PutUint64(id[8:], k)
			p := want[id]
			if got := table.get(id); got != p {
				t.Fatalf("found %v, want %v", got, p)
			}
			if p == nil {
				p = &peer{id: id}
				table.add(p)
				want[id] = p
			} else {
				table.remove(p)
				delete(want, id)
			}
			if table.n != len(want) || len(table.all()) != len(want) {
				t.Fatalf("%d peers and a list of %d, want %d", table.n, len(table.all()), len(want))
			}
			for id, p := range want {
				if table.get(id) != p {
					t.Fatalf("peer %v is not found", id)
				}
			}
		}
	})
}
