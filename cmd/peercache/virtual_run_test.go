package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// virtualRun carries a run out with real nodes, in a bubble of testing/synctest: all of
// `peercache serve` (policy core, fetcher, store on disk, libp2p, kad-dht, the proxy and the
// client of origins), on simulated packets. Virtual time passes while all of them wait.
//
// What is not as in production: QUIC is spoken instead of TCP with TLS and yamux. A node's own
// work, its disk's too, takes no time, so that [scenario.Costs] and [scenario.DHT] say nothing here. Clients
// reach their node over pipes in memory. A full link queues as FQ-CoDel has it (RFC 8290), whatever
// Latency.Queue says. A node that is killed loses nothing that it has written; its store has to
// find out what that is. Keys and goroutines are random: a seed does not bring a run back.
type virtualRun struct {
	run    *scenario.Run
	log    *slog.Logger
	net    *virtualNetwork
	origin *virtualOrigin
	nodes  []*virtualNode
	begun  time.Time
	work   sync.WaitGroup // restarts

	mu       sync.Mutex
	lasting  []*scenario.Fault
	outcomes []virtualPull
	err      error
}

// virtualPull says how a pull went. Times count from the start of the run.
type virtualPull struct {
	node               int
	begun, first, done time.Duration // first and done 0: never
	bytes              int64
	failures, status   int
	excused            bool // its node died, or was stopped
	wrong              bool // a complete response had wrong bytes
	lastError          error
}

// The nodes have virtualMeeting to find one another before the run begins. When they have,
// virtualSettling is for what they do then: look themselves up, and tell each other apart.
const virtualMeeting, virtualSettling = time.Minute, 5 * time.Second

// runVirtual carries a run out. It must be called in a bubble; the content of origin is
// made outside. dir is where the nodes' stores go. before, which may be nil, is called
// once the nodes have found one another, before the run begins.
func runVirtual(run *scenario.Run, origin *virtualOrigin, dir string, log *slog.Logger, before func(*virtualRun) error) (_ *virtualResult, err error) {
	v := &virtualRun{run: run, log: log, origin: origin}
	v.net = newVirtualNetwork(run.Seed, v.delay)
	defer v.net.close()
	if err := origin.serve(v.net.addHost(originHost, run.Origin.Link, run.Origin.Link)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, origin.close()) }()
	if err := v.makeNodes(dir); err != nil {
		return nil, err
	}
	defer v.leave()
	ctx, cancel := context.WithCancel(context.Background())
	defer v.work.Wait()
	defer cancel()

	if err := v.each(func(n *virtualNode) error {
		if run.Nodes[n.number].Joins > 0 {
			return nil
		}
		return n.start(log)
	}); err != nil {
		return nil, err
	}
	if err := v.meet(); err != nil {
		return nil, err
	}
	if before != nil {
		if err := before(v); err != nil {
			return nil, err
		}
	}
	v.begin(ctx)
	return v.result()
}

// delay is the latency between two hosts.
func (v *virtualRun) delay(from, to int) time.Duration {
	l := &v.run.Latency
	if from == originHost || to == originHost {
		return l.Origin
	}
	a, b := v.run.Nodes[from-firstNode], v.run.Nodes[to-firstNode]
	switch {
	case a.Zone != b.Zone:
		return l.Far
	case a.Rack != b.Rack:
		return l.Zone
	}
	return l.Rack
}

func (v *virtualRun) makeNodes(dir string) error {
	const seeds = 3
	for i, s := range v.run.Nodes {
		n, err := newVirtualNode(i, v.net.addHost(firstNode+i, s.Up, s.Down), filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return err
		}
		n.args = append(n.args, "--verify", cmp.Or(v.run.Verify, "member"))
		if len(v.run.Racks) > 1 || len(v.run.Zones) > 1 {
			n.args = append(n.args, "--zone", "zone-"+strconv.Itoa(s.Zone), "--rack", "rack-"+strconv.Itoa(s.Rack))
		}
		if s.Space > 0 {
			n.args = append(n.args, "--max-size", strconv.FormatInt(s.Space, 10))
		}
		for _, other := range v.nodes[:min(seeds, len(v.nodes))] {
			n.args = append(n.args, "--bootstrap", other.addr)
		}
		v.nodes = append(v.nodes, n)
	}
	return nil
}

