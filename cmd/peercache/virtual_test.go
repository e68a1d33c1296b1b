package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

var (
	virtualScenario = flag.String("virtual.scenario", "", "run the `SCENARIO` with TestVirtualScenario: a name of the library, or a file")
	virtualNodes    = flag.Int("virtual.nodes", 0, "with as many `NODES`, of TestVirtualFlashCrowd too; 0: as it says")
	virtualSeed     = flag.Uint64("virtual.seed", 1, "with this `SEED`")
	virtualDHT      = flag.String("virtual.dht", "", "measure the DHT of `NODES,LATENCY` with TestVirtualDHT")
)

// flashCrowd is a run: all nodes pull one image at once. rate is of each link, in
// bytes a second.
func flashCrowd(nodes int, size, rate int64, latency time.Duration) *scenario.Run {
	run := &scenario.Run{
		Name: fmt.Sprintf("flash-crowd-%d", nodes), Seed: 1, Verify: "member",
		Racks: []scenario.Rack{{}}, Zones: []scenario.Zone{{Name: "zone"}},
		Latency: scenario.Latency{Rack: latency, Zone: latency, Far: latency, Origin: latency},
		Origin:  scenario.Origin{Link: rate},
		Blobs:   []scenario.Blob{{Name: "manifest", Size: 1 << 10, Manifest: true}, {Name: "layer", Size: size}},
		Images:  []scenario.Image{{Name: "v1", Manifest: 0, Layers: []int{1}}},
		Limits:  scenario.Limits{Time: 10 * time.Minute, Egress: 1_020_000},
	}
	for i := range nodes {
		run.Nodes = append(run.Nodes, scenario.Node{Up: rate, Down: rate})
		run.Pulls = append(run.Pulls, scenario.Pull{Node: i})
	}
	return run
}

