package simulation

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
)

const mib = 1 << 20

func flashCrowd(t *testing.T, cfg Config) *Result {
	t.Helper()
	r, err := FlashCrowd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.WrongCompletions > 0 {
		t.Errorf("%d responses were completed with wrong bytes", r.WrongCompletions)
	}
	return r
}

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
		r := flashCrowd(t, Config{Nodes: tc.nodes, Size: 64 * mib, Up: rate, Sharing: MaxMin,
			Latency: 50 * time.Microsecond, DHTDelay: time.Millisecond, HashTime: 100 * time.Microsecond, StoreTime: 100 * time.Microsecond})
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
	r := flashCrowd(t, Config{Nodes: 1, Size: mib, Up: mib, Latency: time.Millisecond, OriginDelay: 7 * time.Millisecond,
		OpenTime: 3 * time.Millisecond, StoreTime: 11 * time.Millisecond})
	if want := (3 + 2 + 7 + 1000 + 11) * time.Millisecond; r.Makespan != want || r.FirstByte[0] != want {
		t.Errorf("makespan %v, first byte %v, want %v", r.Makespan, r.FirstByte[0], want)
	}
}

// Nobody can be faster than its link, nor than the origin's.
func TestNoBoundIsBeaten(t *testing.T) {
	for _, sharing := range []Sharing{EqualShare, MaxMin} {
		for nodes := 1; nodes <= 12; nodes += 1 + nodes/4 {
			for _, origin := range []int64{20 * mib, 60 * mib, 300 * mib} {
				cfg := Config{Nodes: nodes, Size: 50*mib + 12345, Layers: 1 + nodes%3, Seed: uint64(nodes), Up: 60 * mib, Down: 80 * mib, Origin: origin, Sharing: sharing}
				r := flashCrowd(t, cfg)
				name := fmt.Sprintf("%d nodes, origin %d, sharing %d", nodes, origin, sharing)
				if least := time.Duration(cfg.Size * nanos / min(cfg.Down, origin)); len(r.Completion) == 0 || r.Completion[0] < least {
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
		faults := []Fault{{Who: Coordinator, At: 300 * time.Millisecond}, {Who: Fetcher, At: 600 * time.Millisecond, Restart: 200 * time.Millisecond}}
		r := flashCrowd(t, Config{Nodes: 7, Size: 70 * mib, Layers: 2, Seed: seed, Up: 50 * mib, Sharing: Sharing(seed % 2), Faults: faults[:seed%3]})
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

// A run is a function of its configuration.
func TestSameSeedSameTrace(t *testing.T) {
	cfg := func(seed uint64) Config {
		return Config{Nodes: 10, Size: 40 * mib, Seed: seed, Up: 50 * mib, Stagger: 100 * time.Millisecond,
			Faults: []Fault{{Kind: Corrupt, Node: 3}, {Who: Coordinator, At: 200 * time.Millisecond, Restart: 300 * time.Millisecond}}}
	}
	for seed := range uint64(3) {
		a, b, other := flashCrowd(t, cfg(seed)), flashCrowd(t, cfg(seed)), flashCrowd(t, cfg(seed+100))
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
	for name, cfg := range map[string]Config{
		"coordinator killed": {Faults: []Fault{{Who: Coordinator, At: at}}},
		"fetcher killed":     {Faults: []Fault{{Who: Fetcher, At: at}}},
		"node restarted":     {Faults: []Fault{{Node: 2, At: at, Restart: 100 * time.Millisecond}}},
		"corrupt":            {Faults: []Fault{{Kind: Corrupt, Node: 4}}},
		"forging":            {Faults: []Fault{{Kind: Forge, Node: 4}}, Retries: 5},
		"stalling":           {Faults: []Fault{{Kind: Stall, Node: 4}}},
		"throttled":          {Throttles: []Throttle{{For: 100 * time.Millisecond, Wait: 200 * time.Millisecond}}},
	} {
		cfg.Nodes, cfg.Size, cfg.Up, cfg.Sharing = 8, 64*mib, 50*mib, MaxMin
		r := flashCrowd(t, cfg)
		if r.Unserved > 0 {
			t.Errorf("%s: %d unserved, statuses %v", name, r.Unserved, r.Refused)
		}
		if want := cfg.Nodes - r.Killed; len(r.Completion) != want || r.Killed > 1 {
			t.Errorf("%s: %d complete, %d killed", name, len(r.Completion), r.Killed)
		}
		if name == "throttled" && r.Throttled == 0 {
			t.Errorf("%s: the origin was never asked while it wanted to be left alone", name)
		}
	}
}

// A node that does not serve what others ask for learns so from its own core.
func TestUploadsEnd(t *testing.T) {
	open := map[policy.ID]int{}
	var uploads int
	flashCrowd(t, Config{Nodes: 5, Size: 40 * mib, Up: 50 * mib, Observe: func(_ time.Duration, node int, ev *policy.Event, effects []policy.Effect) {
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
	}})
	// The run is over with the last client, before the last uploads' ends are
	// heard of.
	if uploads < 4*40 || len(open) > 16 {
		t.Errorf("%d uploads, %d of them open", uploads, len(open))
	}
}

func TestConfigsThatMakeNoSense(t *testing.T) {
	for _, cfg := range []Config{{}, {Nodes: 1}, {Size: 1}, {Nodes: 2, Size: 1, Faults: []Fault{{Node: 2}}}, {Nodes: 1, Size: 1 << 62}} {
		if _, err := FlashCrowd(cfg); err == nil {
			t.Errorf("%+v: no error", cfg)
		}
	}
}
