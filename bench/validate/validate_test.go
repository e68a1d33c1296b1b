package main

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// Each case with each of the parameters' values is a scenario that both can read.
func TestCasesAreScenarios(t *testing.T) {
	names := map[string]bool{}
	train := 0
	for _, c := range cases() {
		if names[c.file()] {
			t.Errorf("%s: twice", c.file())
		}
		names[c.file()] = true
		if c.Train {
			train++
		}
		for _, variants := range grid {
			for _, p := range variants(start) {
				s, err := scenario.Parse("case.yaml", []byte(c.text(p)))
				if err != nil {
					t.Fatalf("%s: %v", c.Name, err)
				}
				run, err := s.Expand(1, 0)
				if err != nil {
					t.Fatalf("%s: %v", c.Name, err)
				}
				if len(run.Nodes) != c.nodes || len(run.Pulls) != c.nodes {
					t.Errorf("%s: %d nodes, %d pulls", c.Name, len(run.Nodes), len(run.Pulls))
				}
				if run.Costs.Overhead != int(p.Overhead*10_000) || run.Latency.Queue != p.Queue || run.Costs.Request != p.Request {
					t.Errorf("%s: %+v became %+v, %+v", c.Name, p, run.Latency, run.Costs)
				}
			}
		}
	}
	if train == 0 || train > len(cases())/2 {
		t.Errorf("%d of %d cases are for fitting: at most half may be", train, len(cases()))
	}
}

// A text that no case has would measure nothing, and fit what was there before.
func TestChoose(t *testing.T) {
	for text, want := range map[string]int{"": len(cases()), "N=12": 1, "staggered": 2} {
		if got, err := choose(text); err != nil || len(got) != want {
			t.Errorf("%q: %d cases, %v; want %d", text, len(got), err, want)
		}
	}
	if got, err := choose("n=8"); err == nil {
		t.Errorf("n=8: %d cases", len(got))
	}
}

// The fit finds the parameters that a model was made with, as far as they are on the grid.
func TestDescendFindsWhatMadeTheData(t *testing.T) {
	truth := params{Overhead: 7.5, Queue: 5 * time.Millisecond, Buffer: "256KiB", Request: 30 * time.Millisecond, Message: 100 * time.Microsecond, DHT: 25 * time.Millisecond}
	model := func(p params) []float64 {
		buffer := map[string]float64{"none": 0, "128KiB": 1, "256KiB": 2, "512KiB": 4, "1MiB": 8}[p.Buffer]
		return []float64{p.Overhead, p.Queue.Seconds() * 100, buffer, p.Request.Seconds() * 50, p.Message.Seconds() * 1e4, p.DHT.Seconds() * 20}
	}
	calls := 0
	got, least, err := descend(start, func(p params) (float64, error) {
		calls++
		sum := 0.0
		want := model(truth)
		for i, v := range model(p) {
			sum += (v - want[i]) * (v - want[i])
		}
		return sum, nil
	})
	if err != nil || got != truth || least != 0 {
		t.Errorf("%+v with %v, %v; want %+v", got, least, err, truth)
	}
	if calls > 200 {
		t.Errorf("%d calls", calls)
	}
}

func TestDescendEndsWithAnError(t *testing.T) {
	broken := errors.New("broken")
	if _, _, err := descend(start, func(p params) (float64, error) {
		if p != start {
			return 0, broken
		}
		return 1, nil
	}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestGridIsPlausible(t *testing.T) {
	for _, variants := range grid {
		for _, p := range variants(start) {
			if p.Overhead < 3 || p.Overhead > 8 || p.Queue > 50*time.Millisecond {
				t.Errorf("%s is more than links can have", p)
			}
		}
	}
}

func TestDecode(t *testing.T) {
	c := testCase{Name: "N=2"}
	s, err := c.decode([]byte(`{"machine":{},"result":{"unique_bytes":1000,"runs":[
		{"makespan_seconds":10,"completion_seconds":{"p50":8,"p99":10},"first_byte_seconds":{"p50":0.5},"origin_bytes":1000,"messages_per_node":10,"pulls":{"unserved":0}},
		{"makespan_seconds":12,"completion_seconds":{"p50":10,"p99":12},"first_byte_seconds":{"p50":1.5},"origin_bytes":3000,"messages_per_node":20,"pulls":{"unserved":1}}]}}`))
	want := figures{Makespan: 11, P50: 9, P99: 11, FirstByte: 1, Egress: 1000, Unserved: 1, Messages: 15}
	if err != nil || s.real != want || math.Abs(s.spread-0.2) > 1e-9 || s.runs != 2 {
		t.Errorf("%+v, %v; want %+v", s, err, want)
	}
	for _, bad := range []string{``, `{}`, `{"result":{"runs":[]}}`} {
		if _, err := c.decode([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestDecodeVirtual(t *testing.T) {
	lines, err := decodeVirtual([]byte("=== RUN\n    virtual_test.go:12: {\"driver\":\"virtual\",\"scenario\":\"virtual-50\",\"nodes\":3,\"unique_bytes\":5,\"origin_egress_bytes\":7,\"makespan_seconds\":4,\"completion_seconds\":[3,4,2],\"first_byte_seconds\":[1,3,2],\"messages_per_node\":6}\nok\n"))
	if err != nil || len(lines) != 1 || lines[0].Scenario != "virtual-50" {
		t.Fatalf("%+v, %v", lines, err)
	}
	if got, want := lines[0].figures(), (figures{Makespan: 4, P50: 3, P99: 4, FirstByte: 2, Egress: 2, Messages: 6}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if _, err := decodeVirtual([]byte(`{"driver":7}`)); err == nil {
		t.Error("a line that is none is taken")
	}
}

func TestTable(t *testing.T) {
	tab := &table{params: start, repeat: 2, seeds: 3}
	tab.add(testCase{Name: "first", Train: true, nodes: 16}, figures{Makespan: 10, P50: 9, P99: 10, FirstByte: 0.1, Messages: 100}, 0.02,
		figures{Makespan: 10.5, P50: 9, P99: 10.5, FirstByte: 0.2, Messages: 110})
	tab.add(testCase{Name: "second", nodes: 16}, figures{Makespan: 20, P50: 19, P99: 20}, 0, figures{Makespan: 17, P50: 19, P99: 19, Egress: 2 << 20})
	tab.add(testCase{Name: "third", nodes: 8}, figures{Makespan: 20, P50: 19, P99: 20}, 0, figures{Makespan: 20, P50: 19, P99: 20})
	text := tab.String()
	for _, want := range []string{
		"| first | 10.00 (2.0 %) | 10.50 | +5.0 % | +0.0 % | +5.0 % | 0.10, 0.20 | 0, 0 | 100, 110 |",
		"| second | 20.00 | 17.00 | -15.0 % | +0.0 % | -5.0 % | 0.00, 0.00 | 0, 2048 | 0, 0 |",
		"- N = 16, tested on: makespan off by at most 15.0 % (goal 10 %: missed), 15.0 % on average; p99 by at most 5.0 % (goal 15 %: met); egress, without faults, by at most 2048 KiB (goal a chunk, 1024: missed).",
		"- All real processes tested on: makespan off by at most 15.0 % (goal 10 %: missed), 7.5 % on average;",
		"- All that was fitted on: makespan off by at most 5.0 % (goal 10 %: met)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Index(text, "| first |") > strings.Index(text, "| second |") || strings.Contains(text, "NaN") {
		t.Errorf("order or figures are wrong:\n%s", text)
	}
}
