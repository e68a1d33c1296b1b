package fetcher

import (
	"container/list"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// refusalLifetime is how long an origin's refusal is remembered.
	refusalLifetime = time.Second
	// suspectPatience is how long an origin is waited for that did not answer
	// the last time, and peers where this node knows an answer itself.
	suspectPatience = 50 * time.Millisecond
	// maxSuspects bounds the origins that are remembered to be silent: clients
	// can name any.
	maxSuspects = 1024
	// maxAnnounced bounds the answers that are announced on the DHT.
	maxAnnounced = 4096
)

// tags is the state behind Resolve.
type tags struct {
	keeping sync.Mutex // held while a kept record is replaced

	mu       sync.Mutex
	flights  map[string]*flight // questions that are on their way to an origin
	refusals map[string]refusal
	suspects map[string]bool // origins that let the last question wait
	announce map[digest.Digest]*list.Element
	order    *list.List // of announced digests, latest first
}

// flight is one question to an origin, shared by all who ask it.
type flight struct {
	done   chan struct{}
	record aged
	err    error
}

type refusal struct {
	err   error
	until time.Time
}

func newTags() *tags {
	return &tags{flights: map[string]*flight{}, refusals: map[string]refusal{}, suspects: map[string]bool{},
		announce: map[digest.Digest]*list.Element{}, order: list.New()}
}

