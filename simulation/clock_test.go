package simulation

import (
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// A node's timers go by its own clock, which runs as it does until it is healed, and
// never goes back.
func TestClocks(t *testing.T) {
	for _, tc := range []struct {
		name            string
		delay           time.Duration
		part            int
		heal            time.Duration // 0 never
		timer, rings    time.Duration
		shows, showsTil time.Duration // at showsTil of real time
	}{
		{"right", 0, 0, 0, 10 * time.Second, 10 * time.Second, 20 * time.Second, 20 * time.Second},
		{"ahead", 3 * time.Second, 0, 0, 10 * time.Second, 7 * time.Second, 23 * time.Second, 20 * time.Second},
		{"behind", -3 * time.Second, 0, 0, 10 * time.Second, 13 * time.Second, 17 * time.Second, 20 * time.Second},
		{"behind, at first", -3 * time.Second, 0, 0, time.Second, 4 * time.Second, 0, time.Second},
		{"fast", 0, 1_000_000, 0, 10 * time.Second, 5 * time.Second, 40 * time.Second, 20 * time.Second},
		{"slow", 0, -500_000, 0, 10 * time.Second, 20 * time.Second, 10 * time.Second, 20 * time.Second},
		{"fast for a while", 0, 1_000_000, 2 * time.Second, 10 * time.Second, 8 * time.Second, 22 * time.Second, 20 * time.Second},
		{"due at once", time.Minute, 0, 0, 10 * time.Second, 0, 80 * time.Second, 20 * time.Second},
	} {
		r := crowd{nodes: 1, size: mib}.run()
		r.Faults = []scenario.Fault{{Kind: scenario.ClockSkew, Nodes: []int{0}, Delay: tc.delay, Part: tc.part, For: tc.heal}}
		c, _ := quiet(t, r)
		rang := time.Duration(-1)
		c.opt.Observe = func(at time.Duration, _ int, ev *policy.Event, _ []policy.Effect) {
			if ev.Kind == policy.EvTimer && rang < 0 {
				rang = at
			}
		}
		n := c.nodes[0]
		c.setTimer(n, policy.Time(startTime+int64(tc.timer)))
		c.begin(0)
		c.wait(tc.showsTil)
		if got := time.Duration(c.clockOf(n) - startTime); got < tc.shows || got > tc.shows+time.Microsecond {
			t.Errorf("%s: after %v it shows %v, want %v", tc.name, tc.showsTil, got, tc.shows)
		}
		c.wait(time.Minute)
		if rang < tc.rings || rang > tc.rings+time.Microsecond {
			t.Errorf("%s: the timer rang after %v, want %v", tc.name, rang, tc.rings)
		}
	}
}
