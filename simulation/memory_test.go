package simulation

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A run that needs more memory than there is, or is allowed, is refused with both
// figures before anything is done.
func TestTooLittleMemory(t *testing.T) {
	run := crowd{nodes: 1000, size: 64 * mib}.run()
	need := Estimate(run)
	for _, test := range []struct {
		name    string
		limit   int64
		free    int64
		refused bool
		says    string
	}{
		{name: "not free", free: need - 1, refused: true, says: "are free: use --memory or fewer nodes"},
		{name: "free", free: need},
		{name: "nobody says what is free"},
		{name: "not allowed", limit: need - 1, free: 1 << 40, refused: true, says: "are allowed"},
		{name: "allowed", limit: need, free: 1},
		{name: "without a limit", limit: -1, free: 1},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := Simulate(ctx, run, Options{MemoryLimit: test.limit, freeMemory: func() int64 { return test.free }})
		var memory *MemoryError
		switch {
		case !test.refused && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.refused && (!errors.As(err, &memory) || memory.Need != need || !strings.Contains(err.Error(), test.says) ||
			!strings.Contains(err.Error(), "1000 nodes need about ")):
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// The estimate grows with the nodes, with the blobs that they pull, with the chunks of
// these, and not with what nobody pulls twice.
func TestEstimate(t *testing.T) {
	estimate := func(w crowd) int64 { return Estimate(w.run()) }
	base := estimate(crowd{nodes: 100, size: 64 * mib})
	for name, more := range map[string]int64{
		"twice the nodes":  estimate(crowd{nodes: 200, size: 64 * mib}),
		"twice the chunks": estimate(crowd{nodes: 100, size: 128 * mib}),
		"twice the layers": estimate(crowd{nodes: 100, size: 64 * mib, layers: 2}),
	} {
		if more <= base || more > 2*base {
			t.Errorf("%s: %d, %d without", name, more, base)
		}
	}
	run := crowd{nodes: 100, size: 64 * mib}.run()
	run.Pulls = append(run.Pulls, run.Pulls...)
	if again := Estimate(run); again != base {
		t.Errorf("a second pull of the same image: %d, %d without", again, base)
	}
}

func TestMemInfo(t *testing.T) {
	for text, want := range map[string]int64{
		"MemTotal:       100 kB\nMemFree:   7 kB\nMemAvailable:      42 kB\nBuffers: 1 kB\n": 42 << 10,
		"MemTotal: 100 kB\n":                   0,
		"MemAvailable: many kB\n":              0,
		"MemAvailable: 9223372036854775807 kB": 0,
		"MemAvailable:":                        0,
	} {
		if got := availableIn([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
