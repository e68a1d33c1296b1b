package report

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Summary is what several seeds of one scenario have in common.
type Summary struct {
	Schema int       `json:"schema"`
	Runs   []*Report `json:"runs"`
	Sum    Sum       `json:"summary"`
}

// Sum is the least, the median and the greatest of each figure over the runs that
// were not interrupted, and how often what happened.
type Sum struct {
	Scenario string `json:"scenario"`
	Nodes    int    `json:"nodes"`
	Version  string `json:"version,omitempty"`
	Commit   string `json:"commit,omitempty"`
	Seeds    int    `json:"seeds"` // that were to be run
	Complete int    `json:"complete"`
	OK       bool   `json:"ok"`
	Partial  bool   `json:"partial"`
	// Broken are the seeds of runs that were not as demanded.
	Broken  []uint64 `json:"broken_seeds"`
	Command string   `json:"command"`
	// Problems are those of the whole, such as a mechanism that never happened.
	Problems []string `json:"problems"`
	Failed   []Failed `json:"failed"`

	Makespan      Middle `json:"makespan_seconds"`
	MakespanRatio Middle `json:"makespan_ratio"`
	Completion99  Middle `json:"completion_p99_seconds"`
	FirstByte99   Middle `json:"first_byte_p99_seconds"`
	Egress        Middle `json:"origin_egress_ratio"`
	Requests      Middle `json:"origin_requests"`
	Messages      Middle `json:"messages_per_node"`

	// Mechanisms is how often each happened in all runs together.
	Mechanisms map[string]int64     `json:"mechanisms"`
	Invariants map[string]Invariant `json:"invariants"`
	Events     int64                `json:"events"`
	Wall       float64              `json:"wall_seconds"` // of all runs, one after the other
}

// Middle is the least, the median and the greatest.
type Middle struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// Short is a report without configuration, faults and series, for lists of many. It has
// no page, and no table but its row.
func (r *Report) Short() *Report {
	s := *r
	s.Configuration, s.Faults, s.Notes, s.Series = nil, nil, nil, nil
	if r.res != nil {
		s.curve = r.completionCurve()
	}
	s.run, s.res = nil, nil
	return &s
}

// Failed is a run that gave no report: its nodes broke the rules that hold between
// them and the simulator.
type Failed struct {
	Seed    uint64 `json:"seed"`
	Error   string `json:"error"`
	Command string `json:"command"`
}

// Summarise puts runs together, ascending by seed. seeds is how many there should have
// been, command what does them all again.
func Summarise(runs []*Report, failed []Failed, seeds int, command string) *Summary {
	s := &Summary{Schema: Schema, Runs: []*Report{}}
	sum := &s.Sum
	*sum = Sum{Seeds: seeds, Command: command, Broken: []uint64{}, Problems: []string{}, Failed: append([]Failed{}, failed...),
		Mechanisms: map[string]int64{}, Invariants: map[string]Invariant{}, Partial: len(runs)+len(failed) < seeds}
	for _, f := range failed {
		sum.Broken = append(sum.Broken, f.Seed)
	}
	runs = slices.Clone(runs)
	slices.SortFunc(runs, func(a, b *Report) int { return cmp.Compare(a.Seed, b.Seed) })
	var whole []*Report
	for _, r := range runs {
		s.Runs = append(s.Runs, r.Short())
		sum.Scenario, sum.Version, sum.Commit = r.Scenario, r.Version, r.Commit
		sum.Nodes = max(sum.Nodes, r.Nodes)
		sum.Events += r.Events
		sum.Wall += r.Wall
		if !r.OK {
			sum.Broken = append(sum.Broken, r.Seed)
		}
		for name, n := range r.Mechanisms {
			sum.Mechanisms[name] += n
		}
		for name, i := range r.Invariants {
			all := sum.Invariants[name]
			all.Rule, all.Checks, all.Violations = i.Rule, all.Checks+i.Checks, all.Violations+i.Violations
			if all.First == "" && i.First != "" {
				all.First = fmt.Sprintf("seed %d: %s", r.Seed, i.First)
			}
			sum.Invariants[name] = all
		}
		if r.Partial {
			sum.Partial = true
			continue
		}
		whole = append(whole, r)
	}
	sum.Complete = len(whole)
	slices.Sort(sum.Broken)
	sum.OK = len(sum.Broken) == 0 && len(sum.Problems) == 0
	of := func(value func(*Report) *float64) Middle {
		var all []float64
		for _, r := range whole {
			if v := value(r); v != nil {
				all = append(all, *v)
			}
		}
		return middle(all)
	}
	sum.Makespan = of(func(r *Report) *float64 { return &r.Makespan })
	sum.MakespanRatio = of(func(r *Report) *float64 { return r.MakespanRatio })
	sum.Completion99 = of(func(r *Report) *float64 { return &r.Completion.P99 })
	sum.FirstByte99 = of(func(r *Report) *float64 { return &r.FirstByte.P99 })
	sum.Egress = of(func(r *Report) *float64 { return r.OriginEgressRatio })
	sum.Requests = of(func(r *Report) *float64 { v := float64(r.OriginRequests); return &v })
	sum.Messages = of(func(r *Report) *float64 { return &r.MessagesPerNode })
	sum.Wall = math.Round(sum.Wall*1e3) / 1e3
	return s
}

