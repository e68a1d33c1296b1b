package policy

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// newSparse is a world of nodes that are all linked, too many for everybody to be
// everybody's neighbour.
func newSparse(t tester, nodes, neighbours int) *world {
	return newWorld(t, nodes, func(_ int, c *Config) { c.Neighbours = neighbours })
}

// tells has f told of each message that is sent.
func (w *world) tells(f func(from, to chunkindex.NodeID, kind MessageKind)) {
	w.trace = func(format string, args ...any) {
		if len(args) > 3 {
			if kind, ok := args[3].(MessageKind); ok {
				f(args[1].(chunkindex.NodeID), args[2].(chunkindex.NodeID), kind)
			}
		}
	}
}

func notDone() bool { return false }

// When so many of a crowd crash that the others count on being told by everybody, they
// get to know everybody first: a coordinator granted again at once what others than its
// neighbours had read.
func TestCrowdThatShrinks(t *testing.T) {
	w := newSparse(t, 14, 8)
	d := w.blob("layer", 100*mib)
	w.originTime = 100 * time.Millisecond // nobody is done before the others crash
	nodes := w.ranked(d)
	all := w.readAll(d, nodes)
	w.run(300*time.Millisecond, notDone)
	if first := nodes[0].core.blobs[d]; len(first.neighbours) >= 13 {
		t.Fatal("everybody is everybody's neighbour already")
	}
	for _, n := range nodes[8:] {
		w.kill(n)
	}
	w.run(10*time.Millisecond, notDone)
	for _, n := range nodes[:8] {
		if b := n.core.blobs[d]; len(b.neighbours) != 7 {
			t.Errorf("%s has %d neighbours of 7", n.id, len(b.neighbours))
		}
	}
	w.wait(time.Minute, all[:8]...)
	w.egress(d, 100*mib+chunkindex.StripeLength) // what the dead were reading
	w.quiet()
}

// Two members that wanted a blob, which nobody waits for any more, told each other of it
// for ever, since who is told of a joiner remembers it.
func TestJoinersForgetEachOther(t *testing.T) {
	w := newSparse(t, 12, 8)
	d := w.blob("layer", 100*mib)
	w.originStalls = true
	nodes := w.ranked(d)
	for _, n := range w.nodes {
		n.closest = func() []chunkindex.NodeID { return ids(nodes[:2]) }
	}
	a, b := nodes[0].read(d, 0, -1), nodes[1].read(d, 0, -1)
	w.run(5*time.Second, notDone)
	nodes[0].cancel(a)
	nodes[1].cancel(b)
	w.quiet()
}

// Who goes on to ask for what somebody has read is told who that is, since it may have
// been told of nobody when it joined. It waited until it was granted the same.
func TestAskersAreToldWhoReadIt(t *testing.T) {
	w := newSparse(t, 12, 8)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	first, reader, asker := nodes[0], nodes[1], nodes[2]
	reader.mute, asker.mute = true, true
	ask := Message{Kind: MsgAsk, Blob: d, Size: 60 * mib, Bits: chunkindex.FullBitfield(chunksOf(60*mib, false))}
	first.hears(reader, ask)
	w.run(400*time.Millisecond, notDone)
	g := first.core.blobs[d].coord.grants[0]
	first.hears(reader, Message{Kind: MsgHave, Blob: d, Size: 60 * mib, Chunk: g.first, N: g.end - g.first})
	told := 0
	w.tells(func(from, to chunkindex.NodeID, kind MessageKind) {
		if from == first.id && to == asker.id && kind == MsgPeers {
			told++
		}
	})
	first.hears(asker, ask)
	if told > 0 {
		t.Error("it is told before it could have found out")
	}
	w.run(100*time.Millisecond, notDone)
	first.hears(asker, ask)
	if told != 1 {
		t.Error("it is not told who read what it asks for")
	}
}

// Whom the DHT names is asked before the coordinator, which may know of none that holds
// the blob.
func TestProvidersAreAskedFirst(t *testing.T) {
	w := newSparse(t, 12, 8)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	w.wait(time.Minute, nodes[3].read(d, 0, -1))
	asks := 0
	w.tells(func(_, _ chunkindex.NodeID, kind MessageKind) {
		if kind == MsgAsk {
			asks++
		}
	})
	w.wait(time.Minute, nodes[4].read(d, 0, -1))
	if asks > 0 {
		t.Errorf("the coordinator is asked %d times for what a provider holds", asks)
	}
}

// Where nothing comes, the DHT is asked again for others who have the blob by now: what it
// said before is good for long only while chunks come.
func TestWhoStarvesLooksAgain(t *testing.T) {
	w := newSparse(t, 12, 8)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	late, reader := nodes[5], nodes[6]
	for _, n := range nodes {
		if n != late {
			w.unlink(n, late)
		}
	}
	w.wait(time.Minute, late.read(d, 0, -1))
	w.originStalls = true
	nodes[7].read(d, 0, -1) // what is granted is granted to it
	w.run(time.Second, notDone)
	cl := reader.read(d, 0, -1)
	w.run(100*time.Millisecond, notDone)
	w.link(reader, late)
	w.wait(8*time.Second, cl)
}

