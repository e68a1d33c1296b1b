package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/peercache/peercache/bench/internal/rig"
	"github.com/peercache/peercache/chunkindex"
)

// plan is what is done to the crowd.
type plan struct {
	c       *crowd
	kill    []int // members
	stall   []int
	corrupt []int
	stopped []*member
	mu      sync.Mutex // guards flipped
	flipped int
	at      time.Time // of the kill
	atBytes int64
	victims []victim
	reads   []exchange // that killed nodes had open
}

// victim is a node that was killed.
type victim struct {
	Node int    `json:"node"` // from 1
	Why  string `json:"why"`
	// Reading is the number of its reads from the origin that were open.
	Reading int `json:"reading"`
}

// faultResult says what was done, and how soon others went on. Seconds count from
// the kill.
type faultResult struct {
	OriginBytes int64    `json:"origin_bytes_at"` // when it was done
	Killed      []victim `json:"killed,omitempty"`
	Stalled     []int    `json:"stalled,omitempty"`
	Corrupted   []int    `json:"corrupted,omitempty"`
	Flipped     int      `json:"flipped_bytes,omitempty"`
	// Resumed has, for each read from the origin that a killed node had open,
	// when another node first asked for some of the same bytes.
	Resumed []float64 `json:"resumed_after,omitempty"`
	// NeverResumed counts such reads that nobody repeated.
	NeverResumed int `json:"never_resumed,omitempty"`
	// Silence is the longest time from then on in which the origin wrote
	// nothing, though it had to write on.
	Silence float64 `json:"origin_silence"`
}

func (c *crowd) plan() *plan {
	p := &plan{c: c}
	free := c.random.Perm(len(c.members))
	if opts.coord {
		p.kill = append(p.kill, c.coordinator())
		free = slices.DeleteFunc(free, func(i int) bool { return i == p.kill[0] })
	}
	take := func(n int) []int {
		n = min(n, len(free))
		taken := free[:n:n]
		free = free[n:]
		return taken
	}
	p.corrupt = take(opts.corrupt)
	p.stall = take(opts.stall)
	p.kill = append(p.kill, take(opts.kill.of(len(c.members)))...)
	for _, i := range p.corrupt {
		c.members[i].suffer(corrupted)
	}
	// They are not counted from the start, although they come to harm later.
	for _, i := range p.stall {
		c.members[i].suffer(stalled)
	}
	return p
}

// coordinator is the member that ranks first for the first layer.
func (c *crowd) coordinator() int {
	ids := make([]chunkindex.NodeID, len(c.members))
	for i, m := range c.members {
		ids[i] = m.id
	}
	first := rank(c.img.Layers[0], ids)[0]
	return slices.Index(ids, first)
}

// carryOut does what is planned, until ctx ends.
func (p *plan) carryOut(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, i := range p.corrupt {
		for k, l := range p.c.img.Layers {
			m := p.c.members[i]
			file := filepath.Join(rig.StoreDir(m.data), "partial", l.Algorithm().String(), l.Encoded())
			wg.Go(func() { p.flip(ctx, file, p.c.img.sizes[k]) })
		}
	}
	if len(p.kill) == 0 && len(p.stall) == 0 && !opts.fetcher {
		return nil
	}
	at := int64(opts.at * float64(p.c.img.Unique))
	err := rig.Await(ctx, time.Hour, "the origin has written its part", func() (bool, error) { return p.c.o.bytes() >= at, nil })
	if err != nil {
		return fmt.Errorf("the crowd was done with %d bytes from the origin before anything was done to it: %w", p.c.o.bytes(), err)
	}
	for _, i := range p.stall {
		m := p.c.members[i]
		if err := m.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		p.stopped = append(p.stopped, m)
	}
	why := map[int]string{}
	for _, i := range p.kill {
		why[i] = "at random"
	}
	if opts.coord {
		why[p.kill[0]] = "coordinator"
	}
	if opts.fetcher {
		i, err := p.fetcher(ctx)
		if err != nil {
			return err
		}
		p.kill = append(p.kill, i)
		why[i] = "fetcher"
	}
	p.atBytes = p.c.o.bytes()
	return p.killAll(ctx, why)
}

