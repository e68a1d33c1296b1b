// Command flashcrowd measures what happens when many nodes want one image in the
// same moment: how much the origin has to write, how long it takes beside what
// the links permit, what it costs, and what faults change.
//
// Each node is a process in a network namespace of its own, with a link shaped at
// both ends to a switch that all share; the origin is Debian's docker-registry
// behind a link of its own, with a proxy in front of it that counts. The clients
// ask as containerd does, each through the node beside it, over loopback, and
// check every digest.
//
//	go run ./bench/flashcrowd -nodes 16 -size 256MiB -rate 100mbit [-json]
//
// It needs root, for the namespaces, and docker-registry, ip and tc, which
// scripts/install-test-deps installs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peercache/peercache/bench/internal/rig"
)

var opts = struct {
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

// Content that no run with another seed has: the seed goes in front.
const contentBase = 1 << 32

func main() {
	rig.Main(6*time.Hour, nil, run)
}

func run(ctx context.Context, r *rig.Rig) (err error) {
	if err := check(); err != nil {
		return err
	}
	r.Keep = opts.keep
	if err := checkSpace(r.Dir); err != nil {
		return err
	}
	if opts.originRate < 0 {
		opts.originRate = opts.rate
	}

	network, err := r.NewNetwork(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	o, err := startOrigin(ctx, r, network)
	if err != nil {
		return err
	}
	defer o.close()
	hosts := make([]*rig.Host, opts.nodes)
	for i := range hosts {
		if hosts[i], err = network.AddHost(ctx, int64(opts.rate)); err != nil {
			return err
		}
	}
	r.Log("pushing %s in %d layers", opts.size, opts.layers)
	img, err := o.push(ctx)
	if err != nil {
		return err
	}

	res := result{Options: reported(), Image: img, Quantiles: quantileRule}
	random := rand.New(rand.NewPCG(opts.seed, 0))
	for i := range opts.repeat {
		c := &crowd{r: r, o: o, img: img, hosts: hosts, random: random, name: fmt.Sprintf("run%d", i+1)}
		one, err := c.run(ctx)
		if err != nil {
			return err
		}
		res.Runs = append(res.Runs, one)
		r.Log("%s: origin / unique %.3f, makespan %.2f s, %.2f x T*, %d clients done, %d failed",
			c.name, one.OriginRatio, one.Makespan, one.MakespanRatio, one.Clients.Completed, one.Clients.Failed)
	}
	return r.Report(res, res.table())
}

// check refuses what cannot be measured, before anything is made.
func check() error {
	o := &opts
	clean := o.nodes - o.corrupt - o.stall - o.kill.of(o.nodes)
	if o.coord {
		clean--
	}
	if o.fetcher {
		clean--
	}
	switch {
	case os.Geteuid() != 0:
		return errors.New("this makes network namespaces: run it as root (sudo -E go run ./bench/flashcrowd ...)")
	case o.nodes < 1 || o.nodes > 1000:
		return errors.New("-nodes: 1 to 1000")
	case o.layers < 1 || o.layers > 100 || int64(o.size) < int64(o.layers):
		return errors.New("-layers: 1 to 100, none of them empty")
	case o.verify != "member" && o.verify != "strict":
		return errors.New("-verify: member or strict")
	case o.private < 0 || o.private > o.nodes:
		return errors.New("-private: no more than there are nodes")
	case o.at < 0 || o.at >= 1:
		return errors.New("-at: from 0 to less than 1")
	case o.repeat < 1:
		return errors.New("-repeat: at least 1")
	case o.corrupt < 0 || o.stall < 0 || clean < 1:
		return errors.New("no node would be left that nothing happens to")
	}
	for _, name := range []string{"ip", "tc", "docker-registry"} {
		if _, err := rig.Find(name); err != nil {
			return fmt.Errorf("%w (scripts/install-test-deps installs it)", err)
		}
	}
	return nil
}

// checkSpace refuses sizes that do not fit: the registry has the image once, and
// each node once; the rest is for indexes and what is on its way.
func checkSpace(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	const perNode = 64 << 20
	need := int64(opts.size)*int64(opts.nodes+1) + perNode*int64(opts.nodes) + int64(fs.Blocks)*fs.Bsize/100
	if free := int64(fs.Bavail) * fs.Bsize; free < need {
		return fmt.Errorf("%d nodes and a registry with %s each need %s; %s has %s: choose another place by -dir",
			opts.nodes, opts.size, size(need), filepath.Dir(dir), size(free))
	}
	return nil
}

// reported is what was asked for, as a line for a shell would have it.
func reported() map[string]string {
	set := map[string]string{"nodes": "", "size": "", "rate": "", "verify": "", "seed": ""}
	flag.Visit(func(f *flag.Flag) { set[f.Name] = "" })
	for _, other := range []string{"json", "dir", "peercache", "keep"} {
		delete(set, other)
	}
	for name := range set {
		set[name] = flag.Lookup(name).Value.String()
	}
	return set
}

func serveArgs() []string {
	return append([]string{"--verify", opts.verify}, strings.Fields(opts.args)...)
}
