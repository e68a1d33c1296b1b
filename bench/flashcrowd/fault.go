package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
	"github.com/peercache/peercache/simulation/scenario"
)

// plan is what is done to the crowd, and what came of it.
type plan struct {
	c     *crowd
	deeds []deed
	cuts  map[[2]int]int // how many faults cut what one host sends to another; the origin is -1
	cutMu sync.Mutex

	mu        sync.Mutex // guards what follows
	happened  []happening
	flipped   int
	at        time.Time // of the first crash
	atBytes   int64
	victims   []victim
	reads     []exchange // that killed nodes had open
	corrupted []int
	stalled   []int
}

// happening is a fault as it happened. Times are from the start of the run.
type happening struct {
	Kind  scenario.FaultKind `json:"kind"`
	Line  int                `json:"line,omitempty"`
	Role  scenario.Role      `json:"role,omitempty"`
	Nodes []int              `json:"nodes,omitempty"`
	At    float64            `json:"at_seconds"`
	Ended float64            `json:"ended_seconds,omitempty"` // 0: not before the end
}

// victim is a node that was killed.
type victim struct {
	Node int    `json:"node"`
	Why  string `json:"why"`
	// Reading is the number of its reads from the origin that were open.
	Reading int `json:"reading"`
}

// faultResult says what was done, and how soon others went on. Seconds count from
// the first kill.
type faultResult struct {
	Happened    []happening `json:"happened"`
	OriginBytes int64       `json:"origin_bytes_at,omitempty"` // at the first kill
	Killed      []victim    `json:"killed,omitempty"`
	Flipped     int         `json:"flipped_bytes,omitempty"`
	// Resumed has, for each read from the origin that a killed node had open,
	// when another node first asked for some of the same bytes.
	Resumed []float64 `json:"resumed_after,omitempty"`
	// NeverResumed counts such reads that nobody repeated.
	NeverResumed int `json:"never_resumed,omitempty"`
	// Silence is the longest time from then on in which the origin wrote
	// nothing, though it had to write on.
	Silence float64 `json:"origin_silence"`
}

// plan chooses whom the faults befall that name nobody, and notes whose clients will
// not be counted although they come to harm only later.
func (c *crowd) plan() *plan {
	p := &plan{c: c, cuts: map[[2]int]int{}}
	free := c.random.Perm(len(c.members))
	// Who coordinates is not chosen where it will be killed as such.
	for _, d := range c.e.deeds {
		if d.Role == scenario.Coordinator {
			free = slices.DeleteFunc(free, func(i int) bool { return i == c.first })
		}
	}
	for _, d := range c.e.deeds {
		if d.random > 0 {
			n := min(d.random, len(free))
			d.Nodes, free = slices.Sorted(slices.Values(free[:n])), free[n:]
		}
		if d.For == 0 {
			for _, i := range d.Nodes {
				switch d.Kind {
				case scenario.Stall:
					c.members[i].suffer(stalled)
				case scenario.Corrupt:
					c.members[i].suffer(corrupted)
				}
			}
		}
		p.deeds = append(p.deeds, d)
	}
	for i, n := range c.e.run.Nodes {
		if n.Joins > 0 {
			p.deeds = append(p.deeds, deed{Fault: scenario.Fault{Kind: joins, At: n.Joins, Nodes: []int{i}}, share: -1})
		}
	}
	slices.SortStableFunc(p.deeds, func(a, b deed) int { return cmp.Compare(a.At, b.At) })
	return p
}

// joins is no fault: a node comes into the cluster.
const joins scenario.FaultKind = "joins"

// carryOut does what is planned, until ctx ends, and undoes then what can be undone.
func (p *plan) carryOut(ctx context.Context) error {
	g, all := errgroup.WithContext(ctx)
	for _, d := range p.deeds {
		g.Go(func() error {
			due := p.due(all, &d)
			if !due && d.share >= 0 {
				return fmt.Errorf("%s: the crowd was done with %d bytes from the origin before it happened", d.Kind, p.c.o.bytes())
			}
			if !due {
				return nil
			}
			err := p.happen(all, &d)
			if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return nil // the run is over, as it may be in the middle of a fault
			}
			return fmt.Errorf("%s: %w", d.Kind, err)
		})
	}
	return g.Wait()
}

