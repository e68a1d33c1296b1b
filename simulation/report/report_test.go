package report

import (
	"math"
	"slices"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/scenario"
)

const (
	mib  = 1 << 20
	gbit = 125_000_000
)

// about is what tests say of the binary.
var about = About{Description: "What does a rollout cost?", Version: "v1.2.3", Commit: "0123abcd", Go: "go1.26", Platform: "linux/amd64",
	Command: "peercache simulate sample --seed 7"}

// sample is a run of some nodes in two zones and an outcome as it might be, made by
// hand.
func sample(nodes int) (*scenario.Run, *simulation.Result) {
	run := &scenario.Run{
		Name: "sample", Seed: 7, Zones: []scenario.Zone{{Name: "a", Up: 10 * gbit, Down: 10 * gbit, Paid: true}, {Name: "b", Up: 10 * gbit, Down: 10 * gbit, Paid: true}},
		Racks:   []scenario.Rack{{Zone: 0, Up: 40 * gbit, Down: 40 * gbit}, {Zone: 1, Up: 40 * gbit, Down: 40 * gbit}},
		Latency: scenario.Latency{Rack: 100 * time.Microsecond, Zone: 300 * time.Microsecond, Far: time.Millisecond, Origin: 10 * time.Millisecond},
		DHT:     scenario.DHT{Delays: []time.Duration{2 * time.Millisecond}, Misses: 10_000},
		Origin:  scenario.Origin{Link: 10 * gbit, Delay: 20 * time.Millisecond, Limits: []scenario.RateLimit{{Manifests: true, Requests: 100, Window: 6 * time.Hour}}},
		Blobs:   []scenario.Blob{{Name: "m", Size: 2000, Manifest: true}, {Name: "l0", Size: 600 * mib}, {Name: "l1", Size: 400 * mib}},
		Images:  []scenario.Image{{Name: "app", Manifest: 0, Layers: []int{1, 2}}},
		Limits:  scenario.Limits{Time: 10 * time.Minute, Deadline: 5 * time.Minute, Egress: 1_100_000, HonestBans: time.Minute},
		Verify:  "member",
		Faults: []scenario.Fault{
			{Kind: scenario.Crash, At: 10 * time.Second, Nodes: []int{1, 2, 3}},
			{Kind: scenario.OriginOutage, At: 20 * time.Second, For: 8 * time.Second},
		},
	}
	res := &simulation.Result{
		ChunkTime: 8 * time.Millisecond, Optimum: 45 * time.Second, UniqueBytes: 1000*mib + 2000, OriginBytes: 1010 * mib, OriginDelivered: 1005 * mib,
		CutBytes: 12 * mib, OriginRequests: 70, ManifestRequests: 1, Throttled: 2, Events: 1_234_567, Steps: 456_789, Trace: 0xfeed,
		Wall: 3500 * time.Millisecond, Recovery: 700 * time.Millisecond,
		Capacity: [simulation.LinkClasses]int64{simulation.Access: int64(nodes) * gbit, simulation.RackUplink: 160 * gbit, simulation.ZoneUplink: 40 * gbit, simulation.PaidUplink: 40 * gbit, simulation.OriginLink: 10 * gbit},
		Invariants: []simulation.Invariant{
			{Name: "wrong-bytes", Rule: "No response is completed with wrong bytes.", Checks: 1000},
			{Name: "egress", Rule: "The origin sends each byte once for each connected component.", Checks: 300},
		},
	}
	res.Messages[policy.MsgHave], res.Messages[policy.MsgState] = int64(nodes)*900, int64(nodes)*120
	res.Metrics[policy.CountTakeover], res.Metrics[policy.CountBusy] = 1, 4321
	for i := range nodes {
		run.Nodes = append(run.Nodes, scenario.Node{Zone: i % 2, Rack: i % 2, Up: gbit, Down: gbit, Disk: 500 * mib})
		at := time.Duration(i) * 10 * time.Second / time.Duration(nodes)
		run.Pulls = append(run.Pulls, scenario.Pull{At: at, Node: i})
		p := simulation.PullResult{Node: i, Begun: at, First: at + 300*time.Millisecond + time.Duration(i%7)*50*time.Millisecond}
		if i == 1 {
			p.Excused = true
		} else {
			p.Done = 38*time.Second + time.Duration(10e9*math.Sqrt(float64(i)/float64(nodes)))
			res.Completion = append(res.Completion, p.Done-p.Begun)
			res.FirstByte = append(res.FirstByte, p.First-p.Begun)
			res.Makespan = max(res.Makespan, p.Done)
		}
		res.Pulls = append(res.Pulls, p)
	}
	slices.Sort(res.Completion)
	slices.Sort(res.FirstByte)
	res.PeerBytes = int64(nodes-1) * 1000 * mib
	const points = 200
	for i := range points {
		f := float64(i+1) / points
		p := simulation.Point{At: time.Duration(f * float64(res.Makespan)), FromOrigin: int64(1005 * mib * math.Min(1, 1.5*f)), Egress: int64(1010 * mib * math.Min(1, 1.5*f)),
			FromPeers: int64(float64(res.PeerBytes) * f * f * (3 - 2*f)), FromStore: int64(f * 100 * mib), Messages: int64(f * 1020 * float64(nodes))}
		p.Links = [simulation.LinkClasses]int64{simulation.Access: p.FromPeers + p.Egress, simulation.RackUplink: p.FromPeers, simulation.ZoneUplink: p.FromPeers / 10,
			simulation.PaidUplink: p.FromPeers / 10, simulation.OriginLink: p.Egress}
		res.Links = p.Links
		res.Series = append(res.Series, p)
	}
	return run, res
}
