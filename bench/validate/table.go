package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// The goals, for 16 nodes.
const (
	makespanGoal = 0.10
	p99Goal      = 0.15
	egressGoal   = 1 << 20 // a chunk
	goalNodes    = 16
)

// table is the residuals, as Markdown.
type table struct {
	params        params
	repeat, seeds int
	rows          []residual
}

// residual is one case.
type residual struct {
	of              testCase
	real, predicted figures
	spread          float64
}

func (t *table) add(c testCase, measured figures, spread float64, predicted figures) {
	t.rows = append(t.rows, residual{c, measured, predicted, spread})
}

// String is the table, with what is best of all at its end: whether the goals are met.
func (t *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Real: mean of %d runs (in brackets: how far the largest makespan is above the smallest). Predicted: mean of %d seeds, with\n%s.\n\n",
		t.repeat, t.seeds, t.params)
	b.WriteString("| | makespan, s: real | predicted | off | completion p50 | p99 | first byte p50, s | egress beyond one copy, KiB: real, predicted | messages a node: real, predicted |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|\n")
	for _, train := range []bool{true, false} {
		title := "**fitted on**"
		if !train {
			title = "**tested on**"
		}
		first := true
		for _, r := range t.rows {
			if r.of.Train != train {
				continue
			}
			if first {
				fmt.Fprintf(&b, "| %s | | | | | | | | |\n", title)
				first = false
			}
			spread := ""
			if r.spread > 0 {
				spread = fmt.Sprintf(" (%.1f %%)", 100*r.spread)
			}
			fmt.Fprintf(&b, "| %s | %.2f%s | %.2f | %s | %s | %s | %.2f, %.2f | %d, %d | %.0f, %.0f |\n", r.of.Name,
				r.real.Makespan, spread, r.predicted.Makespan, percent(off(r.predicted.Makespan, r.real.Makespan)),
				percent(off(r.predicted.P50, r.real.P50)), percent(off(r.predicted.P99, r.real.P99)),
				r.real.FirstByte, r.predicted.FirstByte, r.real.Egress>>10, r.predicted.Egress>>10, r.real.Messages, r.predicted.Messages)
		}
	}
	b.WriteString("\n")
	t.verdicts(&b)
	return b.String()
}

func percent(v float64) string { return fmt.Sprintf("%+.1f %%", 100*v) }

// verdicts says for 16 nodes, and for all that was tested, how far it is off at most.
func (t *table) verdicts(b *strings.Builder) {
	for _, of := range []struct {
		name string
		in   func(residual) bool
	}{
		{fmt.Sprintf("N = %d, tested on", goalNodes), func(r residual) bool { return !r.of.Train && !r.of.Virtual && r.of.nodes == goalNodes }},
		{"All real processes tested on", func(r residual) bool { return !r.of.Train && !r.of.Virtual }},
		{"Simulated packets", func(r residual) bool { return r.of.Virtual }},
		{"All that was fitted on", func(r residual) bool { return r.of.Train }},
	} {
		rows := slices.DeleteFunc(slices.Clone(t.rows), func(r residual) bool { return !of.in(r) })
		if len(rows) == 0 {
			continue
		}
		var makespan, p99, sum float64
		var egress int64
		for _, r := range rows {
			m := math.Abs(off(r.predicted.Makespan, r.real.Makespan))
			makespan, sum = max(makespan, m), sum+m
			p99 = max(p99, math.Abs(off(r.predicted.P99, r.real.P99)))
			// Whether a node that is killed was reading from the origin is chance.
			if r.of.faults == "" {
				egress = max(egress, r.real.Egress-r.predicted.Egress, r.predicted.Egress-r.real.Egress)
			}
		}
		fmt.Fprintf(b, "- %s: makespan off by at most %.1f %% (goal %.0f %%: %s), %.1f %% on average; p99 by at most %.1f %% (goal %.0f %%: %s); egress, without faults, by at most %d KiB (goal a chunk, %d: %s).\n",
			of.name, 100*makespan, 100*makespanGoal, verdict(makespan <= makespanGoal), 100*sum/float64(len(rows)),
			100*p99, 100*p99Goal, verdict(p99 <= p99Goal), egress>>10, egressGoal>>10, verdict(egress <= egressGoal))
	}
}

func verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "missed"
}

// nearest is the percentile of nearest rank, 0 of nothing.
func nearest(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	return s[(len(s)*p+99)/100-1]
}