// due waits until a deed's time has come.
func (p *plan) due(ctx context.Context, d *deed) bool {
	if d.share >= 0 {
		at := int64(d.share * float64(p.c.content.unique))
		return rig.Await(ctx, p.c.e.run.Limits.Time, "the origin has written its part", func() (bool, error) { return p.c.o.bytes() >= at, nil }) == nil
	}
	return pause(ctx, time.Until(p.c.start.Add(d.At)))
}

// pause reports whether the time has gone by before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// happen carries one deed out from its beginning to its end. What lasts when ctx ends is
// undone, so that nothing is left for the next run.
func (p *plan) happen(ctx context.Context, d *deed) error {
	switch d.Role {
	case scenario.Coordinator:
		d.Nodes = []int{p.c.coordinator()}
	case scenario.Fetcher:
		i := p.fetcher(ctx)
		if i < 0 {
			return nil // nobody came to have the part
		}
		d.Nodes = []int{i}
	}
	p.mu.Lock()
	k := len(p.happened)
	p.happened = append(p.happened, happening{Kind: d.Kind, Line: d.Line, Role: d.Role, Nodes: d.Nodes, At: time.Since(p.c.start).Seconds()})
	p.mu.Unlock()
	p.c.r.Log("%s: %s %v", p.c.name, d.Kind, d.Nodes)
	if d.Kind == scenario.Crash || d.Kind == scenario.Drain {
		if err := p.kill(ctx, d); err != nil {
			return err
		}
		if d.Restart == 0 || !pause(ctx, d.Restart) {
			return nil
		}
		if err := p.each(d, func(m *member) error { return m.back(ctx) }); err != nil {
			return err
		}
		p.ended(k)
		return nil
	}
	undo, err := p.begin(ctx, d)
	if err != nil {
		return err
	}
	if d.For > 0 && pause(ctx, d.For) {
		p.ended(k)
	} else {
		<-ctx.Done()
	}
	return undo()
}

func (p *plan) ended(k int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.happened[k].Ended = time.Since(p.c.start).Seconds()
}

// each calls f for each of the nodes at once.
func (p *plan) each(d *deed, f func(*member) error) error {
	var g errgroup.Group
	for _, i := range d.Nodes {
		g.Go(func() error { return f(p.c.members[i]) })
	}
	return g.Wait()
}

// begin has a fault begin that ends with undo, which is never nil where there is no error.
func (p *plan) begin(ctx context.Context, d *deed) (undo func() error, err error) {
	nothing := func() error { return nil }
	// What undoes a fault must work when the run is over.
	after := context.WithoutCancel(ctx)
	if ofOrigin(d.Kind) {
		var from []string
		for _, i := range d.Nodes {
			from = append(from, p.c.hosts[i].IP)
		}
		end := p.c.o.temper.begin(d.Fault, from)
		return func() error { end(); return nil }, nil
	}
	switch d.Kind {
	case joins:
		return nothing, p.each(d, func(m *member) error { return m.back(ctx) })
	case scenario.Stall:
		p.mu.Lock()
		p.stalled = append(p.stalled, d.Nodes...)
		p.mu.Unlock()
		err = p.each(d, func(m *member) error { return m.signal(syscall.SIGSTOP) })
		return func() error {
			return p.each(d, func(m *member) error { return m.signal(syscall.SIGCONT) })
		}, err
	case scenario.SlowNIC:
		err = p.each(d, func(m *member) error { return m.host.Shape(ctx, 8*d.Rate, 8*d.Rate) })
		return func() error {
			return p.each(d, func(m *member) error {
				n := &p.c.e.run.Nodes[m.number]
				return m.host.Shape(after, 8*n.Up, 8*n.Down)
			})
		}, err
	case scenario.Partition, scenario.Offline:
		pairs := p.parted(d)
		return func() error { return p.cut(after, pairs, -1) }, p.cut(ctx, pairs, +1)
	case scenario.Corrupt:
		during, end := context.WithCancel(ctx)
		var wg sync.WaitGroup
		for _, i := range d.Nodes {
			p.mu.Lock()
			p.corrupted = append(p.corrupted, i)
			p.mu.Unlock()
			for _, b := range p.c.e.wants(i) {
				file, size := p.fileOf(i, b)
				wg.Go(func() { p.flip(during, file, size) })
			}
		}
		return func() error { end(); wg.Wait(); return nil }, nil
	case scenario.Rot:
		return nothing, p.rot(d)
	}
	return nil, fmt.Errorf("%s is not known here", d.Kind) // refused before
}

