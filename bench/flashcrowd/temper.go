package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// temper is what an origin does to those who ask, beyond what its link does: how long
// it thinks, how many it serves, what it allows, and what is wrong with it now. It is
// safe for concurrent use. A nil one is a patient origin.
type temper struct {
	origin scenario.Origin
	delay  time.Duration // before each answer, latency included

	mu       sync.Mutex
	random   *rand.Rand
	open     int
	troubles []*trouble
	windows  map[window]*usage
}

// trouble is a fault of the origin that lasts until over is closed.
type trouble struct {
	scenario.Fault
	from []string // IP addresses that it is for, none: all
	over chan struct{}
}

// window tells the counts of limits apart.
type window struct {
	limit int
	who   string
}

type usage struct {
	since time.Time
	n     int
}

func newTemper(run *scenario.Run) *temper {
	return &temper{origin: run.Origin, delay: run.Origin.Delay + 2*run.Latency.Origin,
		random: rand.New(rand.NewPCG(run.Seed, 2)), windows: map[window]*usage{}}
}

// mood is what a request meets.
type mood struct {
	status int // 0: it is served
	wait   time.Duration
	cut    int // the response ends after its part 1/cut, 1: before it begins
}

func (m mood) refuse(w http.ResponseWriter) {
	switch m.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Basic realm="flashcrowd"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if m.wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int((m.wait+time.Second-1)/time.Second)))
		}
	}
	http.Error(w, http.StatusText(m.status), m.status)
}

// begin has a trouble begin; closing what it returns ends it.
func (t *temper) begin(f scenario.Fault, from []string) (end func()) {
	tr := &trouble{f, from, make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.troubles = append(t.troubles, tr)
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.troubles = slices.DeleteFunc(t.troubles, func(o *trouble) bool { return o == tr })
		close(tr.over)
	})
}

// troubled returns what is wrong for an address.
func (t *temper) troubled(ip string) (list []*trouble) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tr := range t.troubles {
		if len(tr.from) == 0 || slices.Contains(tr.from, ip) {
			list = append(list, tr)
		}
	}
	return list
}

// meet says what a request meets, after the time that the origin takes for it. leave must
// be called when the answer is over.
func (t *temper) meet(ctx context.Context, ip string, manifest bool) (m mood, leave func()) {
	leave = func() {}
	if t == nil {
		return m, leave
	}
	for _, tr := range t.troubled(ip) {
		switch tr.Kind {
		case scenario.OriginOutage:
			return mood{cut: 1}, leave
		case scenario.OriginStall:
			select {
			case <-tr.over:
			case <-ctx.Done():
			}
			return mood{cut: 1}, leave
		case scenario.OriginThrottle:
			m = mood{status: http.StatusTooManyRequests, wait: tr.Delay}
		case scenario.OriginError:
			m = mood{status: tr.Status}
		case scenario.ExpiredToken:
			m = mood{status: http.StatusUnauthorized}
		case scenario.OriginReset:
			if t.draw() < tr.Part {
				m.cut = 2
			}
		}
	}
	if t.delay > 0 {
		timer := time.NewTimer(t.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return mood{cut: 1}, leave
		}
	}
	if m.status == 0 {
		if wait := t.over(time.Now(), ip, manifest); wait > 0 {
			m.status, m.wait = http.StatusTooManyRequests, wait
		}
	}
	if m.status == 0 && t.origin.Connections > 0 {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.open >= t.origin.Connections {
			m.status = http.StatusServiceUnavailable
			return m, leave
		}
		t.open++
		return m, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.open--
		}
	}
	return m, leave
}

// draw is a number below a million.
func (t *temper) draw() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.random.IntN(1_000_000)
}

// over counts a request, and returns how long until it would be let through where some
// limit has no room for it. A window begins with the first request after the one before
// it; one that is refused counts for none.
func (t *temper) over(now time.Time, ip string, manifest bool) (wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var counts []*usage
	for i, l := range t.origin.Limits {
		if l.Manifests && !manifest {
			continue
		}
		w := window{limit: i}
		if l.PerNode {
			w.who = ip
		}
		u := t.windows[w]
		if u == nil || now.Sub(u.since) >= l.Window {
			u = &usage{since: now}
			t.windows[w] = u
		}
		if u.n >= l.Requests {
			wait = max(wait, u.since.Add(l.Window).Sub(now))
		}
		counts = append(counts, u)
	}
	if wait > 0 {
		return wait
	}
	for _, u := range counts {
		u.n++
	}
	return 0
}

// forget begins all windows anew.
func (t *temper) forget() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.windows)
}

// pace writes no faster than one connection goes, and not at all once the origin is out.
func (t *temper) pace(ctx context.Context, w io.Writer, ip string) io.Writer {
	if t == nil {
		return w
	}
	return &paced{t: t, ctx: ctx, w: w, ip: ip, next: time.Now()}
}

type paced struct {
	t    *temper
	ctx  context.Context
	w    io.Writer
	ip   string
	next time.Time // when the next byte may go
}

var errOut = errors.New("the origin is out of order")

// Write implements io.Writer.
func (p *paced) Write(b []byte) (int, error) {
	for _, tr := range p.t.troubled(p.ip) {
		if tr.Kind == scenario.OriginOutage {
			return 0, errOut
		}
	}
	if rate := p.t.origin.Connection; rate > 0 {
		if wait := time.Until(p.next); wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-p.ctx.Done():
				return 0, p.ctx.Err()
			}
		} else {
			p.next = p.next.Add(-wait)
		}
		p.next = p.next.Add(time.Duration(float64(len(b)) / float64(rate) * float64(time.Second)))
	}
	return p.w.Write(b)
}

// broken is a body that ends where it should not.
type broken struct{}

// Read implements io.Reader.
func (broken) Read([]byte) (int, error) { return 0, errOut }
