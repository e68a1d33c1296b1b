package report

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/scenario"
)

// The keys are what programs rely on.
func TestJSONKeys(t *testing.T) {
	run, res := sample(20)
	var buf bytes.Buffer
	if err := New(run, res, about).JSON(&buf); err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(buf.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for _, key := range strings.Fields(`schema scenario description seed nodes trace_hash version commit go platform command ok problems
		partial pulls unserved makespan_seconds optimum_seconds makespan_ratio completion_seconds first_byte_seconds unique_bytes
		origin_bytes origin_egress_ratio without_bytes origin_requests origin_manifest_requests origin_throttled peer_bytes store_bytes cut_bytes
		link_bytes link_capacity messages message_count messages_per_node messages_per_pull mechanisms counters invariants
		recovery_seconds configuration faults events steps events_per_second wall_seconds virtual_seconds series`) {
		if _, ok := doc[key]; !ok {
			t.Errorf("no key %q", key)
		}
	}
	for path, want := range map[string]any{
		"seed": 7.0, "nodes": 20.0, "trace_hash": "000000000000feed", "origin_egress_ratio": 1.01, "ok": true, "partial": false,
		"pulls.complete": 19.0, "pulls.excused": 1.0, "mechanisms.takeovers": 1.0, "messages.have": 18000.0, "messages.ping": 0.0,
		"messages_per_node": 1020.0, "counters.busy": 4321.0, "invariants.egress.violations": 0.0, "invariants.egress.checks": 300.0,
		"invariants.egress.rule":             "The origin sends each byte once for each connected component.",
		"configuration.origin.delay_seconds": 0.02, "configuration.sharing": "max-min", "configuration.limits.egress_ratio": 1.1, "wall_seconds": 3.5,
	} {
		if got := at(doc, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if n := len(at(doc, "link_bytes").(map[string]any)); n != int(simulation.LinkClasses) {
		t.Errorf("%d classes of links", n)
	}
	for _, d := range []string{"completion_seconds", "first_byte_seconds"} {
		for _, key := range []string{"count", "mean", "p50", "p90", "p99", "max"} {
			if at(doc, d+"."+key) == nil {
				t.Errorf("no %s.%s", d, key)
			}
		}
	}
}

// at finds what lies at a path of keys.
func at(doc any, path string) any {
	for key := range strings.SplitSeq(path, ".") {
		m, _ := doc.(map[string]any)
		doc = m[key]
	}
	return doc
}

// What was not as demanded is said, whatever it was.
func TestVerdicts(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*scenario.Run, *simulation.Result)
		problem string
	}{
		"fine": {func(*scenario.Run, *simulation.Result) {}, ""},
		"invariant": {func(_ *scenario.Run, r *simulation.Result) {
			r.Invariants[1].Violations, r.Invariants[1].First = 2, "after 3 s"
		}, "invariant egress: 2 violations; the first: after 3 s"},
		"egress":   {func(_ *scenario.Run, r *simulation.Result) { r.OriginBytes *= 2 }, "2.0200 times what was wanted; the scenario allows 1.1000"},
		"no limit": {func(s *scenario.Run, r *simulation.Result) { r.OriginBytes, s.Limits.Egress = 2*r.OriginBytes, 0 }, ""},
		"waiting":  {func(_ *scenario.Run, r *simulation.Result) { r.Pulls[4].Done = 0 }, "1 pull was not served; node 4, image app, was still waiting"},
		"refused":  {func(_ *scenario.Run, r *simulation.Result) { r.Pulls[4].Done, r.Pulls[4].Status = 0, 503 }, "image app, was told 503"},
		"partial":  {func(_ *scenario.Run, r *simulation.Result) { r.Pulls[4].Done, r.Partial = 0, true }, ""},
	} {
		run, res := sample(20)
		tc.change(run, res)
		r := New(run, res, about)
		if got := strings.Join(r.Problems, "; "); r.OK != (tc.problem == "") || !strings.Contains(got, tc.problem) {
			t.Errorf("%s: ok %v, problems %q; want %q", name, r.OK, got, tc.problem)
		}
		for what, write := range map[string]func(*bytes.Buffer) error{
			"table": func(b *bytes.Buffer) error { return r.Table(b) }, "page": func(b *bytes.Buffer) error { return r.HTML(b) },
		} {
			var buf bytes.Buffer
			if err := write(&buf); err != nil {
				t.Errorf("%s: %s: %v", name, what, err)
			}
			text := strings.ToLower(strings.Join(strings.Fields(buf.String()), " "))
			if !strings.Contains(text, strings.ToLower(tc.problem)) {
				t.Errorf("%s: the %s does not tell", name, what)
			}
			if marked := strings.Contains(text, "interrupted"); marked != res.Partial {
				t.Errorf("%s: the %s is marked as interrupted: %v", name, what, marked)
			}
		}
	}
}

// Nothing of a run is needed: an interrupted one may have nothing at all.
func TestEmptyRun(t *testing.T) {
	run, _ := sample(3)
	res := &simulation.Result{Partial: true}
	for range run.Pulls {
		res.Pulls = append(res.Pulls, simulation.PullResult{})
	}
	r := New(run, res, about)
	var buf bytes.Buffer
	for _, err := range []error{r.JSON(&buf), r.Table(&buf), r.HTML(&buf), Summarise([]*Report{r.Short()}, nil, 5, "again").HTML(&buf, nil)} {
		if err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(buf.String(), bad) {
			t.Errorf("the output holds %s", bad)
		}
	}
	if r.MakespanRatio != nil || r.Pulls.Unfinished != 3 {
		t.Errorf("ratio %v, pulls %+v", r.MakespanRatio, r.Pulls)
	}
}

// A list of seeds tells of those that failed and of those that are missing.
func TestSummary(t *testing.T) {
	var runs []*Report
	for i, makespan := range []time.Duration{50 * time.Second, 48 * time.Second, 61 * time.Second} {
		run, res := sample(10)
		run.Seed, res.Makespan = uint64(3-i), makespan
		if i == 2 {
			res.Invariants[0].Violations, res.Invariants[0].First = 1, "after 1 s"
		}
		runs = append(runs, New(run, res, about).Short())
	}
	s := Summarise(runs, []Failed{{Seed: 0, Error: "a core did what it must not", Command: "again 0"}}, 5, "peercache simulate sample --seeds 0..4")
	sum := &s.Sum
	if want := (Middle{48, 50, 61}); sum.Makespan != want {
		t.Errorf("makespan %+v, want %+v", sum.Makespan, want)
	}
	if s.Runs[0].Seed != 1 || sum.OK || !sum.Partial || !slices.Equal(sum.Broken, []uint64{0, 1}) {
		t.Errorf("%+v", sum)
	}
	if sum.Mechanisms["takeovers"] != 3 || sum.Invariants["wrong-bytes"].First != "seed 1: after 1 s" || sum.Invariants["wrong-bytes"].Checks != 3000 {
		t.Errorf("%+v %+v", sum.Mechanisms, sum.Invariants)
	}
	var doc struct {
		Runs    []map[string]any
		Summary map[string]any
	}
	var buf bytes.Buffer
	if err := s.JSON(&buf); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(buf.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Runs) != 3 || doc.Runs[0]["series"] != nil || at(doc.Summary, "makespan_seconds.median") != 50.0 {
		t.Errorf("the JSON is %v", doc.Summary)
	}
	if m := middle([]float64{4, 1, 2, 3}); m != (Middle{1, 2.5, 4}) {
		t.Errorf("the middle of 1 to 4 is %+v", m)
	}
}

// Of seeds that were all interrupted no figure is made up, and a binary without a commit has none.
func TestInterruptedSeeds(t *testing.T) {
	run, res := sample(3)
	res.Partial, res.Makespan = true, 0
	unknown := about
	unknown.Commit = ""
	r := New(run, res, unknown)
	s := Summarise([]*Report{r.Short()}, nil, 5, "again")
	var table, page bytes.Buffer
	for _, err := range []error{s.Table(&table), s.HTML(&page, nil)} {
		if err != nil {
			t.Error(err)
		}
	}
	if text := table.String() + r.SeedRow(); strings.Contains(text, "makespan") || strings.Contains(text, " 0 s") || !strings.Contains(text, "INTERRUPTED") {
		t.Errorf("the table is\n%s", text)
	}
	if strings.Contains(page.String(), "commit") {
		t.Error("the page names a commit")
	}
}

// When a wave that waited began, no scenario knows: the result does.
func TestLastStart(t *testing.T) {
	run, res := sample(20)
	res.Pulls[12].At = 40 * time.Second
	if got := New(run, res, about).lastStart(); got != 40*time.Second {
		t.Errorf("the last client began after %v, want 40 s", got)
	}
	// One copy of what it wants is wanted from then on.
	run.Images = append(run.Images, scenario.Image{Name: "other", Manifest: 3, Layers: []int{4}})
	run.Blobs = append(run.Blobs, scenario.Blob{Name: "m2", Size: 1, Manifest: true}, scenario.Blob{Name: "l2", Size: 9})
	run.Pulls[12].Image = 1
	points := New(run, res, about).wanted(50)
	if n := len(points); n != 3 || points[1].X != 40 || points[1].Y-points[0].Y != 10 {
		t.Errorf("wanted are %v", points)
	}
}

// Where clients come one after the other for most of the time, the optimum is when the last
// one came, and a ratio to that says nothing.
func TestRatioOfWaits(t *testing.T) {
	for last, known := range map[time.Duration]bool{22 * time.Second: true, 23 * time.Second: false} {
		run, res := sample(20) // the optimum is 45 s
		run.Pulls[19].At = last
		r := New(run, res, about)
		if (r.MakespanRatio != nil) != known {
			t.Errorf("the last client begins after %v: ratio %v", last, r.MakespanRatio)
		}
		var table, page bytes.Buffer
		for _, err := range []error{r.Table(&table), r.HTML(&page)} {
			if err != nil {
				t.Error(err)
			}
		}
		for what, text := range map[string]string{"table": table.String(), "page": page.String()} {
			if text = strings.Join(strings.Fields(text), " "); strings.Contains(text, "the last one began after") == known || strings.Contains(text, "optimum") != known {
				t.Errorf("the last client begins after %v: the %s does not fit", last, what)
			}
		}
	}
}

// Each message that there is has the name that real nodes' metrics give it.
func TestMessageNames(t *testing.T) {
	for kind := policy.MsgState; kind <= policy.MsgFree; kind++ {
		if name := messageName(int(kind)); strings.HasPrefix(name, "kind_") {
			t.Errorf("message %d has no name", kind)
		}
	}
	if got := messageName(31); got != "kind_31" {
		t.Errorf("an unknown kind is %q", got)
	}
}
