package policy

import (
	"testing"

	"github.com/peercache/peercache/chunkindex"
)

// A chunk refers to the ID of a known peer, and to a stranger's that it shares with the
// chunk beside it.
func TestSigner(t *testing.T) {
	known, stranger, other := chunkindex.NodeID{1}, chunkindex.NodeID{2}, chunkindex.NodeID{3}
	c := New(DefaultConfig(chunkindex.NodeID{9}))
	p := c.peer(known)
	b := &blob{n: 5, from: make([]*chunkindex.NodeID, 5), signer: make([]*chunkindex.NodeID, 5)}
	signers := []chunkindex.NodeID{known, stranger, stranger, other, {}}
	for _, i := range []int{0, 2, 1, 3, 4} {
		c.signedBy(b, i, signers[i])
	}
	for i, want := range signers {
		if got := b.signerOf(i); got != want || !b.senderOf(i).IsZero() {
			t.Errorf("chunk %d: signed by %v, want %v; sent by %v", i, got, want, b.senderOf(i))
		}
	}
	if b.signer[0] != &p.id || b.signer[1] != b.signer[2] || b.signer[4] != nil {
		t.Error("IDs are kept more than once")
	}
	c.peers.remove(c.peers.get(known))
	c.signedBy(b, 1, other)
	if b.signerOf(0) != known || b.signerOf(1) != other || b.signerOf(2) != stranger {
		t.Error("what becomes of one chunk, or of a peer, changes another")
	}
}
