package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/report"
)

const (
	// parallelRuns is how many runs with different seeds are made at once, unless one of
	// them takes more than largeRun of memory.
	parallelRuns = 2
	largeRun     = 2 << 30
	// fewSeeds is from how many runs of a fault search on a mechanism that never
	// happened is a failure: the search did not look there.
	fewSeeds = 100
)

var (
	errBroken      = errors.New("not everything was as demanded")
	errInterrupted = &exitError{exitInterrupted, errors.New("interrupted; the report is of what happened until then")}
)

// one makes a run.
func (t *trial) one(ctx context.Context) error {
	seed := t.seeds[0]
	progress := t.p.newProgress(t.flags.json)
	r, err := t.simulate(ctx, seed, simulation.Options{Progress: progress.run})
	progress.end()
	switch {
	case errors.As(err, new(*exitError)):
		return err
	case err != nil:
		err = fmt.Errorf("%w\nAgain: %s", err, t.command(strconv.FormatUint(seed, 10)))
		if t.flags.shrink {
			err = errors.Join(err, t.shrink(ctx, seed, true))
		}
		return err
	}
	if t.flags.json {
		err = r.JSON(t.p.stdout)
	} else {
		err = r.Table(t.p.stdout)
	}
	if err = errors.Join(err, t.saveRun("", r)); err != nil {
		return err
	}
	t.tellFiles()
	switch {
	case r.Partial:
		return errInterrupted
	case r.OK:
		t.nothingToShrink()
		return nil
	}
	if t.flags.shrink {
		if err := t.shrink(ctx, seed, false); err != nil {
			return err
		}
	}
	return errBroken
}

// simulate makes the run of a seed, with the progress and the workers of how.
func (t *trial) simulate(ctx context.Context, seed uint64, how simulation.Options) (*report.Report, error) {
	run, err := t.expand(seed)
	if err != nil {
		return nil, usageError(err)
	}
	opt := t.options
	opt.Progress, opt.Workers = how.Progress, how.Workers
	res, err := simulation.Simulate(ctx, run, opt)
	if errors.As(err, new(*simulation.MemoryError)) {
		return nil, usageError(err)
	}
	if err != nil {
		return nil, err
	}
	return report.New(run, res, t.about(seed)), nil
}

// saveRun writes a run's files below the directory of --out.
func (t *trial) saveRun(dir string, r *report.Report) error {
	if t.flags.out == "" {
		return nil
	}
	return errors.Join(
		t.save(filepath.Join(dir, "result.json"), func(f *os.File) error { return r.JSON(f) }),
		t.save(filepath.Join(dir, "report.html"), func(f *os.File) error { return r.HTML(f) }))
}

func (t *trial) tellFiles() {
	if t.flags.out != "" {
		fmt.Fprintf(t.p.stderr, "Wrote %s and result.json beside it\n", filepath.Join(t.flags.out, "report.html"))
	}
}

func (t *trial) nothingToShrink() {
	if t.flags.shrink {
		fmt.Fprintln(t.p.stderr, "There is nothing to shrink: nothing failed.")
	}
}

// outcome is what became of a seed.
type outcome struct {
	report *report.Report // nil if there is none
	err    error
}

