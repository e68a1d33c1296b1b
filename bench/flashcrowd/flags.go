package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

var opts = struct {
	scenario   string
	nodes      int
	layers     int
	size       size
	rate       rate
	originRate rate
	stagger    time.Duration
	verify     string
	private    int
	coord      bool
	fetcher    bool
	kill       share
	corrupt    int
	stall      int
	at         float64
	seed       uint64
	repeat     int
	args       string
	keep       bool
}{size: 256 << 20, rate: 100e6, originRate: -1}

func init() {
	o := &opts
	flag.StringVar(&o.scenario, "scenario", "", "scenario to carry out: its `NAME` or file; of the other flags only -seed, -repeat, -serve and -keep go with it, and -nodes, for another number of them")
	flag.IntVar(&o.nodes, "nodes", 16, "nodes, each with a client")
	flag.Var(&o.size, "size", "`SIZE` of the image's layers together: bytes, or with KiB, MiB, GiB")
	flag.IntVar(&o.layers, "layers", 1, "layers that the size is divided into")
	flag.Var(&o.rate, "rate", "`RATE` of each node's link, each way: kbit, mbit, gbit; 0: not limited")
	flag.Var(&o.originRate, "origin-rate", "`RATE` of the origin's link (default: as -rate)")
	flag.DurationVar(&o.stagger, "stagger", 0, "time over which the clients begin, evenly (0: all at once)")
	flag.StringVar(&o.verify, "verify", "member", "of the nodes: member or strict")
	flag.IntVar(&o.private, "private", 0, "the repository is private, and as many nodes have a password (0: it is public)")
	flag.BoolVar(&o.coord, "kill-coordinator", false, "kill -9 the node that ranks first for the first layer")
	flag.BoolVar(&o.fetcher, "kill-fetcher", false, "kill -9 a node that is reading from the origin")
	flag.Var(&o.kill, "kill", "kill -9 some nodes: a `NUMBER`, or a part of all as N%")
	flag.IntVar(&o.corrupt, "corrupt", 0, "nodes on whose disk a byte of each MiB changes soon after it was written")
	flag.IntVar(&o.stall, "stall", 0, "nodes that are stopped (SIGSTOP) until the end")
	flag.Float64Var(&o.at, "at", 1.0/3, "part of the image that the origin has written when nodes are killed or stopped")
	flag.Uint64Var(&o.seed, "seed", 1, "of the content and of who is hit; nodes make up their identities themselves")
	flag.IntVar(&o.repeat, "repeat", 1, "runs, each with new nodes")
	flag.StringVar(&o.args, "serve", "", "further `FLAGS` of `peercache serve`, separated by spaces")
	flag.BoolVar(&o.keep, "keep", false, "keep the nodes' directories and logs")
}

// asked is what the command line asks for, checked.
func asked() (e *experiment, err error) {
	if opts.scenario == "" {
		if err := checkFlags(); err != nil {
			return nil, err
		}
		e = ofFlags()
	} else if e, err = load(opts.scenario); err != nil {
		return nil, err
	}
	if opts.repeat < 1 {
		return nil, errors.New("-repeat: at least 1")
	}
	e.serve, e.keep, e.repeat = strings.Fields(opts.args), opts.keep, opts.repeat
	return e, refuse(e)
}

// load reads a scenario.
func load(name string) (*experiment, error) {
	beside := map[string]bool{"scenario": true, "seed": true, "repeat": true, "serve": true, "keep": true, "nodes": true, "json": true, "dir": true, "peercache": true}
	var wrong []string
	nodes := 0
	flag.Visit(func(f *flag.Flag) {
		if !beside[f.Name] {
			wrong = append(wrong, "-"+f.Name)
		}
		if f.Name == "nodes" {
			nodes = opts.nodes
		}
	})
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%s: not beside -scenario, which says all that", strings.Join(wrong, ", "))
	}
	file, data, err := scenarios.Open(name)
	if err != nil {
		return nil, err
	}
	s, err := scenario.Parse(file, data)
	if err != nil {
		return nil, err
	}
	run, err := s.Expand(opts.seed, nodes)
	if err != nil {
		return nil, err
	}
	return ofScenario(file, run), nil
}

