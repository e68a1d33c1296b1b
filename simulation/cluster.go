package simulation

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// startTime is when a run starts: not 0, which means "never" to cores.
const startTime = int64(time.Second)

const (
	// fullMesh is up to how many nodes all are connected to all, startDegree how
	// many peers a node of a larger cluster is connected to when it comes.
	fullMesh    = 64
	startDegree = 40
	// tailTime is for how long, at most, nodes go on once no client wants anything.
	tailTime = 10 * int64(time.Minute)
	// lookAround is after how many events the context and the wall clock are
	// looked at.
	lookAround = 1 << 12
)

// cluster is all nodes, the origin, the DHT and the time.
type cluster struct {
	run *scenario.Run
	opt Options
	now int64
	// varies: what goes between two nodes does not always take the same time.
	varies bool
	q      queue
	net    network
	topo   *topology
	rng    *rand.Rand
	trace  trace
	rules  *rules

	nodes    []*node
	blobs    []*content
	byDigest map[digest.Digest]int32
	lastBlob int32 // that byDigest was asked for
	originUp int32

	transfers slots[transfer]
	reads     slots[originRead]
	letters   slots[letter]
	posts     slots[policy.Event]
	questions slots[question]
	serial    uint32
	effects   []policy.Effect
	event     policy.Event   // that a core is handed
	scratch   policy.Scratch // of all cores

	pulls   []pull
	waves   []wave
	byNode  [][]int32 // the pulls of each node
	waiting int       // pulls that are not over
	done    int       // pulls that are complete
	faults  []fault
	origin  originState
	grantor *node // gave the last grant
	// gaps are what a killed node left undone.
	gaps []gap
	// suffering are the faults of now; sides are the bits of partitions, oneWay those of
	// one direction; held is what they keep from arriving.
	suffering     []*fault
	sides, oneWay uint64
	held          []heldUp
	// unlinks is how many connections have ended.
	unlinks int
	// keepsTimes: when chunks were stored matters, since a node dies and comes back.
	keepsTimes bool

	ahead  *ahead // nil where one event is over before the next begins
	series series
	watch  watch
	ending bool // no client wants anything any more
	res    *Result
	err    error
	// fromStore and messages are counted for the course of the run.
	fromStore, messages int64
}

// broken notes that a core asked for what it must not ask for.
func (c *cluster) broken(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("simulation: after %v: "+format, append([]any{time.Duration(c.now - startTime)}, args...)...)
	}
}

func newCluster(run *scenario.Run, opt Options) (*cluster, error) {
	c := &cluster{run: run, opt: opt, rng: rand.New(rand.NewPCG(run.Seed, 0)),
		byDigest: map[digest.Digest]int32{}, res: &Result{}, now: 1, waiting: len(run.Pulls)}
	c.net.q, c.net.sharing = &c.q, opt.Sharing.For(len(run.Nodes))
	for k := range run.Blobs {
		b, err := newContent(&run.Blobs[k], run.Seed)
		if err != nil {
			return nil, fmt.Errorf("simulation: blob %s: %w", run.Blobs[k].Name, err)
		}
		if _, ok := c.byDigest[b.id]; ok {
			return nil, fmt.Errorf("simulation: two blobs are called %s", run.Blobs[k].Name)
		}
		c.byDigest[b.id] = int32(k)
		c.blobs = append(c.blobs, b)
	}
	c.varies = run.Latency.Queue > 0 || run.Costs.Buffer > 0
	for i := range run.Faults {
		f := &run.Faults[i]
		c.varies = c.varies || f.Kind == scenario.Loss || f.Kind == scenario.Partition
		c.keepsTimes = c.keepsTimes || f.Kind == scenario.Crash && f.Restart > 0
	}
	c.net.overhead = int64(run.Costs.Overhead)
	c.topo = newTopology(&c.net, run)
	c.originUp = c.topo.origin
	for i := range run.Nodes {
		s := &run.Nodes[i]
		n := &node{index: int32(i), id: nodeID(i), zone: int32(s.Zone), rack: int32(s.Rack), work: int64(run.Costs.Message),
			disk: bound(s.Disk), linked: make([]uint64, (len(run.Nodes)+63)/64),
			up: c.topo.up[i], in: c.topo.down[i],
			held: make([]*holding, len(run.Blobs)), pulled: make([]bool, len(run.Blobs))}
		n.down = s.Joins > 0
		c.nodes = append(c.nodes, n)
	}
	for _, b := range c.blobs {
		b.near = c.nearest(b)
	}
	c.rules = newRules(c)
	for _, n := range c.nodes {
		if !n.down {
			c.boot(n)
		}
	}
	c.mesh()
	c.plan()
	c.tally()
	c.series.next, c.series.step = startTime, firstStep
	return c, nil
}

