package simulation

import (
	"context"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

var explore = struct {
	nodes, size, layers, rate, originRate, manifest, degree, sharing, kill, bad, verify, set *string
	latency, stagger, limit, timeline                                                        *time.Duration
	seeds, retries                                                                           *int
}{
	nodes:      flag.String("nodes", "", "nodes, by commas: runs TestExplore"),
	size:       flag.String("size", "256", "MiB, by commas"),
	layers:     flag.String("layers", "1", "blobs of the image"),
	rate:       flag.String("rate", "100", "Mbit/s of a node's link"),
	originRate: flag.String("origin-rate", "0", "Mbit/s of the origin's link, 0 for that of a node"),
	manifest:   flag.String("manifest", "0", "bytes of the manifest, 0 for none"),
	degree:     flag.String("degree", "0", "peers at the start in large clusters"),
	sharing:    flag.String("sharing", "auto", "auto, maxmin, leveled or equal"),
	kill:       flag.String("kill", "", "coordinator, fetcher, or a percentage of the nodes"),
	bad:        flag.String("bad", "", "corrupt, forge, stall or mute, by commas: a node each, from node 1 on"),
	verify:     flag.String("verify", "member", "member or strict"),
	set:        flag.String("set", "", "fields of the policy's Config that are integers, as NAME=NUMBER, by commas"),
	latency:    flag.Duration("latency", 500*time.Microsecond, "one way"),
	stagger:    flag.Duration("stagger", 0, "over how long the clients start"),
	limit:      flag.Duration("limit", 10*time.Minute, "virtual time"),
	timeline:   flag.Duration("timeline", 0, "prints the state of the cluster so often"),
	seeds:      flag.Int("seeds", 1, "how many seeds"),
	retries:    flag.Int("retries", 5, "how often a client asks again"),
}

func exploreNumber(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestExplore prints a table of runs:
//
//	go test ./simulation/ -run TestExplore -v -args -nodes 8,16 -size 128,256 -kill coordinator
func TestExplore(t *testing.T) {
	if *explore.nodes == "" {
		t.Skip("no -nodes")
	}
	fmt.Printf("%6s %6s %4s %10s %6s %7s %6s %6s %6s %7s %8s %6s %6s %7s %9s\n", "nodes", "MiB", "seed",
		"makespan", "/T*", "copies", "p99/50", "1st/t", "p99/t", "msgs/n", "cut%", "waste%", "left", "ns/ev", "events")
	for _, nodes := range strings.Split(*explore.nodes, ",") {
		for _, size := range strings.Split(*explore.size, ",") {
			for seed := range *explore.seeds {
				w := exploreCrowd(t)
				w.nodes, w.size, w.seed = exploreNumber(t, nodes), int64(exploreNumber(t, size))<<20, uint64(seed)
				exploreFaults(t, &w)
				began := time.Now()
				r, err := Simulate(context.Background(), w.run(), w.opt)
				if err != nil {
					t.Fatal(err)
				}
				took := time.Since(began)
				moved := float64(r.UniqueBytes) * float64(w.nodes)
				fmt.Printf("%6d %6s %4d %10v %6.3f %7.3f %6.3f %6.2f %6.2f %7d %8.2f %6.2f %6d %7d %9d\n", w.nodes, size, seed,
					r.Makespan.Round(time.Millisecond), r.Slowdown(), r.Copies(),
					float64(Percentile(r.Completion, 99))/float64(max(Percentile(r.Completion, 50), 1)),
					float64(Percentile(r.FirstByte, 50))/float64(r.ChunkTime), float64(Percentile(r.FirstByte, 99))/float64(r.ChunkTime),
					r.MessageCount()/int64(w.nodes), 100*float64(r.CutBytes)/moved,
					100*float64(r.Metrics[policy.CountWaste])/moved, r.Unserved, int64(took)/r.Events, r.Events)
				exploreDetails(r)
			}
		}
	}
}

func exploreDetails(r *Result) {
	var b strings.Builder
	for k, n := range r.Messages {
		if n > 0 {
			fmt.Fprintf(&b, " m%d=%d", k, n)
		}
	}
	for k, n := range r.Metrics {
		if n > 0 {
			fmt.Fprintf(&b, " %s=%d", policy.Metric(k), n)
		}
	}
	fmt.Fprintf(&b, " trace=%016x recovery=%v transfers=%d origin-requests=%d lookups=%d killed=%d failures=%d wrong-released=%d wrong-completed=%d honest-bans=%d",
		r.Trace, r.Recovery, r.Transfers, r.OriginRequests, r.Lookups, r.Killed, r.Failures, r.WrongReleases, r.WrongCompletions, r.HonestBans)
	fmt.Fprintln(os.Stdout, "      ", b.String())
}

func exploreCrowd(t *testing.T) crowd {
	const mbit = 1_000_000 / 8
	w := crowd{layers: exploreNumber(t, *explore.layers), up: int64(exploreNumber(t, *explore.rate)) * mbit,
		origin: int64(exploreNumber(t, *explore.originRate)) * mbit, manifest: int64(exploreNumber(t, *explore.manifest)),
		latency: *explore.latency, retries: *explore.retries, stagger: *explore.stagger, limit: *explore.limit}
	w.opt.degree = exploreNumber(t, *explore.degree)
	sharing, ok := map[string]Sharing{"auto": AutoShare, "maxmin": MaxMin, "leveled": LeveledShare, "equal": EqualShare}[*explore.sharing]
	if !ok {
		t.Fatalf("no such sharing: %s", *explore.sharing)
	}
	w.opt.Sharing = sharing
	w.opt.Tune = func(_ int, p *policy.Config) {
		if *explore.verify == "strict" {
			p.Verify = policy.VerifyStrict
		}
		for _, s := range strings.Split(*explore.set, ",") {
			if name, value, ok := strings.Cut(s, "="); ok {
				reflect.ValueOf(p).Elem().FieldByName(name).SetInt(int64(exploreNumber(t, value)))
			}
		}
	}
	if w.opt.sampleTime = *explore.timeline; w.opt.sampleTime > 0 {
		var before []int64
		w.opt.sample = func(c *cluster) { before = printSample(c, before) }
	}
	return w
}

// printSample prints how busy the links were since the last one, in percent, how
// far the nodes are, and how much of the image is anywhere.
func printSample(c *cluster, before []int64) []int64 {
	now := make([]int64, len(c.net.links))
	for i := range c.net.links {
		now[i] = c.net.links[i].bytes
	}
	for i := range c.net.flows {
		if f := &c.net.flows[i]; f.active {
			c.net.settle(f, c.now)
			for _, h := range f.over() {
				now[h.link] += f.moved()
			}
		}
	}
	if before == nil {
		before = make([]int64, len(now))
	}
	use := func(l int32) float64 {
		return 100 * float64(now[l]-before[l]) / float64(c.net.links[l].rate) / c.opt.sampleTime.Seconds()
	}
	var up, in float64
	least, most, sum, all, anywhere := 1<<30, 0, 0, 0, 0
	for _, n := range c.nodes {
		up, in = up+use(n.up), in+use(n.in)
		has := 0
		for _, h := range n.held {
			for i := range h.chunks() {
				if h.level[i].Shareable() {
					has++
				}
			}
		}
		least, most, sum = min(least, has), max(most, has), sum+has
	}
	for k, b := range c.blobs {
		all += b.n
		for i := range b.n {
			for _, n := range c.nodes {
				if h := n.held[k]; h != nil && h.level[i].Shareable() {
					anywhere++
					break
				}
			}
		}
	}
	n := float64(len(c.nodes))
	var said strings.Builder
	for k, m := range c.res.Messages {
		if m > 0 {
			fmt.Fprintf(&said, " m%d=%.1f", k, float64(m)/n)
		}
	}
	fmt.Printf("  %8v origin %3.0f%% up %3.0f%% down %3.0f%%  chunks of %d: somewhere %d, a node %d to %d, mean %.0f; flows %d\n",
		time.Duration(c.now-startTime), use(c.originUp), up/n, in/n, all, anywhere, least, most, float64(sum)/n, len(c.net.flows)-len(c.net.free))
	fmt.Printf("           a node so far:%s busy=%.1f\n", &said, float64(c.res.Metrics[policy.CountBusy])/n)
	return now
}

func (h *holding) chunks() int {
	if h == nil {
		return 0
	}
	return len(h.level)
}

func exploreFaults(t *testing.T, w *crowd) {
	when := w.optimum(t) / 2
	crash := scenario.Fault{Kind: scenario.Crash, At: when}
	switch k := *explore.kill; k {
	case "":
	case "coordinator", "fetcher":
		crash.Role = scenario.Role(k)
		w.faults = append(w.faults, crash)
	default:
		for i := range w.nodes * exploreNumber(t, strings.TrimSuffix(k, "%")) / 100 {
			crash.Nodes = append(crash.Nodes, w.nodes-1-i)
		}
		slices.Sort(crash.Nodes)
		w.faults = append(w.faults, crash)
	}
	if *explore.bad == "" {
		return
	}
	for i, k := range strings.Split(*explore.bad, ",") {
		w.faults = append([]scenario.Fault{{Kind: scenario.FaultKind(k), Nodes: []int{1 + i}}}, w.faults...)
	}
}

// optimum is T* of a crowd.
func (w crowd) optimum(t *testing.T) time.Duration {
	c, err := newCluster(w.run(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := c.optimum()
	return whole
}