// checkFlags refuses what makes no run.
func checkFlags() error {
	o := &opts
	clean := o.nodes - o.corrupt - o.stall - o.kill.of(o.nodes)
	if o.coord {
		clean--
	}
	if o.fetcher {
		clean--
	}
	switch {
	case o.nodes < 1 || o.nodes > maxNodes:
		return fmt.Errorf("-nodes: 1 to %d", maxNodes)
	case o.layers < 1 || o.layers > 100 || int64(o.size) < int64(o.layers):
		return errors.New("-layers: 1 to 100, none of them empty")
	case o.verify != "member" && o.verify != "strict":
		return errors.New("-verify: member or strict")
	case o.private < 0 || o.private > o.nodes:
		return errors.New("-private: no more than there are nodes")
	case o.at < 0 || o.at >= 1:
		return errors.New("-at: from 0 to less than 1")
	case o.corrupt < 0 || o.stall < 0 || clean < 1:
		return errors.New("no node would be left that nothing happens to")
	}
	return nil
}

// ofFlags is the run that the flags describe.
func ofFlags() *experiment {
	o := &opts
	if o.originRate < 0 {
		o.originRate = o.rate
	}
	run := &scenario.Run{
		Name: "flash-crowd", Seed: o.seed, Racks: []scenario.Rack{{}}, Zones: []scenario.Zone{{}}, Verify: o.verify,
		Origin: scenario.Origin{Link: int64(o.originRate) / 8, Readers: o.private},
		Blobs:  []scenario.Blob{{Name: "manifest", Manifest: true}},
		Images: []scenario.Image{{Name: "image"}},
	}
	left := int64(o.size)
	for i := range o.layers {
		n := left / int64(o.layers-i)
		left -= n
		run.Images[0].Layers = append(run.Images[0].Layers, len(run.Blobs))
		run.Blobs = append(run.Blobs, scenario.Blob{Name: fmt.Sprintf("layer %d", i), Size: n})
	}
	turns := rand.New(rand.NewPCG(o.seed, 1)).Perm(o.nodes)
	for turn, node := range turns {
		run.Nodes = append(run.Nodes, scenario.Node{Up: int64(o.rate) / 8, Down: int64(o.rate) / 8})
		p := scenario.Pull{Node: node}
		if o.nodes > 1 {
			p.At = o.stagger * time.Duration(turn) / time.Duration(o.nodes-1)
		}
		run.Pulls = append(run.Pulls, p)
	}
	// Nobody waits for longer than this; a client that does has failed.
	seconds := float64(o.size) * float64(o.nodes) / (10 << 20)
	if slowest := min(o.rate, o.originRate); slowest > 0 {
		seconds += 20 * 8 * float64(o.size) / float64(slowest)
	}
	run.Limits.Time = 2*time.Minute + o.stagger + time.Duration(seconds*float64(time.Second))

	e := &experiment{run: run}
	add := func(n int, f scenario.Fault, share float64) {
		if n > 0 {
			e.deeds = append(e.deeds, deed{Fault: f, share: share, random: n})
		}
	}
	add(o.corrupt, scenario.Fault{Kind: scenario.Corrupt}, -1)
	add(o.stall, scenario.Fault{Kind: scenario.Stall}, o.at)
	if o.coord {
		e.deeds = append(e.deeds, deed{Fault: scenario.Fault{Kind: scenario.Crash, Role: scenario.Coordinator}, share: o.at})
	}
	add(o.kill.of(o.nodes), scenario.Fault{Kind: scenario.Crash}, o.at)
	if o.fetcher {
		e.deeds = append(e.deeds, deed{Fault: scenario.Fault{Kind: scenario.Crash, Role: scenario.Fetcher}, share: o.at})
	}
	return e
}

// reported is what was asked for, as a line for a shell would have it.
func reported() map[string]string {
	set := map[string]string{"seed": ""}
	if opts.scenario == "" {
		for _, name := range []string{"nodes", "size", "rate", "verify"} {
			set[name] = ""
		}
	}
	flag.Visit(func(f *flag.Flag) { set[f.Name] = "" })
	for _, other := range []string{"json", "dir", "peercache", "keep"} {
		delete(set, other)
	}
	for name := range set {
		set[name] = flag.Lookup(name).Value.String()
	}
	return set
}
