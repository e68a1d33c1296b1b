package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/peercache/peercache/bench/internal/rig"
)

// The goals that every crowd has; kills allow for what they lose.
const (
	originGoal      = 1.02
	originGoalKill  = 1.08
	makespanGoal    = 1.25
	evennessGoal    = 1.15
	firstByteGoal   = 4
	memoryGoal      = 150 * mib
	agreementGoal   = 0.01
	resumeGoal      = 1.0
	headTagGoal     = 1
	getManifestGoal = 1
)

// row is a line of the table: how a run's cell reads, and, where there is a
// goal, its value and the most that it should be.
type row struct {
	name  string
	cell  func(*runResult) string
	value func(*runResult) float64
	goal  float64
}

func (res *result) table() *rig.Table {
	options := ""
	for _, name := range slices.Sorted(maps.Keys(res.Options)) {
		options += fmt.Sprintf(" -%s %s", name, res.Options[name])
	}
	columns := []string{""}
	for i := range res.Runs {
		columns = append(columns, fmt.Sprintf("run %d", i+1))
	}
	t := rig.NewTable("flashcrowd"+options, append(columns, "median", "goal, of all runs")...)
	for _, r := range res.rows() {
		cells := []any{r.name}
		var values []float64
		for i := range res.Runs {
			run := &res.Runs[i]
			if r.value != nil {
				values = append(values, r.value(run))
			}
			if r.cell != nil {
				cells = append(cells, r.cell(run))
			} else {
				cells = append(cells, fmt.Sprintf("%.4g", r.value(run)))
			}
		}
		median, verdict := "", ""
		if len(values) > 1 {
			median = fmt.Sprintf("%.4g", rig.Median(values))
		}
		if r.goal != 0 {
			verdict = fmt.Sprintf("<= %.4g: %s", r.goal, rig.Verdict(slices.Max(values) <= r.goal))
		}
		t.Row(append(cells, median, verdict)...)
	}
	t.Note("T* = t (M - 1 + ceil(log2(N+1))), t = 1 MiB / link, M = chunks of 1 MiB; size/origin + t (ceil(log2(N+1)) - 1) where the origin is slower")
	t.Note("quantiles: %s", res.Quantiles)
	for i := range res.Runs {
		run := &res.Runs[i]
		t.Note("run %d: policy %s", i+1, nonZero(run.Policy))
		if f := run.Fault; f != nil {
			t.Note("run %d: faults %s", i+1, inline(f))
		}
		if p := run.Private; p != nil {
			t.Note("run %d: without password %s", i+1, inline(p))
		}
		for _, e := range run.Clients.Errors {
			t.Note("run %d: %s", i+1, e)
		}
	}
	return t
}

