package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/report"
)

const (
	// redrawProgress and printProgress are how often the line of progress is shown on
	// a terminal, and elsewhere.
	redrawProgress = 200 * time.Millisecond
	printProgress  = 10 * time.Second
)

// progress tells on stderr how far the runs are: in one line on a terminal, else in a line
// now and then. Its methods may be called by several goroutines.
type progress struct {
	w        io.Writer
	terminal bool
	width    func() int

	mu           sync.Mutex
	began, shown time.Time
	drawn        bool
	all, done    int // seeds, 0 for a single run
	broken       int
}

// newProgress makes one that is quiet if the output is for programs.
func (p *program) newProgress(quiet bool) *progress {
	s := newScreen(p.stderr, p.env)
	now := time.Now()
	return &progress{w: p.stderr, terminal: s.terminal != nil && !quiet, width: func() int { return max(s.size().Width, 20) }, began: now, shown: now}
}

// run tells of a single run.
func (p *progress) run(at simulation.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.due() {
		return
	}
	part := 0.0
	if at.Wanted > 0 {
		part = 100 * float64(at.Received) / float64(at.Wanted)
	}
	text := fmt.Sprintf("%3.0f %%  %s of %s pulls, %s of virtual time", part, report.Count(at.Done), report.Count(at.Pulls), report.Duration(at.At))
	if at.WallSeconds > 0 {
		text += fmt.Sprintf(", %s events/s", report.Few(float64(at.Events)/at.WallSeconds))
	}
	if at.Received > at.Wanted/50 { // before that an estimate would mislead
		text += left(at.EstimatedLeft)
	}
	p.show(text)
}

func left(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	if d < 100*time.Second {
		return fmt.Sprintf(", about %d s left", int(d.Seconds())+1)
	}
	return ", about " + report.Duration(d) + " left"
}

// seeds says that there will be so many runs.
func (p *progress) seeds(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = n
}

// seedDone tells that one of many runs is over.
func (p *progress) seedDone(broken bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if broken {
		p.broken++
	}
	if p.due() {
		spent := time.Since(p.began)
		p.show(fmt.Sprintf("%d of %d seeds, %d broken%s", p.done, p.all, p.broken, left(spent/time.Duration(p.done)*time.Duration(p.all-p.done))))
	}
}

// due says whether it is time to show something.
func (p *progress) due() bool {
	now := time.Now()
	every := printProgress
	if p.terminal {
		every = redrawProgress
	}
	if now.Sub(p.shown) < every {
		return false
	}
	p.shown = now
	return true
}

func (p *progress) show(text string) {
	if !p.terminal {
		fmt.Fprintln(p.w, text)
		return
	}
	if r := []rune(text); len(r) >= p.width() {
		text = string(r[:p.width()-1])
	}
	fmt.Fprintf(p.w, "\r%s\x1b[K", text)
	p.drawn = true
}

// beside has f write where the line of progress is not in the way.
func (p *progress) beside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wipe()
	f()
}

// end wipes the line away.
func (p *progress) end() { p.beside(func() {}) }

func (p *progress) wipe() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}