// each does something with all nodes at once.
func (v *virtualRun) each(f func(*virtualNode) error) error {
	errs := make([]error, len(v.nodes))
	var all sync.WaitGroup
	for i, n := range v.nodes {
		all.Go(func() { errs[i] = f(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// meet waits until all nodes have found enough others.
func (v *virtualRun) meet() error {
	there := 0
	for _, n := range v.run.Nodes {
		if n.Joins == 0 {
			there++
		}
	}
	enough := min(there-1, 32)
	for start := time.Now(); ; {
		lonely, peers := -1, 0
		for i, n := range v.nodes {
			if node := n.running(); node != nil {
				if peers = len(node.host.Peers()); peers < enough {
					lonely = i
					break
				}
			}
		}
		if lonely < 0 {
			time.Sleep(virtualSettling)
			return nil
		}
		if time.Since(start) > virtualMeeting {
			return fmt.Errorf("node %d has found %d of %d others within %s", lonely, peers, there-1, virtualMeeting)
		}
		time.Sleep(time.Second)
	}
}

// leave ends all nodes. Nobody hears of the others' end, which would keep them busy.
func (v *virtualRun) leave() {
	v.net.lose(func(int, int) int { return 1e6 })
	_ = v.each(func(n *virtualNode) error { n.leave(true); return nil })
}

// begin is the run itself: until every pull is over, or its time is.
func (v *virtualRun) begin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.run.Limits.Time)
	defer cancel()
	v.begun = time.Now()
	v.origin.begin()
	v.outcomes = make([]virtualPull, len(v.run.Pulls))
	for i := range v.run.Faults {
		v.work.Go(func() { v.fail(v.report(v.fault(ctx, &v.run.Faults[i]))) })
	}
	for _, n := range v.nodes {
		if at := v.run.Nodes[n.number].Joins; at > 0 {
			v.work.Go(func() {
				if v.until(ctx, at) {
					v.fail(n.start(v.log))
				}
			})
		}
	}
	var pulls sync.WaitGroup
	waves := make([]sync.WaitGroup, len(v.run.Pulls)+1)
	for i := range v.run.Pulls {
		waves[v.run.Pulls[i].Wave].Add(1)
	}
	for i := range v.run.Pulls {
		p := &v.run.Pulls[i]
		pulls.Go(func() {
			defer waves[p.Wave].Done()
			if p.After > 0 {
				waves[p.After].Wait()
			}
			if v.until(ctx, p.At) {
				v.outcomes[i] = v.pull(ctx, p)
			}
		})
	}
	pulls.Wait()
}

func (v *virtualRun) report(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil // the run was over first
	}
	return err
}

func (v *virtualRun) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = errors.Join(v.err, err)
}

// until waits for a time of the run.
func (v *virtualRun) until(ctx context.Context, at time.Duration) bool {
	select {
	case <-time.After(time.Until(v.begun.Add(at))):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// pull is one client.
func (v *virtualRun) pull(ctx context.Context, p *scenario.Pull) virtualPull {
	n, image := v.nodes[p.Node], v.origin.images[p.Image]
	out := virtualPull{node: p.Node, begun: time.Since(v.begun)}
	for {
		client, life, done, err := n.alive(ctx)
		if err != nil {
			out.excused, out.lastError = errors.Is(err, errGone), err
			return out
		}
		c := &virtualClient{http: client, node: n, retries: p.Retries, out: &out, begun: v.begun}
		err = c.image(life, image, p.Parallel)
		ended := life.Err() != nil
		done()
		if err == nil {
			out.done = time.Since(v.begun)
			return out
		}
		out.lastError = err
		if !ended || ctx.Err() != nil {
			return out
		}
		// Its node has ended, and the client asks anew when it is back.
	}
}
