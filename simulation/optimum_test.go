package simulation

import (
	"testing"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// T* where something else than nodes' links and the origin binds, worked out by hand. Nodes have
// 100 MiB a second, so that a chunk takes 10 ms.
func TestOptimumByHand(t *testing.T) {
	const rate = 100 * mib
	// four nodes in two racks want one blob of 10 MiB
	four := func() *scenario.Run {
		run := &scenario.Run{Zones: []scenario.Zone{{}}, Racks: []scenario.Rack{{}, {}},
			Origin: scenario.Origin{Link: rate}, Limits: scenario.Limits{Time: time.Minute}, Verify: "member",
			DHT:   scenario.DHT{Delays: []time.Duration{0}},
			Blobs: []scenario.Blob{{Name: "a", Size: 10 * mib}, {Name: "b", Size: 20 * mib}},
			// The second version has the first one's layer too.
			Images: []scenario.Image{{Manifest: -1, Layers: []int{0}}, {Manifest: -1, Layers: []int{0, 1}}}}
		for i := range 4 {
			run.Nodes = append(run.Nodes, scenario.Node{Rack: i / 2, Up: rate, Down: rate})
			run.Pulls = append(run.Pulls, scenario.Pull{Node: i})
		}
		return run
	}
	for name, tc := range map[string]struct {
		change func(*scenario.Run)
		want   time.Duration
	}{
		"all alike: 9 chunks and 3 rounds": {func(*scenario.Run) {}, 120 * time.Millisecond},
		"of 125 bytes 100 are payload":     {func(r *scenario.Run) { r.Costs.Overhead = 250_000 }, 150 * time.Millisecond},
		// 10 MiB at 10 MiB/s, then one more round for the two behind it
		"a rack's uplink": {func(r *scenario.Run) { r.Racks[1].Down = 10 * mib }, 1010 * time.Millisecond},
		// and two more rounds for four
		"a zone's link": {func(r *scenario.Run) { r.Zones[0].Down = 10 * mib }, 1020 * time.Millisecond},
		// 500 ms, 1 s over the link, one more round
		"a rack that begins later": {func(r *scenario.Run) {
			r.Racks[1].Down, r.Pulls[2].At, r.Pulls[3].At = 10*mib, 500*time.Millisecond, 700*time.Millisecond
		}, 1510 * time.Millisecond},
		"an uplink that nobody is behind": {func(r *scenario.Run) { r.Racks[1].Down, r.Pulls = 10*mib, r.Pulls[:2] }, 110 * time.Millisecond},
		// 2 s, and 20 MiB that node 3 does not have by then
		"a second version, later": {func(r *scenario.Run) {
			r.Pulls = append(r.Pulls, scenario.Pull{At: 2 * time.Second, Node: 3, Image: 1})
		}, 2200 * time.Millisecond},
		// its node has it already: a client that comes later waits for nothing
		"the same again, later": {func(r *scenario.Run) {
			r.Pulls = append(r.Pulls, scenario.Pull{At: 2 * time.Second, Node: 3})
		}, 2 * time.Second},
	} {
		run := four()
		tc.change(run)
		r, err := Simulate(t.Context(), run, Options{Sharing: MaxMin})
		if err != nil {
			t.Fatal(err)
		}
		if r.Optimum != tc.want || r.Makespan < r.Optimum {
			t.Errorf("%s: %v, want %v; the makespan is %v", name, r.Optimum, tc.want, r.Makespan)
		}
	}
}
