package simulation

import (
	"context"
	"runtime"

	"github.com/peercache/peercache/fetcher/policy"
)

// Time in windows: how the cores of a large cluster take steps on several CPUs.
//
// What a core does now tells on another node no sooner than the least latency later. So
// what happens within a time that is shorter can be known beforehand for all nodes, and
// their cores can take their steps in any order, or at once: conservative parallel simulation
// (Chandy and Misra, Distributed simulation, 1979; Lubachevsky, Efficient distributed
// event-driven simulations of multiple-loop networks, 1989: bounded lag). Time is cut into windows
// of half the least latency. Each goes through three stages
//
//	gather     its events are taken out of the queue, and the network and the nodes do what is
//	           theirs, down to what each core is to be told
//	step       the cores take their steps: the effects are kept
//	carry out  the effects are carried out, in the order of the events
//
// of which those of three windows overlap:
//
//	window k       carry out
//	window k+1       step            by helpers, and by this goroutine once that is done
//	window k+2                 gather
//
// One goroutine gathers and carries out: all that is shared belongs to it. Helpers touch
// nothing but cores, and what is in the window for them. What is a node's does not depend on
// who has its core take its steps, and when: a run is the same with any number of helpers.
//
// What carrying out window k plans for a time before the end of window k+1 happens at that
// end. That is nothing that comes from another node, since a window is half a latency: it is
// timers, clients that read on, the word that something was cancelled, and flows, which begin and
// end for the network at that time and are given their rates at ends of windows alone. These
// are late by a latency, at most. A core may be told of what it has cancelled a moment
// ago, as in production.

const (
	// ManyNodes is from how many nodes on time goes in windows.
	ManyNodes = 500
	// mostLate bounds how late something may be, and so how long windows are where
	// latencies are long.
	mostLate = 250_000
	// fullWindow is how many steps a window has, at most but for what one event leads to:
	// a window that has more is cut short. They are to fit into a cache.
	fullWindow = 512
	// fewSteps are not worth a helper's while.
	fewSteps = 8
)

// lookahead is the least time in which nodes can tell on one another, or a part of it; 0
// if this run does without.
func (c *cluster) lookahead() int64 {
	many := c.opt.manyNodes
	if many == 0 {
		many = ManyNodes
	}
	if len(c.nodes) < many || c.opt.sample != nil {
		return 0
	}
	l := &c.run.Latency
	return min(int64(l.Rack), int64(l.Zone), int64(l.Far), mostLate) &^ 1
}

func (o *Options) workers() int {
	if o.Workers > 0 {
		return o.Workers
	}
	return min(runtime.GOMAXPROCS(0), 2)
}

// job is a step that a core is to take.
type job struct {
	n       *node
	core    Core // n's when it was told
	life    uint32
	next    int32 // of the same core in the window, -1 none
	and     continuation
	arg     uint64
	at      int64
	clock   policy.Time
	effects []policy.Effect
	ev      policy.Event
}

// window is the steps of a short time.
type window struct {
	number uint64
	jobs   []job
	heads  []int32 // the first job of each core
	// effects is where each worker puts them.
	effects []effectBuffer
}

// effectBuffer is where effects of a window are put one after the other.
type effectBuffer struct {
	all []policy.Effect
	_   [64]byte // workers write to theirs all the time
}

// ahead is the windows that are under way.
type ahead struct {
	half    int64 // how long a window is
	windows [3]window
	numbers uint64
	crew    *crew
}

func newAhead(late int64, workers int) *ahead {
	a := &ahead{half: late / 2, numbers: 3, crew: newCrew(workers)}
	for k := range a.windows {
		a.windows[k].number, a.windows[k].effects = uint64(k+1), make([]effectBuffer, workers)
	}
	return a
}

// The windows by what is done with them: see above.
func (a *ahead) done() *window    { return &a.windows[a.numbers%3] }
func (a *ahead) stepped() *window { return &a.windows[(a.numbers+1)%3] }
func (a *ahead) filled() *window  { return &a.windows[(a.numbers+2)%3] }

