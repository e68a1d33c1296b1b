package scenario

import (
	"fmt"
	"time"
)

// Expand spells a scenario out. The same seed gives the same Run on every machine;
// what is drawn for one purpose does not depend on the others, so that a fault more
// leaves everything else as it was.
//
// nodes, if not 0, is how many nodes there are instead of those in the file: zones
// keep their proportions, parts of the nodes are those of the new number, and
// numbers of nodes, racks and pulls stay. Nodes that are named by number and do not exist
// then are left out, and so are faults and workloads of which nothing is left; Run.Notes
// says so.
//
// It fails for a number of nodes that is not possible, and if nobody would pull
// anything.
func (s *Scenario) Expand(seed uint64, nodes int) (*Run, error) {
	e := s.expander(seed, nodes)
	if nodes < 0 || nodes > maxNodes {
		return nil, fmt.Errorf("%s: %d nodes: from 1 to %d are possible", s.file, nodes, maxNodes)
	}
	e.expand()
	if len(e.run.Pulls) == 0 {
		at := s.at["workload"]
		return nil, &Error{File: s.file, Line: max(at.line, 1), Column: max(at.column, 1), Key: "workload",
			What: fmt.Sprintf("with %d nodes and seed %d nobody pulls anything", len(e.run.Nodes), seed)}
	}
	return e.run, nil
}

// expander makes a Run of a scenario.
type expander struct {
	s      *Scenario
	seed   uint64
	scaled bool
	nodes  int
	run    *Run
	layout *layout
	names  map[string][]int
	taken  map[string][]taken // faults by group
	order  []taken            // all of them
	// wrong is told what is a mistake in the file as it is written, nil where it is
	// not taken as it is written.
	wrong func(path, format string, args ...any)
	notes map[string]bool
	waves int // that wait for one another, so far
}

func (s *Scenario) expander(seed uint64, nodes int) *expander {
	return &expander{s: s, seed: seed, nodes: nodes, scaled: nodes != 0, taken: map[string][]taken{}, notes: map[string]bool{},
		run: &Run{Name: s.Name, Seed: seed, Verify: s.Verify}}
}

// note says what became of a key otherwise than one may expect; once for a key, however often it happens.
func (e *expander) note(path, format string, args ...any) {
	if !e.notes[path] {
		e.notes[path] = true
		e.run.Notes = append(e.run.Notes, fmt.Sprintf("line %d: %s: %s", e.s.line(path), path, fmt.Sprintf(format, args...)))
	}
}

// remark is note, where it is an error in a file that is taken as it is written.
func (e *expander) remark(path, format string, args ...any) {
	if e.wrong != nil && !e.notes[path] {
		e.wrong(path, format, args...)
	}
	e.note(path, format, args...)
}

func (e *expander) expand() {
	s, run := e.s, e.run
	n := int(s.Topology.Nodes)
	if n == 0 {
		for _, z := range s.Topology.Zones {
			n += int(z.Nodes)
		}
	}
	if e.scaled {
		n = e.nodes
	}
	e.layout = s.place(n)
	_, e.names = s.imageNames()
	e.cluster(n)
	far := s.Latency.Rack
	switch {
	case len(run.Zones) > 1:
		far = s.Latency.Far
	case len(run.Racks) > 1:
		far = s.Latency.Zone
	}
	run.Latency, run.DHT, run.Costs = s.Latency.run(), s.DHT.run(far), s.Costs.run()
	run.Limits = Limits{Time: time.Duration(s.Limits.Time), Deadline: time.Duration(s.Limits.Deadline), Egress: int64(s.Limits.Egress),
		NodeMemory: int64(s.Limits.NodeMemory), HonestBans: time.Duration(s.Limits.HonestBans)}
	o := &s.Origin
	run.Origin = Origin{Link: int64(o.Link), Connection: int64(o.Connection), Connections: int(o.Connections), Delay: time.Duration(o.Delay)}
	if o.Readers.n > 0 {
		run.Origin.Readers = o.Readers.of(n)
	}
	for _, l := range o.Limits {
		run.Origin.Limits = append(run.Origin.Limits, RateLimit{Manifests: l.Of == "manifests", PerNode: l.Per == "node",
			Requests: int(l.Requests), Window: time.Duration(l.Window)})
	}
	e.images()
	e.works()
	e.faults()
}

// cluster spells out nodes, racks and zones.
func (e *expander) cluster(n int) {
	t, run := &e.s.Topology, e.run
	for i, z := range t.Zones {
		path := fmt.Sprintf("topology.zones[%d]", i)
		uplink := or(e.s, path+".uplink", z.Uplink, t.Uplink)
		run.Zones = append(run.Zones, Zone{Name: z.Name, Up: int64(or(e.s, path+".up", z.Up, uplink)),
			Down: int64(or(e.s, path+".down", z.Down, uplink)), Paid: or(e.s, path+".paid", z.Paid, t.Paid)})
	}
	run.Racks = e.layout.racks
	kinds := []Node{{}}
	base := "topology"
	kinds[0].Up, kinds[0].Down = int64(or(e.s, base+".up", t.Up, t.Link)), int64(or(e.s, base+".down", t.Down, t.Link))
	kinds[0].Disk, kinds[0].Space = int64(t.Disk), int64(t.Space)
	of := make([]int, n) // the kind of each node
	if len(t.Machines) > 0 {
		plain := kinds[0]
		kinds = kinds[:0]
		shares := make([]int64, len(t.Machines))
		for i, m := range t.Machines {
			path := fmt.Sprintf("topology.machines[%d]", i)
			k := plain
			if e.s.has(path + ".link") {
				k.Up, k.Down = int64(m.Link), int64(m.Link)
			}
			k.Up, k.Down = int64(or(e.s, path+".up", m.Up, rate(k.Up))), int64(or(e.s, path+".down", m.Down, rate(k.Down)))
			k.Disk = int64(or(e.s, path+".disk", m.Disk, rate(k.Disk)))
			k.Space = int64(or(e.s, path+".space", m.Space, size(k.Space)))
			kinds = append(kinds, k)
			shares[i] = int64(m.Share)
		}
		at := 0
		for i, count := range apportion(n, shares) {
			for range count {
				of[at] = i
				at++
			}
		}
		rng := stream(e.seed, "machines")
		rng.Shuffle(n, func(a, b int) { of[a], of[b] = of[b], of[a] })
	}
	run.Nodes = make([]Node, n)
	for i := range run.Nodes {
		node := kinds[of[i]]
		node.Zone, node.Rack = e.layout.zone[i], e.layout.rack[i]
		run.Nodes[i] = node
	}
}

func (s *Scenario) has(path string) bool {
	_, ok := s.at[path]
	return ok
}

// or is v if its key is given, else w.
func or[T any](s *Scenario, path string, v, w T) T {
	if s.has(path) {
		return v
	}
	return w
}

// line is where a key stands, or what should have it.
func (s *Scenario) line(path string) int {
	for path != "" {
		if p, ok := s.at[path]; ok {
			return p.line
		}
		path = parent(path)
	}
	return 1
}
