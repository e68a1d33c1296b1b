package scenario_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

func expand(t *testing.T, text string, seed uint64, nodes int) *scenario.Run {
	t.Helper()
	s, err := scenario.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.Expand(seed, nodes)
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Validate(); err != nil {
		t.Fatal(err)
	}
	return run
}

const base = `
topology:
  nodes: 100
  machines:
    - {share: 70%, link: 1gbit}
    - {share: 30%, up: 50mbit, down: 100mbit, disk: 100MB/s, space: 10GB}
  rack_size: 30
  rack_uplink: 5gbit
  uplink: 10gbit
  zones:
    - {name: a, share: 60%}
    - {name: b, share: 40%, up: 1gbit, paid: true, rack_size: 0}
images:
  - name: base
    layers: [10MiB, 20MiB]
  - name: app
    base: base
    layers: {count: 10, size: 100MB, spread: 50%}
    versions: 3
    shared: 70%
  - name: many
    layers: 1MiB
    count: 20
    config: none
workload:
  - {kind: rolling, image: "app:1", batch: 10%, interval: 30s, jitter: 5s, order: random}
  - {kind: poisson, image: many, zipf: 1, every: 100ms, pulls: 300, nodes: 50%}
`

func TestExpand(t *testing.T) {
	run := expand(t, base, 1, 0)
	kinds := map[scenario.Node]int{}
	for i, n := range run.Nodes {
		if (n.Zone == 0) != (i < 60) {
			t.Errorf("node %d is in zone %d", i, n.Zone)
		}
		n.Zone, n.Rack = 0, 0
		kinds[n]++
	}
	if kinds[scenario.Node{Up: 125e6, Down: 125e6}] != 70 || kinds[scenario.Node{Up: 6_250_000, Down: 12_500_000, Disk: 1e8, Space: 1e10}] != 30 {
		t.Errorf("kinds of nodes: %v", kinds)
	}
	if want := []scenario.Rack{{Zone: 0, Up: 625e6, Down: 625e6}, {Zone: 0, Up: 625e6, Down: 625e6}, {Zone: 1, Up: 625e6, Down: 625e6}}; !reflect.DeepEqual(run.Racks, want) {
		t.Errorf("racks: %v", run.Racks)
	}
	if want := []scenario.Zone{{Name: "a", Up: 125e7, Down: 125e7}, {Name: "b", Up: 125e6, Down: 125e7, Paid: true}}; !reflect.DeepEqual(run.Zones, want) {
		t.Errorf("zones: %v", run.Zones)
	}
	if run.Nodes[29].Rack != 0 || run.Nodes[30].Rack != 1 || run.Nodes[99].Rack != 2 {
		t.Error("nodes are not in their racks")
	}
	if len(run.Images) != 1+3+20 {
		t.Fatalf("%d images", len(run.Images))
	}
	sizes := func(blobs []int) (n int64) {
		for _, b := range blobs {
			n += run.Blobs[b].Size
		}
		return n
	}
	one, three := run.Images[1], run.Images[3]
	if one.Name != "app:1" || three.Name != "app:3" || len(one.Layers) != 2+10+1 || sizes(one.Layers) != 30<<20+100e6+2<<10 {
		t.Errorf("%s has %d layers of %d bytes", one.Name, len(one.Layers), sizes(one.Layers))
	}
	if !reflect.DeepEqual(one.Layers[:9], three.Layers[:9]) || sizes(one.Layers[2:9]) != 70e6 || one.Layers[9] == three.Layers[9] {
		t.Error("versions do not share what they should")
	}
	if !reflect.DeepEqual(one.Layers[:2], run.Images[0].Layers[:2]) || !run.Blobs[one.Layers[12]].Config {
		t.Error("the image has not its base's layers, or no configuration at its end")
	}
	pulls, popular := 0, map[int]int{}
	for _, p := range run.Pulls {
		if p.Image == 1 {
			if wave := p.At / (30 * time.Second); p.At%(30*time.Second) > 5*time.Second || wave > 9 {
				t.Errorf("a pull of the rollout at %v", p.At)
			}
			pulls++
		} else {
			popular[p.Image]++
		}
	}
	if pulls != 100 || len(run.Pulls) != 400 || popular[4] < popular[10] || popular[4] < 50 {
		t.Errorf("%d pulls, %d of the rollout; the most popular is pulled %d times", len(run.Pulls), pulls, popular[4])
	}
}

