package simulation

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// startTime is when the clients start: not 0, which means "never" to cores.
const startTime = int64(time.Second)

const (
	// fullMesh is up to how many nodes all are connected to all.
	fullMesh = 64
	// replication is how many nodes the DHT names as the closest, and at most as
	// providers.
	replication = 20
	retryWait   = time.Second
)

// Config describes a run. Its zero values stand for the defaults.
type Config struct {
	// Nodes is how many there are.
	Nodes int
	// Size is the image's in bytes, cut into Layers (default 1) blobs of equal
	// size.
	Size   int64
	Layers int
	// Seed decides everything that is random.
	Seed uint64

	// Up and Down are the rates of each node's link, Origin that of the
	// origin's, in bytes a second; by default 12,500,000 (100 Mbit/s), and for
	// the origin the same as Up.
	Up, Down, Origin int64
	// OriginConnRate bounds one connection to the origin in bytes a second, 0
	// does not.
	OriginConnRate int64
	// Latency is one way, between any two (default 0.5 ms), OriginDelay what the
	// origin takes for an answer beyond that.
	Latency, OriginDelay time.Duration
	// Sharing says how flows share links.
	Sharing Sharing

	// DHTDelay is how long a look-up takes (default 2 ms), OpenTime how long the
	// store takes to open a blob (default 0.5 ms), StoreTime and HashTime what a
	// MiB costs there (default 1 ms each; the hash of the whole follows the
	// chunks in the background), PublishTime what a proof costs beyond
	// that (default 2 ms).
	DHTDelay, OpenTime, StoreTime, HashTime, PublishTime time.Duration

	// Degree is how many peers a node of a cluster above 64 nodes is connected
	// to at the start (default 40); in smaller ones all are connected.
	Degree int
	// Stagger is over how long a time the clients start, one after the other.
	Stagger time.Duration
	// Retries is how often a client asks again, a second later, after it was
	// told that a blob cannot be had.
	Retries int
	// Limit ends the run (default 10 minutes).
	Limit time.Duration

	// Faults go wrong, Throttles bother the origin; Credentials, if not 0, is
	// how many nodes the origin lets in.
	Faults      []Fault
	Throttles   []Throttle
	Credentials int

	// Tune changes a core's configuration: the defaults with VerifyMember.
	Tune func(node int, cfg *policy.Config)
	// Observe sees each step of each core. It must not keep the effects.
	Observe func(at time.Duration, node int, ev *policy.Event, effects []policy.Effect)

	// sample sees the cluster once a sampleTime.
	sample     func(c *cluster)
	sampleTime time.Duration
}

func (cfg *Config) fill() error {
	if cfg.Nodes < 1 || cfg.Size < 1 {
		return errors.New("simulation: nodes and size must be at least 1")
	}
	for _, f := range cfg.Faults {
		if f.Who == Numbered && (f.Node < 0 || f.Node >= cfg.Nodes) {
			return fmt.Errorf("simulation: a fault of node %d of %d", f.Node, cfg.Nodes)
		}
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int64, v int64) {
		if *n == 0 {
			*n = v
		}
	}
	cfg.Layers = max(cfg.Layers, 1)
	num(&cfg.Up, 12_500_000)
	num(&cfg.Down, cfg.Up)
	num(&cfg.Origin, cfg.Up)
	def(&cfg.Latency, 500*time.Microsecond)
	def(&cfg.DHTDelay, 2*time.Millisecond)
	def(&cfg.OpenTime, 500*time.Microsecond)
	def(&cfg.StoreTime, time.Millisecond)
	def(&cfg.HashTime, time.Millisecond)
	def(&cfg.PublishTime, 2*time.Millisecond)
	def(&cfg.Limit, 10*time.Minute)
	if cfg.Degree == 0 {
		cfg.Degree = 40
	}
	return nil
}

// cluster is all nodes, the origin, the DHT and the time.
type cluster struct {
	cfg     Config
	now     int64
	latency int64
	q       queue
	net     network
	rng     *rand.Rand
	trace   trace

	nodes    []*node
	index    map[chunkindex.NodeID]int32
	blobs    []*content
	byDigest map[digest.Digest]int32
	originUp int32

	transfers slots[transfer]
	reads     slots[originRead]
	letters   slots[letter]
	posts     slots[policy.Event]
	questions slots[question]
	serial    uint32
	effects   []policy.Effect

	grantor *node // gave the last grant
	// gaps are what a killed node left undone.
	gaps    []gap
	waiting int // nodes whose clients are not done
	res     *Result
	err     error
}

// FlashCrowd has every node pull the same image at once, or one after the other,
// and says how it went. The error is for a Config that makes no sense and for a
// core that breaks the rules of drivers and cores; clients that were not served
// are in the Result.
func FlashCrowd(cfg Config) (*Result, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	c, err := newCluster(cfg)
	if err != nil {
		return nil, err
	}
	c.run()
	if c.err != nil {
		return nil, c.err
	}
	c.finish()
	return c.res, nil
}

