package policy

import (
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// coordinating makes a mesh's core the coordinator of its blob.
func coordinating(t *testing.T, neighbours, chunks int) *mesh {
	t.Helper()
	m := newMesh(t, neighbours, chunks)
	m.now = Time(time.Second)
	m.b.introducedAt, m.b.progress = 1, 1
	m.b.lookedAt, m.b.ranked = m.now, []chunkindex.NodeID{m.cfg.Self}
	return m
}

func (m *mesh) want(chunks ...int) chunkindex.Bitfield {
	bits := chunkindex.NewBitfield(m.b.n)
	for _, i := range chunks {
		bits.Set(i)
	}
	return bits
}

// A chunk that is granted to one who believes everybody, and asked for by one to whom the
// blob was refuted, is granted once more, to the latter, and then to nobody: it was granted
// to the former again and again, who had no use for it, and read from the origin as often.
func TestGrantGoesToWhoLacksIt(t *testing.T) {
	m := coordinating(t, 6, 32)
	n := m.b.neighbours
	m.takeAsk(m.b, n[0].p.id, m.want(6, 7), 0, false)
	m.b.coord.settled = true
	m.coordinate(m.b)
	for _, o := range n[1:5] {
		m.takeAsk(m.b, o.p.id, m.want(6, 7), 0, false)
	}
	m.b.setBit(n[4], 7)
	m.takeAsk(m.b, n[5].p.id, m.want(7), 1, false)
	m.b.coord.width.now = 16
	for range 3 {
		m.coordinate(m.b)
	}
	granted := map[int]int{}
	for _, e := range m.out {
		if e.Kind == EfSend && e.Msg.Kind == MsgGrant && e.Msg.Chunk <= 7 && e.Msg.Chunk+e.Msg.N > 7 {
			granted[e.Msg.Epoch]++
		}
	}
	if granted[0] != 1 || granted[1] != 1 {
		t.Errorf("chunk 7 was granted %d times to those that believe, %d times to those that do not; want once each", granted[0], granted[1])
	}
}

// Who asks for the same for long, although somebody holds it, is not served by that one,
// and it is read again. But who is sent other chunks meanwhile has not come to it yet:
// what an origin sent faster than nodes can would be read twice.
func TestStuckIsWhoGetsNothing(t *testing.T) {
	for _, fed := range []bool{false, true} {
		m := coordinating(t, 3, 32)
		m.b.setBit(m.b.neighbours[0], 20)
		id := m.b.neighbours[1].p.id
		for range 6 {
			m.takeAsk(m.b, id, m.want(20, 21), 0, fed)
			m.now = m.now.Add(2 * time.Second)
		}
		if got := m.b.coord.byID[id].stuck; got == fed {
			t.Errorf("fed %v: stuck %v after 12 s", fed, got)
		}
	}
}

// A member of the committee that nobody here reads for any more stops wanting the blob
// when its time is over, although others still join by way of it: members that join by
// way of each other would want it for ever.
func TestMemberStopsWanting(t *testing.T) {
	m := coordinating(t, 3, 32)
	m.b.whole = true
	m.b.idleSince = m.now
	m.b.swarm = &swarm{seen: m.now}
	for range 20 {
		m.now = m.now.Add(m.cfg.Linger / 10)
		m.b.swarm.seen = m.now
		m.closeIdle(m.b)
	}
	left := 0
	for _, e := range m.out {
		if e.Kind == EfSend && e.Msg.Kind == MsgLeave {
			left++
		}
	}
	if m.b.wanting() || m.b.closed || left != 3 {
		t.Errorf("wanting %v, closed %v, %d of 3 neighbours were told", m.b.wanting(), m.b.closed, left)
	}
}

// What a node read that is gone is lost only if nobody got it before: who has all of a blob
// asks for nothing any more, and says no more than that it leaves. A manifest that forty
// nodes had was read once more.
func TestTakenIsNotLost(t *testing.T) {
	for _, taken := range []bool{false, true} {
		m := coordinating(t, 4, 32)
		reader, other, late := m.b.neighbours[0].p.id, m.b.neighbours[1].p.id, m.b.neighbours[2].p.id
		m.takeAsk(m.b, reader, m.want(3), 0, false)
		m.takeAsk(m.b, other, m.want(3), 0, false)
		m.takeAsk(m.b, late, m.want(3), 0, false)
		m.b.coord.grants = append(m.b.coord.grants, &grant{run: run{first: 3, end: 4}, to: reader})
		m.b.appeared(reader, 3, 4, m.now)
		if taken {
			m.Step(m.now, Event{Kind: EvMessage, Peer: other, Msg: Message{Kind: MsgLeave, Blob: m.b.id, Size: m.b.size}}, nil)
		}
		m.Step(m.now, Event{Kind: EvPeerDown, Peer: reader}, nil)
		m.now = m.now.Add(2 * m.cfg.AskTimeout)
		m.forgetLost(m.b)
		if got := m.b.coord.known.Has(3); got != taken {
			t.Errorf("taken %v: known %v once its reader is gone", taken, got)
		}
	}
}

// A coordinator whose own client comes, and says no size, asks the origin for it, since
// only peers have spoken of it. What it granted until then still counts if they were
// right: it was granted, and read, once more.
func TestGrantsOutliveTheSize(t *testing.T) {
	for _, size := range []int64{32 * mib, 48 * mib} {
		m := coordinating(t, 3, 32)
		m.b.isOpen = false
		id := m.b.neighbours[0].p.id
		m.takeAsk(m.b, id, m.want(3, 4, 5), 0, false)
		m.b.coord.settled = true
		m.coordinate(m.b)
		if len(m.b.coord.grants) != 1 {
			t.Fatalf("%d grants", len(m.b.coord.grants))
		}
		m.Step(m.now, Event{Kind: EvRead, Blob: m.b.id, Reader: 1, End: -1, Size: -1, Whole: true, Source: 1}, nil)
		if m.b.coord != nil {
			t.Fatal("coordinates without a size")
		}
		m.b.setSize(size, false)
		if kept := m.b.coord != nil && len(m.b.coord.grants) == 1; kept != (size == 32*mib) {
			t.Errorf("%d bytes: grants kept %v", size, kept)
		}
	}
}

// A node to which chunks come asks its coordinator every two seconds whether it is there, and
// not twice a second; one that hangs is passed over all the same.
func TestFedNodeAsksLessOften(t *testing.T) {
	for _, fed := range []bool{false, true} {
		m := newMesh(t, 3, 32)
		m.now = Time(time.Second)
		to := m.b.neighbours[0].p
		to.heard = m.now
		m.b.introducedAt, m.b.lookedAt, m.b.namedAt = 1, m.now, 1
		m.b.closest, m.b.ranked = []chunkindex.NodeID{to.id}, []chunkindex.NodeID{to.id}
		asks := func(d time.Duration, answers bool) (pings int, there bool) {
			for end := m.now.Add(d); m.now < end; {
				m.now = m.now.Add(50 * time.Millisecond)
				if fed {
					m.b.progress, m.b.live = m.now, []*transfer{{}}
				}
				if there = m.relay(m.b, m.want(7)); !there {
					return pings, false
				}
				for _, e := range m.out {
					if e.Kind == EfSend && e.Msg.Kind == MsgPing {
						if pings++; answers {
							m.heardFrom(to)
						}
					}
				}
				m.out = nil
			}
			return pings, there
		}
		least, most := 7, 8
		if fed {
			least, most = 1, 2
		}
		if pings, there := asks(4*time.Second, true); !there || pings < least || pings > most {
			t.Errorf("fed %v: %d pings in 4 s, want %d to %d; there %v", fed, pings, least, most, there)
		}
		if _, there := asks(3*time.Second, false); there {
			t.Errorf("fed %v: waits for a coordinator that hangs", fed)
		}
	}
}
