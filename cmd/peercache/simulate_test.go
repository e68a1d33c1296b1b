package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/plan"
	"github.com/peercache/peercache/simulation/report"
	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

func TestParseSeeds(t *testing.T) {
	for text, want := range map[string][]uint64{"1..3": {1, 2, 3}, "7..7": {7}, " 0 .. 1 ": {0, 1}, "18446744073709551614..18446744073709551615": {1<<64 - 2, 1<<64 - 1}} {
		if got, err := parseSeeds(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "1-3", "3..1", "-1..3", "0..18446744073709551615", "1..100001", "a..b", "1..2..3"} {
		if got, err := parseSeeds(text); err == nil {
			t.Errorf("%q: %d seeds and no error", text, len(got))
		}
	}
}

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]plan.Limit{
		"":                              {},
		"100 manifests/6h":              {Requests: 100, Window: 6 * time.Hour, Manifests: true},
		"5000 requests per 1h":          {Requests: 5000, Window: time.Hour},
		"1 manifest / 90s a node":       {Requests: 1, Window: 90 * time.Second, Manifests: true, PerNode: true},
		"200 manifests in 6h each node": {Requests: 200, Window: 6 * time.Hour, Manifests: true, PerNode: true},
	} {
		if got, err := parseLimit(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"100", "100/6h", "manifests/6h", "0 manifests/6h", "100 manifests/0s", "100 manifests/later", "100 pulls/6h", "99999999999999999999 requests/1h"} {
		if got, err := parseLimit(text); err == nil {
			t.Errorf("%q: %+v and no error", text, got)
		}
	}
}

