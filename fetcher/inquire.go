package fetcher

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// FromPeers says when what other nodes were told by an origin about tags, lists,
// referrers and access is believed. A member that lies can then make clients
// pull another image than the tag's: a digest is checked, a tag is a member's
// word.
type FromPeers string

// When to believe other nodes.
const (
	// FromPeersAlways: as if this node had asked the origin itself, so that one
	// request does for the cluster. The default.
	FromPeersAlways FromPeers = "always"
	// FromPeersOriginDown: only while the origin cannot be asked.
	FromPeersOriginDown FromPeers = "origin-down"
	// FromPeersNever: never.
	FromPeersNever FromPeers = "never"
)

const (
	// committeeSize is how many of the ranked nodes may be asked for a verdict.
	committeeSize = 16
	// silenceLifetime is how long a node is passed over that did not answer.
	silenceLifetime = 10 * time.Second
	// maxSilent bounds the nodes that are remembered for that.
	maxSilent = 1024
)

// inquire finds the answer to a question: from the node that leads the
// question's committee, or from the origin if that one says so, or nobody can be
// asked, or politeness has lasted long enough.
func (f *Fetcher) inquire(ctx context.Context, fl *flight, q question, ask asker) (aged, error) {
	leader := f.keys.Self()
	if f.sharing() && q.fits() {
		polite, stop := context.WithTimeout(ctx, 2*f.opts.OriginPatience)
		defer stop()
		release := context.AfterFunc(fl.hurried, stop)
		defer release()
		r, to := f.seek(polite, fl, q)
		if r != nil {
			return *r, nil
		}
		leader = to
	}
	fl.pending.Store(true)
	begun := time.Now()
	r, err := ask(ctx)
	if err == nil {
		r.public = f.isPublic(fl, q)
		r.sign(f.keys)
	}
	// The answer may be as old as the question.
	a := aged{r, time.Since(begun)}
	f.report(leader, q, a, err)
	return a, err
}

// isPublic reports whether anybody can read a repository that the origin has just
// answered about. Where that answer took credentials, or came from a mirror, and
// there is somebody to tell, the origin is asked on the side: nodes that all have
// credentials would else each ask every question about a public repository.
func (f *Fetcher) isPublic(fl *flight, q question) bool {
	about, blob := q.reference, false
	if q.kind == kindAccess {
		about, blob = fl.about.Digest.String(), !fl.about.Manifest
	}
	public, _ := f.origin.Public(q.source())
	if public || q.kind != QueryTag && q.kind != kindAccess || !f.sharing() || !q.fits() {
		return public
	}
	ctx, cancel := context.WithTimeout(fl.hurried, f.opts.OriginPatience/2)
	defer cancel()
	if !f.origin.Anybody(ctx, q.source(), about, blob) {
		return false
	}
	f.learnAccess(q.source(), func(a *access, now stamp) { a.public = now })
	return true
}

// sharing reports whether answers are shared with other nodes. Who wants each
// answer afresh cannot wait for others'.
func (f *Fetcher) sharing() bool {
	return f.opts.TagsFromPeers == FromPeersAlways && f.opts.TagLifetime >= time.Second && f.connectedTo() > 0
}

// seek asks the members of a question's committee, best first, what to do. It
// returns an answer, or who is to be told of the origin's.
func (f *Fetcher) seek(ctx context.Context, fl *flight, q question) (*aged, chunkindex.NodeID) {
	self := f.keys.Self()
	members := f.committee(ctx, q.announced())
	seen := map[chunkindex.NodeID]bool{}
	hold, settle := time.Duration(0), false
	for len(members) > 0 && ctx.Err() == nil {
		id := members[0]
		seen[id] = true
		v, r, better := f.consult(ctx, id, q, hold, settle)
		hold = 0
		switch v {
		case verdictRecord:
			if f.credible(q, r) {
				return r, id
			}
			// Time lost, no more: the origin knows.
			f.log.Debug("an answer that is not believed", "peer", id)
			return nil, self
		case verdictAsk:
			return nil, id
		case verdictWait:
			fl.pending.Store(true)
			hold = holdFor
		case verdictRedirect:
			switch {
			case settle:
				members = members[1:] // it will not decide
			case seen[better]:
				settle = true
			default:
				members = append([]chunkindex.NodeID{better}, members...)
			}
		default:
			if ctx.Err() == nil {
				f.tags.silence.passOver(id)
			}
			members, settle = members[1:], true
		}
	}
	if len(members) == 0 {
		return nil, self
	}
	if fl.hurried.Err() == nil && members[0] != self {
		// Whatever it waits for: the next question had better go elsewhere.
		f.tags.silence.passOver(members[0])
	}
	return nil, members[0]
}

// committee ranks the nodes that may lead a question, this one among them.
func (f *Fetcher) committee(ctx context.Context, d digest.Digest) []chunkindex.NodeID {
	wait, cancel := context.WithTimeout(ctx, f.opts.PeerPatience)
	defer cancel()
	closest, err := f.peers.Closest(wait, d)
	if err != nil {
		f.log.Debug("looking up a question's committee", "err", err)
	}
	ranked := f.ranked(d, closest)
	return ranked[:min(len(ranked), committeeSize)]
}

