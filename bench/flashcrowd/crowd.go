package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
)

// crowd is one run.
type crowd struct {
	r       *rig.Rig
	e       *experiment
	o       *origin
	content *content
	hosts   []*rig.Host
	random  *rand.Rand
	name    string

	dir     string
	members []*member
	pulls   []*pulled // as the run has them
	start   time.Time
	// first is who coordinates to begin with.
	first int
}

func (c *crowd) run(ctx context.Context) (res runResult, err error) {
	c.dir = filepath.Join(c.r.Dir, c.name)
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return res, err
	}
	defer func() {
		c.stop()
		if !c.e.keep {
			err = errors.Join(err, os.RemoveAll(c.dir))
		}
	}()
	if err := c.measureLinks(ctx, &res); err != nil {
		return res, err
	}
	c.r.Log("%s: a link carries %.2f MB/s, the origin's %.2f MB/s; starting %d nodes", c.name, res.Link/1e6, res.OriginLink/1e6, len(c.hosts))
	if err := c.begin(ctx); err != nil {
		return res, err
	}
	p := c.plan()
	c.o.reset()
	own := rig.OwnCPU() // the clients, and the proxy in front of the registry

	limit := c.e.run.Limits.Time
	clients, end := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit.Round(time.Second)))
	defer end()
	faults, noMore := context.WithCancel(clients)
	defer noMore()
	broken := make(chan error, 1)
	c.start = time.Now()
	go func() { broken <- p.carryOut(faults) }()
	res.Makespan = c.pullAll(clients).Seconds()
	res.OriginRatioAtEnd = ratio(float64(c.o.bytes()), float64(c.content.unique))
	res.BenchCPU = (rig.OwnCPU() - own).Seconds()
	// The clock stops before those that were stopped go on.
	for _, m := range c.members {
		if err := m.readCPU(); err != nil {
			noMore()
			return res, errors.Join(err, <-broken)
		}
	}
	noMore()
	if err := <-broken; err != nil {
		return res, err
	}
	if err := ctx.Err(); err != nil {
		return res, context.Cause(ctx)
	}
	if err := c.settle(ctx); err != nil {
		c.r.Log("%s: %v", c.name, err)
	}
	if err := c.collect(ctx, &res); err != nil {
		return res, err
	}
	p.report(&res)
	return res, nil
}

// measureLinks measures what T* and the first byte are compared with, while no
// node runs: the slowest node's link and the origin's.
func (c *crowd) measureLinks(ctx context.Context, res *runResult) (err error) {
	slowest, fastest := c.e.slowest()
	to := c.hosts[slowest]
	down := 8 * c.e.run.Nodes[slowest].Down
	if fastest >= 0 {
		res.Link, err = goodput(ctx, c.hosts[fastest], to, rate(down))
	} else {
		res.Link, err = goodput(ctx, c.o.host, to, rate(down))
	}
	if err != nil {
		return err
	}
	res.OriginLink = res.Link
	if link := 8 * c.e.run.Origin.Link; link != down {
		if res.OriginLink, err = goodput(ctx, c.o.host, to, rate(link)); err != nil {
			return err
		}
	}
	var most int64
	for i := range c.hosts {
		most = max(most, c.e.wantedBy(i))
	}
	res.Optimum, res.OriginBound = optimum(c.e.pulling(), most, res.Link, res.OriginLink)
	res.OneCopy = float64(c.e.layerBytes()) / min(res.Link, res.OriginLink)
	res.Optimum = max(res.Optimum, c.e.lastStart(res.Link))
	image := c.content.images[c.e.run.Pulls[0].Image]
	if len(image.Layers) == 0 {
		return nil
	}
	direct := &client{http: to.Client(), base: c.o.url(), private: c.e.private()}
	const times = 20
	seconds, err := direct.firstByte(ctx, image.Layers[0], c.content.sizes[image.Layers[0]], times)
	res.DirectFirstByte = rig.DistributionOf(seconds)
	return err
}