// The seed decides everything, and a fault more changes nothing else.
func TestStreams(t *testing.T) {
	const one = "faults:\n  - {kind: crash, nodes: 30%, at: 10s}\n"
	a, b := expand(t, base+one, 7, 0), expand(t, base+one, 7, 0)
	if !reflect.DeepEqual(a, b) {
		t.Error("the same seed gives two runs")
	}
	if reflect.DeepEqual(a.Pulls, expand(t, base+one, 8, 0).Pulls) {
		t.Error("two seeds give the same pulls")
	}
	more := expand(t, base+"faults:\n  - {kind: mute, nodes: 5%}\n"+strings.TrimPrefix(one, "faults:\n")+"  - {kind: crash, nodes: 20 random, at: 20s}\n", 7, 0)
	if !reflect.DeepEqual(a.Nodes, more.Nodes) || !reflect.DeepEqual(a.Pulls, more.Pulls) || !reflect.DeepEqual(a.Blobs, more.Blobs) {
		t.Error("a fault more changes the cluster or the pulls")
	}
	if !reflect.DeepEqual(a.Faults[0].Nodes, more.Faults[1].Nodes) || a.Faults[0].Line >= more.Faults[1].Line {
		t.Error("a fault more changes another one")
	}
	hit := map[int]bool{}
	for _, n := range more.Faults[1].Nodes {
		hit[n] = true
	}
	for _, n := range more.Faults[2].Nodes {
		if hit[n] {
			t.Errorf("node %d crashes twice, and never comes back", n)
		}
	}
	if len(more.Faults[1].Nodes) != 30 || len(more.Faults[2].Nodes) != 20 {
		t.Errorf("%d and %d nodes crash", len(more.Faults[1].Nodes), len(more.Faults[2].Nodes))
	}
}

func TestScaling(t *testing.T) {
	const faults = `
faults:
  - {kind: crash, nodes: 30%, at: 10s, restart: 5s}
  - {kind: mute, nodes: "2, 50-60"}
  - {kind: lie, nodes: 70}
  - {kind: slow-nic, nodes: 50% of zone b, rate: 1mbit}
  - {kind: stall, nodes: rack a/1}
`
	small := expand(t, base+faults, 1, 10)
	if len(small.Nodes) != 10 || small.Nodes[5].Zone != 0 || small.Nodes[6].Zone != 1 {
		t.Errorf("nodes: %v", small.Nodes)
	}
	got := map[scenario.FaultKind]string{}
	for _, f := range small.Faults {
		got[f.Kind] = fmt.Sprint(f.Nodes)
	}
	if got[scenario.Mute] != "[2]" || len(small.Faults) != 3 || got[scenario.Crash] == "" {
		t.Errorf("faults: %v", got)
	}
	if notes := strings.Join(small.Notes, "\n"); !strings.Contains(notes, "faults[2]") || !strings.Contains(notes, "faults[4]") {
		t.Errorf("notes: %s", notes)
	}
	big := expand(t, base+faults, 1, 1000)
	for _, f := range big.Faults {
		if want := map[scenario.FaultKind]int{scenario.Crash: 300, scenario.SlowNIC: 200, scenario.Mute: 12, scenario.Stall: 30, scenario.Lie: 1}[f.Kind]; len(f.Nodes) != want {
			t.Errorf("%s befalls %d of 1000 nodes, want %d", f.Kind, len(f.Nodes), want)
		}
	}
	s, err := scenario.Parse("test.yaml", []byte(base))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{-1, 100_001} {
		if _, err := s.Expand(1, n); err == nil {
			t.Errorf("%d nodes are possible", n)
		}
	}
}