// ranked ranks some nodes, those connected, and this one; without those that are
// known not to answer.
func (f *Fetcher) ranked(d digest.Digest, nodes []chunkindex.NodeID) []chunkindex.NodeID {
	nodes = append(f.connected(f.connectedTo()), nodes...)
	nodes = slices.DeleteFunc(nodes, func(id chunkindex.NodeID) bool { return f.isBanned(id) || f.tags.silence.passedOver(id) })
	nodes = append(nodes, f.keys.Self())
	slices.SortFunc(nodes, chunkindex.NodeID.Compare)
	return policy.Rank(string(d), slices.Compact(nodes))
}

// consult asks a member what to do. No verdict is a member that does not answer.
func (f *Fetcher) consult(ctx context.Context, id chunkindex.NodeID, q question, hold time.Duration, settle bool) (verdict, *aged, chunkindex.NodeID) {
	if id == f.keys.Self() {
		return f.preside(ctx, id, q, holdFor, true)
	}
	wait, cancel := context.WithTimeout(ctx, hold+f.opts.PeerPatience)
	defer cancel()
	begun := time.Now()
	data, err := f.peers.Call(wait, id, consultRequest(q, hold, settle))
	var busy interface{ Busy() bool }
	if errors.As(err, &busy) && busy.Busy() {
		f.pause(ctx)
		return verdictWait, nil, id
	}
	if err != nil {
		return 0, nil, id
	}
	v, r, better, ok := decodeVerdict(data)
	if !ok {
		f.log.Debug("malformed verdict", "peer", id)
		return 0, nil, id
	}
	took := time.Since(begun)
	switch {
	case v == verdictRecord:
		r.age += took
	case v == verdictWait && hold > 0 && took < hold/2:
		// It holds as many calls as it will.
		f.pause(ctx)
	}
	return v, r, better
}

// pause waits before somebody is asked again who has much to do.
func (f *Fetcher) pause(ctx context.Context) {
	timer := time.NewTimer(50*time.Millisecond + rand.N(100*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// preside gives a verdict on a question, here.
func (f *Fetcher) preside(ctx context.Context, from chunkindex.NodeID, q question, hold time.Duration, settle bool) (verdict, *aged, chunkindex.NodeID) {
	self := f.keys.Self()
	if r := f.ownAnswer(q); r != nil && r.public && r.age < f.lifetime(q) && from != self {
		return verdictRecord, r, self
	}
	if !settle {
		if best := f.ranked(q.announced(), nil)[0]; best != self && best != from {
			return verdictRedirect, nil, best
		}
	}
	if hold > 0 && from != self {
		if f.desk.hold() {
			defer f.desk.unhold()
		} else {
			hold = 0
		}
	}
	v, r := f.desk.consult(ctx, from, q.key(), f.lifetime(q), hold)
	return v, r, self
}

// lifetime is how long the answer to a question is good.
func (f *Fetcher) lifetime(q question) time.Duration {
	if q.kind == kindAccess {
		return f.opts.AccessLifetime
	}
	return f.opts.TagLifetime
}

// ownAnswer is what this node knows itself of a question, nil for nothing.
func (f *Fetcher) ownAnswer(q question) *aged {
	if q.kind == kindAccess {
		return f.accessRecord(q)
	}
	return exact(q, f.recall(q))
}

// credible reports whether a leader's answer will do in place of the origin's: a
// fresh answer to the very question, about a repository that anybody can read,
// signed, and no older, by the origin's clock, than one that this node knows.
func (f *Fetcher) credible(q question, r *aged) bool {
	if r.question != q || !r.public || r.age >= f.lifetime(q) || !r.genuine() || f.isBanned(r.signer) {
		return false
	}
	own := f.ownAnswer(q)
	return own == nil || own.date == 0 || r.date == 0 || r.date >= own.date
}

// report tells the leader what became of a question. It does not wait.
func (f *Fetcher) report(to chunkindex.NodeID, q question, r aged, err error) {
	o := outcomeRecord
	switch {
	case err != nil && definite(err):
		o = outcomeRefused
	case err != nil:
		o = outcomeFailed
	}
	if to == f.keys.Self() {
		f.desk.tell(to, q.key(), f.lifetime(q), o, &r)
		return
	}
	if len(r.body) > maxListBody {
		o = outcomeFailed // it does not fit into a call
	}
	f.spawn(func() {
		ctx, cancel := context.WithTimeout(f.ctx, holdFor+f.opts.PeerPatience)
		defer cancel()
		if _, err := f.peers.Call(ctx, to, tellRequest(q, o, &r)); err != nil {
			f.log.Debug("telling of an answer", "peer", to, "err", err)
		}
	})
}

// heardOutcome takes in what a peer says became of a question.
func (f *Fetcher) heardOutcome(from chunkindex.NodeID, q question, o outcome, r *aged) {
	if o == outcomeRecord && (r.question != q || r.signer != from || r.age >= f.lifetime(q) || !r.genuine()) {
		o = outcomeFailed
	}
	f.desk.tell(from, q.key(), f.lifetime(q), o, r)
}

// silence remembers nodes that did not answer.
type silence struct {
	mu    sync.Mutex
	until map[chunkindex.NodeID]time.Time
}

func (s *silence) passOver(id chunkindex.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.until) >= maxSilent {
		clear(s.until)
	}
	s.until[id] = time.Now().Add(silenceLifetime)
}

func (s *silence) passedOver(id chunkindex.NodeID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.until[id])
}

func (s *silence) heard(id chunkindex.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.until, id)
}
