package simulation

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// inWindows has time go in windows whatever the number of nodes, with some workers.
func inWindows(workers int) Options { return Options{Workers: workers, manyNodes: 1} }

// strained is a run of some nodes of which some die, are slow or lie, with an origin that fails.
func strained(seed uint64, nodes int) *scenario.Run {
	w := crowd{nodes: nodes, size: 16 * mib, layers: 2, seed: seed, manifest: 1500, zones: 2, retries: 60, latency: 200 * time.Microsecond,
		originDelay: 5 * ms, origin: 60 * mib, stagger: 500 * ms}
	some := func(first int) (nodes []int) {
		for i := first; i < w.nodes; i += w.nodes / 4 {
			nodes = append(nodes, i)
		}
		return nodes
	}
	w.faults = []scenario.Fault{
		{Kind: scenario.Lie, At: 10 * ms, Nodes: []int{7}},
		{Kind: scenario.Corrupt, At: 20 * ms, Nodes: []int{11}},
		{Kind: scenario.SlowNIC, At: 300 * ms, For: 4 * time.Second, Nodes: some(20), Rate: 2 * mib},
		{Kind: scenario.SlowNode, At: 400 * ms, For: 2 * time.Second, Nodes: some(21), Delay: 20 * ms},
		{Kind: scenario.OriginError, At: 600 * ms, For: 700 * ms, Status: 503},
		{Kind: scenario.Crash, At: 900 * ms, Role: scenario.Coordinator, Restart: time.Second},
		{Kind: scenario.Crash, At: 1100 * ms, Role: scenario.Fetcher},
		{Kind: scenario.Crash, At: 1500 * ms, Nodes: some(22), Restart: 800 * ms},
		{Kind: scenario.OriginReset, At: 1600 * ms, For: time.Second, Part: 300_000},
		{Kind: scenario.Crash, At: 2200 * ms, Nodes: some(23)},
		{Kind: scenario.Partition, At: 2300 * ms, For: 6 * time.Second, Nodes: some(24)},
	}
	return w.run()
}

// With any number of goroutines, and of CPUs, a run is the same.
func TestWindowsAreTheSameWithAnyWorkers(t *testing.T) {
	run := strained(3, 80)
	want := simulate(t, run, inWindows(1))
	for _, tc := range []struct{ workers, cpus int }{{2, 2}, {3, 2}, {2, 1}} {
		t.Run(fmt.Sprintf("workers=%d,cpus=%d", tc.workers, tc.cpus), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(tc.cpus))
			got := simulate(t, run, inWindows(tc.workers))
			got.Wall = want.Wall
			if !reflect.DeepEqual(got, want) {
				t.Errorf("trace %x, makespan %v, %d events; with one worker %x, %v, %d", got.Trace, got.Makespan, got.Events, want.Trace, want.Makespan, want.Events)
			}
		})
	}
}

// Where nothing goes wrong, time in windows makes of a run what is made of it one event after the
// other, but for chance.
func TestWindowsComeToTheSame(t *testing.T) {
	if searchSeedsDefault < 12 {
		t.Skip("with the race detector it takes long, and the others race as much")
	}
	var sum [2]struct{ makespan, median, messages, transfers float64 }
	for seed := range uint64(10) { // of three the medians differ by 3 % by chance
		for k, opt := range []Options{{}, inWindows(2)} {
			r := crowd{nodes: 200, size: 24 * mib, seed: seed, zones: 2, latency: 200 * time.Microsecond, origin: 60 * mib, manifest: 1500, opt: opt}.simulate(t)
			if r.OriginBytes != r.UniqueBytes || r.Unserved > 0 {
				t.Errorf("seed %d, windows %v: %.3f copies, %d unserved", seed, k == 1, r.Copies(), r.Unserved)
			}
			s := &sum[k]
			s.makespan += r.Makespan.Seconds()
			s.median += Percentile(r.Completion, 50).Seconds()
			s.messages += float64(r.MessageCount())
			s.transfers += float64(r.Transfers)
			t.Logf("seed %d, windows %v: makespan %v, %d messages, %d transfers, %d events", seed, k == 1, r.Makespan, r.MessageCount(), r.Transfers, r.Events)
		}
	}
	near := func(what string, a, b, part float64) {
		if b < a*(1-part) || b > a*(1+part) {
			t.Errorf("%s: %.4g, in windows %.4g", what, a, b)
		}
	}
	near("makespan", sum[0].makespan, sum[1].makespan, 0.2) // it is the last node's
	near("median", sum[0].median, sum[1].median, 0.05)
	near("messages", sum[0].messages, sum[1].messages, 0.05)
	near("transfers", sum[0].transfers, sum[1].transfers, 0.1)
}

// Where much goes wrong, every invariant holds one event after the other and in windows, everybody
// is served, and no byte gets lost.
func TestStrainedInWindows(t *testing.T) {
	for k, opt := range []Options{{}, inWindows(2)} {
		r := simulate(t, strained(0, 250), opt)
		for _, v := range r.Invariants {
			if v.Violations > 0 || v.Checks == 0 {
				t.Errorf("windows %v: %s: %d checks, broken %d times: %s", k == 1, v.Name, v.Checks, v.Violations, v.First)
			}
		}
		if r.Unserved > 0 || r.Killed == 0 || len(r.Completion) < 240 {
			t.Errorf("windows %v: %d unserved, %d killed, %d complete: %v", k == 1, r.Unserved, r.Killed, len(r.Completion), statuses(r))
		}
		accounted(t, r, fmt.Sprintf("windows %v", k == 1))
		t.Logf("windows %v: makespan %v, %.3f copies, %d messages, %d events", k == 1, r.Makespan, r.Copies(), r.MessageCount(), r.Events)
	}
}

