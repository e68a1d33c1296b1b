package fetcher

import (
	"container/list"
	"context"
	"sync"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// The desk is where a node decides, for the questions whose committee it leads,
// who of those that ask puts a question to the origin: the first that asks. The
// others wait for its answer.
//
//	asker                          leader                        another asker
//	  │── consult(q) ───────────────▶│                               │
//	  │◀──────────── ask the origin ─│                               │
//	  │ (asks)                       │◀────────────── consult(q) ────│
//	  │                              │── wait ──────────────────────▶│
//	  │                              │◀────────────── consult(q) ────│ held
//	  │── tell(q, signed record) ───▶│── the record ────────────────▶│
//
// A holder that fails to reach the origin, goes away, or takes longer than
// Options.OriginPatience loses its turn to the next that waits. What needs
// credentials, or is refused, everybody asks for itself: only the origin knows
// what it gives to whom.
//
// The state is no promise. Who loses it (a restart, or too many questions) asks
// once more than needed; nobody waits for it longer than politeness lasts.
type desk struct {
	patience time.Duration
	alive    func(chunkindex.NodeID) bool // false once gone has been called, or will be

	mu      sync.Mutex
	errands map[string]*list.Element
	used    *list.List // of *errand, touched last first
	bytes   int        // in lists that are kept
	held    int        // calls of peers that wait
}

const (
	// maxErrands and maxErrandBytes bound what peers can make this node remember.
	maxErrands     = 4096
	maxErrandBytes = 16 << 20
	// maxHeld bounds the calls of peers that wait here, which occupy places for
	// calls in the transport. Others are told to come again.
	maxHeld = 32
	// holdFor is how long such a call waits at most.
	holdFor = 500 * time.Millisecond
)

// errand is one question to the origin, for whoever asks it.
type errand struct {
	key string
	// holder was told to ask the origin, at since; zero is nobody.
	holder chunkindex.NodeID
	since  time.Time
	// record is the answer that came at got, nil for none.
	record *aged
	got    time.Time
	// each asks for itself until then.
	each    time.Time
	changed chan struct{} // closed, and replaced, at each change
}

// verdict is what an asker is told.
type verdict uint8

const (
	_               verdict = iota
	verdictRecord           // this is the answer
	verdictAsk              // ask the origin, and tell me
	verdictWait             // somebody is asking: come again
	verdictRedirect         // that node ranks better
)

// outcome is what became of a question to the origin.
type outcome uint8

const (
	_              outcome = iota
	outcomeRecord          // an answer
	outcomeRefused         // the origin's own word, which may be for this node only
	outcomeFailed          // none
)

func newDesk(patience time.Duration, alive func(chunkindex.NodeID) bool) *desk {
	return &desk{patience: patience, alive: alive, errands: map[string]*list.Element{}, used: list.New()}
}

// errand returns the state of a question. Callers hold d.mu.
func (d *desk) errand(key string) *errand {
	if e := d.errands[key]; e != nil {
		d.used.MoveToFront(e)
		return e.Value.(*errand)
	}
	e := &errand{key: key, changed: make(chan struct{})}
	d.errands[key] = d.used.PushFront(e)
	d.trim()
	return e
}

func (d *desk) trim() {
	for d.used.Len() > 1 && (d.used.Len() > maxErrands || d.bytes > maxErrandBytes) {
		old := d.used.Remove(d.used.Back()).(*errand)
		delete(d.errands, old.key)
		d.set(old, nil)
		old.wake() // whoever waits asks anew
	}
}

func (d *desk) set(e *errand, r *aged) {
	if e.record != nil {
		d.bytes -= len(e.record.body)
	}
	if e.record = r; r != nil {
		d.bytes += len(r.body)
		e.got = time.Now()
	}
}

func (e *errand) wake() {
	close(e.changed)
	e.changed = make(chan struct{})
}

// decide says what from is to do now; answers are good for lifetime. Where that is to wait, changed closes when
// there may be news, and the holder's time is over after left.
func (d *desk) decide(from chunkindex.NodeID, key string, lifetime time.Duration) (v verdict, r *aged, changed <-chan struct{}, left time.Duration) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.errand(key)
	if e.record != nil {
		if r := *e.record; r.age+now.Sub(e.got) < lifetime {
			r.age += now.Sub(e.got)
			return verdictRecord, &r, nil, 0
		}
		d.set(e, nil)
	}
	left = d.patience - now.Sub(e.since)
	switch {
	case now.Before(e.each):
		return verdictAsk, nil, nil, 0
	case e.holder.IsZero() || e.holder == from || left <= 0:
		if d.alive(from) {
			e.holder, e.since = from, now
		} // else nobody would tell that it is gone
		return verdictAsk, nil, nil, 0
	}
	return verdictWait, nil, e.changed, left
}

// consult answers an asker at once, or when there is something to say, hold
// later at most.
func (d *desk) consult(ctx context.Context, from chunkindex.NodeID, key string, lifetime, hold time.Duration) (verdict, *aged) {
	end := time.Now().Add(hold)
	for {
		v, r, changed, left := d.decide(from, key, lifetime)
		left = min(left, time.Until(end))
		if v != verdictWait || left <= 0 {
			return v, r
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return verdictWait, nil
		}
		timer.Stop()
	}
}

// hold takes a place for a call that waits.
func (d *desk) hold() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held >= maxHeld {
		return false
	}
	d.held++
	return true
}

func (d *desk) unhold() {
	d.mu.Lock()
	d.held--
	d.mu.Unlock()
}

// tell takes in what became of a question that from put to the origin. A record
// counts whoever was to ask, as it was signed by who did; so only questions that
// somebody asked here are remembered.
func (d *desk) tell(from chunkindex.NodeID, key string, lifetime time.Duration, o outcome, r *aged) {
	d.mu.Lock()
	defer d.mu.Unlock()
	el := d.errands[key]
	if el == nil {
		return
	}
	e := el.Value.(*errand)
	switch {
	case o == outcomeRecord && r.public:
		e.each = time.Time{}
		d.set(e, r)
	case e.holder != from:
		return
	case o == outcomeRecord:
		e.each = time.Now().Add(lifetime)
	case o == outcomeRefused:
		e.each = time.Now().Add(refusalLifetime)
	}
	e.holder = chunkindex.NodeID{}
	e.wake()
	d.trim()
}

// gone takes the turn from a node that went away.
func (d *desk) gone(id chunkindex.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for el := d.used.Front(); el != nil; el = el.Next() {
		if e := el.Value.(*errand); e.holder == id {
			e.holder = chunkindex.NodeID{}
			e.wake()
		}
	}
}