// broken notes that a core asked for what it must not ask for.
func (c *cluster) broken(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("simulation: after %v: "+format, append([]any{time.Duration(c.now - startTime)}, args...)...)
	}
}

func newCluster(cfg Config) (*cluster, error) {
	c := &cluster{cfg: cfg, latency: int64(cfg.Latency), rng: rand.New(rand.NewPCG(cfg.Seed, 0)),
		index: map[chunkindex.NodeID]int32{}, byDigest: map[digest.Digest]int32{}, res: &Result{},
		now: 1, waiting: cfg.Nodes}
	c.net.q, c.net.sharing = &c.q, cfg.Sharing
	left := cfg.Size
	for k := range cfg.Layers {
		size := left / int64(cfg.Layers-k)
		left -= size
		b, err := newContent(fmt.Sprintf("layer %d of run %d", k, cfg.Seed), size, cfg.Nodes)
		if err != nil {
			return nil, err
		}
		c.byDigest[b.id] = int32(len(c.blobs))
		c.blobs = append(c.blobs, b)
	}
	c.originUp = c.net.addLink(cfg.Origin)
	for i := range cfg.Nodes {
		n := &node{index: int32(i), id: sha256.Sum256(fmt.Appendf(nil, "node %d", i)), linked: make([]uint64, (cfg.Nodes+63)/64),
			up: c.net.addLink(cfg.Up), in: c.net.addLink(cfg.Down), held: make([]*holding, cfg.Layers),
			transfers: map[policy.ID]int32{}, reads: map[policy.ID]int32{}, hand: map[hand]taint{}}
		c.index[n.id] = n.index
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		c.boot(n)
	}
	if cfg.Nodes > replication {
		for _, b := range c.blobs {
			b.near = c.nearest(b)
		}
	}
	c.mesh()
	for i, n := range c.nodes {
		at := startTime
		if cfg.Nodes > 1 {
			at += int64(cfg.Stagger) * int64(i) / int64(cfg.Nodes-1)
		}
		c.q.push(at, evClient, n.index, 0, 0)
	}
	for k, f := range cfg.Faults {
		c.q.push(startTime+int64(f.At), evFault, 0, 0, uint64(k))
	}
	if cfg.sample != nil {
		c.q.push(startTime+int64(cfg.sampleTime), evSample, 0, 0, 0)
	}
	return c, nil
}

// boot gives a node a new core.
func (c *cluster) boot(n *node) {
	p := policy.DefaultConfig(n.id)
	p.Verify, p.Seed = policy.VerifyMember, c.cfg.Seed
	if c.cfg.Tune != nil {
		c.cfg.Tune(int(n.index), &p)
	}
	n.core = policy.New(p)
	n.timerAt, n.timerDue, n.cooldown = 0, 0, 0
}

// nearest lists the nodes by their distance from a blob as a DHT measures it.
func (c *cluster) nearest(b *content) []int32 {
	key := sha256.Sum256([]byte(b.id))
	near := make([]int32, len(c.nodes))
	for i := range near {
		near[i] = int32(i)
	}
	slices.SortFunc(near, func(x, y int32) int {
		p, q := c.nodes[x].id, c.nodes[y].id
		for k := range key {
			if a, b := p[k]^key[k], q[k]^key[k]; a != b {
				return int(a) - int(b)
			}
		}
		return 0
	})
	return near
}

// mesh connects the nodes as they are when the clients start.
func (c *cluster) mesh() {
	for i, n := range c.nodes {
		if len(c.nodes) <= fullMesh {
			for _, o := range c.nodes[:i] {
				c.link(n, o)
			}
			continue
		}
		for range max(c.cfg.Degree/2, 1) {
			if o := c.nodes[c.rng.IntN(len(c.nodes))]; o != n && !n.isLinked(o.index) {
				c.link(n, o)
			}
		}
	}
	for _, n := range c.nodes {
		n.known = slices.Clone(n.peers)
	}
}

// link connects two nodes.
func (c *cluster) link(a, b *node) {
	a.linked[b.index>>6] |= 1 << (b.index & 63)
	b.linked[a.index>>6] |= 1 << (a.index & 63)
	a.peers, b.peers = append(a.peers, b.index), append(b.peers, a.index)
	c.step(a, policy.Event{Kind: policy.EvPeerUp, Peer: b.id})
	c.step(b, policy.Event{Kind: policy.EvPeerUp, Peer: a.id})
}

func (c *cluster) connect(n, o *node) {
	switch {
	case o.down:
		c.step(n, policy.Event{Kind: policy.EvUnreachable, Peer: o.id})
	case n.isLinked(o.index):
		c.step(n, policy.Event{Kind: policy.EvPeerUp, Peer: o.id})
	default:
		c.link(n, o)
	}
}

