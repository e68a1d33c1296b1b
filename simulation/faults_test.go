package simulation

import (
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// lone is a node that pulls 64 MiB at 1 MiB a second, and what befalls it.
func lone(f scenario.Fault) crowd {
	return crowd{nodes: 1, size: 64 * mib, up: mib, retries: 1000, faults: []scenario.Fault{f}}
}

// between fails unless a value is from low to high.
func between[T int | int64 | time.Duration](t *testing.T, what string, got, low, high T) {
	t.Helper()
	if got < low || got > high {
		t.Errorf("%s: %v, want from %v to %v", what, got, low, high)
	}
}

// What is not synced when a machine dies is gone: of the 49 chunks that came in
// 50 s those of the last 35 s.
func TestCrashLosesWhatIsNotSynced(t *testing.T) {
	r := lone(scenario.Fault{Kind: scenario.Crash, Nodes: []int{0}, At: 50 * time.Second, Restart: 10 * time.Second}).simulate(t)
	between(t, "bytes that came", r.OriginDelivered>>20, 64+34, 64+37)
	// What is under way is lost too, a part of four chunks.
	between(t, "makespan", r.Makespan, 109*time.Second, 113*time.Second)
	if len(r.Completion) != 1 || r.Pulls[0].Begun != 0 {
		t.Errorf("%+v", r.Pulls)
	}
}

// A node that leaves in good order loses what is under way and no more.
func TestDrainLosesNothing(t *testing.T) {
	r := lone(scenario.Fault{Kind: scenario.Drain, Nodes: []int{0}, At: 50 * time.Second, Notice: 100 * ms, Restart: 10 * time.Second}).simulate(t)
	between(t, "bytes that came", r.OriginDelivered>>20, 64, 64)
	between(t, "makespan", r.Makespan, 74*time.Second, 78*time.Second)
}

// Until its time is up a node that leaves serves others; its own clients are gone.
func TestDrainServesUntilItLeaves(t *testing.T) {
	w := crowd{nodes: 4, size: 200 * mib, up: 50 * mib}
	w.faults = []scenario.Fault{{Kind: scenario.Drain, Nodes: []int{1}, At: 2 * time.Second, Notice: time.Second}}
	var served int
	w.opt.Observe = func(at time.Duration, node int, ev *policy.Event, _ []policy.Effect) {
		if node != 1 {
			return
		}
		if at > 2*time.Second && ev.Kind == policy.EvUpload {
			served++
		}
		if at > 3*time.Second {
			t.Errorf("it is told %d after %v", ev.Kind, at)
		}
	}
	r := w.simulate(t)
	if served == 0 || r.Killed != 1 || len(r.Completion) != 3 || !r.Pulls[1].Excused {
		t.Errorf("it served %d; %d killed, %d complete", served, r.Killed, len(r.Completion))
	}
}

// A node that is about to leave is no other fault's to end. Were it, it would come back twice, the
// second time while it runs: with a new core that knows nothing of the transfers under way.
func TestWhoLeavesIsNotKilledForItsRole(t *testing.T) {
	w := crowd{nodes: 6, size: 400 * mib, up: 20 * mib, retries: 100, faults: []scenario.Fault{
		{Kind: scenario.Drain, Role: scenario.Coordinator, At: time.Second, Notice: 2 * time.Second, Restart: 3 * time.Second},
		{Kind: scenario.Crash, Role: scenario.Coordinator, At: 1500 * ms, Restart: 8 * time.Second}}}
	cores := make([]int, w.nodes)
	w.opt.NewCore = func(node int, cfg policy.Config) Core {
		cores[node]++
		return policy.New(cfg)
	}
	r := w.simulate(t)
	slices.Sort(cores)
	if !slices.Equal(cores, []int{1, 1, 1, 1, 2, 2}) {
		t.Errorf("nodes began %v times, want two of them twice", cores)
	}
	for _, v := range r.Violated() {
		t.Errorf("%s: %s", v.Name, v.First)
	}
}

// Nodes that one partition parted meet again although another one parts them when it ends, and so
// does one that came back meanwhile. If they did not, each would go on as if it had lost the other.
func TestPartedNodesMeetAgain(t *testing.T) {
	for name, faults := range map[string][]scenario.Fault{
		"another partition": {{Kind: scenario.Partition, Nodes: []int{0}, For: 10 * time.Second},
			{Kind: scenario.Partition, At: 9 * time.Second, Nodes: []int{1}, For: 20 * time.Second}},
		"a crash": {{Kind: scenario.Partition, Nodes: []int{0}, For: 10 * time.Second},
			{Kind: scenario.Crash, At: time.Second, Nodes: []int{0}, Restart: 2 * time.Second}},
	} {
		r := fourPlaces()
		r.Faults = faults
		c, _ := quiet(t, r)
		for k := range faults {
			c.q.push(startTime+int64(faults[k].At), evFault, 0, 0, uint64(k))
		}
		c.wait(8 * time.Second)
		if c.nodes[0].isLinked(1) {
			t.Errorf("%s: the partition broke nothing", name)
		}
		c.wait(40 * time.Second)
		for _, a := range c.nodes {
			for _, b := range c.nodes {
				if a != b && !a.isLinked(b.index) {
					t.Errorf("%s: nodes %d and %d never meet again", name, a.index, b.index)
				}
			}
		}
	}
}

// downs notes when which node is told that another is down.
func downs(w *crowd) *[]time.Duration {
	var at []time.Duration
	w.opt.Observe = func(d time.Duration, _ int, ev *policy.Event, _ []policy.Effect) {
		if ev.Kind == policy.EvPeerDown {
			at = append(at, d)
		}
	}
	return &at
}

// A short partition breaks no connection, a long one does, and either heals.
func TestPartition(t *testing.T) {
	for _, oneWay := range []bool{false, true} {
		for _, long := range []bool{false, true} {
			f := scenario.Fault{Kind: scenario.Partition, Nodes: []int{0, 1, 2}, At: 500 * ms, For: 2 * time.Second, OneWay: oneWay}
			if long {
				f.For = 8 * time.Second
			}
			w := crowd{nodes: 8, size: 100 * mib, up: 20 * mib, retries: 5, faults: []scenario.Fault{f}}
			at := downs(&w)
			r := w.simulate(t)
			if len(r.Completion) != 8 {
				t.Errorf("%d complete", len(r.Completion))
			}
			if !long && len(*at) > 0 || long && len(*at) != 2*3*5 {
				t.Errorf("one way %v, long %v: %d connections ends went down", oneWay, long, len(*at))
			}
			if long && ((*at)[0] != 5500*ms || (*at)[29] != 5500*ms) {
				t.Errorf("connections went down from %v to %v", (*at)[0], (*at)[29])
			}
			if r.Copies() < 1.1 && long {
				t.Errorf("one way %v, long %v: both sides have all from %.2f copies", oneWay, long, r.Copies())
			}
		}
	}
}

// That a node died behind a partition nobody sees before that ends or silence tells. Whoever saw it
// at once would replace a coordinator sooner than any real node can.
func TestDeathBehindAPartition(t *testing.T) {
	for lasts, told := range map[time.Duration]time.Duration{3 * time.Second: 3 * time.Second, 10 * time.Second: 5 * time.Second} {
		w := crowd{nodes: 4, size: 200 * mib, up: 10 * mib, retries: 5, faults: []scenario.Fault{
			{Kind: scenario.Partition, Nodes: []int{0, 1}, For: lasts}, {Kind: scenario.Crash, Nodes: []int{0}, At: time.Second}}}
		var near, far []time.Duration
		w.opt.Observe = func(at time.Duration, node int, ev *policy.Event, _ []policy.Effect) {
			if ev.Kind == policy.EvPeerDown && ev.Peer == nodeID(0) {
				if node == 1 {
					near = append(near, at)
				} else {
					far = append(far, at)
				}
			}
		}
		w.simulate(t)
		if !slices.Equal(near, []time.Duration{time.Second + 500*time.Microsecond}) || !slices.Equal(far, []time.Duration{told, told}) {
			t.Errorf("a partition of %v: the node beside it knows at %v, those beyond at %v, want %v", lasts, near, far, told)
		}
	}
}

// What is sent over a partition arrives when it ends, in order; in the direction
// that is open it arrives at once.
func TestPartitionHoldsMessages(t *testing.T) {
	r := fourPlaces()
	r.Faults = []scenario.Fault{{Kind: scenario.Partition, Nodes: []int{0}, For: time.Second, OneWay: true}, {Kind: scenario.Partition, Nodes: []int{0}, For: time.Second}}
	c, heard := quiet(t, r)
	c.begin(0)
	c.say(1, 1) // node 0 can be talked to
	c.wait(10 * ms)
	expect(t, heard, "1 1ms")
	c.begin(1)
	c.say(1, 2)
	c.say(1, 3)
	c.wait(time.Second + 500*ms)
	c.say(1, 4)
	c.wait(time.Second)
	expect(t, heard, "2 1.211s", "3 1.211s", "4 1.511s")
}

// A node without a way to the origin goes on when it has one again; the bytes that
// came are not asked for twice.
func TestOffline(t *testing.T) {
	r := lone(scenario.Fault{Kind: scenario.Offline, Nodes: []int{0}, At: 10 * time.Second, For: 3 * time.Second}).simulate(t)
	between(t, "makespan", r.Makespan, 67*time.Second, 68*time.Second)
	if r.OriginBytes != 64*mib {
		t.Errorf("%d bytes", r.OriginBytes)
	}
	long := lone(scenario.Fault{Kind: scenario.Offline, Nodes: []int{0}, At: 10 * time.Second, For: 3 * time.Minute}).simulate(t)
	between(t, "makespan", long.Makespan, 244*time.Second, 265*time.Second)
	if len(long.Completion) != 1 || long.Failures == 0 {
		t.Errorf("%d complete, %d failures", len(long.Completion), long.Failures)
	}
}

func TestLossSlowsFlows(t *testing.T) {
	// 1448 bytes an RTT of 10 ms, by 1.2247 / 0.1.
	between(t, "a connection that loses 1 %", lossCap(10_000, int64(10*ms)), 1_770_000, 1_775_000)
	r := crowd{nodes: 1, size: 8 * mib, up: 100 * mib, latency: 5 * ms,
		faults: []scenario.Fault{{Kind: scenario.Loss, Nodes: []int{0}, Part: 10_000, For: time.Second}}}.simulate(t)
	// One request for 8 MiB: 1.77 MB in the first second, the rest at full speed.
	between(t, "makespan", r.Makespan, time.Second, 1100*ms)
}

// Links and disks at a tenth of their speed for two seconds: five chunks before,
// two meanwhile, three after.
func TestSlowNICAndDisk(t *testing.T) {
	for _, kind := range []scenario.FaultKind{scenario.SlowNIC, scenario.SlowDisk} {
		w := crowd{nodes: 1, size: 10 * mib, up: 10 * mib, store: time.Nanosecond,
			faults: []scenario.Fault{{Kind: kind, Nodes: []int{0}, At: 500 * ms, For: 2 * time.Second, Rate: mib}}}
		run := w.run()
		if kind == scenario.SlowDisk {
			run.Nodes[0].Up, run.Nodes[0].Down, run.Nodes[0].Disk, run.Origin.Link = 10_000*mib, 10_000*mib, 10*mib, 10_000*mib
		}
		r := simulate(t, run, w.opt)
		between(t, string(kind), r.Makespan, 2800*ms, 2850*ms)
	}
}

// Messages that wait for a slow node are taken at its usual speed when it is well
// again.
func TestSlowNode(t *testing.T) {
	r := fourPlaces()
	r.Costs.Message = ms
	r.Faults = []scenario.Fault{{Kind: scenario.SlowNode, Nodes: []int{0}, For: 250 * ms, Delay: 100 * ms}}
	c, heard := quiet(t, r)
	c.begin(0)
	for i := range 5 {
		c.say(1, i)
	}
	c.wait(time.Second)
	expect(t, heard, "0 101ms", "1 201ms", "2 250ms", "3 251ms", "4 252ms")
}

// A client whose blob the store cannot take is served past it.
func TestFullDisk(t *testing.T) {
	w := crowd{nodes: 1, size: 64 * mib, up: 10 * mib, faults: []scenario.Fault{{Kind: scenario.FullDisk, Nodes: []int{0}, At: 2 * time.Second}}}
	r := w.simulate(t)
	if len(r.Completion) != 1 || r.Failures != 0 {
		t.Errorf("%d complete, %d failures", len(r.Completion), r.Failures)
	}
	// What came beyond the first gap is read again.
	between(t, "makespan", r.Makespan, 6400*ms, 8*time.Second)
	between(t, "origin bytes", r.OriginBytes>>20, 64, 80)
	// One that has no room at all for the second layer.
	w = crowd{nodes: 1, size: 64 * mib, layers: 2, up: 10 * mib}
	run := w.run()
	run.Nodes[0].Space, run.Pulls[0].Parallel = 33*mib, 1
	r = simulate(t, run, Options{})
	if len(r.Completion) != 1 || r.Failures != 0 || r.OriginBytes != 64*mib {
		t.Errorf("%d complete, %d failures, %d bytes", len(r.Completion), r.Failures, r.OriginBytes)
	}
}

// A store that is full drops what was not wanted for the longest time.
func TestStoresEvict(t *testing.T) {
	r := crowd{nodes: 1, size: 30 * mib, layers: 3, up: 10 * mib}.run()
	r.Nodes[0].Space, r.Pulls[0].Parallel = 25*mib, 1
	var evicted []string
	c, err := newCluster(r, Options{Points: 10, Observe: func(_ time.Duration, _ int, ev *policy.Event, _ []policy.Effect) {
		if ev.Kind == policy.EvEvicted {
			evicted = append(evicted, string(ev.Blob))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.play(t.Context(), startTime+int64(time.Minute))
	if c.done != 1 || !slices.Equal(evicted, []string{string(c.blobs[0].id)}) || c.nodes[0].used != 20*mib {
		t.Errorf("%d done, %d evicted, %d bytes used", c.done, len(evicted), c.nodes[0].used)
	}
}

// Bytes that spoil before the proof are found by it; those that spoil after they
// were hashed are not, and are counted apart.
func TestBitRot(t *testing.T) {
	w := crowd{nodes: 2, size: 64 * mib, up: 10 * mib, retries: 10, opt: Options{Tune: strict},
		faults: []scenario.Fault{{Kind: scenario.Rot, Nodes: []int{1}, At: 5 * time.Second, Part: 100_000}}}
	r := w.simulate(t)
	if r.RottenCompletions == 0 || len(r.Completion) != 2 {
		t.Errorf("%d completions with spoiled bytes, %d complete", r.RottenCompletions, len(r.Completion))
	}
	// Nobody takes spoiled chunks from a peer, and its bytes are read elsewhere.
	w = crowd{nodes: 6, size: 64 * mib, up: 10 * mib, retries: 10, stagger: 10 * time.Second,
		faults: []scenario.Fault{{Kind: scenario.Rot, Nodes: []int{0}, At: 7 * time.Second, Part: 500_000}}}
	corrupt := 0
	w.opt.Observe = func(_ time.Duration, node int, ev *policy.Event, _ []policy.Effect) {
		if ev.Kind == policy.EvTransferDone && len(ev.Claims) > 0 && ev.Sum != ev.Claims[0].Sum {
			corrupt++
		}
	}
	r = w.simulate(t)
	if len(r.Completion) != 6 || corrupt == 0 || r.HonestBans > 0 {
		t.Errorf("%d complete, %d spoiled chunks came, %d honest bans", len(r.Completion), corrupt, r.HonestBans)
	}
}

// A crash finds out what is spoiled, since all is read back after it.
func TestRotIsFoundAfterACrash(t *testing.T) {
	w := crowd{nodes: 1, size: 20 * mib, layers: 2, up: 10 * mib, faults: []scenario.Fault{
		{Kind: scenario.Rot, Nodes: []int{0}, At: 1500 * ms, Part: 1_000_000},
		{Kind: scenario.Crash, Nodes: []int{0}, At: 1600 * ms, Restart: time.Second}}}
	run := w.run()
	run.Pulls[0].Parallel = 1
	run.Images = append(run.Images, run.Images[0])
	r := simulate(t, run, Options{})
	if len(r.Completion) != 1 || r.WrongCompletions+r.RottenCompletions > 0 {
		t.Errorf("%d complete, %d wrong, %d rotten", len(r.Completion), r.WrongCompletions, r.RottenCompletions)
	}
}

// What hostile nodes do shows at the others, which get along.
func TestHostileNodes(t *testing.T) {
	// seen is how many transfers from the hostile node came and how many it did not
	// have, while it was hostile.
	type seen struct{ came, gone int }
	for kind, shows := range map[scenario.FaultKind]func(*Result, seen) bool{
		scenario.Corrupt: func(r *Result, s seen) bool { return s.came > 0 && r.Metrics[policy.CountWaste] > 0 },
		scenario.Forge:   func(r *Result, s seen) bool { return s.came > 0 && r.Metrics[policy.CountRefuted] > 0 },
		scenario.Lie:     func(_ *Result, s seen) bool { return s.gone > 0 },
		scenario.Stall:   func(_ *Result, s seen) bool { return s.came == 0 },
		scenario.Mute:    func(_ *Result, s seen) bool { return s.came == 0 },
	} {
		for _, forever := range []bool{false, true} {
			f := scenario.Fault{Kind: kind, Nodes: []int{3}, For: 1500 * ms}
			if forever {
				f.For = 0
			}
			var s seen
			after := 0
			id := nodeID(3)
			w := crowd{nodes: 8, size: 200 * mib, up: 50 * mib, retries: 20, faults: []scenario.Fault{f}}
			w.opt.Observe = func(at time.Duration, _ int, ev *policy.Event, _ []policy.Effect) {
				during := forever || at < f.For
				switch {
				case ev.Peer != id:
				case ev.Kind == policy.EvTransferDone && during:
					s.came++
				case ev.Kind == policy.EvTransferDone:
					after++
				case ev.Kind == policy.EvTransferFailed && ev.Fault == policy.FaultGone && during:
					s.gone++
				}
			}
			r := w.simulate(t)
			if !shows(r, s) {
				t.Errorf("%s shows nowhere: %+v, makespan %v, %v", kind, s, r.Makespan, r.Metrics)
			}
			// Who served wrong bytes is not asked again soon.
			if !forever && after == 0 && kind != scenario.Corrupt && kind != scenario.Forge {
				t.Errorf("%s: nothing came of the node after it was well again", kind)
			}
			if r.Unserved > 0 || r.HonestBans > 0 {
				t.Errorf("%s: %d unserved, %d honest bans", kind, r.Unserved, r.HonestBans)
			}
		}
	}
}

// Transfers over a connection that a partition broke fail at both ends, and nothing
// is left of them.
func TestPartitionEndsTransfers(t *testing.T) {
	w := crowd{nodes: 6, size: 100 * mib, up: 10 * mib,
		faults: []scenario.Fault{{Kind: scenario.Partition, Nodes: []int{0, 1}, At: time.Second, For: time.Minute}}}
	c, err := newCluster(w.run(), Options{Points: 10})
	if err != nil {
		t.Fatal(err)
	}
	c.play(t.Context(), startTime+int64(900*ms))
	across := func() (n int) {
		for i := range c.transfers.all {
			if tr := &c.transfers.all[i]; tr.open && (tr.from < 2) != (tr.to < 2) {
				n++
			}
		}
		return n
	}
	if across() == 0 {
		t.Error("nothing is under way between the two sides")
	}
	c.play(t.Context(), startTime+int64(6100*ms))
	if n := across(); n > 0 || len(c.held) > 0 {
		t.Errorf("%d transfers and %d things that are held up are left over", n, len(c.held))
	}
}

// A client is excused where its node can reach nobody until the end, and where it is
// away then.
func TestExcused(t *testing.T) {
	w := crowd{nodes: 4, size: 40 * mib, up: 10 * mib, limit: 40 * time.Second, retries: 1000, faults: []scenario.Fault{
		{Kind: scenario.Partition, Nodes: []int{0}, At: time.Second},
		{Kind: scenario.Offline, Nodes: []int{0, 1}, At: time.Second},
		{Kind: scenario.Crash, Nodes: []int{2}, At: 2 * time.Second, Restart: time.Minute}}}
	r := w.simulate(t)
	for i, want := range []bool{true, false, true, false} {
		if p := r.Pulls[i]; p.Excused != want || (p.Done > 0) == want {
			t.Errorf("node %d: %+v", i, p)
		}
	}
	if r.Unserved != 0 {
		t.Errorf("%d unserved", r.Unserved)
	}
}

// What a node read from the origin and took with it is granted again at once, where the
// coordinator alone knew that it was read: nobody has to lose patience. Which chunks those
// are is chance, so that a few seeds are tried.
func TestCrashOfManyIsMended(t *testing.T) {
	var regrants int64
	for seed := range uint64(5) {
		w := crowd{nodes: 100, size: 128 * mib, seed: seed, retries: 5}
		crash := scenario.Fault{Kind: scenario.Crash, At: w.optimum(t) / 2}
		for i := 70; i < w.nodes; i++ {
			crash.Nodes = append(crash.Nodes, i)
		}
		w.faults = []scenario.Fault{crash}
		r := w.simulate(t)
		if r.Unserved > 0 || len(r.Completion) != 70 {
			t.Errorf("seed %d: %d complete, %d unserved", seed, len(r.Completion), r.Unserved)
		}
		if hedges := r.Metrics[policy.CountHedge]; hedges > 0 || r.Copies() > 1.05 || r.Slowdown() > 1.3 {
			t.Errorf("seed %d: %d hedges, %.3f copies, %.3f of the least makespan", seed, hedges, r.Copies(), r.Slowdown())
		}
		regrants += r.Metrics[policy.CountRegrant]
	}
	if regrants == 0 {
		t.Error("nothing was lost")
	}
}

// A node that hangs while it reads from the origin, and of which nobody has asked anything
// else, is noticed: the others waited for its word for ten seconds, and then each read for
// itself what it had been reading.
func TestHungReaderIsNoticed(t *testing.T) {
	for _, seed := range []uint64{2951, 2981, 2987} {
		w := crowd{nodes: 4, size: 40 * mib, seed: seed, up: 100 * mib, origin: 8 * mib, retries: 5, limit: time.Minute,
			latency: time.Duration(1+seed%30) * time.Millisecond}
		for _, kind := range []scenario.FaultKind{scenario.Mute, scenario.Stall} {
			w.faults = append(w.faults, scenario.Fault{Kind: kind, Nodes: []int{3}, At: 1250*time.Millisecond + time.Duration(seed)*time.Millisecond, For: 30 * time.Second})
		}
		w.opt.Tune = func(_ int, p *policy.Config) { p.Verify = policy.VerifyStrict }
		r := w.simulate(t)
		for i, p := range r.Pulls {
			if i != 3 && p.Done > 10*time.Second {
				t.Errorf("seed %d: node %d waits for %v", seed, i, p.Done)
			}
		}
		if hedges := r.Metrics[policy.CountHedge]; hedges > 0 {
			t.Errorf("seed %d: %d hedges", seed, hedges)
		}
	}
}
