package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/bench/internal/rig"
	"github.com/peercache/peercache/chunkindex"
)

// What is done to a node for good. Clients of nodes to which something is done are
// not counted among those that must succeed.
const (
	untouched = ""
	killed    = "killed"
	stalled   = "stalled"
	corrupted = "corrupted"
)

const memoryEvery = 100 * time.Millisecond

// errDown is what a client meets whose node is not there and will not be.
var errDown = errors.New("its node has ended")

// member is a node of the crowd, which may end and come back, and what its client has.
type member struct {
	c        *crowd
	number   int // as in the scenario
	host     *rig.Host
	data     string
	password bool
	// id is known from the node's first start on.
	id chunkindex.NodeID

	// mu guards what follows.
	mu      sync.Mutex
	node    *rig.Node // nil while it does not run
	lives   int
	changed chan struct{} // closed when what is above and below changes
	leaving bool          // it has been told that it ends
	fate    string
	sampler *rig.Sampler
	before  samples // where this life's counters stood when the crowd began
	cpu     time.Duration
	// What the lives that are over came to.
	past    samples
	pastCPU time.Duration
	memory  rig.Memory // the most of each
	// has is what its client has pulled.
	has map[digest.Digest]bool
}

func (c *crowd) newMember(i int) *member {
	return &member{c: c, number: i, host: c.hosts[i], data: filepath.Join(c.dir, fmt.Sprintf("node%03d", i)),
		password: c.e.mayRead(i), changed: make(chan struct{}), past: samples{}, has: map[digest.Digest]bool{}}
}

// tell wakes those who wait for a change. The caller holds mu.
func (m *member) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *member) suffer(fate string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fate = fate
	m.tell()
}

func (m *member) suffered() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fate
}

// counted: its clients must succeed.
func (m *member) counted() bool { return m.password && m.suffered() == untouched }

// dismiss ends what its client does until the node has come back.
func (m *member) dismiss() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leaving = true
	m.tell()
}

// running returns the node, nil while it does not run.
func (m *member) running() *rig.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node
}

// life waits until the node runs. The context ends when that life does.
func (m *member) life(ctx context.Context) (n *rig.Node, during context.Context, end context.CancelFunc, err error) {
	for {
		m.mu.Lock()
		node, changed, fate := m.node, m.changed, m.fate
		leaving := m.leaving
		m.mu.Unlock()
		if node != nil && !leaving {
			during, end := context.WithCancelCause(ctx)
			go func() {
				for {
					select {
					case <-changed:
						m.mu.Lock()
						same := m.node == node && !m.leaving
						changed = m.changed
						m.mu.Unlock()
						if !same {
							end(errDown)
							return
						}
					case <-during.Done():
						return
					}
				}
			}()
			return node, during, func() { end(nil) }, nil
		}
		if fate == killed {
			return nil, nil, nil, errDown
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, nil, context.Cause(ctx)
		}
	}
}

// start starts the node. Peers are those it is told of and must find; those in hints it
// is told of only.
func (m *member) start(ctx context.Context, peers, hints []*rig.Node) error {
	e := m.c.e
	config := filepath.Join(m.c.dir, "docker-config-without")
	if m.password && e.private() {
		config = filepath.Join(m.c.dir, "docker-config")
	}
	if err := dockerConfig(config, m.password && e.private()); err != nil {
		return err
	}
	args := []string{"--verify", e.run.Verify}
	node := &e.run.Nodes[m.number]
	if node.Space > 0 {
		args = append(args, "--max-size", strconv.FormatInt(node.Space, 10))
	}
	if len(e.run.Zones) > 1 || len(e.run.Racks) > 1 {
		args = append(args, "--zone", "zone"+strconv.Itoa(node.Zone), "--rack", "rack"+strconv.Itoa(node.Rack))
	}
	for _, h := range hints {
		for _, a := range h.Addresses {
			args = append(args, "--bootstrap", a)
		}
	}
	m.mu.Lock()
	m.lives++
	name := fmt.Sprintf("%s-%s-%d", m.c.name, filepath.Base(m.data), m.lives)
	m.mu.Unlock()
	n, err := m.c.r.StartNode(ctx, name, rig.NodeOptions{
		Data: m.data, Origin: m.c.o.url(), Peers: peers, Host: m.host, Args: append(args, e.serve...), Env: []string{"DOCKER_CONFIG=" + config},
	})
	if err != nil {
		return err
	}
	s, err := n.Status(ctx)
	if err != nil {
		return err
	}
	if m.id, err = nodeID(s.ID); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node, m.before, m.cpu = n, samples{}, 0
	m.tell()
	return nil
}