// looked answers a question to the DHT.
func (c *cluster) looked(n *node, q question) {
	b := c.blobs[q.blob]
	ev := policy.Event{Kind: policy.EvLooked, Blob: b.id, Chunk: q.chunk, N: int64(q.n)}
	if b.near == nil {
		for _, o := range c.nodes {
			if !o.down {
				ev.Closest = append(ev.Closest, o.id)
			}
		}
	}
	for _, i := range b.near {
		if !c.nodes[i].down {
			if ev.Closest = append(ev.Closest, c.nodes[i].id); len(ev.Closest) == replication {
				break
			}
		}
	}
	if all := b.providersOf(q.chunk, q.n); len(all) > 0 {
		first := c.rng.IntN(len(all))
		for k := range all {
			if o := all[(first+k)%len(all)]; o != n.index && len(ev.Providers) < replication {
				ev.Providers = append(ev.Providers, c.nodes[o].id)
			}
		}
	}
	c.step(n, ev)
}

func (c *cluster) run() {
	end := startTime + int64(c.cfg.Limit)
	for c.err == nil && c.waiting > 0 {
		if len(c.q.items) == 0 || c.q.items[0].at > c.now {
			// The instant is over: what started or ended in it tells on the rest.
			c.net.flush(c.now)
		}
		if len(c.q.items) == 0 || c.q.items[0].at > end {
			return
		}
		x := c.q.pop()
		c.now = x.at
		c.res.Events++
		c.dispatch(&x)
	}
}

func (c *cluster) dispatch(x *item) {
	kind, n := x.kind(), c.nodes[x.node]
	switch kind {
	case evFlow:
		c.flowed(int32(x.arg), x.life)
		return
	case evUpload:
		c.upload(x.arg)
		return
	case evFlowStart:
		c.startFlow(x.arg)
		return
	case evRefused:
		c.refused(x.arg)
		return
	case evOrigin:
		c.answered(x.arg)
		return
	case evFault:
		c.fault(int(x.arg))
		return
	case evSample:
		c.cfg.sample(c)
		c.q.push(c.now+int64(c.cfg.sampleTime), evSample, 0, 0, 0)
		return
	case evMessage:
		l := c.letters.take(int32(x.arg))
		if x.life == n.life && n.isLinked(l.from) {
			c.step(n, policy.Event{Kind: policy.EvMessage, Peer: c.nodes[l.from].id, Msg: l.msg})
		}
		return
	case evPost:
		ev := c.posts.take(int32(x.arg))
		if x.life == n.life {
			c.step(n, ev)
		}
		return
	case evLooked:
		q := c.questions.take(int32(x.arg))
		if x.life == n.life {
			c.looked(n, q)
		}
		return
	}
	if x.life != n.life {
		return
	}
	switch kind {
	case evTimer:
		c.timer(n)
	case evStored:
		c.stored(n, int(x.arg>>32), int(uint32(x.arg)))
	case evProve:
		c.proved(n, int(x.arg))
	case evConsumed:
		c.consumed(n, policy.ID(x.arg))
	case evClient:
		c.client(n, int32(x.arg>>32), int(uint32(x.arg)))
	case evPeerDown:
		c.step(n, policy.Event{Kind: policy.EvPeerDown, Peer: c.nodes[x.arg].id})
	case evConnect:
		c.connect(n, c.nodes[x.arg])
	case evUploaded:
		c.step(n, policy.Event{Kind: policy.EvUploaded, ID: policy.ID(x.arg)})
	case evCancelled:
		c.step(n, policy.Event{Kind: policy.EvTransferFailed, ID: policy.ID(x.arg), Fault: policy.FaultCancelled})
	case evOriginStop:
		c.step(n, policy.Event{Kind: policy.EvOriginFailed, ID: policy.ID(x.arg), Status: 499})
	case evRestart:
		c.restart(n)
	}
}

func (c *cluster) timer(n *node) {
	if n.timerDue != c.now {
		return
	}
	n.timerDue = 0
	switch {
	case n.timerAt == 0:
	case n.timerAt > c.now:
		n.timerDue = n.timerAt
		c.q.push(n.timerAt, evTimer, n.index, n.life, 0)
	default:
		n.timerAt = 0
		c.step(n, policy.Event{Kind: policy.EvTimer})
	}
}

// client has a node's client ask for all blobs, or, having failed, for one.
func (c *cluster) client(n *node, blob int32, try int) {
	switch {
	case try > 0:
		c.read(n, blob, try)
	case n.done == 0:
		if n.begun == 0 {
			n.begun = c.now
		}
		n.missing = len(c.blobs)
		for k := range c.blobs {
			c.read(n, int32(k), 0)
		}
	}
}
