package main

import (
	"fmt"
	"slices"
	"strings"
)

// testCase is a scenario that both do.
type testCase struct {
	Name string
	// Train: the parameters are fitted on it.
	Train bool
	// Virtual: real nodes on a simulated network did it.
	Virtual bool

	nodes  int
	rate   string
	origin string // "" as rate
	layers string
	over   string // staggered over so long, "" all at once
	faults string
}

// cases are those that are measured. Half are for fitting; the others differ from
// them in size, rate, number of nodes, and in what happens.
func cases() []testCase {
	return []testCase{
		{Name: "N=16 100mbit 256MiB", Train: true, nodes: 16, rate: "100mbit", layers: "256MiB"},
		{Name: "N=16 100mbit 96MiB 4 layers", Train: true, nodes: 16, rate: "100mbit", layers: "[48MiB, 24MiB, 16MiB, 8MiB]"},
		{Name: "N=8 100mbit 64MiB", Train: true, nodes: 8, rate: "100mbit", layers: "64MiB"},
		{Name: "N=8 50mbit 64MiB", Train: true, nodes: 8, rate: "50mbit", layers: "64MiB"},
		{Name: "N=8 100mbit 128MiB staggered 4s", Train: true, nodes: 8, rate: "100mbit", layers: "128MiB", over: "4s"},
		{Name: "N=16 100mbit 128MiB", nodes: 16, rate: "100mbit", layers: "128MiB"},
		{Name: "N=16 50mbit 64MiB", nodes: 16, rate: "50mbit", layers: "64MiB"},
		{Name: "N=16 100mbit 128MiB staggered 5s", nodes: 16, rate: "100mbit", layers: "128MiB", over: "5s"},
		{Name: "N=16 100mbit 64MiB 2 crash", nodes: 16, rate: "100mbit", layers: "64MiB",
			faults: "faults: [{kind: crash, at: 3s, nodes: [3, 9]}]"},
		{Name: "N=12 100mbit 64MiB", nodes: 12, rate: "100mbit", layers: "64MiB"},
		{Name: "N=8 100mbit 256MiB", nodes: 8, rate: "100mbit", layers: "256MiB"},
		{Name: "N=8 200mbit 128MiB", nodes: 8, rate: "200mbit", layers: "128MiB"},
		{Name: "N=8 100mbit 64MiB origin 50mbit", nodes: 8, rate: "100mbit", origin: "50mbit", layers: "64MiB"},
	}
}

// choose lists the cases with a text in their name.
func choose(text string) ([]testCase, error) {
	some := slices.DeleteFunc(cases(), func(c testCase) bool { return !strings.Contains(c.Name, text) })
	if len(some) == 0 {
		return nil, fmt.Errorf("-only %q: no case has that in its name; one is %q", text, cases()[0].Name)
	}
	return some, nil
}

// file is where what was measured of the case is.
func (c *testCase) file() string {
	return strings.NewReplacer(" ", "-", "=", "").Replace(c.Name) + ".json"
}

// text is the scenario as both read it. Real processes take no notice of what it says
// of latencies, queues and costs.
func (c *testCase) text(p params) string {
	origin := c.origin
	if origin == "" {
		origin = c.rate
	}
	kind := "flash-crowd"
	if c.over != "" {
		kind = "staggered, over: " + c.over
	}
	return fmt.Sprintf(`name: validate
topology: {nodes: %d, link: %s}
latency: {rack: 100us, zone: 100us, far: 100us, origin: 100us, queue: %s}
dht: {delays: %s}
costs: {message: %s, overhead: %g%%, request: %s, buffer: %s}
origin: {link: %s, delay: 1ms}
images: [{name: lab, layers: %s, config: none}]
workload: [{kind: %s, parallel: 0, retries: 0}]
limits: {time: 5m}
%s
`, c.nodes, c.rate, p.Queue, p.DHT, p.Message, p.Overhead, p.Request, p.Buffer, origin, c.layers, kind, c.faults)
}