// bound is a link's rate, where 0 says that it has no bound.
func bound(rate int64) int64 {
	if rate == 0 {
		return unbounded
	}
	return rate
}

// nodeID is random but for its end, which is the node's number: see nodeOf.
func nodeID(i int) (id chunkindex.NodeID) {
	id = sha256.Sum256(fmt.Appendf(nil, "node %d", i))
	binary.BigEndian.PutUint32(id[len(id)-4:], uint32(i))
	return id
}

// nodeOf returns the node with an ID, nil if there is none.
func (c *cluster) nodeOf(id *chunkindex.NodeID) *node {
	if i := binary.BigEndian.Uint32(id[len(id)-4:]); int(i) < len(c.nodes) && c.nodes[i].id == *id {
		return c.nodes[i]
	}
	return nil
}

// blobOf is the number of a blob that some core speaks of: mostly the one that
// was spoken of before.
func (c *cluster) blobOf(id digest.Digest) int32 {
	if c.blobs[c.lastBlob].id != id {
		c.lastBlob = c.byDigest[id]
	}
	return c.lastBlob
}

// plan puts into the queue what the run says will happen.
func (c *cluster) plan() {
	c.pulls = make([]pull, len(c.run.Pulls))
	c.res.Pulls = make([]PullResult, len(c.run.Pulls))
	for i, n := range c.run.Nodes {
		if n.Joins > 0 {
			c.q.push(startTime+int64(n.Joins), evJoin, int32(i), 0, 0)
		}
	}
	c.waves = make([]wave, 1)
	for i := range c.run.Pulls {
		p := &c.run.Pulls[i]
		c.pulls[i] = pull{node: int32(p.Node)}
		c.res.Pulls[i] = PullResult{Node: p.Node, Image: p.Image}
		for len(c.waves) <= p.Wave {
			c.waves = append(c.waves, wave{})
		}
		c.waves[p.Wave].left++
	}
	for i := range c.run.Pulls {
		if w := &c.waves[c.run.Pulls[i].After]; c.run.Pulls[i].After > 0 && w.left > 0 {
			w.next = append(w.next, int32(i))
		} else {
			c.schedule(int32(i))
		}
	}
	c.faults = make([]fault, len(c.run.Faults))
	for k := range c.run.Faults {
		c.faults[k].Fault, c.faults[k].number = &c.run.Faults[k], k
		c.q.push(startTime+int64(c.run.Faults[k].At), evFault, 0, 0, uint64(k))
	}
	if c.opt.sample != nil {
		c.q.push(startTime+int64(c.opt.sampleTime), evSample, 0, 0, 0)
	}
}

// boot gives a node a new core.
func (c *cluster) boot(n *node) {
	p := policy.DefaultConfig(n.id)
	p.Verify, p.Seed, p.Scratch = policy.VerifyMember, c.run.Seed, &c.scratch
	if c.run.Verify == "strict" {
		p.Verify = policy.VerifyStrict
	}
	// Where there is but one zone, or a rack to a zone, production would not
	// be told of them.
	s := &c.run.Nodes[n.index]
	if len(c.run.Zones) > 1 {
		p.Label.Zone = uint32(s.Zone + 1)
	}
	if len(c.run.Racks) > len(c.run.Zones) {
		p.Label.Rack = uint32(s.Rack + 1)
	}
	if c.opt.Tune != nil {
		c.opt.Tune(int(n.index), &p)
	}
	c.rules.booted(n, &p)
	if c.opt.NewCore != nil {
		n.core = c.opt.NewCore(int(n.index), p)
	} else {
		n.core = policy.New(p)
	}
	n.timerAt, n.timerDue, n.view = 0, 0, originView{}
}

