package simulation

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// crossZone runs a flash crowd over three zones and returns the part of the chunks
// that came from another zone, in percent. Nodes know their zones if labelled.
func crossZone(t *testing.T, w crowd, labelled bool) (int, *Result) {
	t.Helper()
	w.zones = 3
	zone := map[chunkindex.NodeID]int{}
	w.opt.Tune = func(node int, p *policy.Config) {
		zone[p.Self] = node % 3
		if !labelled {
			p.Label = policy.Label{}
		}
	}
	asked := map[[2]uint64]int{} // zones of the peers that transfers come from
	var near, far int
	w.opt.Observe = func(_ time.Duration, node int, ev *policy.Event, effects []policy.Effect) {
		for i := range effects {
			if e := &effects[i]; e.Kind == policy.EfTransfer {
				asked[[2]uint64{uint64(node), uint64(e.ID)}] = zone[e.Peer]
			}
		}
		if ev.Kind != policy.EvTransferDone {
			return
		}
		if asked[[2]uint64{uint64(node), uint64(ev.ID)}] == node%3 {
			near++
		} else {
			far++
		}
	}
	r := w.simulate(t)
	return 100 * far / (near + far), r
}

// With zones known, less crosses between them, and the crowd is as fast. Not all
// stays within: who is busy near by is not waited for.
func TestZones(t *testing.T) {
	for _, tc := range []struct{ nodes, most int }{{30, 20}, {90, 20}} {
		nodes := tc.nodes
		w := crowd{nodes: nodes, size: 64 * mib, opt: Options{degree: 80}}
		blind, before := crossZone(t, w, false)
		far, after := crossZone(t, w, true)
		t.Logf("%d nodes: %d %% from other zones without labels, %d %% with; makespan %.3f and %.3f", nodes, blind, far, before.Slowdown(), after.Slowdown())
		if after.Unserved > 0 || after.Copies() > 1.02 {
			t.Errorf("%d nodes: %d unserved, %.3f copies", nodes, after.Unserved, after.Copies())
		}
		if blind < 55 || far > blind*tc.most/100 {
			t.Errorf("%d nodes: %d %% of the chunks come from other zones, without labels %d %%", nodes, far, blind)
		}
		// Links between zones that cost nothing and have no bound are the worst case: what
		// waits for somebody near could have come from afar meanwhile.
		if after.Makespan > before.Makespan*115/100 {
			t.Errorf("%d nodes: makespan %v, without labels %v", nodes, after.Makespan, before.Makespan)
		}
	}
}

// Nobody in a zone, nor in a rack, has all bytes before they have come over its link.
func TestUplinksAreNotBeaten(t *testing.T) {
	for _, sharing := range []Sharing{EqualShare, MaxMin, LeveledShare} {
		for _, rate := range []int64{5 * mib, 20 * mib, 100 * mib} {
			run := crowd{nodes: 12, zones: 3, size: 40 * mib, layers: 2, up: 50 * mib, origin: 80 * mib}.run()
			run.Zones[1].Up, run.Zones[1].Down, run.Zones[1].Paid = rate, rate, true
			run.Racks[2].Up, run.Racks[2].Down = rate, rate
			r := simulate(t, run, Options{Sharing: sharing})
			for i, p := range r.Pulls {
				least := time.Duration(40 * mib * nanos / (50 * mib))
				if z := run.Nodes[i].Zone; z > 0 {
					least = max(least, time.Duration(40*mib*nanos/rate))
				}
				if p.Done < least {
					t.Errorf("sharing %d, uplinks of %d: node %d was done after %v, but its bytes take %v", sharing, rate, i, p.Done, least)
				}
			}
			if r.Unserved > 0 || r.Makespan < r.Optimum*9/10 {
				t.Errorf("sharing %d, uplinks of %d: %d unserved, makespan %v, optimum %v", sharing, rate, r.Unserved, r.Makespan, r.Optimum)
			}
			if in := r.Links[PaidUplink]; in < 40*mib || in > r.Links[ZoneUplink] {
				t.Errorf("%d bytes over the paid link, %d over those of zones", in, r.Links[ZoneUplink])
			}
		}
	}
}

// A zone that has the image serves another one over a slow uplink: that carries about
// one copy, and nobody reads from the origin or gives up.
func TestZoneTakesOneCopy(t *testing.T) {
	w := crowd{nodes: 24, zones: 2, size: 40 * mib, layers: 2, up: 100 * mib, origin: 100 * mib}
	run := w.run()
	run.Zones[1].Up, run.Zones[1].Down, run.Zones[1].Paid = 4*mib, 4*mib, true
	for k := range run.Pulls {
		if run.Nodes[run.Pulls[k].Node].Zone == 1 {
			run.Pulls[k].At += 5 * time.Second
		}
	}
	slices.SortStableFunc(run.Pulls, func(a, b scenario.Pull) int { return cmp.Compare(a.At, b.At) })
	r := simulate(t, run, Options{})
	t.Logf("%.3f copies over the uplink, %.3f from the origin, %v", float64(r.Links[PaidUplink])/(40*mib), r.Copies(), r.Makespan)
	if in := r.Links[PaidUplink]; in < 40*mib || in > 60*mib {
		t.Errorf("%d bytes over the uplink of a zone that needs %d", in, 40*mib)
	}
	if r.Unserved > 0 || r.Copies() > 1.02 {
		t.Errorf("%d unserved, %.3f copies from the origin", r.Unserved, r.Copies())
	}
	if least := 10 * time.Second; r.Makespan > 5*time.Second+least*3/2 {
		t.Errorf("done after %v, one copy takes %v", r.Makespan, least)
	}
}
