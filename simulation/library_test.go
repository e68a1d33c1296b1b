package simulation_test

import (
	"testing"

	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

// Every scenario of the library, scaled down: no invariant is broken, and whoever
// is not excused has all that it pulled.
func TestLibrary(t *testing.T) {
	for _, name := range scenarios.Names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, data, err := scenarios.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			s, err := scenario.Parse(file, data)
			if err != nil {
				t.Fatal(err)
			}
			run, err := s.Expand(1, 12)
			if err != nil {
				t.Fatal(err)
			}
			res, err := simulation.Simulate(t.Context(), run, simulation.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, inv := range res.Invariants {
				if inv.Violations > 0 {
					t.Errorf("%s (%s): %d of %d times not; first: %s", inv.Name, inv.Rule, inv.Violations, inv.Checks, inv.First)
				}
			}
			if len(res.Pulls) != len(run.Pulls) {
				t.Errorf("results of %d pulls of %d", len(res.Pulls), len(run.Pulls))
			}
			for i, p := range res.Pulls {
				if p.Done == 0 && !p.Excused {
					t.Errorf("pull %d, of image %d by node %d, was not complete: status %d", i, p.Image, p.Node, p.Status)
				}
			}
			t.Logf("%d pulls, makespan %v, egress %.3f, %d events, %v", len(res.Pulls), res.Makespan, res.Copies(), res.Events, res.Wall)
		})
	}
}