// signal signals the node if it runs.
func (m *member) signal(s syscall.Signal) error {
	if n := m.running(); n != nil {
		return n.Signal(s)
	}
	return nil
}

// fileOf is where a node's store has a blob while it is not complete.
func (p *plan) fileOf(node, blob int) (file string, size int64) {
	b := &p.c.e.run.Blobs[blob]
	d := p.c.content.digests[blob]
	return filepath.Join(rig.StoreDir(p.c.members[node].data), "partial", d.Algorithm().String(), d.Encoded()), b.Size
}

// fetcher waits for a member that reads from the origin, to whom nothing else is
// done; of several it is the one with the most before it, and -1 if ctx ends before.
func (p *plan) fetcher(ctx context.Context) int {
	found := -1
	_ = rig.Await(ctx, time.Hour, "a node reads from the origin", func() (bool, error) {
		var most int64 = -1
		for _, e := range p.c.o.reading() {
			i := p.c.memberAt(e.from)
			if i < 0 || i == p.c.first || p.c.members[i].running() == nil || p.c.members[i].suffered() != untouched {
				continue
			}
			last := e.last
			if last < 0 {
				last = p.c.content.sizes[e.blob]
			}
			if left := last + 1 - e.first - e.wrote; left > most {
				found, most = i, left
			}
		}
		return found >= 0, nil
	})
	return found
}

// memberAt returns the member with that address, -1 for none.
func (c *crowd) memberAt(ip string) int {
	return slices.IndexFunc(c.members, func(m *member) bool { return m.host.IP == ip })
}

// kill ends the deed's nodes in one moment, by SIGKILL or, after their notice, by
// SIGTERM. Nobody's clients go on meanwhile.
func (p *plan) kill(ctx context.Context, d *deed) error {
	in := syscall.SIGKILL
	if d.Kind == scenario.Drain {
		in = syscall.SIGTERM
		for _, i := range d.Nodes {
			p.c.members[i].dismiss()
		}
		if !pause(ctx, d.Notice) {
			return nil
		}
	}
	// What they came to is read before the clock starts.
	if err := p.each(d, func(m *member) error { return errors.Join(m.reckon(ctx), m.readCPU()) }); err != nil {
		return err
	}
	why := string(d.Role)
	if why == "" {
		why = string(d.Kind)
	}
	p.mu.Lock()
	if p.at.IsZero() {
		p.c.o.watch()
		p.at, p.atBytes = time.Now(), p.c.o.bytes()
	}
	reading := p.c.o.reading()
	for _, i := range d.Nodes {
		v := victim{Node: i, Why: why}
		for _, e := range reading {
			if p.c.memberAt(e.from) == i {
				v.Reading++
				p.reads = append(p.reads, e)
			}
		}
		p.victims = append(p.victims, v)
	}
	p.mu.Unlock()
	return p.each(d, func(m *member) error { return m.end(in, d.Restart == 0) })
}

// report says what came of it.
func (p *plan) report(res *runResult) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.happened) == 0 {
		return
	}
	slices.SortStableFunc(p.happened, func(a, b happening) int { return cmp.Compare(a.At, b.At) })
	f := &faultResult{Happened: p.happened, OriginBytes: p.atBytes, Killed: p.victims, Flipped: p.flipped, Silence: p.c.o.longestSilence().Seconds()}
	_, all := p.c.o.snapshot()
	for _, lost := range p.reads {
		next := slices.IndexFunc(all, func(e exchange) bool {
			return e.began.After(p.at) && e.overlaps(lost) && p.c.memberAt(e.from) >= 0
		})
		if next < 0 {
			f.NeverResumed++
			continue
		}
		f.Resumed = append(f.Resumed, all[next].began.Sub(p.at).Seconds())
	}
	res.Fault = f
}