// begin notes where the counters stand when the crowd begins, or when the node does.
func (m *member) begin(ctx context.Context, fresh bool) error {
	n := m.running()
	if n == nil {
		return nil
	}
	before, cpu := samples{}, time.Duration(0)
	if !fresh {
		var err error
		if before, err = scrape(ctx, n); err != nil {
			return err
		}
		if cpu, err = n.CPU(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before, m.cpu, m.sampler = before, cpu, n.Sample(memoryEvery)
	return nil
}

// readCPU notes the CPU time of a node that runs.
func (m *member) readCPU() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node == nil {
		return nil
	}
	now, err := m.node.CPU()
	if err != nil {
		return errors.Join(err, m.node.Ended())
	}
	m.pastCPU += now - m.cpu
	m.cpu = now
	return nil
}

// reckon adds what the node's counters have come to in this life.
func (m *member) reckon(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node == nil {
		return nil
	}
	now, err := scrape(ctx, m.node)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, m.node.Tail())
	}
	for name, v := range now.since(m.before) {
		m.past[name] += v
	}
	m.before = now
	return nil
}

// rest ends the sampling of memory.
func (m *member) rest() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.sampler == nil {
		return nil
	}
	memory, err := m.sampler.Stop()
	m.sampler = nil
	for _, s := range memory {
		m.memory.Peak, m.memory.Anon = max(m.memory.Peak, s.Peak), max(m.memory.Anon, s.Anon)
	}
	if m.node == nil || m.node.Ended() != nil {
		return nil // it was ended on purpose, in mid-sample
	}
	return err
}

// end takes the node away, whose counters were read: by SIGKILL, or by SIGTERM where it
// is to leave in good order. For good says that it does not come back.
func (m *member) end(in syscall.Signal, forGood bool) error {
	m.mu.Lock()
	n := m.node
	if n == nil {
		m.mu.Unlock()
		return nil
	}
	m.node, m.leaving = nil, false
	if forGood {
		m.fate = killed // before its client can notice
	}
	if in == syscall.SIGKILL {
		if err := n.Signal(in); err != nil {
			m.mu.Unlock()
			return err
		}
	}
	m.tell()
	m.mu.Unlock()
	if in == syscall.SIGKILL {
		n.Kill()
	} else {
		n.Stop()
	}
	return m.rest()
}

// back starts the node again with what it has on its disk.
func (m *member) back(ctx context.Context) error {
	if m.running() != nil {
		return nil
	}
	var hints []*rig.Node
	for _, o := range m.c.members {
		if n := o.running(); o != m && n != nil && len(hints) < 3 {
			hints = append(hints, n)
		}
	}
	if err := m.start(ctx, nil, hints); err != nil {
		return err
	}
	return m.begin(ctx, true)
}

// alive lists the members that run, by number.
func (c *crowd) alive() (list []int) {
	for i, m := range c.members {
		if m.running() != nil {
			list = append(list, i)
		}
	}
	return list
}

// coordinator is the member that ranks first, of those that run, for the first layer of
// the first image.
func (c *crowd) coordinator() int {
	alive := c.alive()
	ids := make([]chunkindex.NodeID, len(alive))
	for k, i := range alive {
		ids[k] = c.members[i].id
	}
	image := c.content.images[c.e.run.Pulls[0].Image]
	if len(ids) == 0 || len(image.Layers) == 0 {
		return -1
	}
	return alive[slices.Index(ids, rank(image.Layers[0], ids)[0])]
}
