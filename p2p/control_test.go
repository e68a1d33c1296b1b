package p2p

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/peercache/peercache/chunkindex"
)

func TestPeersMeet(t *testing.T) {
	a, b := pair(t, nil)
	for _, n := range []*node{a, b} {
		peers := n.Peers()
		if len(peers) != 1 || peers[0].PeerID == "" || peers[0].Addr == "" || peers[0].Since.IsZero() {
			t.Errorf("Peers() = %+v", peers)
		}
		if got := n.count(t, "peercache_p2p_peers", nil); got != 1 {
			t.Errorf("peercache_p2p_peers = %v", got)
		}
	}
	if !a.Peers()[0].Inbound || b.Peers()[0].Inbound {
		t.Error("b dialled a, so that a's connection is inbound and b's is not")
	}
	if PeerID(a.Self()).String() != a.PeerID() {
		t.Errorf("PeerID(Self()) = %s, want %s", PeerID(a.Self()), a.PeerID())
	}
}

func TestFramesArriveInOrder(t *testing.T) {
	const count = 5000
	a, b := pair(t, nil)
	send := func(from, to *node) {
		for i := range uint32(count) {
			frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+i%300), i)
			frame = frame[:cap(frame)]
			for {
				err := from.Send(to.Self(), frame)
				if err == nil {
					break
				}
				t.Errorf("frame %d: %v", i, err)
				return
			}
			if i%512 == 0 { // stay within the queue
				until(t, "the peer to catch up", func() bool { return len(to.rec.received(from.Self())) >= int(i)-100 })
			}
		}
	}
	done := make(chan struct{})
	go func() { defer close(done); send(a, b) }()
	send(b, a)
	<-done
	for _, dir := range [][2]*node{{a, b}, {b, a}} {
		from, to := dir[0], dir[1]
		until(t, "all frames", func() bool { return len(to.rec.received(from.Self())) == count })
		for i, f := range to.rec.received(from.Self()) {
			if got := binary.BigEndian.Uint32(f); got != uint32(i) {
				t.Fatalf("frame %d is number %d", i, got)
			}
		}
		if got := to.rec.upCount(from.Self()); got != 1 {
			t.Errorf("peer was up %d times", got)
		}
	}
}

func TestFrameSizes(t *testing.T) {
	a, b := pair(t, nil)
	if err := a.Send(b.Self(), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("empty frame: %v", err)
	}
	if err := a.Send(b.Self(), make([]byte, MaxFrame+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("frame above the limit: %v", err)
	}
	if err := a.Send(chunkindex.NodeID{1}, []byte("x")); !errors.Is(err, ErrPeerDown) {
		t.Errorf("frame to a stranger: %v", err)
	}
	largest := bytes.Repeat([]byte("peercache"), MaxFrame)[:MaxFrame]
	for _, f := range [][]byte{{0}, largest, {1}} {
		if err := a.Send(b.Self(), f); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the frames", func() bool { return len(b.rec.received(a.Self())) == 3 })
	if !bytes.Equal(b.rec.received(a.Self())[1], largest) {
		t.Error("largest frame arrived changed")
	}
}

// A handler that hangs makes its peer's queue overflow: the sender sees the peer
// go down and, once it goes on, both see it up again with nothing reordered.
func TestOverflowGoesDownAndUp(t *testing.T) {
	release := make(chan struct{})
	a := start(t, nil)
	b := start(t, bootstrap(a.Addrs()...))
	together(t, a, b)
	b.stop()
	b.rec = newRecorder()
	b.rec.onFrame = func(chunkindex.NodeID, []byte) { <-release }
	b.opts.Bootstrap = a.Addrs()
	b.runWith(t, b.rec)
	together(t, a, b)
	ups := a.rec.upCount(b.Self())

	frame := make([]byte, 64<<10)
	var err error
	for i := 0; i < 100_000 && err == nil; i++ {
		err = a.Send(b.Self(), frame)
	}
	if !errors.Is(err, ErrQueueFull) {
		t.Fatalf("overflow gives %v", err)
	}
	if err := a.Send(b.Self(), frame); err != nil && !errors.Is(err, ErrPeerDown) {
		t.Errorf("after the overflow: %v", err)
	}
	close(release)
	until(t, "b to be up again", func() bool { return a.rec.upCount(b.Self()) > ups && a.rec.isUp(b.Self()) && b.rec.isUp(a.Self()) })
	if got := a.count(t, "peercache_p2p_sessions_ended_total", map[string]string{"reason": "overflow"}); got < 1 {
		t.Errorf("overflows counted: %v", got)
	}
	before := len(b.rec.received(a.Self()))
	until(t, "a frame to go through", func() bool {
		return a.Send(b.Self(), []byte("after")) == nil
	})
	until(t, "the frame", func() bool {
		got := b.rec.received(a.Self())
		return len(got) > before && string(got[len(got)-1]) == "after"
	})
}

// Conformance of the event order under churn: peers that restart, sessions that
// are cut at random, frames in both directions. The recorder checks the order;
// here it is checked that every frame after an up arrives in order.
func TestEventOrderUnderChurn(t *testing.T) {
	hub := start(t, nil)
	var nodes []*node
	for range 3 {
		nodes = append(nodes, start(t, bootstrap(hub.Addrs()...)))
	}
	together(t, append(nodes, hub)...)
	for round := range 4 {
		for i, n := range nodes {
			for k := range 50 {
				hub.Send(n.Self(), fmt.Appendf(nil, "%d/%d", round, k))
				n.Send(hub.Self(), fmt.Appendf(nil, "%d/%d", round, k))
			}
			switch (round + i) % 3 {
			case 0:
				n.stop()
				n.run(t)
			case 1:
				hub.host.Network().ClosePeer(PeerID(n.Self()))
			case 2:
				n.mu.Lock()
				var s *session
				if l := n.links[PeerID(hub.Self())]; l != nil {
					s = l.session
				}
				n.mu.Unlock()
				if s != nil {
					s.end(errors.New("cut by the test"))
				}
			}
		}
	}
	together(t, append(nodes, hub)...)
	for _, n := range nodes {
		until(t, "a frame to get through", func() bool {
			hub.Send(n.Self(), []byte("end"))
			got := n.rec.received(hub.Self())
			return len(got) > 0 && string(got[len(got)-1]) == "end"
		})
		last := ""
		for _, f := range n.rec.received(hub.Self()) {
			var round, k, lastRound, lastK int
			if s := string(f); s != "end" {
				fmt.Sscanf(s, "%d/%d", &round, &k)
				fmt.Sscanf(last, "%d/%d", &lastRound, &lastK)
				if last != "" && (round < lastRound || round == lastRound && k <= lastK) {
					t.Fatalf("frame %s after %s", s, last)
				}
				last = s
			}
		}
	}
}
