package fetcher

import (
	"container/list"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
)

// Who may read what. Clients of this node send no credentials: what counts is
// whether the origin lets this node read a repository, recently, whoever holds
// the bytes. So nothing is served from the store or fetched from peers under a
// repository before one of these is so:
//
//   - the origin accepted a request of this node for the repository within
//     Options.AccessLifetime;
//   - some node read it within that time without credentials: it is public. Its
//     signed record says so, and spares all others the request.
//
// Else the origin is asked for the very content, without its bytes (a HEAD),
// which is a question like any other: for a public repository one node asks it
// for the whole cluster. A refusal goes to the client as it came, and nothing of
// the repository gets here.
//
// One request is spared: a node without peers that has nothing of a blob reads it
// from the origin at once, whose answer to that tells as much (unasked). Once a
// peer is up such a read starts again, with the question, before the core hears
// of the peer; and nothing goes out before there is an answer, whatever has come
// from where.
//
// Where the origin cannot be asked, what was accepted or public within
// Options.MaxStale stays so; what somebody knows to need credentials is refused
// (503), and what nobody knows anything about is let through, so that a cluster
// outlives its origin.
//
// The unit is the repository, not the blob: whoever may read any repository may
// name any digest in it, and gets the bytes if somebody in the cluster holds
// them. So within a cluster a digest that nobody could guess is what protects a
// blob of a private repository from clients of nodes that may not read that one.
// And members trust each other here: one that calls a repository public which is
// not opens it to all clients, but a member can read everything from its peers
// as it is.

// kindAccess is the question whether a repository can be read by anybody.
const kindAccess QueryKind = "access"

// spaceAccess is where access is kept in the store.
const spaceAccess = "access"

// maxAccess bounds the repositories whose access is in memory.
const maxAccess = 4096

// stamp is a time by this node's wall clock, in milliseconds since 1970, which is
// compared with nothing but itself; 0 is never. Where the clock was set back, what
// it stamped before is taken to be as old as it seems to be young: it must not stay
// fresh until the clock has caught up.
type stamp int64

func stampNow() stamp { return stamp(time.Now().UnixMilli()) }

// within reports whether s is no longer ago than d.
func (s stamp) within(d time.Duration) bool { return s != 0 && s.age() < d }

func (s stamp) age() time.Duration {
	apart := max(stampNow()-s, s-stampNow())
	return time.Duration(min(apart, stamp(maxAge.Milliseconds()))) * time.Millisecond
}

// access is what is known of a repository.
type access struct {
	accepted stamp // the origin last answered this node
	public   stamp // it was last read without credentials, by whomever
	private  stamp // credentials were last needed, or were not good enough
}

func (a access) open(d time.Duration) bool { return a.accepted.within(d) || a.public.within(d) }

// accessBook keeps the access of the repositories used last.
type accessBook struct {
	mu   sync.Mutex
	by   map[Source]*list.Element
	used *list.List // of *accessEntry, most recently used first
}

type accessEntry struct {
	source       Source
	access, kept access
}

func newAccessBook() *accessBook {
	return &accessBook{by: map[Source]*list.Element{}, used: list.New()}
}

func accessKey(src Source) string {
	sum := hashOf(src.Origin, src.Repository)
	return hex.EncodeToString(sum[:])
}

// entry returns what is known of a repository. Callers hold f.access.mu.
func (f *Fetcher) accessEntry(src Source) *accessEntry {
	k := f.access
	if e := k.by[src]; e != nil {
		k.used.MoveToFront(e)
		return e.Value.(*accessEntry)
	}
	e := &accessEntry{source: src}
	value, err := f.store.Record(spaceAccess, accessKey(src))
	if err != nil && !absent(err) {
		f.log.Error("reading who may read a repository", "err", err)
	}
	if len(value) == 24 {
		e.access = access{stamp(binary.BigEndian.Uint64(value)), stamp(binary.BigEndian.Uint64(value[8:])), stamp(binary.BigEndian.Uint64(value[16:]))}
		e.kept = e.access
	}
	k.by[src] = k.used.PushFront(e)
	if k.used.Len() > maxAccess {
		delete(k.by, k.used.Remove(k.used.Back()).(*accessEntry).source)
	}
	return e
}

func (f *Fetcher) accessOf(src Source) access {
	f.access.mu.Lock()
	defer f.access.mu.Unlock()
	return f.accessEntry(src).access
}

// learnAccess changes what is known of a repository, and keeps it unless what is
// kept says almost the same: a download makes many requests.
func (f *Fetcher) learnAccess(src Source, change func(a *access, now stamp)) {
	f.access.mu.Lock()
	defer f.access.mu.Unlock()
	e := f.accessEntry(src)
	change(&e.access, stampNow())
	slack := stamp(f.opts.AccessLifetime.Milliseconds() / 8)
	same := func(a, b stamp) bool { return (a == 0) == (b == 0) && a-b <= slack }
	is, was := e.access, e.kept
	if same(is.accepted, was.accepted) && same(is.public, was.public) && same(is.private, was.private) {
		return
	}
	var value []byte
	for _, s := range []stamp{is.accepted, is.public, is.private} {
		value = binary.BigEndian.AppendUint64(value, uint64(s))
	}
	if err := f.store.PutRecord(spaceAccess, accessKey(src), value); err != nil {
		f.log.Warn("keeping who may read a repository", "err", err)
		return
	}
	e.kept = is
}

