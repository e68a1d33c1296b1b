package simulation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// SearchConfig says which runs a fault search makes. Its zero values stand for the
// defaults.
type SearchConfig struct {
	// Seeds is how many runs are made (default 200), From the first one's seed.
	Seeds int
	From  uint64
	// Nodes is how many each run has (default 50), Chunks about how many chunks of
	// 1 MiB its images have (default 64), Faults how many things at least go wrong
	// (default 3, at most as many again and one).
	Nodes, Chunks, Faults int
	// Parallel is how many runs are made at once (default 2). It changes nothing
	// about any of them.
	Parallel int
	// Options are those of each run.
	Options Options
	// Progress, if not nil, is told of each run that is done, one at a time.
	Progress func(done, failed int)
}

func (cfg SearchConfig) filled() SearchConfig {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	def(&cfg.Seeds, 200)
	def(&cfg.Nodes, 50)
	def(&cfg.Chunks, 64)
	def(&cfg.Faults, 3)
	def(&cfg.Parallel, 2)
	return cfg
}

// SearchResult says what a fault search found.
type SearchResult struct {
	// Runs is how many were made, Faults how many things went wrong in them.
	Runs, Faults int
	// Failures are the runs in which an invariant was broken, by seed.
	Failures []SearchFailure
	// Happened says how often each of the things that a search is for came about, over
	// all runs: a search in which one of them never did has not looked there.
	Happened []Happened
	// Invariants are the sums over all runs; First is of the lowest seed.
	Invariants []Invariant
	Events     int64
	Wall       time.Duration
}

// Happened is how often something did.
type Happened struct {
	Name  string
	Count int64
}

// SearchFailure is a run that broke an invariant, or its core the rules of drivers
// and cores.
type SearchFailure struct {
	Seed   uint64
	Broken []Invariant
	Err    error
}

// Command is what makes the run again.
func (f *SearchFailure) Command() string {
	return fmt.Sprintf("peercache simulate fault-search --seed %d", f.Seed)
}

// String says what was broken first, and how to see it again.
func (f *SearchFailure) String() string {
	var s strings.Builder
	if f.Err != nil {
		fmt.Fprintf(&s, "seed %d: %v\n", f.Seed, f.Err)
	}
	for _, v := range f.Broken {
		fmt.Fprintf(&s, "seed %d: %s broken %d times: %s\n", f.Seed, v.Name, v.Violations, v.First)
	}
	return s.String() + "  " + f.Command()
}

// Never lists what never happened.
func (r *SearchResult) Never() []string {
	var never []string
	for _, h := range r.Happened {
		if h.Count == 0 {
			never = append(never, h.Name)
		}
	}
	return never
}

// Err is what is wrong with the outcome, nil for nothing: an invariant was broken, or
// something that a search is for never happened.
func (r *SearchResult) Err() error {
	var errs []error
	for i := range r.Failures {
		errs = append(errs, errors.New(r.Failures[i].String()))
	}
	if never := r.Never(); len(never) > 0 {
		errs = append(errs, fmt.Errorf("in %d runs there was never a %s", r.Runs, strings.Join(never, ", nor a ")))
	}
	return errors.Join(errs...)
}

// happenings are what a search is for, and the cores' counters that tell.
var happenings = []struct {
	name    string
	metrics []policy.Metric
}{
	{"takeover", []policy.Metric{policy.CountTakeover}},
	{"redirect", []policy.Metric{policy.CountRedirect}},
	{"hedge", []policy.Metric{policy.CountHedge}},
	{"blame", []policy.Metric{policy.CountBan}},
	{"BUSY", []policy.Metric{policy.CountBusy}},
	{"regrant", []policy.Metric{policy.CountRegrant}},
	{"refetch", []policy.Metric{policy.CountRefuted}},
	{"strict read", []policy.Metric{policy.CountStrict}},
	{"stall", []policy.Metric{policy.CountStall}},
	{"second transfer", []policy.Metric{policy.CountSecond}},
	{"conflict", []policy.Metric{policy.CountConflict}},
	{"cooldown", []policy.Metric{policy.CountCooldown}},
	{"probe", []policy.Metric{policy.CountProbe}},
}

// Violated lists the invariants that were broken.
func (r *Result) Violated() []Invariant {
	return slices.DeleteFunc(slices.Clone(r.Invariants), func(v Invariant) bool { return v.Violations == 0 })
}

// Search makes random runs with faults in them, and says which of them broke an
// invariant. Each is a function of its seed alone: see [SearchRun]. The error is that
// of ctx; what was found by then is returned with it.
func Search(ctx context.Context, cfg SearchConfig) (*SearchResult, error) {
	cfg = cfg.filled()
	began := time.Now()
	opt := cfg.Options
	if cfg.Parallel > 1 && opt.Workers == 0 {
		opt.Workers = 1
	}
	type outcome struct {
		run *scenario.Run
		res *Result
		err error
	}
	outcomes := make([]outcome, cfg.Seeds)
	var next, done, failed atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range cfg.Parallel {
		wg.Go(func() {
			for ctx.Err() == nil {
				k := int(next.Add(1)) - 1
				if k >= cfg.Seeds {
					return
				}
				o := &outcomes[k]
				o.run = cfg.Run(cfg.From + uint64(k))
				o.res, o.err = Simulate(ctx, o.run, opt)
				if ctx.Err() != nil {
					o.res, o.err = nil, nil
					return
				}
				if o.err != nil || len(o.res.Violated()) > 0 {
					failed.Add(1)
				}
				n := int(done.Add(1))
				if cfg.Progress != nil {
					mu.Lock()
					cfg.Progress(n, int(failed.Load()))
					mu.Unlock()
				}
				if o.res != nil {
					o.res.Series, o.res.Pulls = nil, nil // of no use here
				}
			}
		})
	}
	wg.Wait()
	sum := &SearchResult{}
	for _, h := range happenings {
		sum.Happened = append(sum.Happened, Happened{Name: h.name})
	}
	for k := range outcomes {
		o := &outcomes[k]
		if o.res == nil && o.err == nil {
			continue
		}
		sum.Runs++
		sum.Faults += len(o.run.Faults)
		f := SearchFailure{Seed: o.run.Seed, Err: o.err}
		if o.res != nil {
			sum.add(o.res)
			f.Broken = o.res.Violated()
		}
		if f.Err != nil || len(f.Broken) > 0 {
			sum.Failures = append(sum.Failures, f)
		}
	}
	sum.Wall = time.Since(began)
	return sum, ctx.Err()
}

func (r *SearchResult) add(o *Result) {
	r.Events += o.Events
	for i, h := range happenings {
		for _, m := range h.metrics {
			r.Happened[i].Count += o.Metrics[m]
		}
	}
	for i, v := range o.Invariants {
		if i == len(r.Invariants) {
			r.Invariants = append(r.Invariants, Invariant{Name: v.Name, Rule: v.Rule})
		}
		sum := &r.Invariants[i]
		sum.Checks += v.Checks
		sum.Violations += v.Violations
		if sum.First == "" {
			sum.First = v.First
		}
	}
}
