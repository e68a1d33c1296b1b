package policy

import (
	"testing"
	"time"
)

// A node keeps one more chunk under way, in and out, where it has many to choose from, and
// not while it reads from the origin: fewer leave a link idle between two chunks, more
// make each of the first ones late for those who wait to pass it on.
func TestMoreUnderWayWithPlenty(t *testing.T) {
	m := newMesh(t, 8, 128)
	m.b.whole = true
	slots := func() (in, out int) {
		for m.hasSlot(m.b) {
			m.startTransfer(m.b, m.b.offered.Next(in), m.b.neighbours[in])
			in++
		}
		for ; m.admits(&upload{peer: m.b.neighbours[out].p, blob: m.b.id}); out++ {
			m.uploads = append(m.uploads, upload{peer: m.b.neighbours[out].p, blob: m.b.id})
		}
		for _, o := range m.b.neighbours {
			o.p.transfers = 0
		}
		m.transfers, m.b.live, m.uploads, m.inFlight = nil, nil, nil, 0
		for i := range m.b.busy {
			m.b.end(i, byTransfer)
		}
		return in, out
	}
	for i := range plenty / 2 {
		m.b.setBit(m.b.neighbours[0], i)
	}
	if in, out := slots(); in != m.cfg.MinTransfers || out != m.cfg.MinUploads {
		t.Errorf("%d transfers and %d uploads with little to choose from", in, out)
	}
	for i := range 3 * plenty {
		m.b.setBit(m.b.neighbours[0], i)
	}
	if in, out := slots(); in != m.cfg.MinTransfers+1 || out != m.cfg.MinUploads+1 {
		t.Errorf("%d transfers and %d uploads with plenty", in, out)
	}
	m.reads = []*originRead{{b: m.b}}
	if in, _ := slots(); in != m.cfg.MinTransfers {
		t.Errorf("%d transfers with plenty while reading from the origin", in)
	}
}

// Who is slow now and then in a long pull is forgiven with each chunk that it sends: four
// slow ones in an hour would count as much as a wrong one, and what it reads from the
// origin be read by another as well.
func TestSlowIsForgiven(t *testing.T) {
	m := newMesh(t, 2, 32)
	n := m.b.neighbours[0]
	chunk := func(i int) {
		m.b.setBit(n, i)
		m.startTransfer(m.b, i, n)
		m.transferred(m.b.live[len(m.b.live)-1], mib)
	}
	for i := range 2 * corruptFault {
		m.now = m.now.Add(time.Minute)
		m.avoid(m.b, n.p.id, 1)
		if n.faults != 1 {
			t.Fatalf("%d faults after %d slow chunks, and a good one after each", n.faults, i+1)
		}
		chunk(i)
	}
	m.avoid(m.b, n.p.id, corruptFault)
	if chunk(20); n.faults < corruptFault {
		t.Errorf("%d faults: a wrong chunk is forgotten", n.faults)
	}
}