// learnPublic takes in a record that says that a repository is public.
func (f *Fetcher) learnPublic(r *aged) {
	f.learnAccess(r.source(), func(a *access, now stamp) {
		a.public = max(a.public, now-stamp(r.age.Milliseconds()))
	})
}

// accessRecord is what this node knows of a repository as a record, nil for
// nothing.
func (f *Fetcher) accessRecord(q question) *aged {
	a := f.accessOf(q.source())
	latest := max(a.public, a.private)
	if latest == 0 {
		return nil
	}
	r := &aged{record{question: q, size: -1, public: a.public == latest}, latest.age()}
	r.sign(f.keys)
	return r
}

// errPrivate refuses what needs an origin's permission that cannot be asked for.
var errPrivate = &Error{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE",
	Message: "the repository is private, and its origin cannot be asked who may read it"}

// allow returns nil if content may be given to this node's clients under its
// source, else why not: see above.
func (f *Fetcher) allow(ctx context.Context, ref Ref) error {
	if ref.Origin == "" || isEmpty(ref.Digest) && !ref.Manifest {
		return nil // from nowhere, or the same for everybody
	}
	a := f.accessOf(ref.Source)
	if a.open(f.opts.AccessLifetime) {
		return nil
	}
	q := question{kind: kindAccess, origin: ref.Origin, repository: ref.Repository}
	var fl *flight
	for {
		if err := f.tags.refused(q.key()); err != nil {
			return err
		}
		fl = f.ask(q, ref, func(ctx context.Context) (r record, err error) {
			_, err = f.statOrigin(ctx, ref)
			return record{question: q, size: -1}, err
		})
		patience := f.patience(ref.Origin)
		if patience < f.opts.OriginPatience && a.open(f.opts.MaxStale) {
			return nil
		}
		done, err := fl.wait(ctx, patience)
		switch {
		case err != nil:
			return err
		case !done:
			f.suspected(fl, ref.Origin)
			return f.allowStale(ctx, q, fl)
		case fl.err == nil:
			return nil
		case !definite(fl.err):
			return f.allowStale(ctx, q, fl)
		case fl.about.Digest == ref.Digest || denies(fl.err):
			return fl.err
		}
		// The origin has not what another client asked for: that says nothing.
	}
}

// unasked reports whether content can come from nowhere but the origin, so that
// it can be opened before anybody is asked who may read it: see
// [content.settle].
func (f *Fetcher) unasked(ref Ref) bool {
	if ref.Origin == "" || f.connectedTo() > 0 || f.lookUp(ref.Digest) != nil || f.accessOf(ref.Source).open(f.opts.AccessLifetime) {
		return false
	}
	_, err := f.store.Stat(ref.Digest)
	return absent(err)
}

// errCompany ends an unasked reader: a peer is up.
var errCompany = errors.New("fetcher: a peer may have the blob")

// readAlone starts an unasked reader, unless a peer is up. stayed must be called
// when the reader has been granted something, or has failed.
//
// A peer that comes up later cancels the reader. f.mu puts both in order, so that
// the core never hears of a peer while it serves an unasked reader; nor does it
// read on for itself then, since the reader is not one of the whole blob.
func (f *Fetcher) readAlone(rd *reader) (stayed func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.up) > 0 {
		return nil, errCompany
	}
	f.alone[rd] = true
	ev := rd.event()
	ev.Whole = false
	f.queue.put(item{ev: ev, reader: rd})
	return func() {
		f.mu.Lock()
		delete(f.alone, rd)
		f.mu.Unlock()
	}, nil
}

// company ends all unasked readers. Callers hold f.mu.
func (f *Fetcher) company() {
	for rd := range f.alone {
		rd.fail(errCompany)
		f.post(policy.Event{Kind: policy.EvCancel, Blob: rd.ref.Digest, Reader: rd.id})
	}
	clear(f.alone)
}

// settle decides what becomes of content that was opened unasked, with err. The
// origin has let this node in by now, or is asked.
func (c *content) settle(r *Range, err error) error {
	c.unasked = false
	if err != nil && !errors.Is(err, errCompany) {
		return err
	}
	if refused := c.f.allow(c.ctx, c.ref); refused != nil {
		return refused
	}
	if err != nil {
		c.supply.close()
		c.supply = nil
		return c.open(r)
	}
	if s, ok := c.supply.(*sharedSupply); ok && s.r.whole && !s.r.small {
		// From now on it is a reader like any other: what it leaves is read on.
		rd := c.f.newReader(c.ref, 0, -1, c.size, true)
		c.f.queue.put(item{ev: rd.event(), reader: rd})
		c.f.post(policy.Event{Kind: policy.EvCancel, Blob: c.ref.Digest, Reader: rd.id})
	}
	return nil
}

// allowStale decides while the origin cannot be asked.
func (f *Fetcher) allowStale(ctx context.Context, q question, fl *flight) error {
	a := f.accessOf(q.source())
	if a.open(f.opts.MaxStale) {
		return nil
	}
	known := f.newestKnown(ctx, q, fl)
	switch {
	case fl.answered():
		return nil
	case fl.finished() && denies(fl.err):
		return fl.err
	case ctx.Err() != nil:
		return ctx.Err()
	case known != nil && known.public:
		f.learnPublic(known)
		return nil
	case known == nil && !a.private.within(f.opts.MaxStale):
		return nil
	}
	// Only the origin can say; it may just be slow.
	if _, err := fl.wait(ctx, f.opts.OriginTimeout); err != nil {
		return err
	}
	switch {
	case fl.answered():
		return nil
	case fl.finished() && denies(fl.err):
		return fl.err
	}
	return errPrivate
}
