package p2p

import "sync"

const (
	maxQueuedFrames = 1024
	maxQueuedBytes  = 4 << 20
)

// sendQueue holds the frames that wait for a peer. Pushing never blocks.
type sendQueue struct {
	// wake holds a token while there may be frames.
	wake chan struct{}

	mu     sync.Mutex
	frames [][]byte
	bytes  int
	closed bool
}

func newSendQueue() *sendQueue {
	return &sendQueue{wake: make(chan struct{}, 1)}
}

// push appends a frame. It fails with ErrQueueFull, which closes the queue, and
// with ErrPeerDown once it is closed: a gap in the sequence cannot happen.
func (q *sendQueue) push(frame []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrPeerDown
	}
	if len(q.frames) == maxQueuedFrames || q.bytes+len(frame) > maxQueuedBytes {
		q.closed, q.frames = true, nil
		return ErrQueueFull
	}
	q.frames = append(q.frames, frame)
	q.bytes += len(frame)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// take removes all frames and appends them to dst.
func (q *sendQueue) take(dst [][]byte) [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	dst = append(dst, q.frames...)
	clear(q.frames)
	q.frames, q.bytes = q.frames[:0], 0
	return dst
}

func (q *sendQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.frames, q.bytes = true, nil, 0
}
