package simulation

import (
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
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
		cfg  Config
	}{
		{"n=8", Config{Nodes: 8, Size: 256 * mib}},
		{"n=16", Config{Nodes: 16, Size: 256 * mib}},
		{"n=16-equal-share", Config{Nodes: 16, Size: 256 * mib, Sharing: EqualShare}},
		{"n=16-layers", Config{Nodes: 16, Size: 256 * mib, Layers: 5}},
		{"n=16-slow-origin", Config{Nodes: 16, Size: 256 * mib, Origin: 12_500_000 / 4}},
		{"n=20-stagger", Config{Nodes: 20, Size: 256 * mib, Stagger: 5 * time.Second}},
		{"n=16-strict", Config{Nodes: 16, Size: 256 * mib,
			Tune: func(_ int, p *policy.Config) { p.Verify = policy.VerifyStrict }}},
		{"n=16-kill-coordinator", Config{Nodes: 16, Size: 256 * mib, Faults: []Fault{{Who: Coordinator, At: half}}}},
		{"n=16-kill-fetcher", Config{Nodes: 16, Size: 256 * mib, Faults: []Fault{{Who: Fetcher, At: half}}}},
		{"n=16-kill-two", Config{Nodes: 16, Size: 256 * mib, Faults: []Fault{{Node: 3, At: half}, {Node: 11, At: half}}}},
		{"n=16-corrupt", Config{Nodes: 16, Size: 256 * mib, Faults: []Fault{{Kind: Corrupt, Node: 5}}}},
		{"n=16-stall", Config{Nodes: 16, Size: 256 * mib, Faults: []Fault{{Kind: Stall, Node: 5}}}},
		{"n=16-corrupt-stall", Config{Nodes: 16, Size: 256 * mib,
			Faults: []Fault{{Kind: Corrupt, Node: 5}, {Kind: Stall, Node: 6}}}},
		{"n=16-forge", Config{Nodes: 16, Size: 256 * mib, Retries: 5, Faults: []Fault{{Kind: Forge, Node: 5}}}},
		{"n=100", Config{Nodes: 100, Size: 256 * mib, Sharing: EqualShare}},
		{"n=1000", Config{Nodes: 1000, Size: 256 * mib, Sharing: EqualShare}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			if testing.Short() && bench.cfg.Nodes > 64 {
				b.Skip("large")
			}
			if bench.cfg.Nodes <= 64 && bench.name != "n=16-equal-share" {
				bench.cfg.Sharing = MaxMin
			}
			b.ReportAllocs()
			var r *Result
			var events int64
			for range b.N {
				var err error
				if r, err = FlashCrowd(bench.cfg); err != nil {
					b.Fatal(err)
				}
				events += r.Events
			}
			if r.WrongCompletions > 0 {
				b.Errorf("%d responses with wrong bytes", r.WrongCompletions)
			}
			unit := float64(r.ChunkTime)
			b.ReportMetric(r.Slowdown(), "makespan/T*")
			b.ReportMetric(r.Copies(), "copies")
			b.ReportMetric(float64(Percentile(r.Completion, 99))/float64(max(Percentile(r.Completion, 50), 1)), "p99/p50")
			b.ReportMetric(float64(Percentile(r.FirstByte, 99))/unit, "first-byte-chunks")
			b.ReportMetric(float64(r.MessageCount())/float64(bench.cfg.Nodes), "messages/node")
			b.ReportMetric(float64(r.Unserved), "unserved")
			if r.Recovery > 0 {
				b.ReportMetric(r.Recovery.Seconds(), "recovery-s")
			}
			b.ReportMetric(float64(b.Elapsed())/float64(events), "ns/event")
		})
	}
}
