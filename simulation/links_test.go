package simulation

import (
	"slices"
	"testing"

	"github.com/peercache/peercache/simulation/scenario"
)

// drain plays flows alone, and returns when each ended.
func drain(w *network, starts map[int64]func(now int64), until int64) map[int32]int64 {
	ends := map[int32]int64{}
	for at := range starts {
		w.q.push(at, evFault, 0, 0, uint64(at))
	}
	now := int64(0)
	for {
		if at, more := w.q.next(); !more || at > now {
			w.flush(now)
		}
		if at, more := w.q.next(); !more || at > until {
			return ends
		}
		x := w.q.pop()
		now = x.at
		if x.kind() == evFault {
			starts[int64(x.arg)](now)
			continue
		}
		i := int32(x.arg)
		f := &w.flows[i]
		if !f.active || f.gen != x.life || f.due != now {
			continue
		}
		f.due = 0
		w.settle(f, now)
		if f.left > 0 {
			f.said, f.saidAt = f.moved(), now
			w.plan(i)
			continue
		}
		ends[f.owner] = now
		w.end(now, i)
	}
}

func TestFlowsShareLinks(t *testing.T) {
	for _, sharing := range []Sharing{EqualShare, LeveledShare, MaxMin} {
		w := &network{q: &queue{}, sharing: sharing}
		a, b, c := w.addLink(1000), w.addLink(1000), w.addLink(1000)
		ends := drain(w, map[int64]func(int64){
			0:         func(now int64) { w.start(now, pathOf(a, b), 1000, 0, 1, false) },
			nanos / 2: func(now int64) { w.start(now, pathOf(a, c), 1000, 0, 2, false) },
		}, 100*nanos)
		// Alone for half a second, then at half the rate until 1.5 s; the other
		// has 500 bytes by then, and the link alone for the rest.
		if ends[1] != 3*nanos/2 || ends[2] != 2*nanos {
			t.Errorf("sharing %d: ends %v", sharing, ends)
		}
		if w.links[a].bytes != 2000 || w.links[b].bytes != 1000 || w.links[c].bytes != 1000 {
			t.Errorf("sharing %d: links carried %d, %d, %d", sharing, w.links[a].bytes, w.links[b].bytes, w.links[c].bytes)
		}
	}
}

// Three flows leave a, one of them for a slow link: all but EqualShare give what it
// cannot use to the others.
func TestMaxMinSharesTheRest(t *testing.T) {
	for sharing, want := range map[Sharing]int64{EqualShare: 3 * nanos, LeveledShare: 1000 * nanos / 450, MaxMin: 1000 * nanos / 450} {
		w := &network{q: &queue{}, sharing: sharing}
		a, slow, b, c := w.addLink(1000), w.addLink(100), w.addLink(1000), w.addLink(1000)
		ends := drain(w, map[int64]func(int64){0: func(now int64) {
			w.start(now, pathOf(a, slow), 1000, 0, 1, false)
			w.start(now, pathOf(a, b), 1000, 0, 2, false)
			w.start(now, pathOf(a, c), 1000, 0, 3, false)
		}}, 100*nanos)
		if got := ends[2]; got < want || got > want+want/100 || ends[3] != got {
			t.Errorf("sharing %d: ends %v, want %d for the fast ones", sharing, ends, want)
		}
		if ends[1] != 10*nanos {
			t.Errorf("sharing %d: the slow one ends at %d", sharing, ends[1])
		}
	}
}

func TestFlowsHaveLimits(t *testing.T) {
	for _, sharing := range []Sharing{EqualShare, LeveledShare, MaxMin} {
		w := &network{q: &queue{}, sharing: sharing}
		a, b := w.addLink(1000), w.addLink(1000)
		ends := drain(w, map[int64]func(int64){0: func(now int64) {
			w.start(now, pathOf(a, b), 1000, 100, 1, true)
		}}, 100*nanos)
		if ends[1] != 10*nanos {
			t.Errorf("sharing %d: ends %v", sharing, ends)
		}
	}
}

