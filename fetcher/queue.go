package fetcher

import (
	"sync"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// item is one entry of the event queue: an event for the core, or a piece of
// work for the goroutine that owns the blobs.
type item struct {
	ev policy.Event
	// reader belongs to an EvRead.
	reader *reader
	// upload belongs to an EvUpload.
	upload *upload
	// do, where there is one, is called instead of handing ev to the core.
	do func()
}

// queue is the way into the event loop. It has no bound of its own, because the
// loop itself waits for nobody and whoever posts must not wait for the loop (a
// bound would let the two wait for each other); its length is bounded by the
// effects that are under way, each of which posts a handful of events, and by
// maxFrames for each peer.
type queue struct {
	mu     sync.Mutex
	items  []item
	frames map[chunkindex.NodeID]int // messages that wait, by sender
	ready  chan struct{}             // holds a token while items wait
}

// maxFrames bounds the messages of one peer that wait for the core.
const maxFrames = 2048

func newQueue() *queue {
	return &queue{frames: map[chunkindex.NodeID]int{}, ready: make(chan struct{}, 1)}
}

func (q *queue) put(it item) {
	q.mu.Lock()
	q.items = append(q.items, it)
	q.mu.Unlock()
	q.wake()
}

func (q *queue) wake() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// putMessage adds a peer's message. A peer that sends faster than the core can
// read loses what it sent, and the core is told that it went away and came back,
// after which both start from their states again.
func (q *queue) putMessage(from chunkindex.NodeID, m policy.Message) (ok bool) {
	q.mu.Lock()
	defer q.wake()
	defer q.mu.Unlock()
	switch n := q.frames[from]; {
	case n < maxFrames:
		q.frames[from]++
		q.items = append(q.items, item{ev: policy.Event{Kind: policy.EvMessage, Peer: from, Msg: m}})
		return true
	case n == maxFrames:
		q.frames[from]++
		q.items = append(q.items,
			item{ev: policy.Event{Kind: policy.EvPeerDown, Peer: from}},
			item{ev: policy.Event{Kind: policy.EvPeerUp, Peer: from}})
	}
	return false
}

// take returns what waits and leaves the queue empty; spare is reused.
func (q *queue) take(spare []item) []item {
	clear(spare)
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = spare[:0]
	clear(q.frames)
	return items
}
