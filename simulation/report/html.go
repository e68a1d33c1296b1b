package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/peercache/peercache/simulation"
)

//go:embed page.html
var pageText string

//go:embed style.css
var pageStyle string

// maxFaults is how many faults the page lists.
const maxFaults = 100

// pages holds the page of one run and that of several seeds. Everything is in
// the page itself: it refers to nothing elsewhere.
var pages = template.Must(template.New("page").Funcs(template.FuncMap{
	"count": count[int64],
	"sentence": func(s string) string {
		if s == "" || strings.HasSuffix(s, ".") {
			return s
		}
		return strings.ToUpper(s[:1]) + s[1:] + "."
	},
	"clock": func(s float64) string { return duration(wall(s)) },
}).Parse(pageText))

// page is what both kinds of page have.
type page struct {
	Title, Headline, Description string
	Style                        template.CSS
	Verdict                      verdict
	Tiles                        []tile
	// Optimum says what T* is, where the page speaks of it.
	Optimum       string
	Figures       []Figure
	Invariants    []namedInvariant
	Mechanisms    counts
	Command, Made string
}

// whatOptimum says what ratios are of: simulation.Result has the formula.
const whatOptimum = "The optimum, T*, is what the best schedule known would take: the registry sends one copy, no link that " +
	"counts is ever idle, and those who have a chunk double each time that a chunk takes."

type verdict struct {
	Class, Text string
	Problems    []string
}

type tile struct{ Name, Value, Note string }

type namedInvariant struct {
	Name string
	Invariant
}

// counts is a table of numbers: all, and for each node or run.
type counts struct {
	What, Per string
	Rows      []counted
}

type counted struct {
	Name string
	N    int64
	Each string
}

// runPage is the page of one run.
type runPage struct {
	page
	Unserved      []Unserved
	Faults        []Fault
	MoreFaults    string
	Configuration []row
	Notes         []string
	Messages      counts
}

// HTML writes the page of a run: one file that needs nothing else.
func (r *Report) HTML(w io.Writer) error {
	figures, err := r.figures()
	if err != nil {
		return fmt.Errorf("report: plots: %w", err)
	}
	p := runPage{
		page: page{Title: r.Scenario, Headline: strings.TrimPrefix(r.headline(), r.Scenario+": "), Description: r.Description, Style: template.CSS(pageStyle),
			Tiles: r.tiles(), Figures: figures, Command: r.Command, Made: r.made()},
		Unserved: r.Unserved, Faults: r.Faults[:min(len(r.Faults), maxFaults)], Configuration: r.Configuration.rows(), Notes: r.Notes,
	}
	if r.optimumAt() > 0 {
		p.Optimum = whatOptimum
	}
	if n := len(r.Faults) - maxFaults; n > 0 {
		p.MoreFaults = fmt.Sprintf("And %s, in the JSON.", plural(n, "more", "more"))
	}
	p.Verdict = verdict{Class: "good", Text: "Everything is as the scenario demands.", Problems: r.Problems}
	switch {
	case !r.OK:
		p.Verdict.Class, p.Verdict.Text = "bad", "Not everything is as the scenario demands."
	case r.Partial:
		p.Verdict.Class, p.Verdict.Text = "warn", "Interrupted. Nothing was broken until then."
	}
	if r.Partial {
		p.Verdict.Text += fmt.Sprintf(" The run ended after %s of virtual time; this is what happened so far.", duration(wall(r.Virtual)))
	}
	for _, name := range r.invariantNames() {
		p.Invariants = append(p.Invariants, namedInvariant{name, r.Invariants[name]})
	}
	p.Messages = counts{What: "Type", Per: "A node"}
	for _, name := range byCount(r.Messages) {
		if n := r.Messages[name]; n > 0 {
			p.Messages.Rows = append(p.Messages.Rows, counted{name, n, few(float64(n) / float64(max(r.Nodes, 1)))})
		}
	}
	p.Messages.Rows = append(p.Messages.Rows, counted{"all", r.MessageCount, few(r.MessagesPerNode)})
	p.Mechanisms = counts{What: "Mechanism", Per: "A node"}
	for _, name := range mechanismNames {
		n := r.Mechanisms[name]
		p.Mechanisms.Rows = append(p.Mechanisms.Rows, counted{mechanismText[name], n, few(float64(n) / float64(max(r.Nodes, 1)))})
	}
	return pages.ExecuteTemplate(w, "run", p)
}

