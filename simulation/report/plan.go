package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/peercache/peercache/simulation/plan"
)

// Plan is the answer to an operator's question, as JSON. Times are in seconds, sizes bytes,
// rates bytes a second. Keys are only ever added.
type Plan struct {
	Schema   int          `json:"schema"`
	Question PlanQuestion `json:"question"`
	Without  PlanAnswer   `json:"without"`
	// With is what the simulation showed, or the bound, as Source says.
	With PlanAnswer `json:"with"`
	// Optimum is the best schedule with Peercache that is known, T*, and Least what nothing beats;
	// package plan has the formulas.
	Optimum PlanAnswer `json:"optimum"`
	Least   PlanAnswer `json:"least"`
	// OptimumRatio and LeastRatio are With's time to theirs, EgressRatio the copies that
	// the registry sends; null where nothing was simulated.
	OptimumRatio *float64 `json:"makespan_ratio"`
	LeastRatio   *float64 `json:"least_ratio"`
	EgressRatio  *float64 `json:"origin_egress_ratio"`

	Source    string `json:"source"` // simulation or bound
	Note      string `json:"note,omitempty"`
	Seed      uint64 `json:"seed"`
	TraceHash string `json:"trace_hash,omitempty"`
	Command   string `json:"command"`
	// Problems are why a simulation is not to be trusted.
	Problems []string `json:"problems"`
}

// PlanQuestion is what was asked.
type PlanQuestion struct {
	Nodes    int        `json:"nodes"`
	Images   []int64    `json:"images"`
	Layers   int        `json:"layers"`
	Up       int64      `json:"up"`
	Down     int64      `json:"down"`
	Origin   int64      `json:"origin_link"`
	Zones    int        `json:"zones"`
	ZoneLink int64      `json:"zone_link"`
	Paid     bool       `json:"paid"`
	Limit    *RateLimit `json:"registry_limit"`
}

// PlanAnswer is what a rollout takes.
type PlanAnswer struct {
	Seconds   float64 `json:"seconds"`
	Wait      float64 `json:"wait_seconds"` // of it, for the rate limit
	BoundBy   string  `json:"bound_by,omitempty"`
	Bytes     int64   `json:"registry_bytes"`
	Requests  int64   `json:"registry_requests"`
	Manifests int64   `json:"registry_manifests"`
	Paid      int64   `json:"paid_bytes"`
}

// NewPlan answers a question; r is the report of its simulation, nil if there was none, which
// note explains.
func NewPlan(q *plan.Question, r *Report, note, command string) *Plan {
	with := q.With()
	least, because := q.Least()
	p := &Plan{Schema: Schema, Source: "bound", Note: note, Command: command, Problems: []string{},
		Question: PlanQuestion{Nodes: q.Nodes, Images: q.Images, Layers: q.Layers, Up: q.Up, Down: q.Down, Origin: q.Origin, Zones: q.Zones, ZoneLink: q.ZoneLink, Paid: q.Paid},
		Without:  planAnswer(q.Without()), With: planAnswer(with), Optimum: planAnswer(with),
		Least: planAnswer(plan.Answer{Time: least, Because: because, Bytes: with.Bytes, Requests: with.Requests, Manifests: with.Manifests, Paid: with.Paid})}
	if l := q.Limit; l.Requests > 0 {
		p.Question.Limit = &RateLimit{Requests: l.Requests, Window: seconds(l.Window), Manifests: l.Manifests, PerNode: l.PerNode}
	}
	if r == nil {
		return p
	}
	p.Source, p.Seed, p.TraceHash = "simulation", r.Seed, r.TraceHash
	p.With = PlanAnswer{Seconds: r.Makespan, Bytes: r.OriginBytes, Requests: r.OriginRequests, Manifests: r.OriginManifestRequests}
	if q.Paid {
		p.With.Paid = r.LinkBytes["paid-uplink"]
	}
	p.OptimumRatio, p.LeastRatio = ratio(int64(r.res.Makespan), int64(with.Time)), ratio(int64(r.res.Makespan), int64(least))
	p.EgressRatio = r.OriginEgressRatio
	p.Problems = append(p.Problems, r.Problems...)
	if r.res.Makespan < least {
		p.Problems = append(p.Problems, fmt.Sprintf("the simulation says %s, but no schedule beats %s", duration(r.res.Makespan), duration(least)))
	}
	return p
}

