package simulation

import (
	"context"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// Core is what the simulator drives for each node: [policy.Core], save in tests
// that show that a broken one is caught.
type Core interface {
	Step(now policy.Time, ev policy.Event, dst []policy.Effect) []policy.Effect
}

// Options say how a run is simulated. The zero value is what people want.
type Options struct {
	// Sharing says how flows share links.
	Sharing Sharing
	// Tune changes the configuration of a node's core.
	Tune func(node int, cfg *policy.Config)
	// NewCore makes a node's core, by default [policy.New].
	NewCore func(node int, cfg policy.Config) Core
	// Observe sees each step of each core. It must not keep the effects.
	Observe func(at time.Duration, node int, ev *policy.Event, effects []policy.Effect)
	// Progress is told now and then, at most some times a second.
	Progress func(Progress)
	// Points is how many points Result.Series has at most, by default 300.
	Points int
}

// Progress is how far a run has come.
type Progress struct {
	At            time.Duration // virtual
	Done, Pulls   int
	Received      int64 // bytes that nodes have, of Wanted
	Wanted        int64
	Events        int64
	OriginBytes   int64
	WallSeconds   float64
	EstimatedLeft time.Duration // wall time, 0 unknown
}

// Simulate runs a scenario. When ctx ends it stops and returns what happened so far,
// marked as partial. The error is for a run that makes no sense, one that needs more
// memory than Options allow, and a core that breaks the rules of drivers and cores;
// clients that were not served, and invariants that were broken, are in the Result.
func Simulate(ctx context.Context, run *scenario.Run, opt Options) (*Result, error) {
	cfg := Config{Nodes: len(run.Nodes), Seed: run.Seed, Up: run.Nodes[0].Up, Down: run.Nodes[0].Down, Origin: run.Origin.Link,
		Latency: run.Latency.Rack, OriginDelay: run.Origin.Delay, Limit: run.Limits.Time, Sharing: opt.Sharing, Tune: opt.Tune, Observe: opt.Observe}
	for _, b := range run.Images[0].Layers {
		cfg.Size += run.Blobs[b].Size
		cfg.Layers++
	}
	return FlashCrowd(cfg)
}
