package policy

import (
	"testing"
	"time"

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

// Who signed other bytes of a chunk than those that came does not answer for these, even if
// this node has never met it: it was taken for their signer, and banned once it had come.
func TestStrangersClaimOfOtherBytes(t *testing.T) {
	w := newWorld(t, 2, nil)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	n, all := nodes[1], chunksOf(60*mib, false)
	nodes[0].stalls = true // what it sends is said here
	n.read(d, 0, -1)
	w.run(10*time.Millisecond, func() bool { return false })
	n.hears(nodes[0], Message{Kind: MsgState, Blob: d, Size: 60 * mib, Bits: chunkindex.FullBitfield(all), InFlight: chunkindex.NewBitfield(all)})
	b := n.core.blobs[d]
	if len(b.live) == 0 {
		t.Fatal("nothing is asked of the peer")
	}
	tr := b.live[0]
	n.inHand[hand{tr.id, tr.chunk}] = n.wrong(d, tr.chunk)
	n.event(Event{Kind: EvTransferDone, ID: tr.id, Sum: n.wrong(d, tr.chunk), N: mib,
		Claims: []chunkindex.Claim{{Signer: chunkindex.NodeID{9}, Sum: right(d, tr.chunk)}}})
	if b.busy[tr.chunk]&byStore != 0 || !b.signerOf(tr.chunk).IsZero() {
		t.Errorf("it is stored as what %s signed", b.signerOf(tr.chunk))
	}
}
