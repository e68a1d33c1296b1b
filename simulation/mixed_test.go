package simulation

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// mixed is a run in which about everything is and goes wrong that a scenario can
// say: 24 nodes in three zones of two racks, two images that share a layer, a cluster
// that grows, and every kind of fault.
func mixed(seed uint64) *scenario.Run {
	r := &scenario.Run{Name: "mixed", Seed: seed, Verify: "member",
		Latency: scenario.Latency{Rack: 100 * time.Microsecond, Zone: 300 * time.Microsecond, Far: 4 * ms, Origin: 10 * ms, Queue: 5 * ms},
		DHT:     scenario.DHT{Delays: []time.Duration{ms, 3 * ms, 20 * ms}, Misses: 20_000, Publish: 30 * ms},
		Costs: scenario.Costs{Message: 40 * time.Microsecond, Open: 500 * time.Microsecond, Store: ms, Hash: 2 * ms, Publish: 3 * ms,
			Overhead: 40_000, Request: 200 * time.Microsecond, Buffer: 256 << 10},
		Origin: scenario.Origin{Link: 40 * mib, Connection: 20 * mib, Connections: 30, Delay: 20 * ms, Readers: 20,
			Limits: []scenario.RateLimit{{Manifests: true, Requests: 50, Window: time.Minute}, {PerNode: true, Requests: 100, Window: 10 * time.Second}}},
		Limits: scenario.Limits{Time: 5 * time.Minute},
	}
	sizes := []int64{20*mib + 17, 30 * mib, 700_000, 45*mib + 1}
	for i, size := range sizes {
		r.Blobs = append(r.Blobs, scenario.Blob{Name: fmt.Sprint("layer ", i), Size: size})
	}
	r.Blobs = append(r.Blobs, scenario.Blob{Name: "manifest 0", Size: 3000, Manifest: true}, scenario.Blob{Name: "manifest 1", Size: 4000, Manifest: true})
	r.Images = []scenario.Image{{Name: "a", Manifest: 4, Layers: []int{0, 1, 2}}, {Name: "b", Manifest: 5, Layers: []int{2, 3, 0}}}
	for z := range 3 {
		r.Zones = append(r.Zones, scenario.Zone{Name: fmt.Sprint("zone ", z), Up: 60 * mib, Down: 60 * mib, Paid: z > 0})
		for range 2 {
			r.Racks = append(r.Racks, scenario.Rack{Zone: z, Up: 100 * mib, Down: 100 * mib})
		}
	}
	for i := range 24 {
		n := scenario.Node{Rack: i % 6, Zone: i % 6 / 2, Up: 30 * mib, Down: int64(30+i%3*10) * mib, Disk: 200 * mib, Space: 200 * mib}
		if i >= 20 {
			n.Joins = time.Second
		}
		r.Nodes = append(r.Nodes, n)
	}
	for i := range 48 {
		r.Pulls = append(r.Pulls, scenario.Pull{At: time.Duration(i/2) * 60 * ms, Node: i / 2, Image: i % 2, Parallel: 1 + i%3, Retries: 60})
	}
	one := func(i int) []int { return []int{i} }
	r.Faults = []scenario.Fault{
		{Kind: scenario.StaleDHT, For: 400 * ms},
		{Kind: scenario.Mute, At: 100 * ms, For: 2 * time.Second, Nodes: one(5)},
		{Kind: scenario.Lie, At: 150 * ms, For: 2 * time.Second, Nodes: one(6)},
		{Kind: scenario.Corrupt, At: 200 * ms, For: 2 * time.Second, Nodes: one(7)},
		{Kind: scenario.Loss, At: 250 * ms, For: 2 * time.Second, Nodes: []int{8, 9}, Part: 20_000},
		{Kind: scenario.SlowNIC, At: 300 * ms, For: 2 * time.Second, Nodes: one(10), Rate: 2 * mib},
		{Kind: scenario.SlowDisk, At: 350 * ms, For: 2 * time.Second, Nodes: one(11), Rate: 2 * mib},
		{Kind: scenario.SlowNode, At: 400 * ms, For: 2 * time.Second, Nodes: one(12), Delay: 5 * ms},
		{Kind: scenario.OriginReset, At: 500 * ms, For: time.Second, Part: 300_000},
		{Kind: scenario.Crash, At: 600 * ms, Role: scenario.Coordinator, Restart: time.Second},
		{Kind: scenario.Forge, At: 700 * ms, For: time.Second, Nodes: one(13)},
		{Kind: scenario.Partition, At: 800 * ms, For: 7 * time.Second, Nodes: []int{1, 7}},
		{Kind: scenario.Partition, At: 900 * ms, For: time.Second, Nodes: []int{14, 15}, OneWay: true},
		{Kind: scenario.OriginThrottle, At: time.Second, For: 300 * ms, Delay: time.Second},
		{Kind: scenario.Drain, At: 1100 * ms, Nodes: []int{16}, Notice: 500 * ms, Restart: 3 * time.Second},
		{Kind: scenario.FullDisk, At: 1200 * ms, For: time.Second, Nodes: one(17)},
		{Kind: scenario.ClockSkew, At: 1300 * ms, For: 5 * time.Second, Nodes: []int{18, 19}, Delay: -500 * ms, Part: 100_000},
		{Kind: scenario.Rot, At: 1400 * ms, Nodes: one(2), Part: 50_000},
		{Kind: scenario.Stall, At: 1500 * ms, For: 2 * time.Second, Nodes: one(3)},
		{Kind: scenario.Offline, At: 1600 * ms, For: 2 * time.Second, Nodes: []int{4, 20}},
		{Kind: scenario.OriginError, At: 2 * time.Second, For: 500 * ms, Status: 503},
		{Kind: scenario.OriginStall, At: 3 * time.Second, For: 700 * ms},
		{Kind: scenario.ExpiredToken, At: 3500 * ms, For: time.Second, Nodes: []int{0, 1, 2}},
		{Kind: scenario.OriginOutage, At: 4 * time.Second, For: 2 * time.Second},
		{Kind: scenario.Crash, At: 4500 * ms, Nodes: []int{22}},
	}
	return r
}