// many makes a run for each seed.
func (t *trial) many(ctx context.Context) error {
	progress := t.p.newProgress(t.flags.json)
	progress.seeds(len(t.seeds))
	outcomes := make([]outcome, len(t.seeds))
	done := make([]chan struct{}, len(t.seeds))
	for i := range done {
		done[i] = make(chan struct{})
	}
	// Want of memory, and files that cannot be written, end all.
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(t.parallel())
	workers := 0
	if t.parallel() > 1 {
		workers = 1 // the CPUs have enough to do
	}
	var shown errgroup.Group
	shown.Go(func() error { return t.rows(outcomes, done, progress) })
	for i, seed := range t.seeds {
		group.Go(func() error {
			defer close(done[i])
			if inner.Err() != nil {
				return nil
			}
			r, err := t.simulate(inner, seed, simulation.Options{Workers: workers})
			progress.seedDone(r == nil || !r.OK)
			if r == nil {
				outcomes[i].err = err
				if errors.As(err, new(*exitError)) {
					return err
				}
				return nil
			}
			outcomes[i].report = r.Short()
			return t.saveRun(seedDir(seed), r)
		})
	}
	fatal := group.Wait()
	err := shown.Wait()
	progress.end()
	if fatal != nil {
		return fatal
	}
	sum := t.sum(outcomes)
	switch {
	case err != nil:
	case t.flags.json:
		err = sum.JSON(t.p.stdout)
	default:
		fmt.Fprintln(t.p.stdout)
		err = sum.Table(t.p.stdout)
	}
	if t.flags.out != "" {
		err = errors.Join(err,
			t.save("result.json", func(f *os.File) error { return sum.JSON(f) }),
			t.save("report.html", func(f *os.File) error {
				return sum.HTML(f, func(seed uint64) string { return filepath.ToSlash(filepath.Join(seedDir(seed), "report.html")) })
			}))
	}
	if err != nil {
		return err
	}
	t.tellFiles()
	switch {
	case ctx.Err() != nil:
		return errInterrupted
	case sum.Sum.OK:
		t.nothingToShrink()
		return nil
	}
	if t.flags.shrink && len(sum.Sum.Broken) > 0 {
		seed := sum.Sum.Broken[0]
		gaveError := slices.ContainsFunc(sum.Sum.Failed, func(f report.Failed) bool { return f.Seed == seed })
		if err := t.shrink(ctx, seed, gaveError); err != nil {
			return err
		}
	}
	return errBroken
}

// parallel is how many runs are made at once. Each sees the memory that is free when it
// begins: two large ones could begin where there is room for one.
func (t *trial) parallel() int {
	run, err := t.expand(t.seeds[0])
	if err != nil {
		return 1
	}
	if need := simulation.Estimate(run); need > largeRun || t.options.MemoryLimit > 0 && 2*need > t.options.MemoryLimit {
		return 1
	}
	return parallelRuns
}

func seedDir(seed uint64) string { return "seed-" + strconv.FormatUint(seed, 10) }

// rows shows each seed as soon as those before it are shown.
func (t *trial) rows(outcomes []outcome, done []chan struct{}, progress *progress) error {
	if t.flags.json {
		return nil
	}
	var err error
	show := func(line string) {
		progress.beside(func() {
			if err == nil {
				_, err = fmt.Fprintln(t.p.stdout, line)
			}
		})
	}
	for i, seed := range t.seeds {
		<-done[i]
		if i == 0 {
			show(report.SeedHeader())
		}
		switch o := &outcomes[i]; {
		case o.report != nil:
			show(o.report.SeedRow())
		case o.err != nil:
			show(fmt.Sprintf("%6d  FAILED: %v", seed, o.err))
		}
	}
	return err
}

// sum puts the runs together.
func (t *trial) sum(outcomes []outcome) *report.Summary {
	var runs []*report.Report
	var failed []report.Failed
	for i := range outcomes {
		switch o := &outcomes[i]; {
		case o.report != nil:
			runs = append(runs, o.report)
		case o.err != nil:
			failed = append(failed, report.Failed{Seed: t.seeds[i], Error: o.err.Error(), Command: t.command(strconv.FormatUint(t.seeds[i], 10))})
		}
	}
	sum := report.Summarise(runs, failed, len(t.seeds), t.command(t.flags.seeds))
	if t.name == faultSearch && sum.Sum.Complete >= fewSeeds {
		for _, name := range sum.Never() {
			sum.Sum.Problems = append(sum.Sum.Problems, fmt.Sprintf("in %d runs there were no %s: the search did not look there", sum.Sum.Complete, name))
			sum.Sum.OK = false
		}
	}
	return sum
}
