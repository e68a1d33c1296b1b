package p2p

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// The control protocol: one stream for each pair of nodes, opened by the node
// with the lower ID, so that two nodes never hold two, and so that losing it
// loses both directions at once: each node then knows that the other has to be
// told everything anew.
//
// Each side first sends a hello, then frames:
//
//	hello  uvarint length (1 to 1024), version (1), the rest is ignored
//	frame  uvarint length (0 to MaxFrame), so many bytes
//
// A frame of length 0 means "still here". A node sends one whenever it has sent
// nothing for a quarter of the peer timeout.
const (
	controlVersion = 1
	maxHello       = 1024
)

// session is one control stream from its hello to its end.
type session struct {
	link   *link
	stream network.Stream
	queue  *sendQueue

	// reason says why this node ended the session; the first one counts.
	once   sync.Once
	reason error
	ended  chan struct{}

	last atomic.Int64 // when bytes of this stream arrived, since the host was made

	up bool // guarded by Host.mu
}

var (
	errSuperseded = errors.New("superseded by a new stream of the same peer")
	errSilent     = errors.New("peer silent")
	errStopping   = errors.New("host stopping")
)

// end makes the session end, with reason unless it is ending already. It never
// blocks for long and may be called from anywhere.
func (s *session) end(reason error) {
	s.once.Do(func() {
		s.reason = reason
		close(s.ended)
	})
	s.queue.close()
	s.stream.Reset()
}

func (s *session) heard() {
	s.link.heard()
	s.last.Store(s.link.last.Load())
}

func (s *session) silence() time.Duration {
	return time.Since(s.link.epoch) - time.Duration(s.last.Load())
}

// runSession owns a control stream: hello, PeerUp, frames, PeerDown. The caller
// holds the link's slot, which makes these sequences strictly ordered for each
// peer. It returns why the session ended, and whether the peer was up.
func (h *Host) runSession(ctx context.Context, l *link, stream network.Stream) (up bool, err error) {
	s := &session{link: l, stream: stream, queue: newSendQueue(), ended: make(chan struct{})}
	defer s.end(errStopping)
	stop := context.AfterFunc(ctx, func() { s.end(errStopping) })
	defer stop()

	s.heard()
	h.mu.Lock()
	l.session = s // from now on a newer stream can supersede it
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		l.session = nil
		h.mu.Unlock()
	}()

	r := bufio.NewReaderSize(&liveReader{s: s, timeout: h.opts.PeerTimeout}, 4<<10)
	if err := h.hello(stream, r); err != nil {
		s.end(err)
		return false, s.reason
	}
	h.setUp(s, true)
	h.handler.PeerUp(l.node)
	h.connector.met(l.id)
	h.hearsay.forget(l.id) // the node speaks for itself now

	var writer sync.WaitGroup
	writer.Go(func() { s.end(h.writeFrames(s)) })
	s.end(h.readFrames(r, l))
	writer.Wait()

	h.setUp(s, false)
	h.handler.PeerDown(l.node)
	return true, s.reason
}

// hello exchanges the first message. Both sides send before they read.
func (h *Host) hello(stream network.Stream, r *bufio.Reader) error {
	deadline := time.Now().Add(h.opts.PeerTimeout)
	stream.SetWriteDeadline(deadline)
	if _, err := stream.Write([]byte{1, controlVersion}); err != nil {
		return fmt.Errorf("sending hello: %w", err)
	}
	n, err := readUvarint(r, maxHello)
	if err != nil {
		return fmt.Errorf("reading hello: %w", err)
	}
	msg, err := readMessage(r, int(n))
	if err != nil {
		return fmt.Errorf("reading hello: %w", err)
	}
	if len(msg) == 0 || msg[0] != controlVersion {
		return fmt.Errorf("%w: hello %x", ErrProtocol, msg)
	}
	return nil
}

func (h *Host) readFrames(r *bufio.Reader, l *link) error {
	for {
		frame, err := readFrame(r)
		if err != nil {
			return err
		}
		if len(frame) == 0 {
			continue
		}
		h.metrics.framesRecv.Inc()
		h.metrics.frameBRecv.Add(float64(len(frame)))
		h.use(l)
		if err := h.handler.Frame(l.node, frame); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
}

// readFrame reads one frame into memory of its own. It returns io.EOF at the end
// of the stream, between frames.
func readFrame(r *bufio.Reader) ([]byte, error) {
	n, err := readUvarint(r, MaxFrame)
	if err != nil || n == 0 {
		return nil, err
	}
	return readMessage(r, int(n))
}

// writeBatch is how many bytes of frames are put into one write.
const writeBatch = 32 << 10

func (h *Host) writeFrames(s *session) error {
	idle := h.opts.PeerTimeout / 4
	timer := time.NewTimer(idle)
	defer timer.Stop()
	var frames [][]byte
	var buf []byte
	for {
		select {
		case <-s.queue.wake:
		case <-timer.C:
		case <-s.ended:
			return nil
		}
		frames = s.queue.take(frames[:0])
		buf = buf[:0]
		if len(frames) == 0 {
			buf = append(buf, 0)
		} else {
			h.use(s.link)
		}
		for _, frame := range frames {
			buf = binary.AppendUvarint(buf, uint64(len(frame)))
			buf = append(buf, frame...)
			h.metrics.framesSent.Inc()
			h.metrics.frameBSent.Add(float64(len(frame)))
			if len(buf) >= writeBatch {
				if err := s.write(buf, h.opts.PeerTimeout); err != nil {
					return err
				}
				buf = buf[:0]
			}
		}
		clear(frames)
		if err := s.write(buf, h.opts.PeerTimeout); err != nil {
			return err
		}
		if cap(buf) > 2*writeBatch {
			buf = nil // a large frame passed; hundreds of peers must not keep that much
		}
		timer.Reset(idle)
	}
}

// write writes all of p; each 64 KiB of it may take as long as timeout.
func (s *session) write(p []byte, timeout time.Duration) error {
	for len(p) > 0 {
		s.stream.SetWriteDeadline(time.Now().Add(timeout))
		n, err := s.stream.Write(p[:min(len(p), 64<<10)])
		if err != nil {
			return fmt.Errorf("writing frames: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// liveReader reads from the control stream and notices a dead peer: one from
// which nothing at all arrived for the timeout. Bytes of other streams count:
// on a slow link they may hold a keep-alive up for longer than the timeout.
type liveReader struct {
	s       *session
	timeout time.Duration
}

func (r *liveReader) Read(p []byte) (int, error) {
	for {
		r.s.stream.SetReadDeadline(time.Now().Add(r.timeout))
		n, err := r.s.stream.Read(p)
		if n > 0 {
			r.s.heard()
			return n, nil
		}
		if !isTimeout(err) {
			return 0, err
		}
		if r.s.link.silence() >= r.timeout {
			return 0, errSilent
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// endReason names why a session ended, for the metric.
func endReason(err error) string {
	switch {
	case errors.Is(err, ErrQueueFull):
		return "overflow"
	case errors.Is(err, ErrProtocol):
		return "violation"
	case errors.Is(err, errSilent):
		return "silent"
	case errors.Is(err, errSuperseded):
		return "superseded"
	case errors.Is(err, errStopping):
		return "stopping"
	case errors.Is(err, io.EOF):
		return "closed"
	default:
		return "broken"
	}
}
