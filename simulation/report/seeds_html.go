package report

import (
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
)

// seedsPage is the page of several seeds.
type seedsPage struct {
	page
	Runs []seedLine
}

type seedLine struct {
	Seed                                               uint64
	Link                                               string
	Makespan, Ratio, First, Copies, Requests, Messages string
	Verdict                                            string
	Broken                                             bool
}

// HTML writes the page of all seeds. link names the page of one, relative to this one, ""
// if it has none.
func (s *Summary) HTML(w io.Writer, link func(seed uint64) string) error {
	sum := &s.Sum
	p := seedsPage{page: page{Title: sum.Scenario, Style: template.CSS(pageStyle), Command: sum.Command,
		Headline: fmt.Sprintf("%s, %s", plural(sum.Nodes, "node", "nodes"), plural(sum.Seeds, "seed", "seeds"))}}
	if len(s.Runs) > 0 {
		p.Description, p.Made = s.Runs[0].Description, fmt.Sprintf("%s; %s events in %s of computing.",
			strings.Join(s.Runs[0].madeBy(), "; "), count(sum.Events), duration(wall(sum.Wall)))
	}
	p.Verdict = verdict{Class: "good", Text: "Every run is as the scenario demands.", Problems: sum.Problems}
	if !sum.OK {
		p.Verdict.Class, p.Verdict.Text = "bad", "Not everything is as the scenario demands."
		for i, f := range s.broken() {
			if i == maxUnserved {
				p.Verdict.Problems = append(slices.Clip(p.Verdict.Problems), "and more")
				break
			}
			p.Verdict.Problems = append(slices.Clip(p.Verdict.Problems), fmt.Sprintf("seed %d: %s", f.Seed, f.Error))
		}
	} else if sum.Partial {
		p.Verdict.Class, p.Verdict.Text = "warn", fmt.Sprintf("Interrupted: %d of %d seeds were run to their end, and nothing was broken.", sum.Complete, sum.Seeds)
	}
	three := func(name string, m Middle, text func(float64) string) {
		p.Tiles = append(p.Tiles, tile{name, text(m.Median), together(fmt.Sprintf("median; from %s to %s", text(m.Min), text(m.Max)))})
	}
	fixed := func(places int) func(float64) string {
		return func(v float64) string { return fmt.Sprintf("%.*f", places, v) }
	}
	three("All done after", sum.Makespan, orNever)
	if sum.MakespanRatio.Max > 0 {
		three("Makespan / optimum T*", sum.MakespanRatio, fixed(3))
		p.Optimum = whatOptimum
	}
	three("A client waits, p99", sum.Completion99, orNever)
	three("First byte, p99", sum.FirstByte99, orNever)
	three("Copies from the registry", sum.Egress, fixed(4))
	three("Requests to the registry", sum.Requests, few)
	three("Messages a node", sum.Messages, few)
	p.Tiles = append(p.Tiles, tile{"Runs as demanded", fmt.Sprintf("%d of %d", len(s.Runs)+len(sum.Failed)-len(sum.Broken), sum.Seeds), fmt.Sprintf("%d broken", len(sum.Broken))})
	if c := s.curves(); c != nil {
		f, err := c.render()
		if err != nil {
			return fmt.Errorf("report: plots: %w", err)
		}
		p.Figures = append(p.Figures, f)
	}
	if c := s.spread(); c != nil {
		f, err := c.render()
		if err != nil {
			return fmt.Errorf("report: plots: %w", err)
		}
		p.Figures = append(p.Figures, f)
	}
	names := make([]string, 0, len(sum.Invariants))
	for name := range sum.Invariants {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		p.Invariants = append(p.Invariants, namedInvariant{name, sum.Invariants[name]})
	}
	p.Mechanisms = counts{What: "Mechanism", Per: "A run"}
	for _, name := range mechanismNames {
		n := sum.Mechanisms[name]
		p.Mechanisms.Rows = append(p.Mechanisms.Rows, counted{mechanismText[name], n, few(float64(n) / float64(max(len(s.Runs), 1)))})
	}
	for _, r := range s.Runs {
		line := seedLine{Seed: r.Seed, Makespan: orNever(r.Makespan), Ratio: orDash(r.MakespanRatio, 3), First: duration(wall(r.FirstByte.P99)),
			Copies: orDash(r.OriginEgressRatio, 4), Requests: count(r.OriginRequests), Messages: few(r.MessagesPerNode), Verdict: "ok", Broken: !r.OK}
		if link != nil {
			line.Link = link(r.Seed)
		}
		switch {
		case !r.OK:
			line.Verdict = strings.Join(r.Problems, "; ")
		case r.Partial:
			line.Verdict = "interrupted"
		}
		p.Runs = append(p.Runs, line)
	}
	return pages.ExecuteTemplate(w, "seeds", p)
}

// curves shows the completion of all runs, one over the other.
func (s *Summary) curves() *chart {
	end := 0.0
	for _, r := range s.Runs {
		for _, p := range r.curve {
			end = max(end, p.X)
		}
	}
	if end == 0 {
		return nil
	}
	c := newChart("Completion, each seed", "The part of all pulls that was complete. Broken runs are orange and dashed.", timeAxis(sinceStart, end), shareAxis("pulls", 1.02))
	named := map[bool]bool{}
	for _, r := range s.Runs {
		name, colour, dash := "a run", inkBlue, solid
		if !r.OK {
			name, colour, dash = "a broken run", inkRed, dashed
		}
		if named[r.OK] {
			name = ""
		}
		if len(r.curve) > 0 {
			named[r.OK] = true
			c.thin(name, r.curve, colour, dash)
		}
	}
	return c
}

// spread shows how the makespan differs between seeds.
func (s *Summary) spread() *chart {
	var all []float64
	for _, r := range s.Runs {
		if !r.Partial && r.Makespan > 0 {
			all = append(all, r.Makespan)
		}
	}
	if len(all) < 3 {
		return nil
	}
	c := newChart("Makespan, all seeds", "The part of the runs in which the last client was served within a time.",
		timeAxis("makespan", slices.Max(all)*1.04), shareAxis("runs", 1.02))
	c.line("runs", steps(all, len(all), slices.Max(all)*1.04), inkBlue, solid, true)
	return c
}
