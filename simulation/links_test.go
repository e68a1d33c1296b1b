package simulation

import "testing"

// drain plays flows alone, and returns when each ended.
func drain(w *network, starts map[int64]func(now int64), until int64) map[int32]int64 {
	ends := map[int32]int64{}
	for at := range starts {
		w.q.push(at, evFault, 0, 0, uint64(at))
	}
	now := int64(0)
	for {
		if len(w.q.items) == 0 || w.q.items[0].at > now {
			w.flush(now)
		}
		if len(w.q.items) == 0 || w.q.items[0].at > until {
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
	for _, sharing := range []Sharing{EqualShare, MaxMin} {
		w := &network{q: &queue{}, sharing: sharing}
		a, b, c := w.addLink(1000), w.addLink(1000), w.addLink(1000)
		ends := drain(w, map[int64]func(int64){
			0:         func(now int64) { w.start(now, a, b, 1000, 0, 1, false) },
			nanos / 2: func(now int64) { w.start(now, a, c, 1000, 0, 2, false) },
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

// Three flows leave a, one of them for a slow link: only MaxMin gives what it
// cannot use to the others.
func TestMaxMinSharesTheRest(t *testing.T) {
	for sharing, want := range map[Sharing]int64{EqualShare: 3 * nanos, MaxMin: 1000 * nanos / 450} {
		w := &network{q: &queue{}, sharing: sharing}
		a, slow, b, c := w.addLink(1000), w.addLink(100), w.addLink(1000), w.addLink(1000)
		ends := drain(w, map[int64]func(int64){0: func(now int64) {
			w.start(now, a, slow, 1000, 0, 1, false)
			w.start(now, a, b, 1000, 0, 2, false)
			w.start(now, a, c, 1000, 0, 3, false)
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
	for _, sharing := range []Sharing{EqualShare, MaxMin} {
		w := &network{q: &queue{}, sharing: sharing}
		a, b := w.addLink(1000), w.addLink(1000)
		ends := drain(w, map[int64]func(int64){0: func(now int64) {
			w.start(now, a, b, 1000, 100, 1, true)
		}}, 100*nanos)
		if ends[1] != 10*nanos {
			t.Errorf("sharing %d: ends %v", sharing, ends)
		}
	}
}

func TestQueueIsInOrder(t *testing.T) {
	var q queue
	x := uint64(1)
	for range 5000 {
		x = x*6364136223846793005 + 1442695040888963407
		q.push(int64(x>>55), evTimer, 0, 0, 0)
	}
	last := item{at: -1}
	for len(q.items) > 0 {
		i := q.pop()
		if !before(&last, &i) {
			t.Fatalf("%+v after %+v", i, last)
		}
		last = i
	}
}