// playVirtual carries a run out in a bubble, which fails the test where a goroutine of a
// node is left, and prints its result as a line of JSON. before, which may be nil, is
// called once the nodes have found one another.
func playVirtual(t *testing.T, run *scenario.Run, before func(*virtualRun) error) *virtualResult {
	t.Helper()
	origin, err := newVirtualOrigin(run)
	if err != nil {
		t.Fatal(err)
	}
	dir, cpu, start := t.TempDir(), cpuTime(), time.Now()
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	var result *virtualResult
	synctest.Test(t, func(t *testing.T) {
		if result, err = runVirtual(run, origin, dir, log, before); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%.1f CPU-s, %.1f s", (cpuTime() - cpu).Seconds(), time.Since(start).Seconds())
	line, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", line)
	return result
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// check fails unless every pull that its node could end is complete and right, within
// the run's limits.
func (r *virtualResult) check(t *testing.T, run *scenario.Run) {
	t.Helper()
	if r.Done+r.Excused != len(run.Pulls) || r.Wrong != 0 {
		t.Errorf("%d pulls done, %d excused of %d, %d of wrong bytes: %v", r.Done, r.Excused, len(run.Pulls), r.Wrong, r.Errors)
	}
	if d := run.Limits.Deadline.Seconds(); d > 0 && len(run.Faults) == 0 && slices.Max(r.Completion) > d {
		t.Errorf("a pull took %.1f s; its deadline is %.1f s", slices.Max(r.Completion), d)
	}
	// A hedge is counted, and reads a stripe at most.
	hedged := r.Policy["hedges"] * float64(min(chunkindex.StripeLength, r.UniqueBytes)) / float64(r.UniqueBytes)
	if limit := float64(run.Limits.Egress) / 1e6; limit > 0 && r.Copies > limit+hedged {
		t.Errorf("the origin wrote %.3f copies, %.3f at most and %.3f for %.0f hedges", r.Copies, limit, hedged, r.Policy["hedges"])
	}
	// Whoever is killed takes its counters along.
	if want := float64(run.Blobs[run.Images[0].Layers[0]].Size) * float64(r.Done); len(run.Faults) == 0 && r.PeerBytes+r.OriginBytes < want {
		t.Errorf("nodes received %.0f bytes, their clients %.0f", r.PeerBytes+r.OriginBytes, want)
	}
}

// All nodes want the same image at once: one copy leaves the origin, and no more.
//
//	go test ./cmd/peercache -run TestVirtualFlashCrowd -v -args -virtual.nodes 50
func TestVirtualFlashCrowd(t *testing.T) {
	sizes := []int{3, 8}
	if *virtualNodes > 0 {
		sizes = []int{*virtualNodes}
	}
	for _, nodes := range sizes {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			run := flashCrowd(nodes, 8<<20, 12_500_000, 500*time.Microsecond)
			r := playVirtual(t, run, nil)
			r.check(t, run)
			if r.Makespan < r.Optimum/2 || r.Makespan > 6*r.Optimum {
				t.Errorf("it took %.2f s; no more than %.2f were needed", r.Makespan, r.Optimum)
			}
		})
	}
}

// What goes wrong in the middle of a pull costs time, and no client its image.
func TestVirtualFaults(t *testing.T) {
	const size, rate = 6 << 20, 6_250_000 // a second at full speed
	for _, test := range []struct {
		name   string
		fault  scenario.Fault
		egress int64
		saw    func(r *virtualResult) bool // that the fault was there
	}{
		{"coordinator dies", scenario.Fault{Kind: scenario.Crash, Role: scenario.Coordinator, At: 300 * time.Millisecond}, 2_020_000,
			func(r *virtualResult) bool { return r.Excused == 1 && r.Done == 5 }},
		{"fetcher dies and is back", scenario.Fault{Kind: scenario.Crash, Role: scenario.Fetcher, At: 300 * time.Millisecond, Restart: 2 * time.Second}, 2_020_000,
			func(r *virtualResult) bool { return slices.Max(r.Completion) > 2 && r.EgressBytes > size }},
		{"node leaves", scenario.Fault{Kind: scenario.Drain, Nodes: []int{4}, At: 300 * time.Millisecond, Notice: 100 * time.Millisecond, Restart: time.Second}, 2_020_000,
			func(r *virtualResult) bool { return r.Completion[4] > 1.4 }},
		{"two halves", scenario.Fault{Kind: scenario.Partition, Nodes: []int{0, 1, 2}, At: 100 * time.Millisecond, For: 8 * time.Second}, 2_020_000,
			func(r *virtualResult) bool { return r.EgressBytes > size }},
		{"origin out", scenario.Fault{Kind: scenario.OriginOutage, At: 300 * time.Millisecond, For: 2 * time.Second}, 1_700_000,
			func(r *virtualResult) bool { return slices.Max(r.Completion) > 2 }},
		{"one can reach the origin", scenario.Fault{Kind: scenario.Offline, Nodes: []int{0, 1, 2, 3, 4}}, 1_020_000,
			func(r *virtualResult) bool {
				return r.OriginRequests > 0 && slices.Min(r.Completion) == r.Completion[5]
			}},
		{"packets are lost", scenario.Fault{Kind: scenario.Loss, Nodes: []int{0, 1, 2, 3, 4, 5}, Part: 30_000}, 1_020_000,
			func(r *virtualResult) bool { return r.LostPackets > 1000 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			run := flashCrowd(6, size, rate, 500*time.Microsecond)
			run.Faults = []scenario.Fault{test.fault}
			run.Limits.Egress = test.egress
			for i := range run.Pulls {
				run.Pulls[i].Retries = 5
			}
			r := playVirtual(t, run, nil)
			r.check(t, run)
			if !test.saw(r) {
				t.Errorf("as if nothing had happened: %+v", r)
			}
		})
	}
}

// What cannot be done with real nodes is refused, and named.
func TestVirtualRefuses(t *testing.T) {
	for want, change := range map[string]func(*scenario.Run){
		`fault 0: "bit-rot"`:               func(r *scenario.Run) { r.Faults = []scenario.Fault{{Kind: scenario.Rot}} },
		`fault 0: "clock-skew"`:            func(r *scenario.Run) { r.Faults = []scenario.Fault{{Kind: scenario.ClockSkew}} },
		"rack 0":                           func(r *scenario.Run) { r.Racks[0].Up = 1 },
		"zone 0":                           func(r *scenario.Run) { r.Zones[0].Down = 1 },
		"node 1: its disk":                 func(r *scenario.Run) { r.Nodes[1].Disk = 1 },
		"257 nodes":                        func(r *scenario.Run) { r.Nodes = make([]scenario.Node, 257) },
		"blobs of 1073742849 bytes":        func(r *scenario.Run) { r.Blobs[1].Size = 1<<30 + 1 },
		"origin: every node may read from": func(r *scenario.Run) { r.Origin.Readers = 1 },
	} {
		run := flashCrowd(2, 1<<20, 1<<20, 0)
		if err := virtualRefuses(run); err != nil {
			t.Errorf("a plain run: %v", err)
		}
		change(run)
		if err := virtualRefuses(run); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want one with %q", err, want)
		}
	}
}

// Any scenario, with real nodes: one of the library, or a file.
//
//	go test ./cmd/peercache -run TestVirtualScenario -v -args -virtual.scenario virtual-50 -virtual.nodes 200
func TestVirtualScenario(t *testing.T) {
	if *virtualScenario == "" {
		t.Skip("takes -virtual.scenario")
	}
	file, data, err := scenarios.Open(*virtualScenario)
	if err != nil {
		t.Fatal(err)
	}
	s, err := scenario.Parse(file, data)
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.Expand(*virtualSeed, *virtualNodes)
	if err != nil {
		t.Fatal(err)
	}
	playVirtual(t, run, nil).check(t, run)
}
