package main

import (
	"slices"

	"github.com/peercache/peercache/simulation/scenario"
)

// experiment is what is to be done, whether flags or a scenario's file say it.
type experiment struct {
	file   string // the scenario's, "" for flags
	run    *scenario.Run
	deeds  []deed
	serve  []string // further flags of the nodes
	keep   bool
	repeat int
}

// deed is a fault and what brings it on.
type deed struct {
	scenario.Fault
	// share is the part of what is wanted that the origin has written when it
	// happens; negative: it happens at its time.
	share float64
	// random is how many nodes it befalls, chosen by the seed, where it names none.
	random int
}

// ofScenario takes a run's faults as they are.
func ofScenario(file string, run *scenario.Run) *experiment {
	e := &experiment{file: file, run: run, repeat: 1}
	for _, f := range run.Faults {
		e.deeds = append(e.deeds, deed{Fault: f, share: -1})
	}
	return e
}

// wants lists the blobs that a node's clients pull, manifests left out.
func (e *experiment) wants(node int) []int {
	seen := make([]bool, len(e.run.Blobs))
	var list []int
	for _, p := range e.run.Pulls {
		if p.Node != node {
			continue
		}
		for _, b := range e.run.Images[p.Image].Layers {
			if !seen[b] {
				seen[b] = true
				list = append(list, b)
			}
		}
	}
	return list
}

func (e *experiment) wantedBy(node int) (n int64) {
	for _, b := range e.wants(node) {
		n += e.run.Blobs[b].Size
	}
	return n
}

// lastStart is the least that the clients need from the first one's start on, in seconds, on
// links that carry so many bytes a second: each until its own start, and for what its
// node did not want before. What that did want may be in its store by then.
func (e *experiment) lastStart(link float64) (seconds float64) {
	type wanted struct{ node, blob int }
	seen := map[wanted]bool{}
	for _, p := range e.run.Pulls {
		var fresh int64
		for _, b := range e.run.Images[p.Image].Layers {
			if k := (wanted{p.Node, b}); !seen[k] {
				seen[k] = true
				fresh += e.run.Blobs[b].Size
			}
		}
		if e.mayRead(p.Node) {
			seconds = max(seconds, (p.At-e.run.Pulls[0].At).Seconds()+float64(fresh)/link)
		}
	}
	return seconds
}

// layerBytes is the size of all that the registry will hold, manifests left out.
func (e *experiment) layerBytes() (n int64) {
	for _, b := range e.run.Blobs {
		if !b.Manifest {
			n += b.Size
		}
	}
	return n
}

// pulling is how many nodes pull and may.
func (e *experiment) pulling() (n int) {
	for i := range e.run.Nodes {
		if e.mayRead(i) && slices.ContainsFunc(e.run.Pulls, func(p scenario.Pull) bool { return p.Node == i }) {
			n++
		}
	}
	return n
}

// private: not every node has the registry's password.
func (e *experiment) private() bool { return e.run.Origin.Readers > 0 }

func (e *experiment) mayRead(node int) bool { return !e.private() || node < e.run.Origin.Readers }

// slowest is the node with the slowest link down, 0 being no limit, and fastest the one with
// the fastest up that is not the same.
func (e *experiment) slowest() (slowest, fastest int) {
	slower := func(a, b int64) bool { return a != 0 && (b == 0 || a < b) }
	nodes := e.run.Nodes
	for i := range nodes {
		if slower(nodes[i].Down, nodes[slowest].Down) {
			slowest = i
		}
	}
	fastest = -1
	for i := range nodes {
		if i != slowest && (fastest < 0 || slower(nodes[fastest].Up, nodes[i].Up)) {
			fastest = i
		}
	}
	return slowest, fastest
}

// unlimited: no node's link has a limit.
func (e *experiment) unlimited() bool {
	return !slices.ContainsFunc(e.run.Nodes, func(n scenario.Node) bool { return n.Up > 0 || n.Down > 0 })
}
