package simulation

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// playCrowd has each node get chunks from random others, a few at a time, and
// returns when each was done. The links of nodes have 12.5 MB/s, those of racks, if there
// are any, a third of what their nodes have together. sample sees the network every
// tenth of a second.
func playCrowd(sharing Sharing, nodes, racks, chunks, parallel int, sample func(w *network)) (done []int64, flows int) {
	const rate = 12_500_000
	rng := rand.New(rand.NewPCG(1, 2))
	w := &network{q: &queue{}, sharing: sharing}
	var up, down, rackUp, rackDown []int32
	for range nodes {
		up, down = append(up, w.addLink(rate)), append(down, w.addLink(rate))
	}
	for range racks {
		share := int64(rate * nodes / racks / 3)
		rackUp, rackDown = append(rackUp, w.addLink(share)), append(rackDown, w.addLink(share))
	}
	sources := make([][]int, nodes)
	for i := range sources {
		for range chunks {
			sources[i] = append(sources[i], (i+1+rng.IntN(nodes-1))%nodes)
		}
	}
	begin := func(now int64, to int) {
		if len(sources[to]) == 0 {
			return
		}
		from := sources[to][0]
		sources[to] = sources[to][1:]
		p := pathOf(up[from], down[to])
		if racks > 0 && from%racks != to%racks {
			p = pathOf(up[from], rackUp[from%racks], rackDown[to%racks], down[to])
		}
		w.start(now, p, 1<<20, 0, int32(to), false)
	}
	for to := range nodes {
		for range parallel {
			begin(0, to)
		}
	}
	done = make([]int64, nodes)
	now, next := int64(0), int64(nanos/10)
	for {
		if at, more := w.q.next(); !more || at > now {
			w.flush(now)
			if sample != nil && now >= next {
				sample(w)
				next = now + nanos/10
			}
		}
		if _, more := w.q.next(); !more {
			return done, flows
		}
		x := w.q.pop()
		now = x.at
		i := int32(x.arg)
		f := &w.flows[i]
		if !f.active || f.gen != x.life || f.due != now {
			continue
		}
		f.due = 0
		if w.settle(f, now); f.left > 0 {
			f.said, f.saidAt = f.moved(), now
			w.plan(i)
			continue
		}
		to := int(f.owner)
		w.end(now, i)
		flows++
		done[to] = now
		begin(now, to)
	}
}

// exactly is what max-min gives the flows of a network, by their numbers.
func exactly(w *network) map[int32]int64 {
	m := &network{q: &queue{}, sharing: MaxMin}
	for i := range w.links {
		m.addLink(w.links[i].rate)
	}
	for i := range w.flows {
		if f := &w.flows[i]; f.active {
			p := path{}
			for _, h := range f.over() {
				p.add(h.link)
			}
			m.start(0, p, 1<<20, f.most, int32(i), false)
		}
	}
	m.flush(0)
	rates := map[int32]int64{}
	for i := range m.flows {
		rates[m.flows[i].owner] = m.flows[i].rate
	}
	return rates
}

// sharingError is how far the rates of a sharing are from those of max-min, as
// a part of the sum of the latter, and the sum of its rates as a part of theirs.
type sharingError struct{ off, got, all float64 }

func (e *sharingError) sample(w *network) {
	for i, r := range exactly(w) {
		f := &w.flows[i]
		e.off += float64(max(f.rate-r, r-f.rate))
		e.got += float64(f.rate)
		e.all += float64(r)
	}
}

// How far the sharings are from max-min: of rates, and of the times at which nodes
// have their chunks.
func TestSharingError(t *testing.T) {
	for _, test := range []struct{ nodes, racks, chunks int }{{16, 0, 64}, {50, 0, 64}, {200, 0, 32}, {200, 4, 16}} {
		exact, _ := playCrowd(MaxMin, test.nodes, test.racks, test.chunks, 4, nil)
		for _, sharing := range []Sharing{EqualShare, LeveledShare} {
			var e sharingError
			done, _ := playCrowd(sharing, test.nodes, test.racks, test.chunks, 4, e.sample)
			var last, exactLast, off, sum int64
			for i := range done {
				last, exactLast = max(last, done[i]), max(exactLast, exact[i])
				off += max(done[i]-exact[i], exact[i]-done[i])
				sum += exact[i]
			}
			makespan, completion := float64(last)/float64(exactLast), float64(off)/float64(sum)
			t.Logf("%d nodes, %d racks, %v share: rates off by %.1f %%, %.1f %% of the throughput, makespan x %.3f, completions off by %.1f %%",
				test.nodes, test.racks, sharing, 100*e.off/e.all, 100*e.got/e.all, makespan, 100*completion)
			if sharing == LeveledShare && (e.off/e.all > 0.03 || e.got/e.all < 0.98 || makespan > 1.03 || makespan < 0.97 || completion > 0.03) {
				t.Errorf("%d nodes, %d racks: too far from max-min", test.nodes, test.racks)
			}
		}
	}
}

