package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
	"github.com/peercache/peercache/chunkindex"
)

// What is done to a node. Clients of nodes to which something is done are not
// counted among those that must succeed.
const (
	untouched = ""
	killed    = "killed"
	stalled   = "stalled"
	corrupted = "corrupted"
)

// member is a node of the crowd and its client.
type member struct {
	*rig.Node
	host *rig.Host
	id   chunkindex.NodeID
	data string
	// password: its node can authenticate.
	password bool
	sampler  *rig.Sampler

	cpu    time.Duration // when the crowd began
	before samples
	pull   *pulled

	// mu guards what the one who does something to the node writes meanwhile.
	mu   sync.Mutex
	fate string
	// What a node had come to right before it was killed.
	lastCPU time.Duration
	last    samples
}

func (m *member) suffer(fate string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fate = fate
}

func (m *member) suffered() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fate
}

// counted: its client must succeed.
func (m *member) counted() bool { return m.password && m.suffered() == untouched }

// crowd is one run.
type crowd struct {
	r      *rig.Rig
	o      *origin
	img    *image
	hosts  []*rig.Host
	random *rand.Rand
	name   string

	dir     string
	members []*member
}

const memoryEvery = 100 * time.Millisecond

func (c *crowd) run(ctx context.Context) (res runResult, err error) {
	c.dir = filepath.Join(c.r.Dir, c.name)
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return res, err
	}
	defer func() {
		c.stop()
		if !opts.keep {
			err = errors.Join(err, os.RemoveAll(c.dir))
		}
	}()
	if err := c.measureLinks(ctx, &res); err != nil {
		return res, err
	}
	c.r.Log("%s: a link carries %.2f MB/s, the origin's %.2f MB/s; starting %d nodes", c.name, res.Link/1e6, res.OriginLink/1e6, opts.nodes)
	if err := c.start(ctx); err != nil {
		return res, err
	}
	plan := c.plan()
	if err := c.begin(ctx); err != nil {
		return res, err
	}
	c.o.reset()
	own := ownCPU()

	// Nobody waits for longer than this; a client that does has failed.
	limit := 2*time.Minute + opts.stagger + time.Duration(20*res.Optimum*float64(time.Second)) +
		time.Duration(float64(opts.size)*float64(opts.nodes)/(10<<20)*float64(time.Second))
	clients, end := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %s", limit.Round(time.Second)))
	defer end()
	faults, noMore := context.WithCancel(clients)
	defer noMore()
	broken := make(chan error, 1)
	start := time.Now()
	go func() { broken <- plan.carryOut(faults) }()
	c.pullAll(clients, start)
	res.Makespan = time.Since(start).Seconds()
	res.OriginRatioAtEnd = ratio(float64(c.o.bytes()), float64(c.img.Unique))
	noMore()
	if err := <-broken; err != nil {
		return res, err
	}
	res.BenchCPU = (ownCPU() - own).Seconds()
	// The clock stops before the stalled ones go on.
	if err := c.readCPU(); err != nil {
		return res, err
	}
	plan.undo()
	if err := ctx.Err(); err != nil {
		return res, context.Cause(ctx)
	}
	if err := c.settle(ctx); err != nil {
		c.r.Log("%s: %v", c.name, err)
	}
	if err := c.collect(ctx, &res); err != nil {
		return res, err
	}
	plan.report(&res)
	return res, nil
}

// measureLinks measures what T* and the first byte are compared with, while no
// node runs.
func (c *crowd) measureLinks(ctx context.Context, res *runResult) (err error) {
	to := c.hosts[0]
	if len(c.hosts) > 1 {
		res.Link, err = goodput(ctx, c.hosts[1], to, opts.rate)
	} else {
		res.Link, err = goodput(ctx, c.o.host, to, opts.rate)
	}
	if err != nil {
		return err
	}
	res.OriginLink = res.Link
	if opts.originRate != opts.rate {
		if res.OriginLink, err = goodput(ctx, c.o.host, to, opts.originRate); err != nil {
			return err
		}
	}
	pulling := opts.nodes
	if opts.private > 0 {
		pulling = opts.private
	}
	res.Optimum, res.OriginBound = optimum(pulling, int64(opts.size), res.Link, res.OriginLink)
	res.OneCopy = float64(opts.size) / min(res.Link, res.OriginLink)
	direct := &client{http: to.Client(), base: c.o.url()}
	const times = 20
	seconds, err := direct.firstByte(ctx, c.img.Layers[0], times)
	res.DirectFirstByte = spreadOf(seconds)
	return err
}

