package fetcher

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

const (
	// liveAge is how old a snapshot may be that several watchers share: however
	// many watch, the loop is troubled at this pace at most.
	liveAge = 200 * time.Millisecond
	// liveTimeout bounds how long the loop is waited for.
	liveTimeout = time.Second
)

// errNotLive says that the loop did not answer in time, or does not run.
var errNotLive = errors.New("fetcher: no snapshot can be had now")

// Live is a snapshot of what is under way, for people to look at. Bytes count from
// the start of the process, or of the work on the blob, and only grow: whoever
// wants rates compares two snapshots.
type Live struct {
	// At is when the counts were read, since the start of the fetcher, by the
	// monotonic clock.
	At time.Duration
	// Received counts what came from the network (Store is always 0), Served what
	// clients were given.
	Received, Served Sources
	Readers          int
	// Blobs are those that the core is at work on, at most
	// [policy.MaxViewBlobs], oldest first, those wanted by clients before others.
	Blobs []LiveBlob
}

// LiveBlob is one blob of a [Live].
type LiveBlob struct {
	policy.BlobView
	// Bytes counts what was received from peers and the origin, and in Store what
	// readers found in the store when they came.
	Bytes Sources
	// ByPeer divides Bytes.Peer, some peers that are gone left out.
	ByPeer  map[chunkindex.NodeID]int64
	Readers int
}

// live keeps the latest snapshot, or that there was none, for whoever asks next.
type live struct {
	mu   sync.Mutex
	last *Live // nil for errNotLive
	at   time.Time
}

// Live returns a snapshot that is at most 200 ms old; callers share it and must
// not change it. It fails when the fetcher does not run, or is too busy to answer
// within a second. It is safe for concurrent use.
func (f *Fetcher) Live() (*Live, error) {
	f.live.mu.Lock()
	defer f.live.mu.Unlock()
	if f.live.at.IsZero() || time.Since(f.live.at) >= liveAge {
		f.live.last = f.askLoop()
		f.live.at = time.Now()
	}
	if f.live.last == nil {
		return nil, errNotLive
	}
	return f.live.last, nil
}

// askLoop has the loop take a snapshot; nil if it does not in time.
func (f *Fetcher) askLoop() *Live {
	got := make(chan *Live, 1) // the loop waits for nobody
	f.queue.put(item{do: func() { got <- f.snapshot() }})
	timeout := time.NewTimer(liveTimeout)
	defer timeout.Stop()
	select {
	case s := <-got:
		return s
	case <-f.ctx.Done():
	case <-timeout.C:
	}
	return nil
}

// snapshot is Live's part in the loop.
func (f *Fetcher) snapshot() *Live {
	var views []policy.BlobView
	if core, ok := f.core.(interface{ View() []policy.BlobView }); ok {
		views = core.View()
	}
	now := f.now()
	s := &Live{
		At: time.Duration(now), Received: sourcesOf(&f.count.receivedBytes), Served: sourcesOf(&f.count.servedBytes),
		Readers: int(f.readerCount.Load()), Blobs: make([]LiveBlob, 0, len(views)),
	}
	for _, v := range views {
		l := LiveBlob{BlobView: v}
		// There is none for a blob that this node only coordinates.
		if b := f.blobs[v.Blob]; b != nil {
			l.Bytes = b.traffic.sources()
			l.ByPeer = b.traffic.byPeer(now, func(id chunkindex.NodeID) bool {
				return slices.ContainsFunc(v.Neighbours, func(n policy.NeighbourView) bool { return n.Peer == id })
			})
			b.mu.Lock()
			l.Readers = b.readers
			b.mu.Unlock()
		}
		s.Blobs = append(s.Blobs, l)
	}
	return s
}