// fetcher waits for a member that reads from the origin, to whom nothing else is
// done; of several it is the one with the most before it.
func (p *plan) fetcher(ctx context.Context) (int, error) {
	found := -1
	err := rig.Await(ctx, 30*time.Second, "a node reads from the origin", func() (bool, error) {
		var most int64 = -1
		for _, e := range p.c.o.reading() {
			i := p.c.memberAt(e.from)
			if i < 0 || slices.Contains(p.kill, i) || p.c.members[i].suffered() != untouched {
				continue
			}
			last := e.last
			if last < 0 {
				last = int64(opts.size)
			}
			if left := last + 1 - e.first - e.wrote; left > most {
				found, most = i, left
			}
		}
		return found >= 0, nil
	})
	return found, err
}

// memberAt returns the member with that address, -1 for none.
func (c *crowd) memberAt(ip string) int {
	return slices.IndexFunc(c.members, func(m *member) bool { return m.host.IP == ip })
}

// killAll kills the members of p.kill in one moment, having read their counters.
func (p *plan) killAll(ctx context.Context, why map[int]string) error {
	for _, i := range p.kill {
		m := p.c.members[i]
		last, err := scrape(ctx, m.Node)
		if err != nil {
			return err
		}
		cpu, err := m.CPU()
		if err != nil {
			return err
		}
		m.last, m.lastCPU = last, cpu
		m.suffer(killed) // before its client can notice
	}
	if len(p.kill) == 0 {
		return nil
	}
	p.c.o.watch()
	p.at = time.Now()
	for _, i := range p.kill {
		if err := p.c.members[i].Signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	for _, e := range p.c.o.reading() {
		if i := p.c.memberAt(e.from); slices.Contains(p.kill, i) {
			p.reads = append(p.reads, e)
		}
	}
	for _, i := range p.kill {
		v := victim{Node: i + 1, Why: why[i]}
		for _, e := range p.reads {
			if e.from == p.c.members[i].host.IP {
				v.Reading++
			}
		}
		p.victims = append(p.victims, v)
		p.c.r.Log("%s: killed node %d (%s; %d reads from the origin open)", p.c.name, v.Node, v.Why, v.Reading)
	}
	return nil
}

// undo lets the stopped ones go on.
func (p *plan) undo() {
	for _, m := range p.stopped {
		_ = m.Signal(syscall.SIGCONT) // it fails for one that has ended, which is found out later
	}
}

// flip changes a byte of each MiB in a file that will have this size, once it is
// written, as a disk may that loses bits. It ends with ctx, or with the file.
func (p *plan) flip(ctx context.Context, file string, size int64) {
	var f *os.File
	err := rig.Await(ctx, time.Hour, "the file is there", func() (ok bool, err error) {
		f, err = os.OpenFile(file, os.O_RDWR, 0)
		return err == nil, err
	})
	if err != nil {
		return
	}
	defer f.Close()
	left := make([]int64, 0, size/mib+1)
	for off := int64(0); off < size; off += mib {
		left = append(left, off)
	}
	zeros := make([]byte, 32)
	tail := make([]byte, len(zeros))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(left) > 0 {
		left = slices.DeleteFunc(left, func(off int64) bool {
			end := min(off+mib, size)
			// Content is random: that it has 32 zeros there is not to be feared.
			at := max(off, end-int64(len(tail)))
			if n, err := f.ReadAt(tail, at); n < int(end-at) || (err != nil && n == 0) || bytes.Equal(tail, zeros) {
				return false
			}
			middle := off + (end-off)/2
			b := make([]byte, 1)
			if _, err := f.ReadAt(b, middle); err != nil {
				return false
			}
			b[0] ^= 0x10
			if _, err := f.WriteAt(b, middle); err != nil {
				return false
			}
			p.mu.Lock()
			p.flipped++
			p.mu.Unlock()
			return true
		})
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			return // complete, and moved: not to be spoiled any more
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// report says what came of it.
func (p *plan) report(res *runResult) {
	if len(p.victims)+len(p.stall)+len(p.corrupt) == 0 {
		return
	}
	f := &faultResult{OriginBytes: p.atBytes, Killed: p.victims, Flipped: p.flipped, Silence: p.c.o.longestSilence().Seconds()}
	for _, i := range p.stall {
		f.Stalled = append(f.Stalled, i+1)
	}
	for _, i := range p.corrupt {
		f.Corrupted = append(f.Corrupted, i+1)
	}
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
