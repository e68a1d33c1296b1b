package simulation

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// What one, two and three nodes need can be worked out by hand: with links of
// 1 MiB a 10 ms, a 64 MiB blob takes 640 ms through one link, and a last chunk
// that has to go on from one node to the other 10 ms more.
func TestFewNodes(t *testing.T) {
	const rate = 100 * mib
	for _, tc := range []struct {
		nodes   int
		optimum time.Duration
	}{
		{1, 640 * time.Millisecond},
		{2, 650 * time.Millisecond},
		{3, 650 * time.Millisecond},
	} {
		r := crowd{nodes: tc.nodes, size: 64 * mib, up: rate, opt: Options{Sharing: MaxMin},
			latency: 50 * time.Microsecond, dht: time.Millisecond, hash: 100 * time.Microsecond, store: 100 * time.Microsecond}.simulate(t)
		if r.Optimum != tc.optimum {
			t.Errorf("%d nodes: the optimum is %v, want %v", tc.nodes, r.Optimum, tc.optimum)
		}
		if r.Unserved > 0 || len(r.Completion) != tc.nodes {
			t.Errorf("%d nodes: %d unserved, %d complete", tc.nodes, r.Unserved, len(r.Completion))
		}
		if r.OriginBytes != r.UniqueBytes {
			t.Errorf("%d nodes: the origin sent %d of %d bytes", tc.nodes, r.OriginBytes, r.UniqueBytes)
		}
		if low, high := 640*time.Millisecond, tc.optimum*5/4; r.Makespan < low || r.Makespan > high {
			t.Errorf("%d nodes: makespan %v, want from %v to %v", tc.nodes, r.Makespan, low, high)
		}
	}
}

// A lone node's time is known to the nanosecond where it reads in one request.
func TestLoneNodeExactly(t *testing.T) {
	r := crowd{nodes: 1, size: mib, up: mib, latency: time.Millisecond, originDelay: 7 * time.Millisecond,
		open: 3 * time.Millisecond, store: 11 * time.Millisecond}.simulate(t)
	if want := (3 + 2 + 7 + 1000 + 11) * time.Millisecond; r.Makespan != want || r.FirstByte[0] != want {
		t.Errorf("makespan %v, first byte %v, want %v", r.Makespan, r.FirstByte[0], want)
	}
}

// Nobody can be faster than its link, nor than the origin's.
func TestNoBoundIsBeaten(t *testing.T) {
	for _, sharing := range []Sharing{EqualShare, MaxMin} {
		for nodes := 1; nodes <= 12; nodes += 1 + nodes/4 {
			for _, origin := range []int64{20 * mib, 60 * mib, 300 * mib} {
				w := crowd{nodes: nodes, size: 50*mib + 12345, layers: 1 + nodes%3, seed: uint64(nodes), up: 60 * mib, down: 80 * mib, origin: origin, opt: Options{Sharing: sharing}}
				r := w.simulate(t)
				name := fmt.Sprintf("%d nodes, origin %d, sharing %d", nodes, origin, sharing)
				if least := time.Duration(w.size * nanos / min(w.down, origin)); len(r.Completion) == 0 || r.Completion[0] < least {
					t.Errorf("%s: a client was done after %v, but its bytes take %v", name, r.Completion, least)
				}
				if r.Unserved > 0 {
					t.Errorf("%s: %d unserved", name, r.Unserved)
				}
				if r.OriginBytes < r.UniqueBytes {
					t.Errorf("%s: the origin sent %d of %d bytes", name, r.OriginBytes, r.UniqueBytes)
				}
			}
		}
	}
}

// What is sent is received, and each byte is either of use or counted as cut.
func TestBytesAreConserved(t *testing.T) {
	for seed := range uint64(8) {
		faults := []scenario.Fault{{Kind: scenario.Crash, Role: scenario.Coordinator, At: 300 * time.Millisecond},
			{Kind: scenario.Crash, Role: scenario.Fetcher, At: 600 * time.Millisecond, Restart: 200 * time.Millisecond}}
		r := crowd{nodes: 7, size: 70 * mib, layers: 2, seed: seed, up: 50 * mib, faults: faults[:seed%3], opt: Options{Sharing: Sharing(seed % 2)}}.simulate(t)
		sent, received := r.OriginSent, int64(0)
		for i := range r.Sent {
			sent += r.Sent[i]
			received += r.Received[i]
		}
		if sent != received {
			t.Errorf("seed %d: %d bytes sent, %d received", seed, sent, received)
		}
		if used := r.OriginDelivered + r.PeerBytes + r.CutBytes; sent != used {
			t.Errorf("seed %d: %d bytes sent, %d accounted for", seed, sent, used)
		}
		if r.OriginSent != r.OriginBytes {
			t.Errorf("seed %d: the origin's link carried %d bytes, %d were counted", seed, r.OriginSent, r.OriginBytes)
		}
		if r.Unserved > 0 {
			t.Errorf("seed %d: %d unserved", seed, r.Unserved)
		}
	}
}

// A run is a function of what is run.
func TestSameSeedSameTrace(t *testing.T) {
	w := func(seed uint64) crowd {
		return crowd{nodes: 10, size: 40 * mib, seed: seed, up: 50 * mib, stagger: 100 * time.Millisecond, manifest: 1000,
			faults: []scenario.Fault{{Kind: scenario.Corrupt, Nodes: []int{3}},
				{Kind: scenario.Crash, Role: scenario.Coordinator, At: 200 * time.Millisecond, Restart: 300 * time.Millisecond}}}
	}
	for seed := range uint64(3) {
		a, b, other := w(seed).simulate(t), w(seed).simulate(t), w(seed+100).simulate(t)
		if a.Trace != b.Trace || a.Makespan != b.Makespan || a.Events != b.Events {
			t.Errorf("seed %d: traces %x and %x, makespans %v and %v", seed, a.Trace, b.Trace, a.Makespan, b.Makespan)
		}
		if a.Trace == other.Trace {
			t.Errorf("seeds %d and %d give the same trace", seed, seed+100)
		}
	}
}

