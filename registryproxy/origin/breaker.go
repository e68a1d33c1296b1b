package origin

import (
	"math/rand/v2"
	"net/url"
	"sync"
	"time"
)

// The circuit breaker of a host, shared by all requests to it.
//
//	      silence for SuspectAfter            failures worth 3
//	┌─ ok ───────────────────────▶ suspect ───────────────────┐
//	│   ▲  ▲────── any answer ────────┘                       ▼
//	│   └───────────────── the probe is answered ───────── open
//	└───────────────────── failures worth 3 ──────────────────▲
//
// While it is open requests fail at once, and a probe (GET /v2/) in the
// background asks from time to time: no client ever waits for it. After an
// answered probe the host is on parole: one failure or silence opens the breaker
// again, for twice as long; only an answer to a real request forgives it. While it is
// suspect requests go out, for it may just be slow, but whoever has an older
// answer need not wait for a newer one (Client.Reachable).
//
// A failure whose request began before the host last answered another one says
// something about that request, not about the host, and is ignored.
const (
	breakerThreshold = 3
	breakerFirst     = time.Second      // first opening
	breakerLongest   = 15 * time.Second // each doubles the one before
)

// host is what is known about one host of one target.
type host struct {
	key             string // scheme://host:port
	origin          string
	probe           *url.URL      // what to ask for, to see whether it answers
	streams, others chan struct{} // slots: blob bodies; anything else

	mu        sync.Mutex
	state     State
	since     time.Time
	lastError string
	lastOK    time.Time
	score     int // consecutive failures, weighted
	opening   time.Duration
	nextProbe time.Time
	probing   bool

	// Cooldown: until when the host wants to be left alone.
	pauseAll, pauseMetered time.Time
	throttled              int // consecutive 429 without Retry-After

	challenge *challenge // how it wants to be authenticated to; nil: not at all, as far as known
}

// slots that requests for anything but blobs share: enough that manifests never
// queue behind bodies.
const otherSlots = 8

func newHost(origin, key string, streams int) *host {
	return &host{
		key: key, origin: origin, state: OK, since: time.Now(),
		streams: make(chan struct{}, streams), others: make(chan struct{}, otherSlots),
	}
}

// admit returns how long to wait at least if the breaker is open.
func (h *host) admit(now time.Time) (wait time.Duration, lastError string, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != Open {
		return 0, "", true
	}
	return max(h.nextProbe.Sub(now), time.Second), h.lastError, false
}

// takeProbe reports whether the caller should probe now; if so it must call
// probed.
func (h *host) takeProbe(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == OK || h.probing || now.Before(h.nextProbe) {
		return false
	}
	h.probing = true
	return true
}

// answered notes an answer to a real request. It reports whether that closed
// the breaker.
func (h *host) answered(now time.Time) (recovered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	recovered = h.state == Open
	h.lastOK, h.score, h.opening = now, 0, 0
	h.enter(OK, now)
	return recovered
}

// failed notes that a request that began at start got no answer. It reports
// whether that opened the breaker.
func (h *host) failed(start, now time.Time, weight int, why string) (opened bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lastOK.After(start) {
		return false
	}
	h.lastError = why
	h.score += weight
	if h.score < breakerThreshold || h.state == Open {
		return false
	}
	h.open(now)
	return true
}

// suspect notes that a request that began at start is still without an answer.
func (h *host) suspect(start, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != OK || h.lastOK.After(start) {
		return
	}
	h.lastError = "no answer for " + now.Sub(start).Round(time.Millisecond).String()
	if h.score >= breakerThreshold-1 {
		// On parole: it answers probes and nothing else.
		h.open(now)
		return
	}
	h.enter(Suspect, now)
	h.nextProbe = now
}

// probed ends a probe that began at start. An answer to a real request in the
// meantime counts for more than a probe that failed.
func (h *host) probed(start, now time.Time, ok bool, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probing = false
	switch {
	case ok:
		if h.state != OK {
			h.score = breakerThreshold - 1
		}
		h.enter(OK, now)
	case h.lastOK.After(start):
	default:
		h.lastError = why
		h.open(now)
	}
}

// open opens the breaker, or keeps it open for longer. h.mu is held.
func (h *host) open(now time.Time) {
	h.opening = min(max(2*h.opening, breakerFirst), breakerLongest)
	// 80 to 120 %: the nodes of a cluster should not probe in step.
	h.nextProbe = now.Add(h.opening*4/5 + rand.N(h.opening*2/5))
	h.enter(Open, now)
}

// enter changes the state. h.mu is held.
func (h *host) enter(s State, now time.Time) {
	if h.state != s {
		h.state, h.since = s, now
	}
}

// health is what the host's state looks like from outside; used is false for a
// host that nobody has asked anything.
func (h *host) health(now time.Time) (hl Health, used bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hl = Health{Origin: h.origin, Endpoint: h.key, State: h.state, Since: h.since, LastError: h.lastError}
	if wait := max(h.pauseAll.Sub(now), h.pauseMetered.Sub(now)); wait > 0 {
		hl.Cooldown = wait
	}
	return hl, h.state != OK || !h.lastOK.IsZero() || h.lastError != ""
}
