package simulation

import (
	"context"
	"errors"
	"slices"

	"github.com/peercache/peercache/simulation/scenario"
)

// Shrink looks for as few of a run's faults, and of the nodes that they befall, as
// still make it fail, by delta debugging (Zeller and Hildebrandt, "Simplifying and
// Isolating Failure-Inducing Input", 2002): it leaves out halves, then quarters, and
// in the end each one, until none can be left out. fails judges a result; a run that
// Simulate gives an error for fails too. What is returned is a run of its own.
//
// The error is for a run that does not fail to begin with, one that needs more memory than
// Options allow (a *[MemoryError]), and that of ctx; with the last comes the smallest run so far.
func Shrink(ctx context.Context, run *scenario.Run, opt Options, fails func(*Result) bool) (*scenario.Run, error) {
	if err := opt.enough(run); err != nil {
		return nil, err
	}
	// What one run has room for all have, whatever else takes memory meanwhile: that would pass
	// for a run that fails.
	opt.MemoryLimit = -1
	opt.Progress, opt.Observe = nil, nil
	least := *run
	try := func(faults []scenario.Fault) bool {
		if ctx.Err() != nil {
			return false
		}
		smaller := least
		smaller.Faults = faults
		res, err := Simulate(ctx, &smaller, opt)
		if ctx.Err() != nil || err == nil && !fails(res) {
			return false
		}
		least = smaller
		return true
	}
	if !try(run.Faults) {
		if err := ctx.Err(); err != nil {
			return &least, err
		}
		return nil, errors.New("simulation: the run does not fail, there is nothing to shrink")
	}
	least.Faults = leaveOut(least.Faults, try)
	for k := range least.Faults {
		leaveOut(least.Faults[k].Nodes, func(nodes []int) bool {
			if len(nodes) == 0 {
				return false // for no nodes, some faults are those of all
			}
			faults := slices.Clone(least.Faults)
			faults[k].Nodes = nodes
			return try(faults)
		})
	}
	return &least, ctx.Err()
}

// leaveOut returns as few of xs as fail still accepts, in their order.
func leaveOut[T any](xs []T, fail func([]T) bool) []T {
	for parts := 2; len(xs) > 0; {
		parts = min(parts, len(xs))
		smaller := false
		for k := 0; k < parts; k++ {
			lo, hi := k*len(xs)/parts, (k+1)*len(xs)/parts
			rest := slices.Concat(xs[:lo], xs[hi:])
			if fail(rest) {
				xs, smaller = rest, true
				break
			}
		}
		switch {
		case smaller:
			parts = max(parts-1, 2)
		case parts == len(xs):
			return xs
		default:
			parts *= 2
		}
	}
	return xs
}