// With something wrong in the cluster every other client is served, and with the
// right bytes.
func TestFaultsAreSurvived(t *testing.T) {
	at := 400 * time.Millisecond
	for name, f := range map[string]scenario.Fault{
		"coordinator killed": {Kind: scenario.Crash, Role: scenario.Coordinator, At: at},
		"fetcher killed":     {Kind: scenario.Crash, Role: scenario.Fetcher, At: at},
		"node restarted":     {Kind: scenario.Crash, Nodes: []int{2}, At: at, Restart: 100 * time.Millisecond},
		"corrupt":            {Kind: scenario.Corrupt, Nodes: []int{4}},
		"forging":            {Kind: scenario.Forge, Nodes: []int{4}},
		"stalling":           {Kind: scenario.Stall, Nodes: []int{4}},
		"throttled":          {Kind: scenario.OriginThrottle, For: 100 * time.Millisecond, Delay: 200 * time.Millisecond},
	} {
		w := crowd{nodes: 8, size: 64 * mib, up: 50 * mib, retries: 5, faults: []scenario.Fault{f}, opt: Options{Sharing: MaxMin}}
		r := w.simulate(t)
		if r.Unserved > 0 {
			t.Errorf("%s: %d unserved, statuses %v", name, r.Unserved, statuses(r))
		}
		if want := w.nodes - r.Killed; len(r.Completion) != want || r.Killed > 1 {
			t.Errorf("%s: %d complete, %d killed", name, len(r.Completion), r.Killed)
		}
		if name == "throttled" && r.Throttled == 0 {
			t.Errorf("%s: the origin was never asked while it wanted to be left alone", name)
		}
	}
}

// A run that is ended when its clients are done, and before its nodes have come to rest, is no
// whole run: nobody knows whether anything is left over.
func TestEndedAtRest(t *testing.T) {
	w := crowd{nodes: 5, size: 20 * mib, up: 50 * mib}
	done := w.simulate(t).Makespan
	ctx, cancel := context.WithCancel(t.Context())
	w.opt.Observe = func(at time.Duration, _ int, _ *policy.Event, _ []policy.Effect) {
		if at >= done {
			cancel()
		}
	}
	r, err := Simulate(ctx, w.run(), w.opt)
	if err != nil {
		t.Fatal(err)
	}
	if r.Makespan != done || len(r.Completion) != 5 {
		t.Errorf("makespan %v, %d complete, want %v and all", r.Makespan, len(r.Completion), done)
	}
	for _, v := range r.Invariants {
		if v.Name == "orphans" && v.Checks == 0 && !r.Partial {
			t.Error("what is left over was never looked at, and the run counts as whole")
		}
	}
}

// A node that does not serve what others ask for learns so from its own core.
func TestUploadsEnd(t *testing.T) {
	open := map[policy.ID]int{}
	var uploads int
	observe := func(_ time.Duration, node int, ev *policy.Event, effects []policy.Effect) {
		switch ev.Kind {
		case policy.EvUpload:
			if _, ok := open[ev.ID]; ok {
				t.Errorf("upload %d begins twice", ev.ID)
			}
			// What was refused has no end.
			if slices.ContainsFunc(effects, func(e policy.Effect) bool { return e.Kind == policy.EfServe && e.ID == ev.ID }) {
				uploads++
				open[ev.ID] = node
			}
		case policy.EvUploaded:
			if at, ok := open[ev.ID]; !ok || at != node {
				t.Errorf("upload %d ends at %d, began at %d, %v", ev.ID, node, at, ok)
			}
			delete(open, ev.ID)
		}
	}
	crowd{nodes: 5, size: 40 * mib, up: 50 * mib, opt: Options{Observe: observe}}.simulate(t)
	if uploads < 4*40 || len(open) > 0 {
		t.Errorf("%d uploads, %d of them open", uploads, len(open))
	}
}

func TestRunsThatMakeNoSense(t *testing.T) {
	for name, spoil := range map[string]func(*scenario.Run){
		"no nodes":     func(r *scenario.Run) { r.Nodes = nil },
		"no limit":     func(r *scenario.Run) { r.Limits.Time = 0 },
		"no zone":      func(r *scenario.Run) { r.Nodes[1].Zone = 1 },
		"empty blob":   func(r *scenario.Run) { r.Blobs[0].Size = 0 },
		"huge blob":    func(r *scenario.Run) { r.Blobs[0].Size = 1 << 62 },
		"no blob":      func(r *scenario.Run) { r.Images[0].Layers[0] = 1 },
		"no image":     func(r *scenario.Run) { r.Pulls[0].Image = 1 },
		"no node":      func(r *scenario.Run) { r.Pulls[0].Node = 2 },
		"pulls":        func(r *scenario.Run) { r.Pulls[0].At = time.Hour },
		"faulty fault": func(r *scenario.Run) { r.Faults = []scenario.Fault{{Nodes: []int{2}}} },
		"one name":     func(r *scenario.Run) { r.Blobs = append(r.Blobs, r.Blobs[0]) },
	} {
		r := crowd{nodes: 2, size: mib}.run()
		spoil(r)
		if _, err := Simulate(context.Background(), r, Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