// mechanismText says what the mechanisms are.
var mechanismText = map[string]string{
	"takeovers": "takeover of a silent coordinator's work",
	"redirects": "redirect to a better coordinator",
	"hedges":    "hedge: read past the coordinator",
	"bans":      "ban of a peer that lied",
	"busy":      "BUSY: upload refused, others named",
	"regrants":  "regrant of what a reader left undone",
	"refetches": "refetch from the registry because of a lie",
}

// madeBy says which binary simulated it, as far as that is known.
func (r *Report) madeBy() []string {
	parts := []string{fmt.Sprintf("Simulated by peercache %s", cmp.Or(r.Version, "(unknown)"))}
	if r.Commit != "" {
		commit := "commit " + r.Commit
		if r.Modified {
			commit += " (modified)"
		}
		parts = append(parts, commit)
	}
	if r.Platform != "" {
		parts = append(parts, r.Go+" on "+r.Platform)
	}
	return parts
}

func (r *Report) made() string {
	parts := append(r.madeBy(), fmt.Sprintf("%s events in %s, %s a second", count(r.Events), duration(wall(r.Wall)), few(r.EventsPerSecond)), "trace "+r.TraceHash)
	return strings.Join(parts, "; ") + "."
}

func (r *Report) tiles() []tile {
	var tiles []tile
	add := func(name, value, note string) { tiles = append(tiles, tile{name, value, together(note)}) }
	note := fmt.Sprintf("from the first client's start on; the last one began after %s", duration(r.lastStart()))
	if r.MakespanRatio != nil {
		note = fmt.Sprintf("%.3f times the optimum T*, %s", *r.MakespanRatio, duration(r.res.Optimum))
	}
	if r.Partial {
		add("All done after", "–", fmt.Sprintf("%s of %s were done by then", count(r.Pulls.Complete), count(r.Pulls.Total)))
	} else {
		add("All done after", orNever(r.Makespan), note)
	}
	add("A client waits", orNever(r.Completion.P50), "median; p99 "+orNever(r.Completion.P99)+", max "+orNever(r.Completion.Max))
	add("First byte", orNever(r.FirstByte.P50), "median; p99 "+orNever(r.FirstByte.P99)+", max "+orNever(r.FirstByte.Max))
	note = "for " + size(r.UniqueBytes) + " of distinct content"
	if r.OriginEgressRatio != nil {
		note = fmt.Sprintf("%.4f copies of the %s wanted", *r.OriginEgressRatio, size(r.UniqueBytes))
	}
	if r.WithoutBytes > r.OriginBytes {
		note += "; " + size(r.WithoutBytes) + " without Peercache"
	}
	add("The registry sent", size(r.OriginBytes), note)
	note = fmt.Sprintf("%s for manifests", count(r.OriginManifestRequests))
	if r.OriginThrottled > 0 {
		note += fmt.Sprintf("; %s answered 429", count(r.OriginThrottled))
	}
	add("Requests to the registry", count(r.OriginRequests), note)
	add("From peers", size(r.PeerBytes), size(r.CutBytes)+" in vain")
	if n := r.LinkBytes[simulation.PaidUplink.String()]; n > 0 {
		add("Over paid links", size(n), times100(n, r.UniqueBytes)+" the distinct content")
	}
	note = "none was left out"
	var left []string
	for _, l := range []struct {
		n    int
		text string
	}{{r.Pulls.Unserved, "NOT served"}, {r.Pulls.Excused, "ended with their nodes"}, {r.Pulls.Refused, "without access"}, {r.Pulls.Unfinished, "under way"}} {
		if l.n > 0 {
			left = append(left, count(l.n)+" "+l.text)
		}
	}
	if len(left) > 0 {
		note = strings.Join(left, ", ")
	}
	add("Pulls served", count(r.Pulls.Complete)+" of "+count(r.Pulls.Total), note)
	add("Messages a node", few(r.MessagesPerNode), few(r.MessagesPerPull)+" a pull")
	return tiles
}

func orNever(s float64) string {
	if s == 0 {
		return "–"
	}
	return duration(wall(s))
}