// A neighbour that hung when it was asked what it holds is asked again once it is back.
func TestWhoHungIsAskedAgain(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	w.wait(time.Minute, nodes[2].read(d, 0, -1))
	w.originStalls = true
	nodes[2].mute = true
	nodes[1].read(d, 0, -1)
	w.run(4*time.Second, notDone)
	nodes[2].mute = false
	w.run(2*time.Second, notDone)
	if n := nodes[1].core.neighbour(nodes[1].core.blobs[d], nodes[2].id); n.bits.Count() == 0 {
		t.Error("it is not known yet what it holds")
	}
}

// A grant that comes when a peer has the chunks by now is given back: where a coordinator
// has much to do, both the wish and the grant are long on their way.
func TestOvertakenGrant(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	nodes[0].mute = true
	n, all := nodes[2], chunksOf(60*mib, false)
	n.read(d, 0, -1)
	w.run(450*time.Millisecond, notDone)
	back := 0
	w.tells(func(from, to chunkindex.NodeID, kind MessageKind) {
		if from == n.id && to == nodes[0].id && kind == MsgGiveBack {
			back++
		}
	})
	n.hears(nodes[1], Message{Kind: MsgState, Blob: d, Size: 60 * mib, Bits: chunkindex.FullBitfield(all), InFlight: chunkindex.NewBitfield(all)})
	n.hears(nodes[0], Message{Kind: MsgGrant, Blob: d, Size: 60 * mib, Chunk: 0, N: 8})
	if w.originReads > 0 || back != 1 {
		t.Errorf("%d reads, %d grants given back", w.originReads, back)
	}
}

// A node that others hold for the coordinator, while it sees itself not even among the
// members, grants its own reads too: it read everything for itself alone.
func TestCoordinatorThatIsNoMember(t *testing.T) {
	w := newSparse(t, 24, 8)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	nodes[0].closest = func() []chunkindex.NodeID { return ids(nodes[1:]) }
	all := w.readAll(d, nodes[1:])
	w.run(20*time.Millisecond, notDone)
	all = append(all, nodes[0].read(d, 0, -1))
	w.wait(time.Minute, all...)
	w.egress(d, 60*mib)
}

// A version of a chunk that was dropped, since it may have been wrong, is taken from others
// when the origin, which would tell, does not answer: a client was told so although all its
// node's peers held what it wanted.
func TestDoubtedIsBetterThanNothing(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	w.wait(time.Minute, nodes[0].read(d, 0, -1))
	n := nodes[2]
	w.originStatus = func(*node, digest.Digest) int { return 503 }
	nodes[0].paused = w.now.Add(20 * time.Millisecond)
	cl := n.read(d, 0, -1)
	w.run(10*time.Millisecond, notDone)
	b := n.core.blobs[d]
	holder := n.core.neighbour(b, nodes[0].id)
	for i := range b.n {
		b.refuse(holder, i)
	}
	b.epoch = 1
	w.wait(20*time.Second, cl)
}

// A coordinator that nobody asked for long looks around before it grants again: one that
// was silent may have read since what it was granted, and nobody have heard of it.
func TestCoordinatorLooksAroundAgain(t *testing.T) {
	w := newSparse(t, 12, 8)
	d := w.blob("layer", 60*mib)
	nodes := w.ranked(d)
	first, silent, asker := nodes[0], nodes[1], nodes[2]
	all := chunksOf(60*mib, false)
	ask := Message{Kind: MsgAsk, Blob: d, Size: 60 * mib, Bits: chunkindex.FullBitfield(all)}
	silent.mute, asker.mute = true, true
	first.hears(silent, ask)
	w.run(400*time.Millisecond, notDone)
	first.hears(silent, Message{Kind: MsgHave, Blob: d, Size: 60 * mib, N: 1}) // and no more
	w.run(3*time.Second, notDone)                                              // it is passed over
	first.hears(asker, ask)
	w.run(400*time.Millisecond, notDone)
	if len(first.core.blobs[d].coord.grants) == 0 {
		t.Fatal("nothing is granted to who asks")
	}
	first.hears(asker, Message{Kind: MsgLeave, Blob: d, Size: 60 * mib})
	first.hears(silent, Message{Kind: MsgState, Blob: d, Size: 60 * mib, Want: true, Bits: chunkindex.NewBitfield(all), InFlight: chunkindex.NewBitfield(all)})
	w.run(7*time.Second, notDone)
	asked := 0
	w.tells(func(from, to chunkindex.NodeID, kind MessageKind) {
		if from == first.id && to == silent.id && kind == MsgState {
			asked++
		}
	})
	first.hears(asker, ask)
	if b := first.core.blobs[d]; asked == 0 || len(b.coord.grants) > 0 {
		t.Errorf("%d grants at once, and who was silent is asked %d times", len(b.coord.grants), asked)
	}
}