// Whatever starts, ends and changes: no link carries more than its rate, each flow gets
// something, an equal share is at most that, and max-min is max-min.
func TestSharingIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sharing := rapid.SampledFrom([]Sharing{EqualShare, LeveledShare, MaxMin}).Draw(t, "sharing")
		w := &network{q: &queue{}, sharing: sharing}
		links := rapid.IntRange(2, 12).Draw(t, "links")
		for range links {
			w.addLink(rapid.Int64Range(2_000, 1_000_000).Draw(t, "rate"))
		}
		var flows []int32
		now := int64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += rapid.Int64Range(1, nanos).Draw(t, "wait")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				w.setRate(int32(rapid.IntRange(0, links-1).Draw(t, "link")), rapid.SampledFrom([]int64{0, 2_000, 1_000_000}).Draw(t, "new rate"))
			case 1:
				if len(flows) > 0 {
					w.setCap(rapid.SampledFrom(flows).Draw(t, "flow"), rapid.Int64Range(-1, 100_000).Draw(t, "cap"))
				}
			case 2, 3:
				if len(flows) > 0 {
					k := rapid.IntRange(0, len(flows)-1).Draw(t, "which")
					w.end(now, flows[k])
					flows = append(flows[:k], flows[k+1:]...)
				}
			default:
				for range rapid.IntRange(1, 30).Draw(t, "new flows") {
					over := rapid.SliceOfNDistinct(rapid.Int32Range(0, int32(links-1)), 1, min(links, maxHops), rapid.ID[int32]).Draw(t, "over")
					flows = append(flows, w.start(now, pathOf(over...), 1<<40, 0, 0, false))
				}
			}
			w.flush(now)
			checkShares(t, w, sharing)
		}
	})
}

func checkShares(t *rapid.T, w *network, sharing Sharing) {
	for l := range w.links {
		k := &w.links[l]
		var sum int64
		for _, r := range k.flows {
			sum += w.flows[r.flow()].rate
		}
		if sum != k.load || sum > k.rate {
			t.Fatalf("link %d of %d B/s carries %d, by its own account %d", l, k.rate, sum, k.load)
		}
	}
	for i := range w.flows {
		f := &w.flows[i]
		if !f.active {
			continue
		}
		fair, dead := unbounded, f.most == halted
		for _, h := range f.over() {
			k := &w.links[h.link]
			fair = min(fair, k.rate/int64(len(k.flows)))
			dead = dead || k.rate == 0
		}
		if f.most != 0 {
			fair = min(fair, f.most)
		}
		switch {
		case dead && f.rate != 0:
			t.Fatalf("flow %d has %d B/s over nothing", i, f.rate)
		case f.most > 0 && f.rate > f.most:
			t.Fatalf("flow %d has %d B/s of at most %d", i, f.rate, f.most)
		case dead || fair == 0:
		case sharing == EqualShare && f.rate != fair:
			t.Fatalf("flow %d has %d B/s, its equal share is %d", i, f.rate, fair)
		case sharing == MaxMin && f.rate != f.most && !bottleneck(w, f):
			t.Fatalf("flow %d has %d B/s and could have more", i, f.rate)
		}
	}
}

// bottleneck reports whether a flow has a link that is full, to within rounding, and on
// which no other has more: what makes rates max-min fair.
func bottleneck(w *network, f *flow) bool {
	for _, h := range f.over() {
		k := &w.links[h.link]
		rounding := int64(len(w.flows)) // a byte a second for each flow that was fixed
		if k.rate-k.load > rounding {
			continue
		}
		most := int64(0)
		for _, r := range k.flows {
			most = max(most, w.flows[r.flow()].rate)
		}
		if most <= f.rate+rounding {
			return true
		}
	}
	return false
}

// A link that hundreds share is not leveled for each of them, and is used all the same.
func TestCrowdedLinkIsFull(t *testing.T) {
	w := &network{q: &queue{}, sharing: LeveledShare}
	trunk := w.addLink(100_000_000)
	var flows []int32
	for i := range 1000 {
		flows = append(flows, w.start(int64(i), pathOf(trunk, w.addLink(10_000_000)), 1<<40, 0, 0, false))
		w.flush(int64(i))
	}
	rest := func(now int64) {
		least := int64(1 << 40)
		for _, i := range flows {
			least = min(least, w.flows[i].rate)
		}
		k := &w.links[trunk]
		if k.load > k.rate || k.load < k.rate-k.rate/mostSpare || least < k.rate/int64(len(flows))*9/10 {
			t.Errorf("at %d: %d flows have %d of %d B/s, the least of them %d", now, len(flows), k.load, k.rate, least)
		}
	}
	rest(1000)
	for i := range 900 {
		w.end(int64(1000+i), flows[0])
		flows = flows[1:]
		w.flush(int64(1000 + i))
	}
	rest(2000)
	w.setRate(trunk, 1_000_000)
	w.flush(3000)
	rest(3000)
}

// BenchmarkSharing says what a flow costs under each sharing, and how far it is from
// max-min.
func BenchmarkSharing(b *testing.B) {
	for _, sharing := range []Sharing{EqualShare, LeveledShare, MaxMin} {
		b.Run(sharing.String(), func(b *testing.B) {
			flows := 0
			for range b.N {
				_, n := playCrowd(sharing, 200, 4, 16, 4, nil)
				flows += n
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(flows), "ns/flow")
			b.StopTimer()
			var e sharingError
			playCrowd(sharing, 200, 4, 16, 4, e.sample)
			b.ReportMetric(100*e.off/e.all, "%rate-error")
			b.ReportMetric(100*e.got/e.all, "%throughput")
		})
	}
}
