package main

import (
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// with sets the flags for a test.
func with(t *testing.T, set func()) {
	before := opts
	t.Cleanup(func() { opts = before })
	opts.nodes, opts.layers, opts.verify, opts.repeat, opts.seed, opts.at = 4, 3, "member", 1, 1, 0.5
	opts.size = 10
	set()
}

func TestFlagsMakeARun(t *testing.T) {
	with(t, func() {
		opts.stagger, opts.private, opts.rate, opts.originRate = 3*time.Second, 2, 8e6, 4e6
		opts.coord, opts.stall = true, 1
	})
	if err := checkFlags(); err != nil {
		t.Fatal(err)
	}
	e := ofFlags()
	if err := refuse(e); err != nil {
		t.Fatal(err)
	}
	if n := e.layerBytes(); n != 10 || e.wantedBy(3) != 10 {
		t.Errorf("%d bytes in all, %d for a node, want 10", n, e.wantedBy(3))
	}
	var at []time.Duration
	var nodes []int
	for _, p := range e.run.Pulls {
		at, nodes = append(at, p.At), append(nodes, p.Node)
	}
	slices.Sort(nodes)
	if !slices.Equal(at, []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second}) || !slices.Equal(nodes, []int{0, 1, 2, 3}) {
		t.Errorf("pulls at %v of nodes %v", at, nodes)
	}
	if n := e.run.Nodes[0]; n.Up != 1e6 || n.Down != 1e6 || e.run.Origin.Link != 5e5 {
		t.Errorf("links %+v, origin %d", n, e.run.Origin.Link)
	}
	if e.pulling() != 2 || !e.mayRead(1) || e.mayRead(2) {
		t.Errorf("%d nodes may pull, want nodes 0 and 1", e.pulling())
	}
	if len(e.deeds) != 2 || e.deeds[0].random != 1 || e.deeds[0].share != 0.5 || e.deeds[1].Role != scenario.Coordinator {
		t.Errorf("deeds %+v", e.deeds)
	}
}

func TestFlagsThatMakeNoRun(t *testing.T) {
	for name, set := range map[string]func(){
		"nodes":  func() { opts.nodes = 0 },
		"layers": func() { opts.layers = 11 },
		"verify": func() { opts.verify = "never" },
		"at":     func() { opts.at = 1 },
		"kills":  func() { opts.kill = share{number: 4} },
	} {
		t.Run(name, func(t *testing.T) {
			with(t, set)
			if err := checkFlags(); err == nil {
				t.Error("taken")
			}
		})
	}
}

// A node that pulls version 2 when it has version 1 needs the difference alone: with all that it
// ever wanted counted for its last client, T* would hide how slow that one is.
func TestLastStart(t *testing.T) {
	const v1, v2 = 0, 1 // share 800 of 1000 and 900 bytes
	pull := func(at, node, image int) scenario.Pull {
		return scenario.Pull{At: time.Duration(at) * time.Second, Node: node, Image: image}
	}
	for _, c := range []struct {
		name    string
		readers int
		pulls   []scenario.Pull
		want    float64
	}{
		{"all that it wants", 0, []scenario.Pull{pull(1, 0, v1), pull(11, 1, v1)}, 20},
		{"what is new in version 2", 0, []scenario.Pull{pull(1, 0, v1), pull(11, 0, v2)}, 11},
		{"not always the last client's", 0, []scenario.Pull{pull(1, 0, v1), pull(11, 1, v1), pull(12, 0, v2)}, 20},
		{"who may not read is not waited for", 1, []scenario.Pull{pull(1, 0, v1), pull(11, 1, v1)}, 10},
	} {
		e := &experiment{run: &scenario.Run{
			Nodes:  make([]scenario.Node, 2),
			Blobs:  []scenario.Blob{{Size: 800}, {Size: 200}, {Size: 100}},
			Images: []scenario.Image{{Layers: []int{0, 1}}, {Layers: []int{0, 2}}},
			Pulls:  c.pulls,
			Origin: scenario.Origin{Readers: c.readers},
		}}
		if got := e.lastStart(100); got != c.want {
			t.Errorf("%s: %v s, want %v", c.name, got, c.want)
		}
	}
}

func TestSlowest(t *testing.T) {
	e := &experiment{run: &scenario.Run{Nodes: []scenario.Node{{Up: 9, Down: 0}, {Up: 5, Down: 7}, {Up: 0, Down: 8}}}}
	if slow, fast := e.slowest(); slow != 1 || fast != 2 {
		t.Errorf("slowest %d, fastest %d, want 1 and 2", slow, fast)
	}
	e.run.Nodes = e.run.Nodes[:1]
	if slow, fast := e.slowest(); slow != 0 || fast != -1 {
		t.Errorf("alone: %d, %d", slow, fast)
	}
}