// Resolve answers a question whose answer changes. The origin is asked at most
// once in Options.TagLifetime for each question, by one request for all who ask
// meanwhile; what it refuses (401, 403, 404) is passed through. Where it cannot
// be asked (it is known to be unreachable, fails, or takes longer than
// Options.OriginPatience) the newest answer that this node or any reachable one
// had from it is given, marked Stale, unless it is older than Options.MaxStale;
// the request goes on and serves whoever comes next. Errors have an HTTPStatus
// method.
func (f *Fetcher) Resolve(ctx context.Context, query Query) (Answer, error) {
	q := canonical(query)
	switch q.kind {
	case QueryTag, QueryTags, QueryReferrers:
	default:
		return Answer{}, &Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "unknown kind of question"}
	}
	if r := exact(q, f.recall(q)); r != nil && r.age < f.opts.TagLifetime {
		return f.given(r, false), nil
	}
	if err := f.tags.refused(q.key()); err != nil {
		return Answer{}, err
	}
	fl := f.ask(q, query)
	patience := f.opts.OriginPatience
	if !f.origin.Reachable(q.origin) || f.tags.suspect(q.origin) {
		patience = suspectPatience
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-fl.done:
		if fl.err == nil {
			return f.given(&fl.record, false), nil
		}
		if definite(fl.err) {
			return Answer{}, fl.err
		}
	case <-timer.C:
		f.tags.setSuspect(q.origin, true)
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
	if r := f.newestKnown(ctx, q); r != nil {
		return f.given(r, true), nil
	}
	select {
	case <-fl.done:
		if fl.err != nil {
			return Answer{}, clientError(fl.err)
		}
		return f.given(&fl.record, false), nil
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// given is a record as an answer; what a tag points to is remembered.
func (f *Fetcher) given(r *aged, stale bool) Answer {
	a := r.answer()
	a.Age, a.Stale = r.age, stale
	if r.kind == QueryTag {
		f.hints.put(r.digest, hint{size: r.size, kind: KindManifest, mediaType: r.mediaType})
	}
	if stale {
		f.count.stale.Add(1)
	}
	return a
}

func (t *tags) refused(key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.refusals[key]; ok && time.Now().Before(r.until) {
		return r.err
	}
	return nil
}

func (t *tags) refuse(key string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for k, r := range t.refusals {
		if !now.Before(r.until) {
			delete(t.refusals, k)
		}
	}
	t.refusals[key] = refusal{err, now.Add(refusalLifetime)}
}

func (t *tags) suspect(origin string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.suspects[origin]
}

func (t *tags) setSuspect(origin string, is bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if is {
		if len(t.suspects) >= maxSuspects {
			clear(t.suspects)
		}
		t.suspects[origin] = true
	} else {
		delete(t.suspects, origin)
	}
}

// ask joins the request for q to its origin, or starts it. The request lives on
// the fetcher's context: whoever waits for it may go away.
func (f *Fetcher) ask(q question, query Query) *flight {
	f.tags.mu.Lock()
	defer f.tags.mu.Unlock()
	key := q.key()
	if fl := f.tags.flights[key]; fl != nil {
		return fl
	}
	fl := &flight{done: make(chan struct{})}
	f.tags.flights[key] = fl
	started := f.spawn(func() {
		ctx, cancel := context.WithTimeout(f.ctx, f.opts.OriginTimeout)
		defer cancel()
		begun := time.Now()
		fl.record.record, fl.err = f.askOrigin(ctx, q, query)
		// The answer may be as old as the question.
		fl.record.age = time.Since(begun)
		f.landed(q, fl)
	})
	if !started {
		delete(f.tags.flights, key)
		fl.err = errClosed
		close(fl.done)
	}
	return fl
}

func (f *Fetcher) landed(q question, fl *flight) {
	switch {
	case fl.err == nil:
		f.tags.setSuspect(q.origin, false)
		f.keep(fl.record)
		f.announceAnswer(q.announced())
	case definite(fl.err):
		f.tags.setSuspect(q.origin, false)
		f.tags.refuse(q.key(), fl.err)
	default:
		f.log.Info("the origin could not be asked", "origin", q.origin, "kind", string(q.kind), "err", fl.err)
	}
	f.tags.mu.Lock()
	delete(f.tags.flights, q.key())
	f.tags.mu.Unlock()
	close(fl.done)
}

func (f *Fetcher) askOrigin(ctx context.Context, q question, query Query) (r record, err error) {
	r = record{question: q, size: -1}
	if q.kind == QueryTag {
		d, err := f.origin.Resolve(ctx, query.Source, query.Reference, query.Accept)
		if err != nil {
			return r, err
		}
		r.digest, r.size, r.mediaType = d.Digest, d.Size, d.MediaType
		if !d.Date.IsZero() {
			r.date = d.Date.Unix()
		}
	} else {
		l, err := f.origin.List(ctx, query.Source, query.Kind, query.Reference, query.Params)
		if err != nil {
			return r, err
		}
		r.body, r.mediaType, r.link, r.filtersApplied = l.Body, l.MediaType, l.Link, l.FiltersApplied
	}
	r.sign(f.keys)
	return r, nil
}

// newestKnown finds the newest answer that this node or a reachable peer knows.
// What a peer knows is kept, so that the next client need not wait for it.
func (f *Fetcher) newestKnown(ctx context.Context, q question) *aged {
	own := best(q, f.recall(q))
	patience := f.opts.PeerPatience
	if own != nil {
		patience = suspectPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found := own
	for _, r := range f.askPeers(ctx, q) {
		if found == nil || r.newer(found) {
			found = &r
		}
	}
	if found == nil || found.age > f.opts.MaxStale {
		return nil
	}
	if found != own {
		f.keep(*found)
	}
	return found
}

// announceAnswer provides an answer on the DHT, and withdraws the one that was
// resolved longest ago when there are too many.
func (f *Fetcher) announceAnswer(d digest.Digest) {
	t := f.tags
	t.mu.Lock()
	old := digest.Digest("")
	e := t.announce[d]
	if e != nil {
		t.order.MoveToFront(e)
	} else {
		t.announce[d] = t.order.PushFront(d)
		if t.order.Len() > maxAnnounced {
			old = t.order.Remove(t.order.Back()).(digest.Digest)
			delete(t.announce, old)
		}
	}
	t.mu.Unlock()
	if e != nil {
		return
	}
	if err := f.peers.Provide(d); err != nil {
		f.log.Warn("announcing an answer", "err", err)
	}
	if old != "" {
		if err := f.peers.Withdraw(old); err != nil {
			f.log.Warn("withdrawing an answer", "err", err)
		}
	}
}
