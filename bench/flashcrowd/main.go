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
//	go run ./bench/flashcrowd -scenario lab-16 [-seed 2] [-json]
//
// The second form takes a scenario, as `peercache simulate` does, and has real
// processes carry it out: what is measured can be laid beside what was predicted. What
// they cannot have, such as a disk that is slow, is refused.
//
// It needs root, for the namespaces, and docker-registry, ip and tc, which
// scripts/install-test-deps installs.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peercache/peercache/bench/internal/rig"
)

func main() {
	rig.Main(6*time.Hour, nil, run)
}

func run(ctx context.Context, r *rig.Rig) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("this makes network namespaces: run it as root (sudo -E go run ./bench/flashcrowd ...)")
	}
	e, err := asked()
	if err != nil {
		return err
	}
	for _, name := range []string{"ip", "tc", "docker-registry"} {
		if _, err := rig.Find(name); err != nil {
			return fmt.Errorf("%w (scripts/install-test-deps installs it)", err)
		}
	}
	r.Keep = e.keep
	if err := e.checkSpace(r.Dir); err != nil {
		return err
	}

	network, err := r.NewNetwork(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	o, err := startOrigin(ctx, r, network, e)
	if err != nil {
		return err
	}
	defer o.close()
	hosts := make([]*rig.Host, len(e.run.Nodes))
	for i := range hosts {
		n := &e.run.Nodes[i]
		if hosts[i], err = network.AddHost(ctx, 8*n.Up, 8*n.Down); err != nil {
			return err
		}
	}
	r.Log("pushing %d images, %s", len(e.run.Images), size(e.layerBytes()))
	content, err := o.push(ctx, e)
	if err != nil {
		return err
	}

	res := result{
		Scenario: e.run.Name, Seed: e.run.Seed, Nodes: len(e.run.Nodes), Options: reported(), Images: content.images,
		UniqueBytes: content.unique, Quantiles: rig.QuantileRule, experiment: e,
	}
	random := rand.New(rand.NewPCG(e.run.Seed, 0))
	for i := range e.repeat {
		c := &crowd{r: r, e: e, o: o, content: content, hosts: hosts, random: random, name: fmt.Sprintf("run%d", i+1)}
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

// checkSpace refuses sizes that do not fit: the registry has each blob once, and
// each node what its clients want; the rest is for indexes and what is on its way.
func (e *experiment) checkSpace(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	const perNode = 64 << 20
	need := e.layerBytes() + perNode*int64(len(e.run.Nodes)) + int64(fs.Blocks)*fs.Bsize/100
	for i := range e.run.Nodes {
		need += e.wantedBy(i)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < need {
		return fmt.Errorf("%d nodes and a registry with %s need %s; %s has %s: choose another place by -dir",
			len(e.run.Nodes), size(e.layerBytes()), size(need), filepath.Dir(dir), size(free))
	}
	return nil
}