func (res *result) rows() []row {
	lie := func(f func(*runResult) rig.Distribution, scale float64) func(*runResult) string {
		return func(r *runResult) string {
			s := f(r)
			return fmt.Sprintf("%.4g / %.4g / %.4g", s.P50/scale, s.P99/scale, s.Max/scale)
		}
	}
	requests := func(kind string) func(*runResult) string {
		return func(r *runResult) string {
			t := r.Origin.Requests[kind]
			return fmt.Sprintf("%d ok, %d refused, %d other", t.OK, t.Refused, t.Other)
		}
	}
	succeeded := func(kind string) func(*runResult) float64 {
		return func(r *runResult) float64 { return float64(r.Origin.Requests[kind].OK) }
	}
	goal := originGoal
	if slices.ContainsFunc(res.Runs, func(r runResult) bool { return r.Fault != nil && len(r.Fault.Killed) > 0 }) {
		goal = originGoalKill
	}
	// Where no link limits anything T* says nothing about nodes.
	slowGoal, waitGoal := makespanGoal, float64(firstByteGoal)
	if res.experiment.unlimited() {
		slowGoal, waitGoal = 0, 0
	}
	rows := []row{
		{name: "goodput of a link, MB/s", value: func(r *runResult) float64 { return r.Link / 1e6 }},
		{name: "goodput of the origin's, MB/s", value: func(r *runResult) float64 { return r.OriginLink / 1e6 }},
		{name: "origin bytes / unique", value: func(r *runResult) float64 { return r.OriginRatio }, goal: goal},
		{name: "  when the last client was done", value: func(r *runResult) float64 { return r.OriginRatioAtEnd }},
		{name: "  MiB, as the origin and as nodes count", cell: func(r *runResult) string {
			return fmt.Sprintf("%.2f, %.2f (%+.2f %%)", float64(r.Origin.Bytes)/mib, r.NodesSay.Bytes/mib, 100*r.NodesSay.Difference)
		}, value: func(r *runResult) float64 { return max(r.NodesSay.Difference, -r.NodesSay.Difference) }, goal: agreementGoal},
		{name: headTag, cell: requests(headTag), value: succeeded(headTag), goal: headTagGoal * float64(len(res.Images))},
		{name: getTag, cell: requests(getTag), value: succeeded(getTag)},
		{name: headManifest, cell: requests(headManifest), value: succeeded(headManifest)},
		{name: getManifest, cell: requests(getManifest), value: succeeded(getManifest), goal: getManifestGoal * float64(len(res.Images))},
		{name: "manifest requests, as origin and nodes count", cell: func(r *runResult) string {
			return fmt.Sprintf("%d, %.0f", r.Origin.manifests(), r.NodesSay.Manifests)
		}},
		{name: headBlob, cell: requests(headBlob)},
		{name: getBlob, cell: requests(getBlob)},
		{name: "makespan, s", value: func(r *runResult) float64 { return r.Makespan }},
		{name: "T*, s", cell: func(r *runResult) string {
			if r.OriginBound {
				return fmt.Sprintf("%.4g (the origin binds)", r.Optimum)
			}
			return fmt.Sprintf("%.4g", r.Optimum)
		}},
		{name: "makespan / T*", value: func(r *runResult) float64 { return r.MakespanRatio }, goal: slowGoal},
		{name: "makespan / (size / min(link, origin))", value: func(r *runResult) float64 { return r.OneCopyRatio }},
		{name: "a node's time, s: p50 / p99 / max", cell: lie(func(r *runResult) rig.Distribution { return r.Completion }, 1)},
		{name: "p99 / p50", value: func(r *runResult) float64 { return r.P99OverP50 }, goal: evennessGoal},
		{name: "first byte of a layer, s: p50 / p99 / max", cell: lie(func(r *runResult) rig.Distribution { return r.RequestFirstByte }, 1)},
		{name: "  the same from the pull's start", cell: lie(func(r *runResult) rig.Distribution { return r.FirstByte }, 1)},
		{name: "  directly from the idle origin", cell: lie(func(r *runResult) rig.Distribution { return r.DirectFirstByte }, 1)},
		{name: "  p99 over directly, chunk times t", value: func(r *runResult) float64 { return r.FirstByteChunks }, goal: waitGoal},
		{name: "CPU-s of all nodes per GiB delivered", value: func(r *runResult) float64 { return r.CPUPerGiB }},
		{name: "CPU-s: all nodes, this program", cell: func(r *runResult) string { return fmt.Sprintf("%.4g, %.4g", r.CPU, r.BenchCPU) }},
		{name: "VmHWM of a node, MiB: p50 / p99 / max", cell: lie(func(r *runResult) rig.Distribution { return r.VmHWM }, mib),
			value: func(r *runResult) float64 { return r.VmHWM.Max / mib }, goal: memoryGoal / mib},
		{name: "RssAnon of a node, MiB: p50 / p99 / max", cell: lie(func(r *runResult) rig.Distribution { return r.RssAnon }, mib),
			value: func(r *runResult) float64 { return r.RssAnon.Max / mib }, goal: memoryGoal / mib},
		{name: "control messages sent by a node", cell: lie(func(r *runResult) rig.Distribution { return r.ControlMessages }, 1)},
		{name: "  their KiB", cell: lie(func(r *runResult) rig.Distribution { return r.ControlBytes }, 1024)},
		{name: "received twice / one copy each", value: func(r *runResult) float64 { return r.Duplicates }},
		{name: "wasted MiB: from origin, from peers", cell: func(r *runResult) string {
			return fmt.Sprintf("%.2f, %.2f", r.Wasted["origin"]/mib, r.Wasted["peer"]/mib)
		}},
		{name: "clients: completed, failed, not counted", cell: func(r *runResult) string {
			return fmt.Sprintf("%d, %d, %d", r.Clients.Completed, r.Clients.Failed, r.Clients.NotCounted)
		}},
		{name: "  resumes, wrong bytes", cell: func(r *runResult) string {
			return fmt.Sprintf("%d, %d", r.Clients.Resumes, r.Clients.WrongBytes)
		}},
	}
	if goal == originGoalKill {
		rows = append(rows,
			row{name: "after the kill: its reads go on elsewhere, s", cell: func(r *runResult) string {
				if len(r.Fault.Resumed)+r.Fault.NeverResumed == 0 {
					return "none was open"
				}
				return fmt.Sprintf("%.3g", resumed(r))
			}, value: resumed, goal: resumeGoal},
			row{name: "  longest silence of the origin, s", value: func(r *runResult) float64 { return r.Fault.Silence }, goal: resumeGoal})
	}
	return rows
}

// resumed is when the last of the reads that a kill cut off went on.
func resumed(r *runResult) float64 { return slices.Max(append([]float64{0}, r.Fault.Resumed...)) }

// inline writes what has a name for each figure as one line.
func inline(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error() // cannot be: plain structs
	}
	return strings.NewReplacer(`"`, "", ",", ", ", ":", " ").Replace(string(data))
}

func nonZero(m map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] != 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f", name, m[name]))
		}
	}
	return strings.Join(parts, ", ")
}
