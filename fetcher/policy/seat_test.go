package policy

import (
	"reflect"

	"github.com/peercache/peercache/chunkindex"
)

// checkSeats fails if what seats say is not what there is to say: a neighbour that seems
// busy is never asked, one that seems to want nothing never told.
func (c *Core) checkSeats(t tester) {
	t.Helper()
	if !reflect.DeepEqual(nothing, unusual{}) {
		t.Fatalf("what nothing is unusual of is not empty: %+v", nothing)
	}
	for _, w := range c.waiting {
		if !w.peer.waits {
			t.Fatalf("%v waits and does not know it", w.peer.id)
		}
	}
	for _, b := range c.order {
		if k := b.coord; k != nil {
			for _, a := range k.askers {
				if !k.wishes.Covers(a.want) {
					t.Fatalf("%v wants what nobody is known to", a.id)
				}
			}
		}
		if len(b.seats) != len(b.neighbours) {
			t.Fatalf("%d seats for %d neighbours", len(b.seats), len(b.neighbours))
		}
		for k, n := range b.neighbours {
			if int(n.place) != k || n.b != b || b.free[k] != c.freeFrom(n.p) || b.seats[k].alive != c.aliveP(n.p) {
				t.Fatalf("neighbour %d has seat %d, free from %d and alive %t, not %d and %t", k, n.place, b.free[k], b.seats[k].alive, c.freeFrom(n.p), c.aliveP(n.p))
			}
			if b.layoutSet() && n.inFlight.Count() > 0 && (!b.seats[k].reads || !b.reported.Covers(n.inFlight)) {
				t.Fatalf("neighbour %d reads from the origin what nobody is known to", k)
			}
			if b.avoid[k] > b.wary || b.shy[k] > b.wary {
				t.Fatalf("neighbour %d is passed over until %d and %d, when none should be from %d on", k, b.avoid[k], b.shy[k], b.wary)
			}
			if !b.layoutSet() {
				continue
			}
			row := chunkindex.NewBitfield(b.n)
			row.Join(b.row(k))
			if row.Count() != n.bits.Count() || !row.Covers(n.bits) {
				t.Fatalf("neighbour %d has %d chunks, %d in its row", k, n.bits.Count(), row.Count())
			}
		}
	}
}
