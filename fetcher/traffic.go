package fetcher

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

const (
	// maxTraffic bounds the peers whose bytes are counted for one blob.
	maxTraffic = 2 * policy.MaxViewNeighbours
	// trafficLinger is how long a peer's count outlives the last transfer from it
	// once it is no neighbour any more.
	trafficLinger = 30 * time.Second
)

// traffic counts the bytes of one blob by where they came from. Counts only grow,
// and rates are the business of whoever looks twice. Its zero value is ready. It
// is safe for concurrent use.
type traffic struct {
	bytes [fromOrigin + 1]atomic.Int64

	mu    sync.Mutex
	peers map[chunkindex.NodeID]*peerTraffic
}

// peerTraffic counts what came from one peer.
type peerTraffic struct {
	bytes atomic.Int64
	used  policy.Time // when a transfer from it last began
}

func (t *traffic) add(f from, n int64) { t.bytes[f].Add(n) }

// peer returns the counter of a transfer from a peer that begins now. Where too
// many are counted, the one that was idle for longest is forgotten.
func (t *traffic) peer(id chunkindex.NodeID, now policy.Time) func(int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	if p == nil {
		if t.peers == nil {
			t.peers = map[chunkindex.NodeID]*peerTraffic{}
		}
		if len(t.peers) == maxTraffic {
			t.dropIdlest()
		}
		p = &peerTraffic{}
		t.peers[id] = p
	}
	p.used = now
	return func(n int64) {
		t.add(fromPeer, n)
		p.bytes.Add(n)
	}
}

// dropIdlest forgets a peer. Callers hold t.mu.
func (t *traffic) dropIdlest() {
	var idlest chunkindex.NodeID
	first := true
	for id, p := range t.peers {
		if o := t.peers[idlest]; first || p.used < o.used {
			idlest, first = id, false
		}
	}
	delete(t.peers, idlest)
}

// sources returns the counts.
func (t *traffic) sources() Sources { return sourcesOf(&t.bytes) }

// byPeer returns the bytes that came from each peer, and forgets those peers that
// are no neighbours and have been idle for long.
func (t *traffic) byPeer(now policy.Time, neighbour func(chunkindex.NodeID) bool) map[chunkindex.NodeID]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	counts := make(map[chunkindex.NodeID]int64, len(t.peers))
	for id, p := range t.peers {
		if now > p.used.Add(trafficLinger) && !neighbour(id) {
			delete(t.peers, id)
			continue
		}
		counts[id] = p.bytes.Load()
	}
	return counts
}