// start starts the nodes and waits until each sees all others.
func (c *crowd) start(ctx context.Context) error {
	c.members = make([]*member, opts.nodes)
	passwords := opts.nodes
	if opts.private > 0 {
		passwords = opts.private
	}
	order := c.random.Perm(opts.nodes)
	for i := range c.members {
		c.members[i] = &member{host: c.hosts[i], data: filepath.Join(c.dir, fmt.Sprintf("node%03d", i+1)), password: order[i] < passwords}
	}
	if err := c.startNode(ctx, 0, nil); err != nil {
		return err
	}
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := 1; i < opts.nodes; i++ {
		g.Go(func() error { return c.startNode(all, i, []*rig.Node{c.members[0].Node}) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range c.members {
		err := rig.Await(ctx, 2*time.Minute, "all nodes see each other", func() (bool, error) {
			if err := m.Ended(); err != nil {
				return true, err
			}
			s, err := m.Status(ctx)
			if err != nil {
				return false, err
			}
			if m.id, err = nodeID(s.ID); err != nil {
				return true, err
			}
			if len(s.Peers) < opts.nodes-1 {
				return false, fmt.Errorf("a node has %d peers of %d", len(s.Peers), opts.nodes-1)
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *crowd) startNode(ctx context.Context, i int, peers []*rig.Node) error {
	m := c.members[i]
	config := filepath.Join(c.dir, "docker-config-without")
	if m.password {
		config = filepath.Join(c.dir, "docker-config")
	}
	if opts.private == 0 {
		config = filepath.Join(c.dir, "docker-config-without")
	}
	if err := dockerConfig(config, m.password && opts.private > 0); err != nil {
		return err
	}
	node, err := c.r.StartNode(ctx, filepath.Base(c.name+"-"+filepath.Base(m.data)), rig.NodeOptions{
		Data: m.data, Origin: c.o.url(), Peers: peers, Host: m.host, Args: serveArgs(), Env: []string{"DOCKER_CONFIG=" + config},
	})
	m.Node = node
	return err
}

// begin notes where all counters stand.
func (c *crowd) begin(ctx context.Context) (err error) {
	for _, m := range c.members {
		if m.before, err = scrape(ctx, m.Node); err != nil {
			return err
		}
		if m.cpu, err = m.CPU(); err != nil {
			return err
		}
		m.sampler = m.Sample(memoryEvery)
	}
	return nil
}

// pullAll lets the clients pull and returns once all have ended that are
// counted; the others are then cut off.
func (c *crowd) pullAll(ctx context.Context, start time.Time) {
	ctx, cutOff := context.WithCancel(ctx)
	defer cutOff()
	turns := c.random.Perm(len(c.members))
	var wg sync.WaitGroup
	ended := make(chan struct{}, len(c.members))
	for i, m := range c.members {
		var wait time.Duration
		if len(c.members) > 1 {
			wait = opts.stagger * time.Duration(turns[i]) / time.Duration(len(c.members)-1)
		}
		wg.Go(func() {
			defer func() { ended <- struct{}{} }()
			timer := time.NewTimer(time.Until(start.Add(wait)))
			defer timer.Stop()
			p := &pulled{Error: "cut off before it began"}
			select {
			case <-timer.C:
				cl := &client{http: m.host.Client(), base: "http://" + m.Proxy, query: "?ns=" + rig.OriginName}
				p = cl.pull(ctx, c.img.Manifest)
				cl.http.CloseIdleConnections()
			case <-ctx.Done():
			}
			m.mu.Lock()
			m.pull = p
			m.mu.Unlock()
		})
	}
	for range c.members {
		<-ended
		if !slices.ContainsFunc(c.members, func(m *member) bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.pull == nil && m.fate == untouched
		}) {
			break
		}
	}
	cutOff()
	wg.Wait()
}

// readCPU notes the CPU time of all nodes that live.
func (c *crowd) readCPU() (err error) {
	for _, m := range c.members {
		if m.suffered() == killed {
			continue
		}
		if m.lastCPU, err = m.CPU(); err != nil {
			return errors.Join(err, m.Ended())
		}
	}
	return nil
}

// settle waits until no counted node has anything left to do, so that the
// counters hold still.
func (c *crowd) settle(ctx context.Context) error {
	return rig.Await(ctx, 20*time.Second, "the nodes have come to rest", func() (bool, error) {
		if n := len(c.o.reading()); n > 0 {
			return false, fmt.Errorf("%d reads from the origin go on", n)
		}
		for i, m := range c.members {
			if !m.counted() {
				continue
			}
			s, err := m.Status(ctx)
			if err != nil {
				return false, err
			}
			if s.Blobs.Partial > 0 {
				return false, fmt.Errorf("node %d has an incomplete blob", i+1)
			}
		}
		return true, nil
	})
}

// stop ends what is left of the nodes: the directories go with them.
func (c *crowd) stop() {
	var wg sync.WaitGroup
	for _, m := range c.members {
		if m == nil || m.Node == nil {
			continue
		}
		if m.sampler != nil {
			_, _ = m.sampler.Stop() // read before where they count
			m.sampler = nil
		}
		wg.Go(func() {
			_ = m.Signal(syscall.SIGCONT) // a stopped one does not hear SIGTERM
			m.Stop()
		})
	}
	wg.Wait()
}

// holds lists what of the image is in the member's store.
func (c *crowd) holds(m *member) (list []string, err error) {
	for _, d := range c.img.all {
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

// ownCPU is the CPU time of this process: the clients, and the proxy in front of
// the registry.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot be
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spread is how a number of values lie.
type spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

const quantileRule = "linear interpolation between the values next to rank q(n-1) (R-7): p99 of 16 lies 85 % of the way from the second largest to the largest"

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	return spread{rig.Median(values), rig.Quantile(values, 0.99), slices.Max(values)}
}

// ratio is a/b, 0 where there is nothing to compare with: JSON has no infinity.
func ratio(a, b float64) float64 {
	if r := a / b; !math.IsNaN(r) && !math.IsInf(r, 0) {
		return r
	}
	return 0
}
