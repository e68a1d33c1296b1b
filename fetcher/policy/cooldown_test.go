package policy

import (
	"testing"
	"time"
)

// A node that was granted nothing cannot have been told by the origin to leave it
// alone: its word must not hold the whole cluster off an origin.
func TestGiveBackWithoutGrantCoolsOrigin(t *testing.T) {
	w := newWorld(t, 4, nil)
	d := w.blob("layer", 200*mib)
	liar := w.nodes[3]
	liar.mute = true
	var all []*client
	for _, n := range w.nodes[:3] {
		all = append(all, n.read(d, 0, -1))
	}
	var again func()
	again = func() {
		for _, n := range w.nodes[:3] {
			n.event(Event{Kind: EvMessage, Peer: liar.id, Msg: Message{Kind: MsgGiveBack, Blob: d, Size: 200 * mib, Chunk: 0, N: 1, Status: 429, Wait: 30 * time.Second}})
		}
		w.after(time.Second, again)
	}
	w.after(100*time.Millisecond, again)
	begun := w.now
	w.wait(2*time.Minute, all...)
	for _, n := range w.nodes[:3] {
		if n.cooled > 0 {
			t.Errorf("%s was told to leave the origin alone %d times, which the origin never said", n.id, n.cooled)
		}
	}
	if took := time.Duration(w.now - begun); took > 20*time.Second {
		t.Errorf("the pull took %v", took)
	}
}

// Two origins have one blob. That one of them asks to be left alone says nothing
// about the other.
func TestCooldownOfAnotherOrigin(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 200*mib)
	order := rank(d, ids(w.nodes))
	coordinator, holder, n := w.node(order[0]), w.node(order[1]), w.node(order[2])
	_ = coordinator
	var cooled []Source
	core := n.core
	step := func(ev Event) {
		for _, e := range core.Step(w.now, ev, nil) {
			if e.Kind == EfCooldown {
				cooled = append(cooled, e.Source)
			}
			n.do(e)
		}
	}
	_ = holder
	// This node has the blob of origin 2, the coordinator's news is of another asker's origin 1.
	n.clients[1] = &client{node: n, d: d, end: 200 * mib, started: w.now}
	step(Event{Kind: EvRead, Blob: d, Reader: 1, Off: 0, End: -1, Size: 200 * mib, Whole: true, Source: 7, Origin: 2})
	w.run(20*time.Millisecond, func() bool { return false })
	if n.core.blobs[d].ask.to != coordinator.id {
		t.Skip("no coordinator was asked")
	}
	step(Event{Kind: EvMessage, Peer: coordinator.id, Msg: Message{Kind: MsgCooldown, Blob: d, Size: 200 * mib, Status: 429, Wait: 30 * time.Second}})
	if len(cooled) > 0 {
		t.Errorf("the sources %v of another origin are left alone", cooled)
	}
}

// The coordinator's word for what the origin said must not become an answer that
// makes no sense to a client.
func TestCooldownStatus(t *testing.T) {
	for _, status := range []int{0, 200, 404} {
		w := newWorld(t, 2, nil)
		d := w.blob("layer", 64*mib)
		n := w.nodes[0]
		other := w.nodes[1]
		// The other ranks first.
		if rank(d, ids(w.nodes))[0] != other.id {
			n, other = other, n
		}
		other.mute = true
		cl := n.read(d, 0, -1)
		w.run(20*time.Millisecond, cl.done)
		for range 3 {
			n.event(Event{Kind: EvMessage, Peer: other.id, Msg: Message{Kind: MsgCooldown, Blob: d, Size: 64 * mib, Status: status, Wait: 30 * time.Second}})
			w.run(time.Second, cl.done)
		}
		if cl.done() && cl.status != 429 && cl.status != 503 && cl.status != 0 {
			t.Errorf("told %d, the client gets %d", status, cl.status)
		}
		if cl.done() && cl.status == 0 && cl.upto < cl.end {
			t.Errorf("told %d, the client fails with status 0", status)
		}
	}
}

// A coordinator that says again and again that the origin wants to be left alone
// does not hold a pull up for as long as it likes.
func TestCooldownForEver(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 40*mib)
	rk := w.ranked(d)
	cl := rk[1].read(d, 0, -1)
	origin := rk[1].core.blobs[d].sources[0].origin
	for range 600 {
		w.run(100*time.Millisecond, cl.done)
		if !cl.done() {
			rk[1].hears(rk[0], Message{Kind: MsgCooldown, Blob: d, Size: 40 * mib, Status: 429, Wait: 24 * time.Hour, Origin: origin})
		}
	}
	w.wait(time.Minute, cl)
}

// A node that was away reads alone; when its peers are back, and hold everything, it
// stops.
func TestPeersComeBack(t *testing.T) {
	w := newWorld(t, 3, nil)
	d := w.blob("layer", 200*mib)
	for _, n := range w.nodes[1:] {
		w.wait(time.Minute, n.read(d, 0, -1))
	}
	n := w.nodes[0]
	w.unlink(n, w.nodes[1])
	w.unlink(n, w.nodes[2])
	before := w.originBytes[d]
	cl := n.read(d, 0, -1)
	w.run(200*time.Millisecond, cl.done)
	w.link(n, w.nodes[1])
	w.link(n, w.nodes[2])
	w.wait(time.Minute, cl)
	if read := w.originBytes[d] - before; read > 100*mib {
		t.Errorf("%d MiB were read beside two nodes that hold everything", read/mib)
	}
	w.quiet()
}