func TestNearNames(t *testing.T) {
	for name, want := range map[string]string{"flash-crowd-10": "perhaps flash-crowd-100 ", "flashcrowd-100": "flash-crowd-100", "fault": "fault-search", "registry-outag": "registry-outage", "qqqqqq": "simulate list"} {
		if err := unknownScenario(name); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tc := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"ab", "ba", 2}} {
		if got := scenario.Distance(tc.a, tc.b); got != tc.want {
			t.Errorf("%q and %q: %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}

// The line that repeats a run survives a shell, and leaves out nothing that matters.
func TestCommand(t *testing.T) {
	tr := &trial{name: "my file's.yaml", flags: &simulateFlags{nodes: 20, verify: "strict", sharing: "max-min", faults: "a b.json"}}
	if got, want := tr.command("7"), `peercache simulate 'my file'\''s.yaml' --seed 7 --nodes 20 --verify strict --sharing max-min --faults 'a b.json'`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	tr = &trial{name: faultSearch, flags: &simulateFlags{seeds: "1..9", sharing: "auto"}}
	if got, want := tr.command("1..9"), "peercache simulate fault-search --seeds 1..9"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if got, want := tr.command("4"), "peercache simulate fault-search --seed 4"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// Whatever a search draws comes back from the file as it was.
func TestFaultFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "faults.json")
	for seed := range uint64(200) {
		run := simulation.SearchRun(seed)
		data, err := json.Marshal(faultFile{Scenario: faultSearch, Seed: seed, Faults: jsonFaults(run.Faults)})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readFaults(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := faultsFit(path, got, run); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		if !reflect.DeepEqual(got, run.Faults) {
			t.Fatalf("seed %d: %+v became %+v", seed, run.Faults, got)
		}
	}
	run := simulation.SearchRun(1)
	for name, f := range map[string]scenario.Fault{
		"is no fault":             {Kind: "earthquake", Nodes: []int{1}},
		"there is no node 50":     {Kind: scenario.Crash, Nodes: []int{50}},
		"nobody is named":         {Kind: scenario.Crash},
		"must not be negative":    {Kind: scenario.OriginOutage, At: -1},
		"not ascending":           {Kind: scenario.Crash, Nodes: []int{2, 1}},
		"node 1 comes after":      {Kind: scenario.Loss, Nodes: []int{1, 1}, Part: 1},
		"neither coordinator nor": {Kind: scenario.Crash, Role: "king"},
		"makes no sense":          {Kind: scenario.Loss, Nodes: []int{1}, Part: 2_000_000},
		"-1000000 in a million":   {Kind: scenario.ClockSkew, Nodes: []int{1}, Part: -1_000_000},
		"faults[0].rate":          {Kind: scenario.SlowNIC, Nodes: []int{1}},
		"faults[0].delay":         {Kind: scenario.SlowNode, Nodes: []int{1}, Delay: -5 * time.Second},
		"faults[0].status":        {Kind: scenario.OriginError},
		"faults[0].role":          {Kind: scenario.Crash, Nodes: []int{1}, Role: scenario.Fetcher},
	} {
		if err := faultsFit("f.json", []scenario.Fault{f}, run); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

// A shrunk scenario is the same run with fewer faults, or it is not written as one.
func TestShrunkText(t *testing.T) {
	for _, name := range scenarios.Names() {
		tr := &trial{name: name, flags: &simulateFlags{nodes: 40}}
		s, err := openScenario(name)
		if err != nil {
			t.Fatal(err)
		}
		run, err := s.Expand(5, 40)
		if err != nil {
			t.Fatal(err)
		}
		if len(run.Faults) == 0 {
			continue
		}
		least := *run
		least.Faults = slices.Clone(run.Faults[len(run.Faults)/2:])
		text := tr.shrunkText(&least)
		if text == nil {
			t.Errorf("%s: cannot be said as a scenario", name)
			continue
		}
		again, err := scenario.Parse("shrunk.yaml", text)
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
			continue
		}
		if got, err := again.Expand(5, 40); err != nil || !reflect.DeepEqual(lineless(got.Faults), lineless(least.Faults)) || !reflect.DeepEqual(got.Pulls, least.Pulls) {
			t.Errorf("%s: %v\n%+v\nwant %+v", name, err, got.Faults, least.Faults)
		}
	}
}

// Faults that the format can say come through it unchanged.
func TestFaultsYAML(t *testing.T) {
	faults := []scenario.Fault{
		{Kind: scenario.Crash, At: 1500 * time.Millisecond, Nodes: []int{1, 2, 3, 7}, Restart: 250 * time.Microsecond},
		{Kind: scenario.Partition, At: 2 * time.Second, For: time.Second, Nodes: []int{4}, OneWay: true},
		{Kind: scenario.Loss, At: 3 * time.Second, For: time.Second, Nodes: []int{5}, Part: 12_345},
		{Kind: scenario.SlowNIC, At: 4 * time.Second, For: time.Second, Nodes: []int{6}, Rate: 1_234_567},
		{Kind: scenario.ClockSkew, At: 5 * time.Second, For: time.Second, Nodes: []int{6}, Delay: -time.Second, Part: -50},
		{Kind: scenario.OriginError, At: 6 * time.Second, For: time.Second, Status: 502},
		{Kind: scenario.Mute, At: 9 * time.Second, For: time.Second, Role: scenario.Coordinator},
	}
	text := "topology: {nodes: 10}\nimages: [{layers: 1MiB}]\n" + faultsYAML(faults)
	s, err := scenario.Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	run, err := s.Expand(1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(lineless(run.Faults), faults) {
		t.Errorf("%+v\nwant %+v", run.Faults, faults)
	}
}

// Elsewhere than on a terminal progress is a line every ten seconds, and with --json, and at
// the end of a short run, nothing.
func TestProgressIsQuiet(t *testing.T) {
	var buf bytes.Buffer
	p := (&program{env: func(string) string { return "" }, stderr: &buf}).newProgress(false)
	for range 100 {
		p.run(simulation.Progress{Done: 1, Pulls: 2})
	}
	p.end()
	if buf.Len() > 0 {
		t.Errorf("printed %q", buf.String())
	}
	p.shown = p.shown.Add(-printProgress)
	p.run(simulation.Progress{Done: 1, Pulls: 2, Received: 50, Wanted: 200, At: time.Second, EstimatedLeft: 42 * time.Second})
	if got, want := buf.String(), " 25 %  1 of 2 pulls, 1.00 s of virtual time, about 43 s left\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// On a terminal it is one line, which makes place for what is printed beside it.
func TestProgressOnTerminal(t *testing.T) {
	var buf bytes.Buffer
	p := &progress{w: &buf, terminal: true, width: func() int { return 30 }}
	p.seeds(10)
	p.seedDone(true)
	p.beside(func() { buf.WriteString("row\n") })
	p.end()
	if got := buf.String(); !strings.HasPrefix(got, "\r1 of 10 seeds, 1 broken") || !strings.HasSuffix(got, "\x1b[K\r\x1b[Krow\n") {
		t.Errorf("printed %q", got)
	}
}

// A plan that was simulated is judged by what nothing beats.
func TestPlanIsChecked(t *testing.T) {
	q := &plan.Question{Nodes: 4, Images: []int64{8 << 20}, Layers: 2, Up: 125e6, Down: 125e6, Origin: 125e6, Zones: 1}
	run, err := planRun(planScenario(q, time.Hour), 1)
	if err != nil {
		t.Fatal(err)
	}
	res, err := simulation.Simulate(t.Context(), run, simulation.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := report.NewPlan(q, report.New(run, res, report.About{}), "", "")
	if len(p.Problems) > 0 || p.Source != "simulation" || *p.LeastRatio < 1 || p.With.Manifests != 1 {
		t.Errorf("%+v", p)
	}
	res.Makespan = time.Millisecond
	if p := report.NewPlan(q, report.New(run, res, report.About{}), "", ""); len(p.Problems) != 1 || !strings.Contains(p.Problems[0], "no schedule beats") {
		t.Errorf("a run faster than light: %v", p.Problems)
	}
}