// Nodes that join are not there before: they neither pull nor fail until then.
func TestAutoscale(t *testing.T) {
	run := expand(t, `
topology: {nodes: 40}
images: [{layers: 1MiB}]
workload:
  - kind: flash-crowd
  - {kind: autoscale, nodes: 50%, at: 1m, over: 1m, delay: 2s, order: random}
  - {kind: staggered, over: 10s, at: 5m}
faults:
  - {kind: slow-nic, nodes: all, rate: 10mbit, at: 30s, for: 5s}
  - {kind: slow-nic, nodes: all, rate: 10mbit, at: 3m}
`, 3, 0)
	joined := 0
	for _, n := range run.Nodes {
		if n.Joins > 0 {
			joined++
		}
	}
	if joined != 20 || len(run.Pulls) != 20+20+40 || len(run.Faults[0].Nodes) != 20 || len(run.Faults[1].Nodes) != 40 {
		t.Errorf("%d nodes join, %d pulls, faults on %d and %d", joined, len(run.Pulls), len(run.Faults[0].Nodes), len(run.Faults[1].Nodes))
	}
	if first, last := run.Pulls[20].At, run.Pulls[39].At; first != 62*time.Second || last != 122*time.Second {
		t.Errorf("those that join pull from %v to %v", first, last)
	}
}

