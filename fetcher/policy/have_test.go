package policy

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// mesh is a core with a blob that many neighbours want, and what it says to them.
type mesh struct {
	*Core
	b *blob
	// heard is what each neighbour was told of, sent how many messages said so.
	heard []chunkindex.Bitfield
	sent  int
}

func newMesh(t *testing.T, neighbours, chunks int) *mesh {
	t.Helper()
	w := newWorld(t, 1, nil)
	cfg := DefaultConfig(w.nodes[0].id)
	cfg.Verify = VerifyMember
	m := &mesh{Core: New(cfg)}
	m.b = m.blob(w.blob("layer", int64(chunks)*mib))
	m.b.setSize(int64(chunks)*mib, false)
	m.b.isOpen = true
	for k := range neighbours {
		var id chunkindex.NodeID
		binary.BigEndian.PutUint32(id[:], uint32(k+1))
		m.Step(1, Event{Kind: EvPeerUp, Peer: id}, nil)
		n := m.addNeighbour(m.b, id)
		n.replied, n.introduced = true, true
		m.b.setWants(n, true)
		m.heard = append(m.heard, chunkindex.NewBitfield(m.b.n))
	}
	return m
}

// hear takes in what was said.
func (m *mesh) hear(t *testing.T) {
	t.Helper()
	for _, e := range m.out {
		if e.Kind != EfSend || e.Msg.Kind != MsgHave {
			continue
		}
		m.sent++
		k := int(binary.BigEndian.Uint32(e.Peer[:])) - 1
		for i := range e.Msg.chunks() {
			if !m.heard[k].Set(i) {
				t.Errorf("neighbour %d is told twice of chunk %d", k, i)
			}
		}
	}
	m.out = nil
}

// get has chunk i come.
func (m *mesh) get(t *testing.T, i int) {
	t.Helper()
	m.b.hold(i)
	m.b.share.Set(i)
	m.gain(m.b, i)
	m.hear(t)
}

// told counts the neighbours that were told of chunk i.
func (m *mesh) toldOf(i int) (n int) {
	for _, h := range m.heard {
		if h.Has(i) {
			n++
		}
	}
	return n
}

// toldInTime lets the time go by in which all are told, and checks how many were told of
// some chunks by then.
func (m *mesh) toldInTime(t *testing.T, want int, chunks ...int) {
	t.Helper()
	m.now = m.now.Add(tellWithin)
	m.tellRest(m.b, false)
	m.hear(t)
	for _, i := range chunks {
		if got := m.toldOf(i); got != want {
			t.Errorf("%d neighbours hear of chunk %d in the end, not the %d that lack it", got, i, want)
		}
	}
}

// What few have is told to everybody at once. What many have is told in turns, to each
// neighbour together with what came since its last one, and to all within a quarter of
// a second: a chunk that a neighbour never hears of is one that it never asks for.
func TestHaveInTurns(t *testing.T) {
	const neighbours = 60
	m := newMesh(t, neighbours, 64)
	m.get(t, 0)
	if got := m.toldOf(0); got != neighbours || m.sent != neighbours {
		t.Errorf("%d of %d neighbours hear at once of a chunk that nobody else has", got, neighbours)
	}
	common := []int{10, 11, 30, 12}
	for _, i := range common {
		for _, n := range m.b.neighbours[:neighbours/2] {
			m.b.setBit(n, i)
		}
	}
	m.sent = 0
	for _, i := range common {
		m.get(t, i)
		if got := m.toldOf(i); got == 0 || got > tellAtOnce {
			t.Errorf("%d neighbours hear at once of a common chunk, not 1 to %d", got, tellAtOnce)
		}
	}
	m.toldInTime(t, neighbours/2, common...)
	if all := len(common) * neighbours / 2; m.sent > all*3/4 {
		t.Errorf("%d messages for what %d would say one by one", m.sent, all)
	}
	m.now = m.now.Add(time.Second)
	m.tellRest(m.b, true)
	if m.hear(t); m.b.tellBy != 0 {
		t.Error("something is left to say after everything was said")
	}
}

// Where a node has plenty to choose from its neighbours most likely have too, and even
// what nobody has is told to few at once, and to all in time.
func TestHaveAtLeisure(t *testing.T) {
	const neighbours = 60
	m := newMesh(t, neighbours, 128)
	for i := range 2 * plenty {
		m.b.setBit(m.b.neighbours[0], 64+i)
	}
	for _, i := range []int{5, 1, 9} {
		m.get(t, i)
		if got := m.toldOf(i); got == 0 || got > tellAtLeisure {
			t.Errorf("%d neighbours hear at once of a chunk, not 1 to %d", got, tellAtLeisure)
		}
	}
	m.toldInTime(t, neighbours, 5, 1, 9)
}

// What half of the neighbours have is in no hurry either, unless next to nothing else is to be
// had: then each chunk is waited for.
func TestHaveOfWhatIsCommon(t *testing.T) {
	const neighbours = 60
	for _, tc := range []struct{ others, holders, atOnce int }{
		{scarce, neighbours / commonly, tellAtLeisure},
		{scarce - 1, neighbours / commonly, tellAtOnce},
		{scarce, neighbours/commonly - 1, tellAtOnce},
		{scarce, neighbours/rarely - 1, neighbours / 2},
		{scarce - 1, neighbours/rarely - 1, neighbours},
		{enough, neighbours/rarely - 1, tellAtLeisure},
	} {
		m := newMesh(t, neighbours, 64)
		for i := range tc.others {
			m.b.setBit(m.b.neighbours[0], 20+i)
		}
		for _, n := range m.b.neighbours[:tc.holders] {
			m.b.setBit(n, 5)
		}
		m.b.hold(5)
		if got, want := m.turns(m.b, 5), (neighbours+tc.atOnce-1)/tc.atOnce; got != want {
			t.Errorf("%d others to be had, %d hold it: %d turns, not %d", tc.others, tc.holders, got, want)
		}
	}
}

// Where there are few neighbours each hears of each chunk at once, as whoever proves the
// blob leaves nothing unsaid.
func TestHaveToFew(t *testing.T) {
	m := newMesh(t, tellAtOnce, 64)
	for _, n := range m.b.neighbours[:8] {
		m.b.setBit(n, 5)
	}
	m.get(t, 5)
	if got := m.toldOf(5); got != tellAtOnce-8 {
		t.Errorf("%d hear of a chunk at once, not the %d that lack it", got, tellAtOnce-8)
	}
	m = newMesh(t, 60, 64)
	for _, n := range m.b.neighbours[:30] {
		m.b.setBit(n, 5)
	}
	m.get(t, 5)
	m.tellRest(m.b, true)
	if m.hear(t); m.toldOf(5) != 30 {
		t.Errorf("%d know of a chunk once the blob is proven, not the 30 that lacked it", m.toldOf(5))
	}
}

// A message names chunks that lie too far apart for one in several.
func TestHaveFarApart(t *testing.T) {
	m := newMesh(t, 1, 700)
	n := m.b.neighbours[0]
	for _, i := range []int{690, 3, 4, 4, 261, 68, 5 + restBits - 1, 6} {
		m.b.hold(i)
		m.b.share.Set(i)
		m.b.gained = append(m.b.gained, int32(i))
	}
	m.tell(m.b, n)
	var said []int
	for _, e := range m.out {
		said = slices.AppendSeq(said, e.Msg.chunks())
	}
	if want := []int{3, 4, 6, 68, 5 + restBits - 1, 261, 690}; !slices.Equal(said, want) || len(m.out) != 3 {
		t.Errorf("%v are named in %d messages, not %v in 3", said, len(m.out), want)
	}
}
