package p2p

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
)

// Over one connection to a peer go chunks, the requests for chunks, what makes room for
// more of them (yamux's window updates) and all messages, in the order in which they were
// written. yamux has room for 64 frames of 64 KiB in front of the connection, and the
// kernel for up to 4 MiB (net.ipv4.tcp_wmem), so that a request, which is a few bytes,
// waited for a megabyte to leave over a link that others share: a second and more, while
// the link in the other direction stood idle and the chunk counted as one that does not
// come. And who serves a chunk took it for sent when it lay in there.
//
// So little is put in there: a write of more than [smallWrite] bytes waits until less than
// a few milliseconds' worth of what was written before is left.

const (
	// smallWrite is how long a write may be that does not wait: requests, and most
	// messages.
	smallWrite = 4 << 10
	// leastUnsent is the least that yamux, and the kernel, may hold of what was written:
	// it takes 5 ms on a link of 100 Mbit/s. mostUnsent is the most.
	leastUnsent, mostUnsent = 64 << 10, 1 << 20
	// unsentTime is what they may hold as time: long enough for a process that waits for a
	// CPU to write more before the connection has nothing to send.
	unsentTime = 10 * time.Millisecond
	// rateTime is how often it is looked at how fast the connection is.
	rateTime = 100 * time.Millisecond
)

// muxer is yamux with short queues.
type muxer struct{ network.Multiplexer }

func newMuxer() network.Multiplexer { return muxer{yamux.DefaultTransport} }

// NewConn implements network.Multiplexer.
func (m muxer) NewConn(c net.Conn, isServer bool, scope network.PeerScope) (network.MuxedConn, error) {
	out := newOutbound(c)
	mc, err := m.Multiplexer.NewConn(out, isServer, scope)
	if err != nil {
		return nil, err
	}
	return &muxedConn{mc, out}, nil
}

// muxedConn hands out streams that wait for room.
type muxedConn struct {
	network.MuxedConn
	out *outbound
}

// OpenStream implements network.MuxedConn.
func (c *muxedConn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	s, err := c.MuxedConn.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return newMuxedStream(s, c.out), nil
}

// AcceptStream implements network.MuxedConn.
func (c *muxedConn) AcceptStream() (network.MuxedStream, error) {
	s, err := c.MuxedConn.AcceptStream()
	if err != nil {
		return nil, err
	}
	return newMuxedStream(s, c.out), nil
}

// outbound is a connection below yamux. It counts what yamux has been given of streams'
// data and has not written.
type outbound struct {
	net.Conn
	// setUnsent bounds what the kernel holds unsent; nil where that cannot be done.
	setUnsent func(bytes int)

	mu sync.Mutex
	// queued is less than 0 while yamux writes what a Write has not returned for.
	queued int
	most   int           // that may be queued when more is added
	freed  chan struct{} // closed when some was written; nil while nobody waits
	broken bool
	// What was written since.
	written int
	since   time.Time
}

func newOutbound(c net.Conn) *outbound {
	o := &outbound{Conn: c, setUnsent: unsentLimit(c), most: leastUnsent, since: time.Now()}
	if o.setUnsent != nil {
		o.setUnsent(o.most)
	}
	return o
}

// yamux's header is 12 bytes, and its second byte says what the frame is.
const (
	frameHeader = 12
	frameType   = 1
	frameOfData = 0
)

// Write implements net.Conn. yamux writes one frame at a time.
func (o *outbound) Write(frame []byte) (int, error) {
	n, err := o.Conn.Write(frame)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(frame) >= frameHeader && frame[frameType] == frameOfData {
		o.queued -= len(frame) - frameHeader
	}
	o.broken = o.broken || err != nil
	o.written += n
	if took := time.Since(o.since); took >= rateTime {
		o.adapt(took)
	}
	o.wake()
	return n, err
}

// Close implements net.Conn.
func (o *outbound) Close() error {
	err := o.Conn.Close()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = true
	o.wake()
	return err
}