func middle(all []float64) Middle {
	if len(all) == 0 {
		return Middle{}
	}
	slices.Sort(all)
	median := all[len(all)/2]
	if len(all)%2 == 0 {
		median = (median + all[len(all)/2-1]) / 2
	}
	return Middle{all[0], median, all[len(all)-1]}
}

// Never lists the mechanisms that never happened in any run.
func (s *Summary) Never() []string {
	var never []string
	for _, name := range mechanismNames {
		if s.Sum.Mechanisms[name] == 0 {
			never = append(never, name)
		}
	}
	return never
}

// JSON writes the document.
func (s *Summary) JSON(w io.Writer) error { return writeJSON(w, s) }

// SeedHeader and SeedRow are the lines of a table of seeds, so that each can be
// shown as soon as its run is over.
func SeedHeader() string {
	return fmt.Sprintf("%6s %12s %7s %12s %8s %8s %9s  %s", "seed", "makespan", "/ T*", "first p99", "copies", "requests", "messages", "verdict")
}

// SeedRow is the row of one run.
func (r *Report) SeedRow() string {
	verdict := "ok"
	switch {
	case r.Partial:
		verdict = "interrupted"
	case !r.OK:
		verdict = "BROKEN"
	}
	return fmt.Sprintf("%6d %12s %7s %12s %8s %8s %9s  %s", r.Seed, orNever(r.Makespan), orDash(r.MakespanRatio, 3),
		duration(wall(r.FirstByte.P99)), orDash(r.OriginEgressRatio, 4), count(r.OriginRequests), few(r.MessagesPerNode), verdict)
}

func orDash(v *float64, places int) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", places, *v)
}

// Table writes what all seeds have in common, for people; the rows of the seeds have
// been shown already.
func (s *Summary) Table(w io.Writer) error {
	t := &table{w: w, label: 13}
	sum := &s.Sum
	if sum.Complete > 0 {
		sum.figures(t)
	}
	var parts []string
	for _, name := range mechanismNames {
		parts = append(parts, fmt.Sprintf("%s %s", name, count(sum.Mechanisms[name])))
	}
	t.row("mechanisms", strings.Join(parts, ", ")+", in all runs")
	var checks, violations int64
	for _, i := range sum.Invariants {
		checks, violations = checks+i.Checks, violations+i.Violations
	}
	t.row("invariants", fmt.Sprintf("%s, checked %s times, broken %s", plural(len(sum.Invariants), "rule", "rules"),
		few(float64(checks)), plural(violations, "time", "times")))
	if sum.Partial {
		t.row("INTERRUPTED", fmt.Sprintf("%s of %s were run to their end", count(sum.Complete), plural(sum.Seeds, "seed", "seeds")))
	}
	for _, p := range sum.Problems {
		t.row("BROKEN", p)
	}
	for i, f := range s.broken() {
		if i == 5 {
			t.line(fmt.Sprintf("... and %s more", plural(len(sum.Broken)-i, "seed", "seeds")))
			break
		}
		t.row("BROKEN", fmt.Sprintf("seed %d: %s", f.Seed, f.Error))
		t.line("Again: " + f.Command)
	}
	return t.err
}

// figures are the rows of what is known of runs that were not interrupted.
func (sum *Sum) figures(t *table) {
	t.row(fmt.Sprintf("%s:", plural(sum.Complete, "run", "runs")), "least, median and greatest")
	three := func(m Middle, text func(float64) string) string {
		return fmt.Sprintf("%s, %s, %s", text(m.Min), text(m.Median), text(m.Max))
	}
	clock := func(v float64) string { return duration(wall(v)) }
	t.row("makespan", three(sum.Makespan, clock))
	if sum.MakespanRatio.Max > 0 {
		t.row("/ optimum", three(sum.MakespanRatio, func(v float64) string { return fmt.Sprintf("%.3f", v) }))
	}
	t.row("p99", three(sum.Completion99, clock))
	t.row("first byte", three(sum.FirstByte99, clock)+" (p99)")
	t.row("copies", three(sum.Egress, func(v float64) string { return fmt.Sprintf("%.4f", v) })+" from the registry")
	t.row("requests", three(sum.Requests, few)+" to the registry")
	t.row("messages", three(sum.Messages, few)+" a node")
}

// broken lists what was wrong with which seeds: first those that gave no report.
func (s *Summary) broken() []Failed {
	all := slices.Clone(s.Sum.Failed)
	for _, r := range s.Runs {
		if !r.OK {
			all = append(all, Failed{r.Seed, r.Problems[0], r.Command})
		}
	}
	return all
}