// Waves that wait are numbered through, each after the one before of its own rollout; when they
// begin at the earliest is as without waiting.
func TestWavesThatWait(t *testing.T) {
	run := expand(t, `
topology: {nodes: 5}
images: [{layers: 1MiB}]
workload:
  - {kind: rolling, batch: 2, interval: 10s, wait: true}
  - {kind: rolling, batch: 4, at: 1m, wait: true, retries: 7}
  - {kind: flash-crowd, at: 2m, nodes: 0}
`, 1, 0)
	var got []string
	for _, p := range run.Pulls {
		got = append(got, fmt.Sprintf("%v: node %d, wave %d after %d", p.At, p.Node, p.Wave, p.After))
	}
	want := []string{"0s: node 0, wave 1 after 0", "0s: node 1, wave 1 after 0", "10s: node 2, wave 2 after 1", "10s: node 3, wave 2 after 1", "20s: node 4, wave 3 after 2",
		"1m0s: node 0, wave 4 after 0", "1m0s: node 1, wave 4 after 0", "1m0s: node 2, wave 4 after 0", "1m0s: node 3, wave 4 after 0", "1m0s: node 4, wave 5 after 4",
		"2m0s: node 0, wave 0 after 0"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	run.Pulls[2].After = 2
	if err := run.Validate(); err == nil {
		t.Error("a wave that waits for itself is valid")
	}
}

func TestDefaultFaults(t *testing.T) {
	run := expand(t, `
topology: {nodes: 4}
images: [{layers: 1MiB}]
faults:
  - {kind: origin-throttle, at: 1s, for: 1s}
  - {kind: origin-error, at: 3s, for: 1s, nodes: 2-3}
  - {kind: origin-reset, at: 3s, for: 1s}
  - {kind: partition, role: coordinator, at: 4s, for: 1s, one_way: true}
  - {kind: clock-skew, nodes: [0, 2-3], delay: -5s, part: -0.1%}
`, 1, 0)
	want := []scenario.Fault{
		{Kind: scenario.ClockSkew, Nodes: []int{0, 2, 3}, Delay: -5 * time.Second, Part: -1000, Line: 9},
		{Kind: scenario.OriginThrottle, At: time.Second, For: time.Second, Delay: time.Second, Line: 5},
		{Kind: scenario.OriginError, At: 3 * time.Second, For: time.Second, Nodes: []int{2, 3}, Status: 503, Line: 6},
		{Kind: scenario.OriginReset, At: 3 * time.Second, For: time.Second, Part: 1_000_000, Line: 7},
		{Kind: scenario.Partition, At: 4 * time.Second, For: time.Second, Role: scenario.Coordinator, OneWay: true, Line: 8},
	}
	if !reflect.DeepEqual(run.Faults, want) {
		t.Errorf("faults\n%+v, want\n%+v", run.Faults, want)
	}
}

// Without a name a scenario has its file's, as far as that can be one.
func TestNames(t *testing.T) {
	for file, want := range map[string]string{
		"dir/mine.yaml": "mine", "my scenario (2).yml": "my-scenario--2-", ".yaml": "scenario", "ä.yaml": "scenario", strings.Repeat("x", 300): strings.Repeat("x", 100),
	} {
		s, err := scenario.Parse(file, []byte("topology: {nodes: 1}\nimages: [{layers: 1MiB}]\n"))
		if err != nil || s.Name != want {
			t.Errorf("%s: %+v, %v", file, s, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for name, spoil := range map[string]func(r *scenario.Run){
		"a node in no rack":             func(r *scenario.Run) { r.Nodes[3].Rack = 99 },
		"a node in another zone":        func(r *scenario.Run) { r.Nodes[3].Zone = 1 },
		"a negative rate":               func(r *scenario.Run) { r.Nodes[3].Up = -1 },
		"nobody from the start":         func(r *scenario.Run) { r.Nodes = r.Nodes[:1]; r.Nodes[0].Joins = time.Second },
		"no zones":                      func(r *scenario.Run) { r.Zones = nil },
		"a negative latency":            func(r *scenario.Run) { r.Latency.Far = -1 },
		"no delays":                     func(r *scenario.Run) { r.DHT.Delays = nil },
		"delays that descend":           func(r *scenario.Run) { r.DHT.Delays = []time.Duration{2, 1} },
		"no time":                       func(r *scenario.Run) { r.Limits.Time = 0 },
		"an empty blob":                 func(r *scenario.Run) { r.Blobs[0].Size = 0 },
		"two blobs of a name":           func(r *scenario.Run) { r.Blobs[0].Name = r.Blobs[1].Name },
		"an image without layers":       func(r *scenario.Run) { r.Images[0].Layers = nil },
		"an image without a manifest":   func(r *scenario.Run) { r.Images[0].Manifest = r.Images[0].Layers[0] },
		"a pull of nothing":             func(r *scenario.Run) { r.Pulls[0].Image = 99 },
		"pulls that descend":            func(r *scenario.Run) { r.Pulls[0].At = time.Hour / 2 },
		"a pull before its node joins":  func(r *scenario.Run) { r.Nodes[r.Pulls[0].Node].Joins = time.Hour / 2 },
		"a fault of no kind":            func(r *scenario.Run) { r.Faults[0].Kind = "x" },
		"a fault on nobody":             func(r *scenario.Run) { r.Faults[0].Nodes = nil },
		"a fault on a node too many":    func(r *scenario.Run) { r.Faults[0].Nodes[0] = 100 },
		"a fault on a node twice":       func(r *scenario.Run) { r.Faults[0].Nodes[0] = r.Faults[0].Nodes[1] },
		"a fault in negative time":      func(r *scenario.Run) { r.Faults[0].At = -1 },
		"a release rule that is none":   func(r *scenario.Run) { r.Verify = "" },
		"a rate limit without a window": func(r *scenario.Run) { r.Origin.Limits = []scenario.RateLimit{{Requests: 1}} },
	} {
		run := expand(t, base+"faults:\n  - {kind: crash, nodes: 30%, at: 10s}\n", 1, 0)
		spoil(run)
		if err := run.Validate(); err == nil {
			t.Errorf("%s is valid", name)
		}
	}
}