// goldenTrace is the trace of mixed(1), on every machine. It changes with whatever the
// policy, the simulator or mixed do differently, and only then: a change that means to
// change nothing leaves it as it is, and one that means to puts the new value here.
const goldenTrace = 0xb128d019a37592aa

func TestGoldenTrace(t *testing.T) {
	if r := simulate(t, mixed(1), Options{}); r.Trace != goldenTrace {
		t.Errorf("the trace is %#x, and was %#x; makespan %v, %d events", r.Trace, uint64(goldenTrace), r.Makespan, r.Events)
	}
}

// A run is a function of what is run, whatever goes wrong in it, and all of it heals.
func TestMixedRunsAreRepeated(t *testing.T) {
	for _, sharing := range []Sharing{EqualShare, MaxMin, LeveledShare} {
		for seed := range uint64(2) {
			a, b := simulate(t, mixed(seed), Options{Sharing: sharing}), simulate(t, mixed(seed), Options{Sharing: sharing})
			a.Wall, b.Wall = 0, 0
			if !reflect.DeepEqual(a, b) {
				t.Errorf("sharing %d, seed %d: two runs differ: traces %x and %x, makespans %v and %v", sharing, seed, a.Trace, b.Trace, a.Makespan, b.Makespan)
			}
			if a.Unserved > 0 {
				t.Errorf("sharing %d, seed %d: %d unserved: %v", sharing, seed, a.Unserved, statuses(a))
			}
			accounted(t, a, fmt.Sprintf("sharing %d, seed %d", sharing, seed))
		}
	}
}

// accounted checks that no byte of a run got lost, and none was counted twice.
func accounted(t *testing.T, r *Result, run string) {
	t.Helper()
	sent, received := r.OriginSent, int64(0)
	for i := range r.Sent {
		sent += r.Sent[i]
		received += r.Received[i]
	}
	if used := r.OriginDelivered + r.PeerBytes + r.CutBytes; sent != received || sent != used || r.OriginSent != r.OriginBytes {
		t.Errorf("%s: %d bytes sent, %d received, %d accounted for; the origin's link carried %d, %d were counted",
			run, sent, received, used, r.OriginSent, r.OriginBytes)
	}
}
