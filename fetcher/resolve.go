package fetcher

import (
	"container/list"
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
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
	silence  silence
}

// flight is one question on its way to an answer, shared by all who ask it.
type flight struct {
	about   Ref                // what is asked for, where access is the question
	hurried context.Context    // ends when there is no time left to be polite
	hurry   context.CancelFunc // ends it
	pending atomic.Bool        // the origin has been asked, by this node or another
	over    context.Context    // ends when record or err is there
	land    context.CancelFunc // ends it
	record  aged
	err     error
}

// asker puts a question to its origin.
type asker func(ctx context.Context) (record, error)

// wait waits for the flight's end, for patience at most, and reports whether it
// came. The error is that of ctx.
func (fl *flight) wait(ctx context.Context, patience time.Duration) (done bool, err error) {
	if end, ok := ctx.Deadline(); ok {
		// The other half is the origin's.
		stop := time.AfterFunc(time.Until(end)/2, fl.hurry)
		defer stop.Stop()
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-fl.over.Done():
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// answered and finished report whether there is an answer, or any end. They don't
// wait.
func (fl *flight) answered() bool { return fl.finished() && fl.err == nil }
func (fl *flight) finished() bool { return fl.over.Err() != nil }

type refusal struct {
	err   error
	until time.Time
}

func newTags() *tags {
	return &tags{flights: map[string]*flight{}, refusals: map[string]refusal{}, suspects: map[string]bool{},
		announce: map[digest.Digest]*list.Element{}, order: list.New(),
		silence: silence{until: map[chunkindex.NodeID]time.Time{}}}
}

// Resolve answers a question whose answer changes. The origin is asked at most
// once in Options.TagLifetime for each question, by one request for all who ask
// meanwhile, on this node or, for a repository that anybody can read, any other
// (Options.TagsFromPeers): see desk.go. What it refuses (401, 403, 404) is passed
// through.
//
// Where it cannot be asked (it is known to be unreachable, fails, or takes longer
// than Options.OriginPatience) the newest answer that this node or any reachable
// one had from it is given, marked Stale, unless it is older than
// Options.MaxStale; the request goes on and serves whoever comes next. Where two
// nodes or more know an answer, two of them must agree on it, this one being one
// of them. An answer about a repository that needs credentials is given only to
// clients of a node that the origin has let in within that time.
//
// Politeness to the origin costs a client twice Options.OriginPatience at most,
// whatever the peers do, and half of its own deadline; then this node asks for
// itself. Errors have an HTTPStatus method.
func (f *Fetcher) Resolve(ctx context.Context, query Query) (Answer, error) {
	q := canonical(query)
	switch q.kind {
	case QueryTag, QueryTags, QueryReferrers:
	default:
		return Answer{}, &Error{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "unknown kind of question"}
	}
	if r := exact(q, f.recall(q)); r != nil && r.age < f.opts.TagLifetime && f.accessOf(query.Source).open(f.opts.AccessLifetime) {
		return f.given(r, false), nil
	}
	if err := f.tags.refused(q.key()); err != nil {
		return Answer{}, err
	}
	fl := f.ask(q, Ref{}, func(ctx context.Context) (record, error) { return f.askOrigin(ctx, q, query) })
	done, err := fl.wait(ctx, f.patience(q.origin))
	switch {
	case err != nil:
		return Answer{}, err
	case !done:
		f.suspected(fl, q.origin)
	case fl.err == nil:
		return f.given(&fl.record, false), nil
	case definite(fl.err):
		return Answer{}, fl.err
	}
	r := f.newestKnown(ctx, q, fl)
	switch {
	case fl.answered():
		return f.given(&fl.record, false), nil
	case fl.finished() && definite(fl.err):
		return Answer{}, fl.err
	case r != nil && f.maySee(r):
		return f.given(r, true), nil
	}
	if _, err := fl.wait(ctx, f.opts.OriginTimeout+2*f.opts.OriginPatience); err != nil {
		return Answer{}, err
	}
	switch {
	case !fl.finished():
		return Answer{}, clientError(context.DeadlineExceeded)
	case fl.err != nil:
		return Answer{}, clientError(fl.err)
	}
	return f.given(&fl.record, false), nil
}

// maySee reports whether a stale answer may be given to this node's clients.
func (f *Fetcher) maySee(r *aged) bool {
	return r.public || f.accessOf(r.source()).open(f.opts.MaxStale)
}

// patience is how long an origin is waited for, before somebody else is asked.
func (f *Fetcher) patience(origin string) time.Duration {
	if !f.origin.Reachable(origin) || f.tags.suspect(origin) {
		return suspectPatience
	}
	return f.opts.OriginPatience
}

// suspected notes that an origin let a question wait, if it has been asked.
func (f *Fetcher) suspected(fl *flight, origin string) {
	if fl.pending.Load() {
		f.tags.setSuspect(origin, true)
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

// ask joins the request for q, or starts it: for the content about, where q
// is about access. It lives on the fetcher's context: whoever waits for it
// may go away.
func (f *Fetcher) ask(q question, about Ref, ask asker) *flight {
	f.tags.mu.Lock()
	defer f.tags.mu.Unlock()
	key := q.key()
	if fl := f.tags.flights[key]; fl != nil {
		return fl
	}
	fl := &flight{about: about}
	fl.over, fl.land = context.WithCancel(context.Background())
	fl.hurried, fl.hurry = context.WithCancel(f.ctx)
	f.tags.flights[key] = fl
	started := f.spawn(func() {
		defer fl.hurry()
		ctx, cancel := context.WithTimeout(f.ctx, f.opts.OriginTimeout)
		defer cancel()
		fl.record, fl.err = f.inquire(ctx, fl, q, ask)
		f.landed(q, fl)
	})
	if !started {
		fl.hurry()
		delete(f.tags.flights, key)
		fl.err = errClosed
		fl.land()
	}
	return fl
}

func (f *Fetcher) landed(q question, fl *flight) {
	switch {
	case fl.err == nil:
		f.tags.setSuspect(q.origin, false)
		if fl.record.signer != f.keys.Self() {
			f.learnPublic(&fl.record)
		}
		if q.kind != kindAccess {
			f.keep(fl.record)
			f.announceAnswer(&fl.record)
		}
	case definite(fl.err):
		f.tags.setSuspect(q.origin, false)
		// That one blob is not there says nothing about a repository.
		if q.kind != kindAccess || denies(fl.err) {
			f.tags.refuse(q.key(), fl.err)
		}
	default:
		f.log.Info("the origin could not be asked", "origin", q.origin, "kind", string(q.kind), "err", fl.err)
	}
	f.tags.mu.Lock()
	delete(f.tags.flights, q.key())
	f.tags.mu.Unlock()
	fl.land()
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
	return r, nil
}

// newestKnown finds the newest answer that this node or a reachable peer knows,
// nil where there is none that is trusted. What a peer knows is kept, so that the
// next client need not wait for it. It ends when fl has an answer.
func (f *Fetcher) newestKnown(ctx context.Context, q question, fl *flight) *aged {
	own := f.bestAnswer(q)
	if own != nil && own.age > f.opts.MaxStale {
		own = nil
	}
	if f.opts.TagsFromPeers == FromPeersNever {
		return own
	}
	patience := f.opts.PeerPatience
	if own != nil {
		patience = suspectPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !fl.finished() {
		stop := context.AfterFunc(fl.over, func() {
			if fl.err == nil {
				cancel()
			}
		})
		defer stop()
	}
	found := trusted(own, f.askPeers(ctx, q), f.opts.MaxStale)
	if found != nil && found != own && q.kind != kindAccess {
		f.keep(*found)
	}
	return found
}

// trusted picks the newest of the answers that peers have, and this node's own.
// One peer's word goes where it is the only one that knows; of more, two must
// agree, or one with this node. Where none do, the own answer stays, and else
// only the origin can tell.
func trusted(own *aged, peers []aged, maxAge time.Duration) *aged {
	found := own
	for i := range peers {
		r := &peers[i]
		if r.age > maxAge || found != nil && !r.newer(found) {
			continue
		}
		voices := 0
		for j := range peers {
			if r.agrees(&peers[j].record) {
				voices++
			}
		}
		if own != nil && r.agrees(&own.record) {
			voices++
		}
		if len(peers) == 1 || voices >= 2 {
			found = r
		}
	}
	return found
}

// maxAnswerProviders is about how many nodes announce one answer.
const maxAnswerProviders = 16

// announceAnswer provides an answer on the DHT, and withdraws the one that was
// resolved longest ago when there are too many. Of those who have it from others
// a few will do.
func (f *Fetcher) announceAnswer(r *aged) {
	if r.signer != f.keys.Self() && rand.N(f.connectedTo()+1) >= maxAnswerProviders {
		return
	}
	d, t := r.announced(), f.tags
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