// wake has those who wait look again. The caller holds mu.
func (o *outbound) wake() {
	if o.freed != nil {
		close(o.freed)
		o.freed = nil
	}
}

// adapt bounds what may be held by how much was written in the time that it took: what
// a fast connection sends in the time that it takes to write more is more. The caller
// holds mu.
func (o *outbound) adapt(took time.Duration) {
	most := int(int64(o.written) * int64(unsentTime) / int64(took))
	most = max(leastUnsent, min(most, mostUnsent))
	o.written, o.since = 0, time.Now()
	if most < 2*o.most && 2*most > o.most {
		return
	}
	o.most = most
	if o.setUnsent != nil {
		o.setUnsent(most)
	}
}

// piece is how much is given to yamux at once.
func (o *outbound) piece() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.most / 2
}

func (o *outbound) add(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queued += n
}

// room returns nil if there is some, else what is closed when there may be.
func (o *outbound) room() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken || o.queued <= o.most/2 {
		return nil
	}
	if o.freed == nil {
		o.freed = make(chan struct{})
	}
	return o.freed
}

// muxedStream is a stream whose long writes wait for room.
type muxedStream struct {
	network.MuxedStream
	out      *outbound
	deadline atomic.Int64 // of writes, in Unix nanoseconds, 0: none
	once     sync.Once
	over     chan struct{} // closed when this side ends the stream
}

func newMuxedStream(s network.MuxedStream, out *outbound) *muxedStream {
	return &muxedStream{MuxedStream: s, out: out, over: make(chan struct{})}
}

// Write implements io.Writer. Several may be under way on a connection, each of
// which may put one piece more there than there is room for.
func (s *muxedStream) Write(p []byte) (n int, err error) {
	for {
		piece := p[n:]
		if len(piece) > smallWrite {
			s.await()
			piece = piece[:min(len(piece), s.out.piece())]
		}
		m, err := s.MuxedStream.Write(piece)
		s.out.add(m) // now, as what waits for the peer's window waits in nobody's way
		if n += m; err != nil || n == len(p) {
			return n, err
		}
	}
}

// await returns when there is room, or when the stream's own Write will say why there
// is none.
func (s *muxedStream) await() {
	var late <-chan time.Time
	for {
		freed := s.out.room()
		if freed == nil {
			return
		}
		if at := s.deadline.Load(); late == nil && at != 0 {
			timer := time.NewTimer(time.Until(time.Unix(0, at)))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-freed:
		case <-late:
			return
		case <-s.over:
			return
		}
	}
}

// SetWriteDeadline implements network.MuxedStream. It holds for writes that begin after it.
func (s *muxedStream) SetWriteDeadline(t time.Time) error {
	s.noteDeadline(t)
	return s.MuxedStream.SetWriteDeadline(t)
}

// SetDeadline is described at SetWriteDeadline.
func (s *muxedStream) SetDeadline(t time.Time) error {
	s.noteDeadline(t)
	return s.MuxedStream.SetDeadline(t)
}

func (s *muxedStream) noteDeadline(t time.Time) {
	if t.IsZero() {
		s.deadline.Store(0)
	} else {
		s.deadline.Store(t.UnixNano())
	}
}

func (s *muxedStream) end() { s.once.Do(func() { close(s.over) }) }

// Close implements network.MuxedStream.
func (s *muxedStream) Close() error {
	s.end()
	return s.MuxedStream.Close()
}

// CloseWrite implements network.MuxedStream.
func (s *muxedStream) CloseWrite() error {
	s.end()
	return s.MuxedStream.CloseWrite()
}

// Reset implements network.MuxedStream.
func (s *muxedStream) Reset() error {
	s.end()
	return s.MuxedStream.Reset()
}

// ResetWithError implements network.MuxedStream.
func (s *muxedStream) ResetWithError(code network.StreamErrorCode) error {
	s.end()
	return s.MuxedStream.ResetWithError(code)
}
