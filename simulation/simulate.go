package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// NewCore makes a node's core, by default [policy.New]. In a large cluster (see
	// [ManyNodes]) cores of different nodes take steps at the same time.
	NewCore func(node int, cfg policy.Config) Core
	// Observe sees each step of each core, one at a time and in order. It must not keep the
	// effects. In a large cluster the core may have taken more steps since, and slices of the
	// event, which are the core's, may have changed.
	Observe func(at time.Duration, node int, ev *policy.Event, effects []policy.Effect)
	// Progress is told now and then, at most some times a second.
	Progress func(Progress)
	// Points is how many points Result.Series has at most, by default 300.
	Points int
	// MemoryLimit is how many bytes of memory the run may take by [Estimate], by
	// default as many as the machine has to spare, below 0 any number.
	MemoryLimit int64

	// Workers is how many goroutines have cores take steps in a large cluster (see
	// [ManyNodes]), by default as many as there are CPUs for, and two at most. The run is the
	// same with any number.
	Workers int

	// manyNodes, if not 0, is used for ManyNodes.
	manyNodes int
	// degree, if not 0, is how many peers a node is connected to at the start in
	// large clusters.
	degree int
	// sample sees the cluster once a sampleTime.
	sample     func(c *cluster)
	sampleTime time.Duration
	// freeMemory says what the machine has to spare.
	freeMemory func() int64
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
// memory than Options allow (a *[MemoryError]), and a core that breaks the rules of drivers and cores;
// clients that were not served, and invariants that were broken, are in the Result.
func Simulate(ctx context.Context, run *scenario.Run, opt Options) (*Result, error) {
	if err := sensible(run); err != nil {
		return nil, err
	}
	if err := opt.enough(run); err != nil {
		return nil, err
	}
	if opt.Points == 0 {
		opt.Points = defaultPoints
	}
	began := time.Now()
	useHugePages(Estimate(run))
	c, err := newCluster(run, opt)
	if err != nil {
		return nil, err
	}
	c.watch.began = began
	if late := c.lookahead(); late > 0 {
		c.ahead = newAhead(late, opt.workers())
		defer c.ahead.crew.dismiss()
	}
	c.play(ctx, startTime+int64(run.Limits.Time))
	if c.err != nil {
		return nil, c.err
	}
	c.conclude()
	r := *c.res
	if !r.Partial {
		// What happens from here on shows in the invariants alone.
		tail := r
		tail.Pulls = slices.Clone(r.Pulls)
		c.res = &tail
		c.rules.over()
		c.rest(ctx)
		if c.err != nil {
			return nil, c.err
		}
		r.Partial = tail.Partial // whether anything is left over nobody knows
	}
	r.Invariants = c.rules.finish()
	r.Wall = time.Since(began)
	return &r, nil
}

// sensible says what is wrong with a run that scenarios cannot give.
func sensible(run *scenario.Run) error {
	if len(run.Nodes) == 0 || len(run.Zones) == 0 || len(run.Racks) == 0 {
		return errors.New("simulation: a run needs at least one node, zone and rack")
	}
	if run.Limits.Time <= 0 {
		return errors.New("simulation: a run needs a limit of time")
	}
	for i, n := range run.Nodes {
		if n.Zone < 0 || n.Zone >= len(run.Zones) || n.Rack < 0 || n.Rack >= len(run.Racks) {
			return fmt.Errorf("simulation: node %d is in zone %d and rack %d, of %d and %d", i, n.Zone, n.Rack, len(run.Zones), len(run.Racks))
		}
	}
	for i, b := range run.Blobs {
		if b.Size < 1 {
			return fmt.Errorf("simulation: blob %d has %d bytes", i, b.Size)
		}
	}
	for i, m := range run.Images {
		for _, b := range append(slices.Clone(m.Layers), max(m.Manifest, 0)) {
			if b < 0 || b >= len(run.Blobs) {
				return fmt.Errorf("simulation: image %d has blob %d of %d", i, b, len(run.Blobs))
			}
		}
	}
	for i := range run.Pulls {
		p := &run.Pulls[i]
		if p.Node < 0 || p.Node >= len(run.Nodes) || p.Image < 0 || p.Image >= len(run.Images) {
			return fmt.Errorf("simulation: pull %d of image %d by node %d, of %d and %d", i, p.Image, p.Node, len(run.Images), len(run.Nodes))
		}
		if i > 0 && p.At < run.Pulls[i-1].At {
			return fmt.Errorf("simulation: pull %d is before the one before", i)
		}
		if p.After < 0 || p.After > 0 && p.After >= p.Wave || p.Wave < 0 || p.Wave > len(run.Pulls) {
			return fmt.Errorf("simulation: pull %d of wave %d waits for wave %d", i, p.Wave, p.After)
		}
	}
	for i := range run.Faults {
		for _, n := range run.Faults[i].Nodes {
			if n < 0 || n >= len(run.Nodes) {
				return fmt.Errorf("simulation: fault %d of node %d of %d", i, n, len(run.Nodes))
			}
		}
		if f := &run.Faults[i]; f.Kind == scenario.ClockSkew && f.Part <= -million {
			return fmt.Errorf("simulation: fault %d has a clock run backwards", i)
		}
	}
	return nil
}