func planAnswer(a plan.Answer) PlanAnswer {
	return PlanAnswer{Seconds: seconds(a.Time), Wait: seconds(a.Wait), BoundBy: a.Because, Bytes: a.Bytes, Requests: a.Requests, Manifests: a.Manifests, Paid: a.Paid}
}

// JSON writes the document.
func (p *Plan) JSON(w io.Writer) error { return writeJSON(w, p) }

// Table writes the answer for people.
func (p *Plan) Table(w io.Writer) error {
	t := &table{w: w, label: 0}
	q := &p.Question
	var all int64
	var sizes []string
	for _, n := range q.Images {
		all += n
		sizes = append(sizes, size(n))
	}
	text := fmt.Sprintf("%s pull %s", plural(q.Nodes, "node", "nodes"), strings.Join(sizes, " and "))
	if q.Layers > 1 {
		text += fmt.Sprintf(" in %d layers", q.Layers)
		if len(q.Images) > 1 {
			text += " each"
		}
	}
	text += fmt.Sprintf(" at once; a node's link carries %s, the registry's %s", rate(q.Down), rate(q.Origin))
	if q.Zones > 1 {
		text += fmt.Sprintf("; %d zones", q.Zones)
		if q.ZoneLink > 0 {
			text += " with links of " + rate(q.ZoneLink)
		}
	}
	if l := q.Limit; l != nil {
		text += fmt.Sprintf("; the registry answers %s in %s", (&RateLimit{Requests: l.Requests, Manifests: l.Manifests}).what(), duration(wall(l.Window)))
	}
	t.title(text)
	t.blank()
	line := func(name, without, with string) { t.line(fmt.Sprintf("%-28s %22s %22s", name, without, with)) }
	line("", "without Peercache", "with Peercache")
	line("rollout done after", clockOf(p.Without.Seconds), clockOf(p.With.Seconds))
	if q.Limit != nil {
		line("  of it, the rate limit", clockOf(p.Without.Wait), clockOf(p.With.Wait))
	}
	line("registry sends", size(p.Without.Bytes), size(p.With.Bytes))
	line("registry answers, requests", count(p.Without.Requests), count(p.With.Requests))
	line("  of them for manifests", count(p.Without.Manifests), count(p.With.Manifests))
	if q.Paid {
		line("over paid links", size(p.Without.Paid), size(p.With.Paid))
	}
	t.blank()
	if p.OptimumRatio != nil {
		t.title(fmt.Sprintf("With: simulated, all %s; %.3f times the optimum T* of %s and %.3f times the %s that nothing beats (%s).",
			plural(q.Nodes, "node", "nodes"), *p.OptimumRatio, duration(wall(p.Optimum.Seconds)), *p.LeastRatio, duration(wall(p.Least.Seconds)), p.Least.BoundBy))
	} else {
		t.title(fmt.Sprintf("With: the optimum T*, not a simulation (%s). It is bound by %s; nothing at all beats %s.", p.Note, p.Optimum.BoundBy, duration(wall(p.Least.Seconds))))
	}
	t.title(fmt.Sprintf("Without: each node by itself, as fast as %s lets them.", p.Without.BoundBy))
	for _, problem := range p.Problems {
		t.title("BROKEN: " + problem)
	}
	return t.err
}

// clockOf is a time of a plan; some are beyond all clocks.
func clockOf(s float64) string {
	if s >= math.MaxInt64/1e9-1 {
		return "never"
	}
	if s == 0 {
		return "-"
	}
	if s > 60*24*time.Hour.Seconds() {
		return few(math.Round(s/86400)) + " d"
	}
	return duration(wall(s))
}
