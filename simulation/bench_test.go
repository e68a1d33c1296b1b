package simulation

import (
	"testing"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// BenchmarkFlashCrowd is the fluid model of the policy: what a rule costs shows
// here first. One iteration is one run:
//
//	go test ./simulation/ -run - -bench FlashCrowd -benchtime 1x
func BenchmarkFlashCrowd(b *testing.B) {
	const mib = 1 << 20
	half := 11 * time.Second
	for _, bench := range []struct {
		name string
		w    crowd
	}{
		{"n=8", crowd{nodes: 8, size: 256 * mib}},
		{"n=16", crowd{nodes: 16, size: 256 * mib}},
		{"n=16-equal-share", crowd{nodes: 16, size: 256 * mib, opt: Options{Sharing: EqualShare}}},
		{"n=16-layers", crowd{nodes: 16, size: 256 * mib, layers: 5}},
		{"n=16-slow-origin", crowd{nodes: 16, size: 256 * mib, origin: 12_500_000 / 4}},
		{"n=20-stagger", crowd{nodes: 20, size: 256 * mib, stagger: 5 * time.Second}},
		{"n=16-strict", crowd{nodes: 16, size: 256 * mib,
			opt: Options{Tune: strict}}},
		{"n=16-kill-coordinator", crowd{nodes: 16, size: 256 * mib, faults: []scenario.Fault{{Kind: scenario.Crash, Role: scenario.Coordinator, At: half}}}},
		{"n=16-kill-fetcher", crowd{nodes: 16, size: 256 * mib, faults: []scenario.Fault{{Kind: scenario.Crash, Role: scenario.Fetcher, At: half}}}},
		{"n=16-kill-two", crowd{nodes: 16, size: 256 * mib, faults: []scenario.Fault{{Kind: scenario.Crash, Nodes: []int{3, 11}, At: half}}}},
		{"n=16-corrupt", crowd{nodes: 16, size: 256 * mib, faults: []scenario.Fault{{Kind: scenario.Corrupt, Nodes: []int{5}}}}},
		{"n=16-stall", crowd{nodes: 16, size: 256 * mib, faults: []scenario.Fault{{Kind: scenario.Stall, Nodes: []int{5}}}}},
		{"n=16-corrupt-stall", crowd{nodes: 16, size: 256 * mib,
			faults: []scenario.Fault{{Kind: scenario.Corrupt, Nodes: []int{5}}, {Kind: scenario.Stall, Nodes: []int{6}}}}},
		{"n=16-forge", crowd{nodes: 16, size: 256 * mib, retries: 5, faults: []scenario.Fault{{Kind: scenario.Forge, Nodes: []int{5}}}}},
		{"n=100", crowd{nodes: 100, size: 256 * mib}},
		{"n=1000", crowd{nodes: 1000, size: 256 * mib}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			if testing.Short() && bench.w.nodes > 64 {
				b.Skip("large")
			}
			if bench.w.nodes <= 64 && bench.name != "n=16-equal-share" {
				bench.w.opt.Sharing = MaxMin
			}
			b.ReportAllocs()
			var r *Result
			var events int64
			for range b.N {
				r = bench.w.simulate(b)
				events += r.Events
			}
			unit := float64(r.ChunkTime)
			b.ReportMetric(r.Slowdown(), "makespan/T*")
			b.ReportMetric(r.Copies(), "copies")
			b.ReportMetric(float64(Percentile(r.Completion, 99))/float64(max(Percentile(r.Completion, 50), 1)), "p99/p50")
			b.ReportMetric(float64(Percentile(r.FirstByte, 99))/unit, "first-byte-chunks")
			b.ReportMetric(float64(r.MessageCount())/float64(bench.w.nodes), "messages/node")
			b.ReportMetric(float64(r.Unserved), "unserved")
			if r.Recovery > 0 {
				b.ReportMetric(r.Recovery.Seconds(), "recovery-s")
			}
			b.ReportMetric(float64(b.Elapsed())/float64(events), "ns/event")
		})
	}
}
