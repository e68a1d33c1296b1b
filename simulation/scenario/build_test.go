package scenario_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/peercache/peercache/simulation/scenario"
)

// FuzzBuild makes scenarios of keys and values that mostly belong together, which random
// texts hardly ever do, and asks of those that are accepted what FuzzParse asks.
func FuzzBuild(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		text := build(rand.New(rand.NewPCG(seed, 1)))
		s, err := scenario.Parse("built.yaml", []byte(text))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "built.yaml:") {
				t.Errorf("an error without a place: %v", err)
			}
			return
		}
		for _, nodes := range []int{0, 1, 7, 90} {
			run, err := s.Expand(seed, nodes)
			if err != nil {
				if !strings.Contains(err.Error(), "nobody pulls anything") {
					t.Fatal(err)
				}
				continue
			}
			if err := run.Validate(); err != nil {
				t.Fatalf("%v; of\n%s", err, text)
			}
		}
	})
}

// TestBuild sees to it that FuzzBuild's scenarios are accepted often enough to find something.
func TestBuild(t *testing.T) {
	accepted := 0
	var last error
	for seed := range uint64(500) {
		if _, err := scenario.Parse("built.yaml", []byte(build(rand.New(rand.NewPCG(seed, 1))))); err == nil {
			accepted++
		} else {
			last = err
		}
	}
	if accepted < 50 || accepted > 450 {
		t.Errorf("%d of 500 are accepted; the last one that is not: %v", accepted, last)
	}
}

// build writes a scenario.
func build(rng *rand.Rand) string {
	var b strings.Builder
	one := func(of ...string) string { return of[rng.IntN(len(of))] }
	maybe := func(indent, key string, of ...string) {
		if rng.IntN(3) == 0 {
			fmt.Fprintf(&b, "%s%s: %s\n", indent, key, one(of...))
		}
	}
	times := []string{"0s", "1s", "10s", "59s", "100ms", "5m"}
	nodes := []string{"all", "0", "3-5", "30%", "1/3", "4 random", "zone a", "zone b", "50% of zone a", "rack a/0", "'1,2, 10%'", "[0, 2-4, 2 random of zone b]", "99%"}

	fmt.Fprintf(&b, "topology:\n  nodes: %s\n", one("12", "30", "64"))
	maybe("  ", "link", "1gbit", "100mbit", "unlimited")
	maybe("  ", "rack_size", "0", "1", "4", "1000")
	maybe("  ", "paid", "true", "false")
	maybe("  ", "uplink", "1gbit", "unlimited")
	maybe("  ", "machines", "[{share: 100%}]", "[{share: 1/3, link: 1gbit}, {share: 2/3, up: unlimited, space: 1GB}]")
	fmt.Fprintf(&b, "  zones: %s\n", one("[{name: a}, {name: b, uplink: 1gbit}]", "[{name: a, share: 90%}, {name: b, share: 10%}]",
		"[{name: a, share: 1/3, paid: true}, {name: b, share: 1/3, rack_size: 2}, {name: c, share: 1/3}]"))
	fmt.Fprintf(&b, "images:\n  - name: x\n    layers: %s\n  - name: y\n    layers: %s\n",
		one("1MiB", "[1MiB, 3GB]", "{size: 10MiB, count: 7, spread: 90%}"), one("{size: 1kB, count: 3, spread: 50%}", "[1B, 2MiB, 1B]"))
	maybe("    ", "base", "x")
	maybe("    ", "count", "1", "5")
	if rng.IntN(2) == 0 {
		fmt.Fprintf(&b, "    versions: %s\n", one("2", "4"))
		maybe("    ", "shared", "0%", "20%", "50%", "99%", "100%")
	}
	maybe("    ", "config", "none", "1KiB")
	b.WriteString("dht:\n")
	maybe("  ", "delays", "5ms", "[0s, 1ms, 1ms, 7s]")
	maybe("  ", "misses", "1%", "99.9999%")
	if rng.IntN(4) > 0 {
		b.WriteString("workload:\n")
		for range 1 + rng.IntN(3) {
			kind := one("flash-crowd", "staggered", "rolling", "poisson", "autoscale")
			fmt.Fprintf(&b, "  - kind: %s\n", kind)
			switch kind {
			case "flash-crowd":
				maybe("    ", "jitter", times...)
			case "staggered":
				fmt.Fprintf(&b, "    over: %s\n", one(times...))
			case "rolling":
				fmt.Fprintf(&b, "    interval: %s\n", one(times[1:]...))
				maybe("    ", "wait", "true")
				maybe("    ", "batch", "1", "10%", "100%", "7")
			case "poisson":
				fmt.Fprintf(&b, "    every: %s\n", one("1s", "30ms", "1ns"))
				maybe("    ", "pulls", "1", "100")
			case "autoscale":
				fmt.Fprintf(&b, "    over: %s\n    nodes: %s\n", one(times...), one(nodes...))
				maybe("    ", "delay", times...)
			}
			if kind != "autoscale" {
				maybe("    ", "nodes", nodes...)
			}
			maybe("    ", "at", times...)
			maybe("    ", "image", "x", "y", "[x, y]")
			maybe("    ", "zipf", "0", "1", "10")
		}
	}
	if rng.IntN(4) > 0 {
		b.WriteString("faults:\n")
		for range 1 + rng.IntN(4) {
			kind := one("crash", "drain", "partition", "offline", "loss", "slow-nic", "slow-node", "full-disk", "bit-rot", "corrupt", "forge", "lie",
				"stall", "mute", "clock-skew", "stale-dht", "origin-throttle", "origin-error", "origin-reset", "origin-outage")
			fmt.Fprintf(&b, "  - kind: %s\n    at: %s\n", kind, one(times...))
			if !strings.HasPrefix(kind, "origin") && kind != "stale-dht" {
				if rng.IntN(6) == 0 {
					b.WriteString("    role: " + one("coordinator", "fetcher") + "\n")
				} else {
					b.WriteString("    nodes: " + one(nodes...) + "\n")
				}
			}
			switch kind {
			case "crash", "drain":
				maybe("    ", "restart", "1s", "20s")
			case "loss", "bit-rot":
				b.WriteString("    part: 5%\n")
			case "slow-nic":
				b.WriteString("    rate: 1mbit\n")
			case "slow-node", "clock-skew":
				b.WriteString("    delay: 5ms\n")
			}
			if kind != "crash" && kind != "drain" && kind != "bit-rot" {
				maybe("    ", "for", "1s", "30s", "10m")
			}
		}
	}
	return b.String()
}
