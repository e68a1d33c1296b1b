package fetcher

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

const (
	// maxQuantum is the most that is granted at once, minQuantum the least that
	// is worth a system call.
	maxQuantum = 64 << 10
	minQuantum = 512
	// quantumEvery is how often each body should get something, however slow the
	// link may be: whoever reads it counts progress.
	quantumEvery = 200 * time.Millisecond
	// timerSlack is how late a timer may be without a loss of rate.
	timerSlack = 20 * time.Millisecond
	// catchUp is how many bytes a flow that asked too late for its turn may have
	// coming to it.
	catchUp = 2 * maxQuantum
)

// limiter is a token bucket whose bytes are shared fairly between flows (peers),
// whatever the number of the bodies of each. Whoever wants to move bytes takes a
// quantum, moves it, and gives back what it did not need. It is fair queueing by
// start times (Goyal, Vin, Cheng: Start-time Fair Queueing, 1996): of the flows
// that wait, the one goes next that has had the least.
//
// Quanta are 64 KiB, or less on slow links: see quantumEvery. The bucket holds
// little, so that what an idle time saves is no burst. The nil limiter grants
// everything. Safe for concurrent use; it has no goroutine.
type limiter struct {
	rate   int64        // bytes a second
	waited atomic.Int64 // nanoseconds that takers waited, all together

	mu     sync.Mutex
	tokens float64 // below 0: what comes next is spent
	filled time.Time
	flows  map[chunkindex.NodeID]*flow
	least  int64 // what the flow that was served last had had
	timer  *time.Timer
}

// flow is what one peer takes.
type flow struct {
	open    int   // bodies
	had     int64 // bytes, as far as fairness goes
	waiting []*taker
}

// taker waits for a quantum.
type taker struct {
	want int
	got  chan int // has room for the one
}

// newLimiter returns a limiter for rate bytes a second, nil for a rate of 0.
func newLimiter(rate int64) *limiter {
	if rate <= 0 {
		return nil
	}
	return &limiter{rate: rate, filled: time.Now(), flows: map[chunkindex.NodeID]*flow{}}
}

// share is one body's way to its peer's part of a limiter. take and giveBack
// belong to the goroutine that reads the body; close may be called at any time,
// once. The nil share takes what it wants.
type share struct {
	l      *limiter
	flow   *flow
	peer   chunkindex.NodeID
	ctx    context.Context // ends when the body does
	cancel context.CancelFunc
}

// share adds a body of a peer. ctx ends its waiting.
func (l *limiter) share(ctx context.Context, peer chunkindex.NodeID) *share {
	if l == nil {
		return nil
	}
	s := &share{l: l, peer: peer}
	s.ctx, s.cancel = context.WithCancel(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.flow = l.flows[peer]; s.flow == nil {
		s.flow = &flow{had: l.least}
		l.flows[peer] = s.flow
	}
	s.flow.open++
	return s
}

// close ends the body's waiting and removes it.
func (s *share) close() {
	if s == nil {
		return
	}
	s.cancel()
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.flow.open--; s.flow.open == 0 {
		delete(s.l.flows, s.peer)
	}
}

// take waits until up to want bytes, at least one, may be moved, and returns how
// many. It fails as the share's context does.
func (s *share) take(want int) (int, error) { return s.takeTelling(want, 0, nil) }

// takeTelling is take, and calls waiting at the start of a wait and then every
// so often.
func (s *share) takeTelling(want int, every time.Duration, waiting func()) (int, error) {
	if s == nil {
		return want, nil
	}
	if err := s.ctx.Err(); err != nil {
		return 0, context.Cause(s.ctx)
	}
	l, t := s.l, &taker{want: want, got: make(chan int, 1)}
	l.mu.Lock()
	if len(s.flow.waiting) == 0 {
		s.flow.had = max(s.flow.had, l.least-catchUp)
	}
	s.flow.waiting = append(s.flow.waiting, t)
	l.dispatch()
	l.mu.Unlock()
	select {
	case n := <-t.got:
		return n, nil
	default:
	}
	start := time.Now()
	defer func() { l.waited.Add(int64(time.Since(start))) }()
	var tick <-chan time.Time
	if waiting != nil {
		waiting()
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case n := <-t.got:
			return n, nil
		case <-tick:
			waiting()
		case <-s.ctx.Done():
			l.abandon(s.flow, t)
			return 0, context.Cause(s.ctx)
		}
	}
}

// giveBack returns bytes that were taken and not moved.
func (s *share) giveBack(n int) {
	if s == nil || n <= 0 {
		return
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.l.tokens += float64(n)
	s.flow.had -= int64(n)
	s.l.dispatch()
}

// abandon removes a taker that no longer waits, and takes back what it was given
// at this very moment.
func (l *limiter) abandon(f *flow, t *taker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range f.waiting {
		if w == t {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			return
		}
	}
	n := <-t.got
	l.tokens += float64(n)
	f.had -= int64(n)
	l.dispatch()
}

// quantum is what a flow is granted at once: so much that, with every body of
// every flow waiting, each gets one in quantumEvery.
func (l *limiter) quantum(f *flow) int {
	each := l.rate * int64(quantumEvery/time.Millisecond) / 1000 / int64(max(1, len(l.flows)*f.open))
	return int(min(max(each, minQuantum), maxQuantum))
}

// depth is how much the bucket holds: a quantum, and at high rates as much as
// flows while a timer is late.
func (l *limiter) depth() float64 {
	rate := float64(l.rate)
	return max(min(maxQuantum, rate*quantumEvery.Seconds()), rate*timerSlack.Seconds())
}

// dispatch grants what the bucket has, and sets the timer for what it has not.
// Callers hold mu.
func (l *limiter) dispatch() {
	now := time.Now()
	// What was given back may exceed the bucket: it was in it before.
	most := max(l.tokens, l.depth())
	l.tokens = min(most, l.tokens+float64(l.rate)*now.Sub(l.filled).Seconds())
	l.filled = now
	for {
		var next *flow
		for _, f := range l.flows {
			if len(f.waiting) > 0 && (next == nil || f.had < next.had) {
				next = f
			}
		}
		if next == nil {
			return
		}
		t := next.waiting[0]
		n := min(t.want, l.quantum(next))
		if l.tokens < float64(n) && l.tokens < most {
			wait := time.Duration((min(float64(n), most) - l.tokens) / float64(l.rate) * float64(time.Second))
			l.wakeIn(wait + time.Microsecond)
			return
		}
		next.waiting[0] = nil
		next.waiting = next.waiting[1:]
		l.least = max(l.least, next.had)
		l.tokens -= float64(n)
		next.had += int64(n)
		t.got <- n
	}
}

func (l *limiter) wakeIn(d time.Duration) {
	if l.timer == nil {
		l.timer = time.AfterFunc(d, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.dispatch()
		})
		return
	}
	l.timer.Reset(d)
}
