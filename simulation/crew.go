package simulation

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/peercache/peercache/fetcher/policy"
)

// crew is the goroutines that have cores take their steps: the one that runs the cluster,
// which is worker 0, and helpers. They take the cores of a window a few at a time.
type crew struct {
	workers []worker
	window  atomic.Pointer[window]
	// state is the number of the turn, and how many of the window's heads are taken: in
	// one word, so that a helper that comes late cannot take from another turn than it means.
	state atomic.Uint64
	_     [64]byte
	// heads is how many there are in this turn, stepped how many of them are done with.
	heads   atomic.Int64
	stepped atomic.Int64
	over    atomic.Bool
	gone    sync.WaitGroup
	// waits: worker 0 sleeps until the others are done with the turn.
	waits atomic.Bool
	done  chan struct{}
}

type worker struct {
	scratch policy.Scratch
	asleep  atomic.Bool
	wake    chan struct{}
	_       [64]byte
}

const (
	takenBits = 32
	taken     = 1<<takenBits - 1
	// mostTaken is how many cores a worker takes at a time.
	mostTaken = 8
	// patience is how often a worker looks whether there is something to do before it goes to
	// sleep, in rounds of glances, after each of which others, such as the garbage collector, have a turn.
	patience, glances = 20, 1000
)

// newCrew starts the helpers.
func newCrew(workers int) *crew {
	w := &crew{workers: make([]worker, workers), done: make(chan struct{}, 1)}
	for k := 1; k < workers; k++ {
		w.workers[k].wake = make(chan struct{}, 1)
		w.gone.Go(func() { w.help(k) })
	}
	return w
}

// dismiss ends the helpers, and waits for them.
func (w *crew) dismiss() {
	w.over.Store(true)
	for k := 1; k < len(w.workers); k++ {
		w.rouse(k)
	}
	w.gone.Wait()
}

func (w *crew) rouse(k int) {
	if w.workers[k].asleep.Swap(false) {
		w.workers[k].wake <- struct{}{}
	}
}

// begin has the helpers begin with a window.
func (w *crew) begin(x *window) {
	w.heads.Store(int64(len(x.heads)))
	w.stepped.Store(0)
	w.window.Store(x)
	turn := w.state.Load()>>takenBits + 1
	if len(w.workers) == 1 || len(x.heads) < fewSteps {
		// Not for helpers.
		w.state.Store(turn<<takenBits | taken)
		return
	}
	w.state.Store(turn << takenBits)
	for k := 1; k < len(w.workers); k++ {
		w.rouse(k)
	}
}

// finish does what is left of a window, and waits until all of it is done.
func (w *crew) finish(x *window) {
	if w.state.Load()&taken == taken {
		for k := 0; k < len(x.heads); k += mostTaken {
			x.step(k, min(k+mostTaken, len(x.heads)), 0, &w.workers[0].scratch)
		}
		return
	}
	turn := w.state.Load() >> takenBits
	w.take(0, turn)
	for n := 1; w.stepped.Load() < int64(len(x.heads)); n++ {
		switch {
		case n%glances != 0:
		case n < patience*glances:
			runtime.Gosched()
		default:
			// Perhaps a helper's CPU was taken from it: it can have this one.
			w.waits.Store(true)
			if w.stepped.Load() < int64(len(x.heads)) || !w.waits.Swap(false) {
				<-w.done
			}
		}
	}
	w.state.Store(turn<<takenBits | taken) // lest a helper that comes late takes from what comes next
}

// take has a worker step cores of a turn until none is left.
func (w *crew) take(k int, turn uint64) {
	for {
		s := w.state.Load()
		first := int64(s & taken)
		heads := w.heads.Load()
		if s>>takenBits != turn || first >= heads {
			return
		}
		n := min(max((heads-first)/int64(2*len(w.workers)), 1), mostTaken)
		x := w.window.Load()
		if !w.state.CompareAndSwap(s, s+uint64(n)) {
			continue
		}
		x.step(int(first), int(first+n), k, &w.workers[k].scratch)
		if w.stepped.Add(n) == heads && w.waits.Swap(false) {
			w.done <- struct{}{}
		}
	}
}

// help is what a helper does.
func (w *crew) help(k int) {
	me := &w.workers[k]
	last := uint64(0)
	for {
		turn, found := last, false
		for n := 1; !found && n <= patience*glances; n++ {
			s := w.state.Load()
			if turn = s >> takenBits; turn != last && s&taken != taken {
				found = true
			} else if n%glances == 0 {
				runtime.Gosched()
			}
		}
		if found {
			w.take(k, turn)
			last = turn
			continue
		}
		if w.over.Load() {
			return
		}
		me.asleep.Store(true)
		if s := w.state.Load(); s>>takenBits != last && s&taken != taken || w.over.Load() {
			if me.asleep.Swap(false) {
				continue
			}
		}
		<-me.wake
	}
}