// begin starts the nodes that are there from the start, waits until each sees all
// others, and notes where all counters stand.
func (c *crowd) begin(ctx context.Context) error {
	c.members = make([]*member, len(c.hosts))
	var early []*member
	for i := range c.members {
		c.members[i] = c.newMember(i)
		if c.e.run.Nodes[i].Joins == 0 {
			early = append(early, c.members[i])
		}
	}
	if len(early) == 0 {
		return nil
	}
	if err := early[0].start(ctx, nil, nil); err != nil {
		return err
	}
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, m := range early[1:] {
		g.Go(func() error { return m.start(all, []*rig.Node{early[0].running()}, nil) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range early {
		n := m.running()
		err := rig.Await(ctx, 2*time.Minute, "all nodes see each other", func() (bool, error) {
			if err := n.Ended(); err != nil {
				return true, err
			}
			s, err := n.Status(ctx)
			if err == nil && len(s.Peers) < len(early)-1 {
				err = fmt.Errorf("a node has %d peers of %d", len(s.Peers), len(early)-1)
			}
			return err == nil, err
		})
		if err != nil {
			return err
		}
	}
	for _, m := range early {
		if err := m.begin(ctx, false); err != nil {
			return err
		}
	}
	c.first = c.coordinator()
	return nil
}

// pullAll lets the clients pull and returns once all have ended that are
// counted; the others are then cut off. It returns how long that took from the first
// one's start.
func (c *crowd) pullAll(ctx context.Context) time.Duration {
	ctx, cutOff := context.WithCancel(ctx)
	defer cutOff()
	c.pulls = make([]*pulled, len(c.e.run.Pulls))
	var mu sync.Mutex // guards c.pulls
	var wg sync.WaitGroup
	ended := make(chan struct{}, len(c.pulls))
	waves := make([]sync.WaitGroup, len(c.pulls)+1)
	for k := range c.pulls {
		waves[c.e.run.Pulls[k].Wave].Add(1)
	}
	for k := range c.pulls {
		wg.Go(func() {
			of := &c.e.run.Pulls[k]
			defer waves[of.Wave].Done()
			if of.After > 0 {
				waves[of.After].Wait()
			}
			p := c.pull(ctx, of)
			mu.Lock()
			c.pulls[k] = p
			mu.Unlock()
			ended <- struct{}{}
		})
	}
	for range c.pulls {
		<-ended
		waiting := false
		mu.Lock()
		for k, p := range c.pulls {
			waiting = waiting || p == nil && c.members[c.e.run.Pulls[k].Node].suffered() == untouched
		}
		mu.Unlock()
		if !waiting {
			break
		}
	}
	took := time.Since(c.start.Add(c.e.run.Pulls[0].At))
	cutOff()
	wg.Wait()
	return took
}

// settle waits until no counted node has anything left to do, so that the
// counters hold still.
func (c *crowd) settle(ctx context.Context) error {
	return rig.Await(ctx, 20*time.Second, "the nodes have come to rest", func() (bool, error) {
		if n := len(c.o.reading()); n > 0 {
			return false, fmt.Errorf("%d reads from the origin go on", n)
		}
		for i, m := range c.members {
			n := m.running()
			if !m.counted() || n == nil {
				continue
			}
			s, err := n.Status(ctx)
			if err != nil {
				return false, err
			}
			if s.Blobs.Partial > 0 {
				return false, fmt.Errorf("node %d has an incomplete blob", i)
			}
		}
		return true, nil
	})
}

// stop ends what is left of the nodes: the directories go with them.
func (c *crowd) stop() {
	var wg sync.WaitGroup
	for _, m := range c.members {
		if n := m.running(); n != nil {
			_ = m.rest() // read before where it counts
			wg.Go(func() {
				_ = n.Signal(syscall.SIGCONT) // a stopped one does not hear SIGTERM
				n.Stop()
			})
		}
	}
	wg.Wait()
}

// holds lists what of the images is in the member's store.
func (c *crowd) holds(m *member) (list []string, err error) {
	for d := range c.content.sizes {
		algorithm, hex := d.Algorithm().String(), d.Encoded()
		for _, file := range []string{
			filepath.Join("blobs", algorithm, hex[:2], hex),
			filepath.Join("partial", algorithm, hex),
		} {
			info, err := os.Stat(filepath.Join(rig.StoreDir(m.data), file))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			// A partial one is sparse: without blocks it holds nothing.
			if s, ok := info.Sys().(*syscall.Stat_t); ok && s.Blocks > 0 {
				list = append(list, file)
			}
		}
	}
	return list, nil
}
