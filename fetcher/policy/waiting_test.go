package policy

import (
	"slices"
	"testing"
	"time"
)

// Room is told to the peer that lacks most, and to one that is there: who is behind would
// be the last of a rollout, for which everybody waits.
func TestRoomIsForWhoLacksMost(t *testing.T) {
	m := newMesh(t, 5, 64)
	for k, has := range []int{10, 3, 20, 3, 0} {
		n := m.b.neighbours[k]
		for i := range has {
			m.b.setBit(n, i)
		}
		m.keepWaiting(n.p, m.b.id)
	}
	m.b.neighbours[4].p.up = false
	for _, want := range []int{1, 3, 0, 2} {
		m.out = nil
		m.tellWaiting()
		if len(m.out) != 1 || m.out[0].Msg.Kind != MsgFree || m.out[0].Peer != m.b.neighbours[want].p.id {
			t.Errorf("neighbour %d is not told, but %+v", want, m.out)
		}
	}
	m.out = nil
	if m.tellWaiting(); len(m.out) != 0 || len(m.waiting) != 0 || m.b.neighbours[4].p.waits {
		t.Errorf("%d wait who were told, or are gone", len(m.waiting))
	}
}

// A node with room asks peers anew that were busy, long before their pauses are over: all
// of them if nothing is under way, a few otherwise, and again not before as much time as
// most of a chunk takes. It would stand still for up to two seconds while others are
// served, and be the last of thousands.
func TestBusyAreAskedAnew(t *testing.T) {
	const neighbours = 2 * anew
	asked := func(change func(*mesh)) (began, free int) {
		m := newMesh(t, neighbours, 64)
		m.now, m.b.whole = Time(time.Second), true
		for k, n := range m.b.neighbours {
			m.b.setBit(n, k)
			m.setBusy(n.p, m.now.Add(2*time.Second))
		}
		change(m)
		before := len(m.transfers)
		m.fetchPeers(m.b)
		for _, until := range m.b.free {
			if until <= m.now {
				free++
			}
		}
		return len(m.transfers) - before, free
	}
	if began, free := asked(func(*mesh) {}); began == 0 || free != neighbours {
		t.Errorf("with nothing under way %d transfers begin and %d of %d may be asked", began, free, neighbours)
	}
	oneUnderWay := func(m *mesh) { m.startTransfer(m.b, 0, m.b.neighbours[0]) }
	if began, free := asked(oneUnderWay); began == 0 || free != anew {
		t.Errorf("with one under way %d transfers begin and %d may be asked, not %d", began, free, anew)
	}
	for name, change := range map[string]func(*mesh){
		"so soon": func(m *mesh) { m.b.askedAnew = m.now },
		"without room": func(m *mesh) {
			for i := 0; m.hasSlot(m.b); i++ {
				m.startTransfer(m.b, i, m.b.neighbours[i])
			}
		},
		"with little to choose from": func(m *mesh) {
			for i := scarce - 1; i < m.b.n; i++ {
				m.b.have.Set(i)
				m.b.taken.Set(i)
			}
		},
	} {
		if began, free := asked(change); began+free > 0 {
			t.Errorf("%s: %d transfers begin and %d may be asked", name, began, free)
		}
	}
}

// With few chunks to choose from the rarest is asked for, whatever readers wait for: it
// is what all others wait for. With more, readers have every other turn.
func TestRarestWhereChoiceIsSmall(t *testing.T) {
	for _, choice := range []int{scarce, scarce + 1} { // to choose from for the first of two
		m := newMesh(t, 12, 64)
		m.b.whole = true
		m.b.readers = []*reader{{b: m.b, end: -1, sent: 1}}
		for i := range choice {
			for _, n := range m.b.neighbours[:12-i] {
				m.b.setBit(n, i)
			}
		}
		m.fetchPeers(m.b)
		var asked []int
		for _, tr := range m.b.live {
			asked = append(asked, tr.chunk)
		}
		if want := map[int][]int{scarce: {scarce - 1, scarce - 2}, scarce + 1: {scarce, 0}}[choice]; !slices.Equal(asked, want) {
			t.Errorf("%d to choose from: asked for %v, not %v", choice, asked, want)
		}
	}
}

// A coordinator of a crowd that looks around again asks the DHT as well: who has come by
// the blob since may be named there alone, and what it holds be read again.
func TestSurveyAsksTheDHTAnew(t *testing.T) {
	m := newMesh(t, 60, 64)
	m.now = Time(time.Minute)
	for ago, want := range map[time.Duration]int{time.Second: 0, longAlone * m.cfg.Standstill: 1} {
		m.b.lookedAt, m.b.looking, m.b.introducedAt, m.out = m.now.Add(-ago), false, 1, nil
		m.survey(m.b)
		looks := 0
		for _, e := range m.out {
			if e.Kind == EfLookup {
				looks++
			}
		}
		if looks != want {
			t.Errorf("%v after it was last asked the DHT is asked %d times, not %d", ago, looks, want)
		}
	}
}