// About everything that can go wrong goes wrong in windows, too.
func TestMixedRunsInWindows(t *testing.T) {
	for _, sharing := range []Sharing{MaxMin, LeveledShare} {
		for seed := range uint64(2) {
			opt := inWindows(2)
			opt.Sharing = sharing
			r := simulate(t, mixed(seed), opt)
			if r.Unserved > 0 {
				t.Errorf("sharing %d, seed %d: %d unserved: %v", sharing, seed, r.Unserved, statuses(r))
			}
			for _, v := range r.Invariants {
				if v.Violations > 0 {
					t.Errorf("sharing %d, seed %d: %s broken %d times: %s", sharing, seed, v.Name, v.Violations, v.First)
				}
			}
		}
	}
}

// A random cluster in windows breaks no invariant either.
func TestFaultSearchInWindows(t *testing.T) {
	if *searchSeeds == 0 {
		t.Skip("no -search-seeds")
	}
	seeds := max(*searchSeeds/8, 1)
	res, err := Search(context.Background(), SearchConfig{Seeds: seeds, From: *searchFrom, Options: inWindows(1)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range res.Failures {
		t.Error(&res.Failures[i])
	}
	t.Logf("%d runs, %d faults, %d events", res.Runs, res.Faults, res.Events)
}

// No event is handed to a core before one that it was handed earlier, nothing is planned for what
// was gathered already, and what comes from another node takes its latency to the nanosecond.
func TestWindowsKeepLatencies(t *testing.T) {
	const latency = 200 * time.Microsecond
	w := crowd{nodes: 60, size: 16 * mib, latency: latency}
	last := make([]time.Duration, w.nodes)
	for i := range last {
		last[i] = -time.Duration(startTime) // when they were connected
	}
	type have struct {
		from  chunkindex.NodeID
		to    int
		chunk int
	}
	sent := map[have][]time.Duration{}
	heard, back := 0, 0
	opt := inWindows(2)
	opt.Observe = func(at time.Duration, node int, ev *policy.Event, effects []policy.Effect) {
		if at < last[node] {
			back++
		}
		last[node] = at
		if ev.Kind == policy.EvMessage && ev.Msg.Kind == policy.MsgHave {
			k := have{ev.Peer, node, ev.Msg.Chunk}
			if i := slices.Index(sent[k], at-latency); i < 0 {
				t.Errorf("node %d hears at %v what was sent at %v", node, at, sent[k])
			}
			heard++
		}
		for i := range effects {
			if e := &effects[i]; e.Kind == policy.EfSend && e.Msg.Kind == policy.MsgHave {
				k := have{nodeID(node), int(e.Peer[len(e.Peer)-2])<<8 | int(e.Peer[len(e.Peer)-1]), e.Msg.Chunk}
				sent[k] = append(sent[k], at)
			}
		}
	}
	simulate(t, w.run(), opt)
	if back > 0 || heard < 1000 {
		t.Errorf("%d events before earlier ones of their core; %d messages heard", back, heard)
	}
}

// Few nodes, no latency and somebody who looks at the cluster itself: one event after the other.
func TestLookahead(t *testing.T) {
	for name, tc := range map[string]struct {
		nodes     int
		rack, far time.Duration
		opt       Options
		want      int64
	}{
		"few":       {nodes: ManyNodes - 1, rack: ms, far: ms},
		"many":      {nodes: ManyNodes, rack: 100 * time.Microsecond, far: ms, want: 100_000},
		"odd":       {nodes: ManyNodes, rack: 101, far: ms, want: 100},
		"slow":      {nodes: ManyNodes, rack: ms, far: 2 * ms, want: mostLate},
		"no time":   {nodes: ManyNodes, rack: 0, far: ms},
		"as wished": {nodes: 3, rack: ms, far: 7, opt: Options{manyNodes: 3}, want: 6},
		"watched":   {nodes: ManyNodes, rack: ms, far: ms, opt: Options{sample: func(*cluster) {}}},
	} {
		c := &cluster{nodes: make([]*node, tc.nodes), opt: tc.opt,
			run: &scenario.Run{Latency: scenario.Latency{Rack: tc.rack, Zone: tc.far, Far: tc.far}}}
		if got := c.lookahead(); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
}

// A run in windows ends in the middle when it is told to, and says so.
func TestWindowsEndInTheMiddle(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	opt := inWindows(2)
	opt.Progress = func(p Progress) {
		if p.Events > 0 {
			cancel()
		}
	}
	r, err := Simulate(ctx, crowd{nodes: 200, size: 64 * mib}.run(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Partial || r.Events == 0 || len(r.Completion) == 200 {
		t.Errorf("partial %v, %d events, %d complete", r.Partial, r.Events, len(r.Completion))
	}
}
