//go:build linux

package simulation

import (
	"flag"
	"fmt"
	"syscall"
	"testing"
	"time"
)

var large = flag.Bool("large", false, "BenchmarkCluster: also 10,000 nodes with 640 chunks, which takes minutes")

// BenchmarkCluster is how fast the simulator is, and how much memory it takes. Wall time
// says little on a machine that others use, so that the CPU's is told too. The peak of
// memory is that of the process: it means something for one case at a time.
//
//	go test ./simulation/ -run - -bench 'Cluster/n=1000,' -benchtime 1x
//	go test ./simulation/ -run - -bench 'Cluster/n=10000,' -benchtime 1x -timeout 2h -large
func BenchmarkCluster(b *testing.B) {
	for _, size := range []struct{ nodes, chunks int }{{100, 256}, {1000, 256}, {10000, 640}} {
		b.Run(fmt.Sprintf("n=%d,chunks=%d", size.nodes, size.chunks), func(b *testing.B) {
			switch {
			case size.nodes > 1000 && !*large:
				b.Skip("only with -large")
			case size.nodes > 100 && testing.Short():
				b.Skip("takes long")
			}
			var events int64
			before, _ := usage(b)
			for range b.N {
				r := crowd{nodes: size.nodes, size: int64(size.chunks) * mib}.simulate(b)
				events += r.Events
				b.ReportMetric(r.Slowdown(), "makespan/T*")
				b.ReportMetric(r.Copies(), "copies")
				b.ReportMetric(float64(r.MessageCount())/float64(size.nodes), "messages/node")
			}
			after, peak := usage(b)
			cpu := after - before
			b.ReportMetric(cpu.Seconds()/float64(b.N), "CPU-s/op")
			b.ReportMetric(float64(cpu)/float64(events), "CPU-ns/event")
			b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(peak)/(1<<20), "peak-RSS-MiB")
		})
	}
}

// usage is what the process has used of the CPU, and the most that it has taken of memory, in
// bytes.
func usage(b *testing.B) (cpu time.Duration, peak int64) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	peak = int64(u.Maxrss) << 10 //nolint:unconvert // of 32 bits on some machines
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), peak
}
