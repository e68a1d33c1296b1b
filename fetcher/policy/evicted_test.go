package policy

import (
	"testing"
	"time"
)

// A member of a committee remembers a blob's swarm after the blob is proven. When
// the store drops the blob in that time, what is remembered must not stand for it.
func TestEvictedWhileTheSwarmIsRemembered(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 50*mib)
	n, other := w.nodes[0], w.nodes[1]
	n.event(Event{Kind: EvMessage, Peer: other.id, Msg: Message{Kind: MsgJoin, Blob: d, Size: 50 * mib}})
	w.wait(time.Minute, n.read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	delete(n.stored, d)
	n.event(Event{Kind: EvEvicted, Blob: d})
	for _, e := range n.core.Step(w.now, Event{Kind: EvRead, Blob: d, Reader: 77, Off: 0, End: -1, Size: 50 * mib, Whole: true, Source: 1}, nil) {
		if e.Kind == EfDeliver {
			t.Errorf("%d bytes are delivered of a blob that the store has dropped", e.Off)
		}
	}
}

// The same for a peer that asks this node to coordinate.
func TestEvictedCoordinatorGrantsNothing(t *testing.T) {
	w := newWorld(t, 3, nil)
	var d = w.blob("layer", 50*mib)
	order := w.ranked(d)
	n, other, third := order[0], order[1], order[2]
	n.event(Event{Kind: EvMessage, Peer: third.id, Msg: Message{Kind: MsgJoin, Blob: d, Size: 50 * mib}})
	w.wait(time.Minute, n.read(d, 0, -1))
	w.run(time.Minute, func() bool { return false })
	delete(n.stored, d)
	n.event(Event{Kind: EvEvicted, Blob: d})
	cl := other.read(d, 0, -1)
	begun := w.now
	w.wait(5*time.Minute, cl)
	if took := time.Duration(w.now - begun); took > 2*time.Second {
		t.Errorf("the pull took %v, %d hedges", took, other.counts[CountHedge])
	}
}
