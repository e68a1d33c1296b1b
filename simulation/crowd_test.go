package simulation

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

const mib = 1 << 20

// crowd describes a flash crowd: every node pulls the same image of equal layers, at
// once or one after the other. Zero values stand for defaults.
type crowd struct {
	nodes, layers          int
	size                   int64
	seed                   uint64
	up, down, origin, conn int64
	latency, originDelay   time.Duration
	dht, open, store, hash time.Duration
	stagger, limit         time.Duration
	retries                int
	// manifest is the size of the image's manifest, 0 for none: the clients then
	// know the layers, as most of the figures by hand have it.
	manifest int64
	zones    int
	faults   []scenario.Fault
	opt      Options
}

func either[T comparable](v, other T) T {
	var zero T
	if v == zero {
		return other
	}
	return v
}

// run is the crowd as a run.
func (w crowd) run() *scenario.Run {
	up := either(w.up, 12_500_000)
	layers, zones := max(w.layers, 1), max(w.zones, 1)
	r := &scenario.Run{
		Name: "crowd", Seed: w.seed, Verify: "member",
		DHT: scenario.DHT{Delays: []time.Duration{either(w.dht, 2*time.Millisecond)}},
		Costs: scenario.Costs{Open: either(w.open, 500*time.Microsecond), Store: either(w.store, time.Millisecond),
			Hash: either(w.hash, time.Millisecond), Publish: 2 * time.Millisecond},
		Origin: scenario.Origin{Link: either(w.origin, up), Connection: w.conn, Delay: w.originDelay},
		Faults: w.faults,
		Limits: scenario.Limits{Time: either(w.limit, 10*time.Minute)},
	}
	l := either(w.latency, 500*time.Microsecond)
	r.Latency = scenario.Latency{Rack: l, Zone: l, Far: l, Origin: l}
	for z := range zones {
		r.Zones = append(r.Zones, scenario.Zone{Name: fmt.Sprint("zone ", z)})
		r.Racks = append(r.Racks, scenario.Rack{Zone: z})
	}
	image := scenario.Image{Name: "image", Manifest: -1}
	left := w.size
	for k := range layers {
		size := left / int64(layers-k)
		left -= size
		image.Layers = append(image.Layers, k)
		r.Blobs = append(r.Blobs, scenario.Blob{Name: fmt.Sprint("layer ", k), Size: size})
	}
	if w.manifest > 0 {
		image.Manifest = len(r.Blobs)
		r.Blobs = append(r.Blobs, scenario.Blob{Name: "manifest", Size: w.manifest, Manifest: true})
	}
	r.Images = []scenario.Image{image}
	for i := range w.nodes {
		r.Nodes = append(r.Nodes, scenario.Node{Zone: i % zones, Rack: i % zones, Up: up, Down: either(w.down, up)})
		var at time.Duration
		if w.nodes > 1 {
			at = w.stagger * time.Duration(i) / time.Duration(w.nodes-1)
		}
		r.Pulls = append(r.Pulls, scenario.Pull{At: at, Node: i, Retries: w.retries})
	}
	return r
}

// simulate plays the crowd.
func (w crowd) simulate(t testing.TB) *Result {
	t.Helper()
	return simulate(t, w.run(), w.opt)
}

func simulate(t testing.TB, run *scenario.Run, opt Options) *Result {
	t.Helper()
	r, err := Simulate(context.Background(), run, opt)
	if err != nil {
		t.Fatal(err)
	}
	if r.WrongCompletions > 0 {
		t.Errorf("%d responses were completed with wrong bytes", r.WrongCompletions)
	}
	return r
}

// statuses are what the clients were told at last.
func statuses(r *Result) (s []int) {
	for _, p := range r.Pulls {
		s = append(s, p.Status)
	}
	return s
}

// strict has the nodes verify strictly.
func strict(_ int, p *policy.Config) { p.Verify = policy.VerifyStrict }