func TestRatesChange(t *testing.T) {
	for _, sharing := range []Sharing{EqualShare, LeveledShare, MaxMin} {
		w := &network{q: &queue{}, sharing: sharing}
		a, b, c := w.addLink(1000), w.addLink(1000), w.addLink(1000)
		var first int32
		ends := drain(w, map[int64]func(int64){
			0: func(now int64) {
				first = w.start(now, pathOf(a, -1, b), 2000, 0, 1, false)
				w.start(now, pathOf(a, -1, c), 1000, 0, 2, false)
			},
			1 * nanos: func(now int64) { w.setRate(a, 0) },         // 500 each
			2 * nanos: func(now int64) { w.setRate(a, 500) },       // 250 a second each
			3 * nanos: func(now int64) { w.setCap(first, halted) }, // 750 each
			8 * nanos: func(now int64) { w.setCap(first, 100) },
		}, 100*nanos)
		// The second may have a share of 250 a second or all of a; the first waits until 8 s.
		want := int64(4 * nanos)
		if sharing != EqualShare {
			want = 7 * nanos / 2
		}
		if ends[2] != want || ends[1] != 8*nanos+1250*nanos/100 {
			t.Errorf("sharing %d: ends %v", sharing, ends)
		}
		for l := range w.links {
			if k := &w.links[l]; k.load != 0 || len(k.flows) != 0 {
				t.Errorf("sharing %d: link %d has %d flows, load %d", sharing, l, len(k.flows), k.load)
			}
		}
	}
}

// Two racks in one zone and one in another, which is paid: which links paths go over,
// and what they carry.
func TestPaths(t *testing.T) {
	run := &scenario.Run{
		Nodes:  []scenario.Node{{Up: 10, Down: 11}, {Up: 12, Down: 13}, {Rack: 1, Up: 14, Down: 15}, {Zone: 1, Rack: 2, Up: 16}},
		Racks:  []scenario.Rack{{Up: 20, Down: 21}, {Up: 22}, {Zone: 1}},
		Zones:  []scenario.Zone{{Up: 30, Down: 31}, {Down: 33, Paid: true}},
		Origin: scenario.Origin{Link: 40},
	}
	w := &network{q: &queue{}}
	topo := newTopology(w, run)
	for _, test := range []struct {
		name    string
		path    path
		rates   []int64
		classes classes
	}{
		{"rack", topo.between(0, 1), []int64{10, 13}, classes{Access: 1}},
		{"zone", topo.between(0, 2), []int64{10, 20, 15}, classes{Access: 1, RackUplink: 2}},
		{"zone, back", topo.between(2, 0), []int64{14, 22, 21, 11}, classes{Access: 1, RackUplink: 2}},
		{"far", topo.between(0, 3), []int64{10, 20, 30, 33, unbounded}, classes{Access: 1, RackUplink: 2, ZoneUplink: 2, PaidUplink: 1}},
		{"far, back", topo.between(3, 0), []int64{16, 31, 21, 11}, classes{Access: 1, RackUplink: 2, ZoneUplink: 2, PaidUplink: 1}},
		{"origin", topo.fromOrigin(1), []int64{40, 31, 21, 13}, classes{Access: 1, RackUplink: 1, ZoneUplink: 1, OriginLink: 1}},
		{"origin, paid", topo.fromOrigin(3), []int64{40, 33, unbounded},
			classes{Access: 1, RackUplink: 1, ZoneUplink: 1, PaidUplink: 1, OriginLink: 1}},
	} {
		var rates []int64
		for _, l := range test.path.links[:test.path.n] {
			rates = append(rates, w.links[l].rate)
		}
		if !slices.Equal(rates, test.rates) || test.path.classes != test.classes {
			t.Errorf("%s: rates %d, classes %d", test.name, rates, test.path.classes)
		}
	}
	if got, want := topo.capacity(), [LinkClasses]int64{Access: 0, OriginLink: 40}; got != want {
		t.Errorf("capacities %d, want %d", got, want)
	}
	drain(w, map[int64]func(int64){0: func(now int64) { w.start(now, topo.between(0, 3), 100, 0, 1, false) }}, 100*nanos)
	if want := [LinkClasses]int64{Access: 100, RackUplink: 200, ZoneUplink: 200, PaidUplink: 100}; w.carried != want {
		t.Errorf("carried %d, want %d", w.carried, want)
	}
}

func TestOverheadSlowsLinks(t *testing.T) {
	w := &network{q: &queue{}, overhead: 250_000}
	a, b := w.addLink(1000), w.addLink(2000)
	ends := drain(w, map[int64]func(int64){0: func(now int64) {
		w.start(now, pathOf(a, b), 1600, 0, 1, false)
		w.start(now, pathOf(b), 1000, 500, 2, false)
	}}, 100*nanos)
	if ends[1] != 2*nanos || ends[2] != 5*nanos/2 {
		t.Errorf("ends %v", ends)
	}
}
