package simulation

import (
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// originFault is what a lone node with 8 MiB at 8 MiB a second makes of a fault
// of the origin, which begins at once and lasts for a while.
func originFault(t *testing.T, f scenario.Fault) *Result {
	t.Helper()
	return crowd{nodes: 1, size: 8 * mib, up: 8 * mib, retries: 1000, faults: []scenario.Fault{f}}.simulate(t)
}

func TestOriginThrottles(t *testing.T) {
	// It is asked to wait for two seconds, and does, for up to a tenth more; the
	// next answer is the same, and the one after that comes after the fault.
	r := originFault(t, scenario.Fault{Kind: scenario.OriginThrottle, For: 3 * time.Second, Delay: 2 * time.Second})
	between(t, "makespan", r.Makespan, 5*time.Second, 6*time.Second)
	if r.Throttled != 2 || r.OriginRequests != 3 || r.Failures != 0 {
		t.Errorf("%d throttled of %d requests, %d failures", r.Throttled, r.OriginRequests, r.Failures)
	}
	// Nobody asks before the time is up.
	r = originFault(t, scenario.Fault{Kind: scenario.OriginThrottle, For: time.Second, Delay: 20 * time.Second})
	between(t, "makespan", r.Makespan, 21*time.Second, 24*time.Second)
	if r.Throttled != 1 {
		t.Errorf("%d throttled", r.Throttled)
	}
}

func TestOriginErrors(t *testing.T) {
	// Four attempts within a second bring it over a short one.
	r := originFault(t, scenario.Fault{Kind: scenario.OriginError, For: 300 * ms, Status: 500})
	between(t, "makespan", r.Makespan, 1300*ms, 1900*ms)
	if r.Failures != 0 {
		t.Errorf("%d failures", r.Failures)
	}
	// A long one opens the breaker, and the origin is asked a few times only.
	r = originFault(t, scenario.Fault{Kind: scenario.OriginError, For: time.Minute, Status: 503})
	between(t, "makespan", r.Makespan, 61*time.Second, 82*time.Second)
	between(t, "requests", r.OriginRequests, 4, 40)
	if r.Failures == 0 {
		t.Error("no client was told")
	}
	// That something is not there is an answer, and no reason to ask again.
	w := crowd{nodes: 1, size: 8 * mib, faults: []scenario.Fault{{Kind: scenario.OriginError, Status: 404}}}
	r = w.simulate(t)
	if r.Pulls[0].Status != 404 || r.OriginRequests > 4 {
		t.Errorf("status %d after %d requests", r.Pulls[0].Status, r.OriginRequests)
	}
}

// An answer that breaks off is gone on with: no byte comes twice.
func TestOriginResets(t *testing.T) {
	r := originFault(t, scenario.Fault{Kind: scenario.OriginReset, For: 2 * time.Second, Part: 1_000_000})
	if r.OriginBytes != 8*mib || r.Failures != 0 || r.OriginRequests < 3 {
		t.Errorf("%d bytes in %d requests, %d failures", r.OriginBytes, r.OriginRequests, r.Failures)
	}
	between(t, "makespan", r.Makespan, 1050*ms, 3500*ms)
	w := crowd{nodes: 6, size: 100 * mib, up: 20 * mib, faults: []scenario.Fault{{Kind: scenario.OriginReset, Part: 500_000}}}
	r = w.simulate(t)
	if r.Unserved > 0 || r.OriginBytes < r.UniqueBytes {
		t.Errorf("%d unserved, %d bytes", r.Unserved, r.OriginBytes)
	}
}

// An answer breaks off in its middle: of eleven chunks the sixth is the one that comes in two parts.
func TestOriginResetsInTheMiddle(t *testing.T) {
	w := crowd{nodes: 1, size: 8 * mib, up: 8 * mib, retries: 1000, faults: []scenario.Fault{{Kind: scenario.OriginReset, For: ms * 500, Part: 1_000_000}}}
	var last, longest time.Duration
	var broken int
	w.opt.Observe = func(at time.Duration, _ int, ev *policy.Event, _ []policy.Effect) {
		if ev.Kind == policy.EvOriginChunk {
			if last > 0 && at-last > longest {
				longest, broken = at-last, ev.Chunk
			}
			last = at
		}
	}
	if w.simulate(t); broken != 5 || longest < 130*ms {
		t.Errorf("chunk %d comes last after the one before, by %v; want 5, by more than the 125 ms of a MiB", broken, longest)
	}
}

func TestOriginStalls(t *testing.T) {
	// What was asked for is answered when the origin wakes up.
	r := originFault(t, scenario.Fault{Kind: scenario.OriginStall, For: 2 * time.Second})
	between(t, "makespan", r.Makespan, 3*time.Second, 3100*ms)
	if r.OriginRequests != 1 {
		t.Errorf("%d requests", r.OriginRequests)
	}
	// What has begun stands still; after 5 s the rest is asked for.
	r = originFault(t, scenario.Fault{Kind: scenario.OriginStall, At: 500 * ms, For: 2 * time.Second})
	between(t, "makespan", r.Makespan, 3*time.Second, 3100*ms)
	r = originFault(t, scenario.Fault{Kind: scenario.OriginStall, At: 500 * ms, For: 8 * time.Second})
	between(t, "makespan", r.Makespan, 9*time.Second, 9200*ms)
	if r.OriginBytes != 8*mib || r.OriginRequests < 2 {
		t.Errorf("%d bytes in %d requests", r.OriginBytes, r.OriginRequests)
	}
	// A long one is given up, and tried again.
	r = originFault(t, scenario.Fault{Kind: scenario.OriginStall, For: 2 * time.Minute})
	between(t, "makespan", r.Makespan, 121*time.Second, 142*time.Second)
	if r.Failures == 0 {
		t.Error("no client was told")
	}
}

func TestOriginOutage(t *testing.T) {
	r := originFault(t, scenario.Fault{Kind: scenario.OriginOutage, At: 500 * ms, For: 300 * ms})
	between(t, "makespan", r.Makespan, 1300*ms, 4*time.Second)
	r = originFault(t, scenario.Fault{Kind: scenario.OriginOutage, At: 500 * ms, For: time.Minute})
	between(t, "makespan", r.Makespan, 61*time.Second, 82*time.Second)
	if r.Failures == 0 {
		t.Error("no client was told")
	}
	between(t, "requests", r.OriginRequests, 5, 60)
}

// A token that has expired is an answer; when there is a new one clients that ask
// again are served.
func TestExpiredToken(t *testing.T) {
	r := originFault(t, scenario.Fault{Kind: scenario.ExpiredToken, For: 3 * time.Second})
	between(t, "makespan", r.Makespan, 4*time.Second, 5500*ms)
	if r.Failures == 0 {
		t.Error("no client was told")
	}
	// One that others can read for is not held up.
	w := crowd{nodes: 5, size: 40 * mib, up: 20 * mib, faults: []scenario.Fault{{Kind: scenario.ExpiredToken, Nodes: []int{0, 1, 2}}}}
	r = w.simulate(t)
	if r.Failures != 0 || len(r.Completion) != 5 {
		t.Errorf("%d failures, %d complete", r.Failures, len(r.Completion))
	}
}

// Only some nodes have credentials that the origin accepts: they read for all.
func TestReaders(t *testing.T) {
	run := crowd{nodes: 6, size: 40 * mib, up: 20 * mib, manifest: 1000, retries: 5}.run()
	run.Origin.Readers = 2
	reads := map[int]int{}
	r := simulate(t, run, Options{Observe: func(_ time.Duration, node int, ev *policy.Event, _ []policy.Effect) {
		if ev.Kind == policy.EvOriginHeaders {
			reads[node]++
		}
	}})
	if len(r.Completion) != 6 || len(reads) == 0 {
		t.Errorf("%d failures, %d complete, reads %v", r.Failures, len(r.Completion), reads)
	}
	for node := range reads {
		if node >= 2 {
			t.Errorf("node %d was let in", node)
		}
	}
}

// Limits count what they are about, in windows from the start of the run.
func TestRateLimits(t *testing.T) {
	ask := func(c *cluster, node, blob int, sizeOnly bool) time.Duration {
		return c.overLimit(c.nodes[node], &originRead{blob: int32(blob), sizeOnly: sizeOnly})
	}
	run := crowd{nodes: 2, size: 2 * mib, manifest: 100}.run() // blob 0 is the layer, 1 the manifest
	run.Origin.Limits = []scenario.RateLimit{{Manifests: true, Requests: 2, Window: time.Minute}, {PerNode: true, Requests: 3, Window: 10 * time.Second}}
	c, _ := quiet(t, run)
	for i, want := range []time.Duration{0, 0, time.Minute} {
		if got := ask(c, i%2, 1, false); got != want {
			t.Errorf("manifest %d: %v, want %v", i, got, want)
		}
	}
	// What was refused counted for nothing: node 0 has two left, node 1 too.
	for i, want := range []time.Duration{0, 0, 10 * time.Second} {
		if got := ask(c, 0, 0, false); got != want {
			t.Errorf("layer %d: %v, want %v", i, got, want)
		}
	}
	if got := ask(c, 1, 1, true); got != 0 {
		t.Errorf("a manifest's size: %v", got)
	}
	c.wait(11 * time.Second)
	if got := ask(c, 0, 0, false); got != 0 {
		t.Errorf("in the next window: %v", got)
	}
	if got := ask(c, 0, 1, false); got != 49*time.Second {
		t.Errorf("a manifest after 11 s: %v", got)
	}
}

// A cluster asks for a manifest once, however small the limit is.
func TestClusterStaysWithinALimit(t *testing.T) {
	run := crowd{nodes: 20, size: 20 * mib, up: 50 * mib, manifest: 5000}.run()
	run.Origin.Limits = []scenario.RateLimit{{Manifests: true, Requests: 2, Window: time.Hour}}
	r := simulate(t, run, Options{})
	if r.Throttled != 0 || r.ManifestRequests > 2 || len(r.Completion) != 20 {
		t.Errorf("%d throttled, %d requests for the manifest, %d complete", r.Throttled, r.ManifestRequests, len(r.Completion))
	}
}

// One connection more than the origin serves gets 503.
func TestOriginConnections(t *testing.T) {
	run := crowd{nodes: 1, size: 64 * mib, layers: 4, up: 8 * mib, retries: 100}.run()
	run.Origin.Connections = 1
	r := simulate(t, run, Options{})
	if len(r.Completion) != 1 {
		t.Errorf("%d complete, %d bytes", len(r.Completion), r.OriginBytes)
	}
	run.Origin.Connection = mib
	r = simulate(t, run, Options{})
	between(t, "makespan over one connection of 1 MiB/s", r.Makespan, 64*time.Second, 100*time.Second)
}

// What the wire takes beyond the payload makes links slower, and is in what they
// carried.
func TestOverhead(t *testing.T) {
	run := crowd{nodes: 1, size: 8 * mib, up: 8 * mib}.run()
	run.Costs.Overhead = 250_000
	r := simulate(t, run, Options{})
	between(t, "makespan", r.Makespan, 1250*ms, 1300*ms)
	if r.OriginBytes != 8*mib || r.Links[Access] != 10*mib || r.Links[OriginLink] != 10*mib {
		t.Errorf("%d bytes, links %v", r.OriginBytes, r.Links)
	}
}
