package fetcher

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

const (
	// maxAlternatives bounds the nodes that a busy one names.
	maxAlternatives = 8
	// uploadPatience bounds how long a peer waits for the core's word. The loop
	// takes microseconds; one that takes longer has no time for peers.
	uploadPatience = time.Second
)

// BusyError tells a peer to ask somebody else: Peers, at most 8 of them, have
// the chunk or soon will.
type BusyError struct{ Peers []chunkindex.NodeID }

// Error implements error.
func (BusyError) Error() string { return "fetcher: busy" }

// Busy is true.
func (BusyError) Busy() bool { return true }

// Alternatives returns the nodes to ask instead.
func (e BusyError) Alternatives() []chunkindex.NodeID { return e.Peers }

// alternativesOf returns the nodes that a busy peer named.
func alternativesOf(err error) []chunkindex.NodeID {
	var a interface{ Alternatives() []chunkindex.NodeID }
	if !errors.As(err, &a) {
		return nil
	}
	ids := a.Alternatives()
	return ids[:min(len(ids), maxAlternatives)]
}

// upload is a peer's request for a chunk on its way through the core. The loop
// answers it once, or its asker gives it up, whichever comes first: state says
// which. An upload that the core serves without an asker is over at once.
type upload struct {
	state  atomic.Uint32
	answer chan uploadAnswer // has room for the one
}

const (
	uploadAsked = iota
	uploadAnswered
	uploadAbandoned
)

// uploadAnswer is the core's word. served says that it counts the upload and
// wants to hear of its end.
type uploadAnswer struct {
	served bool
	busy   bool
	peers  []chunkindex.NodeID
}

// admitUpload asks the core whether a chunk is served to a peer now. It returns
// what must be called, once, with the bytes that were sent, when the upload is
// over; or it fails with [BusyError], or as ctx does.
func (f *Fetcher) admitUpload(ctx context.Context, from chunkindex.NodeID, d digest.Digest, chunk int) (over func(int64), err error) {
	id := policy.ID(f.lastUpload.Add(1))
	u := &upload{answer: make(chan uploadAnswer, 1)}
	f.queue.put(item{upload: u, ev: policy.Event{Kind: policy.EvUpload, ID: id, Peer: from, Blob: d, Chunk: chunk}})
	timer := time.NewTimer(uploadPatience)
	defer timer.Stop()
	var a uploadAnswer
	select {
	case a = <-u.answer:
	case <-ctx.Done():
		err = ctx.Err()
	case <-f.ctx.Done():
		err = errClosed
	case <-timer.C:
		err = BusyError{}
	}
	if err != nil {
		if u.state.CompareAndSwap(uploadAsked, uploadAbandoned) {
			return nil, err
		}
		// The answer came at this very moment.
		a = <-u.answer
	}
	if a.busy {
		return nil, BusyError{Peers: a.peers}
	}
	over = func(n int64) {
		if a.served {
			f.post(policy.Event{Kind: policy.EvUploaded, ID: id, Peer: from, Blob: d, Chunk: chunk, N: n})
		}
	}
	if err != nil {
		over(0)
		return nil, err
	}
	return over, nil
}

// stepUpload hands an EvUpload to the core. What the core does not answer in the
// same step is bounded by Options.Uploads alone. Loop only.
func (f *Fetcher) stepUpload(u *upload, ev policy.Event) {
	f.asked, f.askedID = u, ev.ID
	f.step(ev)
	f.answerUpload(ev.ID, uploadAnswer{})
}

// answerUpload carries out Serve and Busy. Loop only.
func (f *Fetcher) answerUpload(id policy.ID, a uploadAnswer) {
	u := f.asked
	if u == nil || id != f.askedID {
		return
	}
	f.asked = nil
	if u.state.CompareAndSwap(uploadAsked, uploadAnswered) {
		u.answer <- a
	} else if a.served {
		f.post(policy.Event{Kind: policy.EvUploaded, ID: id})
	}
}