// mesh connects the nodes as they are when the clients start.
func (c *cluster) mesh() {
	for _, n := range c.nodes {
		if !n.down {
			for _, o := range c.acquaintances(n) {
				if o := c.nodes[o]; !n.isLinked(o.index) {
					c.link(n, o)
				}
			}
		}
	}
	for _, n := range c.nodes {
		n.known = slices.Clone(n.peers)
	}
}

// acquaintances are the nodes that n connects to when it comes: all that live in
// a small cluster, else some of them.
func (c *cluster) acquaintances(n *node) []int32 {
	var some []int32
	if len(c.nodes) <= fullMesh {
		for _, o := range c.nodes {
			if o != n && !o.down {
				some = append(some, o.index)
			}
		}
		return some
	}
	degree := c.opt.degree
	if degree == 0 {
		degree = startDegree
	}
	for range max(degree/2, 1) {
		if o := c.nodes[c.rng.IntN(len(c.nodes))]; o != n && !o.down && !slices.Contains(some, o.index) {
			some = append(some, o.index)
		}
	}
	return some
}

// link connects two nodes.
func (c *cluster) link(a, b *node) {
	a.linked[b.index>>6] |= 1 << (b.index & 63)
	b.linked[a.index>>6] |= 1 << (a.index & 63)
	a.peers, b.peers = append(a.peers, b.index), append(b.peers, a.index)
	a.arrivals, b.arrivals = append(a.arrivals, 0), append(b.arrivals, 0)
	c.step(a, policy.Event{Kind: policy.EvPeerUp, Peer: b.id})
	c.step(b, policy.Event{Kind: policy.EvPeerUp, Peer: a.id})
}

func (c *cluster) connect(n, o *node) {
	switch {
	case o.down:
		c.step(n, policy.Event{Kind: policy.EvUnreachable, Peer: o.id})
	case n.isLinked(o.index):
		c.step(n, policy.Event{Kind: policy.EvPeerUp, Peer: o.id})
	case parted(n, o):
		c.post(n, peerDial, policy.Event{Kind: policy.EvUnreachable, Peer: o.id})
	default:
		c.link(n, o)
	}
}

// play has everything happen until the last pull is over, or, at the end, until
// nothing happens any more.
func (c *cluster) play(ctx context.Context, end int64) {
	if c.ahead != nil {
		c.playWindows(ctx, end)
		return
	}
	for n := 0; c.err == nil && (c.waiting > 0 || c.ending); n++ {
		if n%lookAround == 0 && c.lookAround(ctx) {
			return
		}
		next, more := c.q.next()
		if !more || next > c.now {
			// The instant is over: what started or ended in it tells on the rest.
			c.net.flush(c.now)
			next, more = c.q.next()
		}
		if !more || next > end {
			if !c.ending {
				c.samples(end + 1)
				c.now = end
			}
			return
		}
		c.happen()
	}
}

// happen has the first thing in the queue happen.
func (c *cluster) happen() {
	x := c.q.pop()
	if x.at >= c.series.next {
		c.samples(x.at)
	}
	c.now = x.at
	c.res.Events++
	c.dispatch(&x)
}

// rest has the nodes come to rest without clients.
func (c *cluster) rest(ctx context.Context) {
	c.ending = true
	for _, n := range c.nodes {
		for i := range n.clients {
			if cl := &n.clients[i]; !cl.ended {
				c.hangUp(n, policy.ID(i+1))
			}
		}
	}
	c.play(ctx, c.now+tailTime)
}