// add has the core of a node that is up take a step in the window that is being filled, for
// the event that the caller puts where add says.
func (a *ahead) add(c *cluster, n *node) *policy.Event {
	w := a.filled()
	i := int32(len(w.jobs))
	if len(w.jobs) < cap(w.jobs) {
		w.jobs = w.jobs[:i+1]
	} else {
		w.jobs = append(w.jobs, job{})
	}
	if n.window == w.number {
		w.jobs[n.job].next = i
	} else {
		n.window = w.number
		w.heads = append(w.heads, i)
	}
	n.job = i
	j := &w.jobs[i]
	at := c.netNow()
	j.n, j.core, j.life, j.next, j.and, j.at, j.clock, j.effects = n, n.core, n.life, -1, nothingElse, at, policy.Time(n.clockAt(at)), nil
	return &j.ev
}

// continueWith says what follows the step that was added last.
func (a *ahead) continueWith(next continuation, arg uint64) {
	w := a.filled()
	j := &w.jobs[len(w.jobs)-1]
	j.and, j.arg = next, arg
}

// advance has the windows change their parts.
func (a *ahead) advance() {
	w := a.done()
	a.numbers++
	w.number, w.jobs, w.heads = a.numbers, w.jobs[:0], w.heads[:0]
	for i := range w.effects {
		w.effects[i].all = w.effects[i].all[:0]
	}
}

// playWindows is play for time in windows.
func (c *cluster) playWindows(ctx context.Context, end int64) {
	looked := int64(-1)
	for c.err == nil && (c.waiting > 0 || c.ending) {
		if at := c.res.Events / lookAround; at != looked {
			if looked = at; c.lookAround(ctx) {
				break
			}
		}
		a := c.ahead
		a.crew.begin(a.stepped())
		c.carryOutAll(a.done())
		c.net.flush(c.q.floor)
		more := c.gather(end)
		a.crew.finish(a.stepped())
		a.advance()
		if !more && len(a.done().jobs)+len(a.stepped().jobs) == 0 {
			if !c.ending {
				c.samples(end + 1)
				c.now = max(end, c.q.floor)
			}
			return
		}
	}
	c.now = max(c.now, c.q.floor)
}

// carryOutAll carries out what the steps of a window led to.
func (c *cluster) carryOutAll(w *window) {
	for i := range w.jobs {
		j := &w.jobs[i]
		c.now = j.at
		c.note(j.n, &j.ev)
		// Of those that have died meanwhile nothing is heard any more.
		if j.life == j.n.life && !j.n.down {
			if j.ev.Kind == policy.EvCancel {
				j.n.clients[j.ev.Reader-1].leaving = false
			}
			c.carryOut(j.n, &j.ev, j.effects)
		}
		c.proceed(j.n, j.and, j.arg)
	}
}

// gather fills a window, and says whether there is anything after it.
func (c *cluster) gather(end int64) bool {
	a := c.ahead
	w := a.filled()
	start := c.q.floor
	if len(w.jobs)+len(a.stepped().jobs) == 0 {
		// Nothing is under way.
		if at, ok := c.q.next(); ok && at <= end {
			start = max(start, at)
		}
	}
	c.now = start
	limit := start + a.half
	for {
		at, ok := c.q.next()
		if !ok || at > end {
			c.q.floor = limit
			return len(w.jobs) > 0
		}
		if at >= limit || len(w.jobs) >= fullWindow {
			c.q.floor = min(at, limit)
			return true
		}
		c.happen()
	}
}

// netNow is as of when flows begin and end: what is gathered already happens before.
func (c *cluster) netNow() int64 { return max(c.now, c.q.floor) }

// step has the cores of the heads [first, last) take their steps.
func (w *window) step(first, last int, worker int, scratch *policy.Scratch) {
	b := &w.effects[worker]
	for _, i := range w.heads[first:last] {
		for ; i >= 0; i = w.jobs[i].next {
			j := &w.jobs[i]
			used := len(b.all)
			out := b.all[used:]
			if core, ok := j.core.(*policy.Core); ok {
				if core.Scratch != scratch {
					core.Scratch = scratch
				}
				out = core.Take(j.clock, &j.ev, out)
			} else {
				out = j.core.Step(j.clock, j.ev, out)
			}
			if used+len(out) > cap(b.all) {
				b.all = make([]policy.Effect, 0, 2*(used+len(out))) // the rest of the window goes there
			} else {
				b.all = b.all[:used+len(out)]
			}
			for k := range out {
				ownEffect(&out[k])
			}
			j.effects = out
		}
	}
}
