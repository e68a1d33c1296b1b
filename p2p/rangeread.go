package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peercache/peercache/chunkindex"
)

const (
	// reuseStream is how long an idle stream is kept for the next request, well
	// below keepStream.
	reuseStream = 15 * time.Second
	// maxIdleStreams a peer; more are rarely in use at once.
	maxIdleStreams = 8
)

// idleStreams keeps range streams for the next request to the same peer. A new
// stream costs a negotiation and starts with a small window, which at 1 MiB a
// request would be most of the time on a link with some delay.
type idleStreams struct {
	mu      sync.Mutex
	streams []idleStream
	closed  bool
}

type idleStream struct {
	network.Stream
	since time.Time
}

// get returns the stream used last, or nil.
func (i *idleStreams) get() network.Stream {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.streams) > 0 {
		s := i.streams[len(i.streams)-1]
		i.streams = i.streams[:len(i.streams)-1]
		if time.Since(s.since) < reuseStream && !s.Conn().IsClosed() {
			return s.Stream
		}
		s.Reset()
	}
	return nil
}

// put keeps a stream, or closes it where there are enough, and the oldest ones
// where they are too old.
func (i *idleStreams) put(s network.Stream) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.streams) > 0 && time.Since(i.streams[0].since) >= reuseStream {
		i.streams[0].Reset()
		i.streams = i.streams[1:]
	}
	if i.closed || len(i.streams) >= maxIdleStreams {
		s.Reset()
		return
	}
	i.streams = append(i.streams, idleStream{s, time.Now()})
}

func (i *idleStreams) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	for _, s := range i.streams {
		s.Reset()
	}
	i.streams = nil
}

// Read asks a peer for bytes of a blob. It connects to the peer if need be, and
// returns once the response's header is here. ctx governs the body too.
//
// It fails with [ErrNotFound], [ErrBusy] (a [BusyError] where the peer names
// others), [ErrBadRange] or [ErrRefused] if that is the peer's answer, with [ErrUnreachable], [ErrStalled] or [ErrProtocol], or
// with ctx's error.
func (h *Host) Read(ctx context.Context, to chunkindex.NodeID, req RangeRequest) (*RangeResponse, error) {
	resp, err := h.read(ctx, to, req)
	if err != nil {
		h.metrics.ranges.WithLabelValues("out", outcome(err)).Inc()
		return nil, fmt.Errorf("reading from peer %s: %w", to, err)
	}
	h.metrics.ranges.WithLabelValues("out", statusOK.String()).Inc()
	return resp, nil
}

// outcome names an error for the metrics.
func outcome(err error) string {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "cancelled"
	case errors.Is(err, ErrStalled):
		return "stalled"
	case errors.Is(err, ErrUnreachable):
		return "unreachable"
	case errors.Is(err, ErrProtocol):
		return "violation"
	default:
		return statusOf(err).String()
	}
}

func (h *Host) read(ctx context.Context, to chunkindex.NodeID, req RangeRequest) (*RangeResponse, error) {
	if err := req.valid(); err != nil {
		return nil, err
	}
	if !h.enter() {
		return nil, ErrClosed
	}
	defer h.wg.Done()
	l := h.acquire(PeerID(to))
	msg := withLength(appendRequest(nil, req))
	for {
		stream := l.idle.get()
		reused := stream != nil
		if !reused {
			var err error
			if stream, err = h.newStream(ctx, l.id, rangeProtocol); err != nil {
				h.release(l)
				return nil, err
			}
		}
		body := &rangeBody{h: h, l: l, stream: stream, ctx: ctx}
		body.stop = context.AfterFunc(ctx, func() { stream.Reset() })
		head, touched, err := h.exchange(body, msg)
		if err == nil {
			err = head.answers(req, h.self, to)
		}
		if err == nil && head.Status == statusOK {
			body.left.Store(head.Length)
			h.use(l)
			return &RangeResponse{Size: head.Size, Length: head.Length, Claims: head.Claims, Body: body}, nil
		}
		if err == nil { // a clean refusal: the stream can go on
			body.Close()
			return nil, head.err()
		}
		if reused && !touched && ctx.Err() == nil && !errors.Is(err, ErrStalled) {
			// The peer gave the idle stream up at the moment when it was used:
			// nothing was answered, so it is safe to ask again.
			body.stop()
			stream.Reset()
			continue
		}
		body.fail(err)
		body.Close()
		if errors.Is(err, ErrProtocol) {
			h.violation("range", to, err)
		}
		return nil, body.cause(err)
	}
}

// exchange sends a request and reads the response's header. touched reports
// whether any byte of a response arrived.
func (h *Host) exchange(body *rangeBody, msg []byte) (head responseHeader, touched bool, err error) {
	body.stream.SetWriteDeadline(time.Now().Add(h.opts.StallTimeout))
	if _, err := body.stream.Write(msg); err != nil {
		return head, false, stallError(err)
	}
	in := &byteReader{Reader: readerFunc(body.readStream)}
	n, err := readUvarint(in, maxResponseHeader)
	if err != nil {
		return head, false, noEOF(err)
	}
	data, err := readMessage(in, int(n))
	if err != nil {
		return head, true, err
	}
	head, err = decodeResponse(data)
	return head, true, err
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// noEOF: an end in the place of an answer is not the end of anything.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// stallError gives a deadline that was set for progress its name.
func stallError(err error) error {
	if isTimeout(err) {
		return ErrStalled
	}
	return err
}

// rangeBody is the body of a response.
type rangeBody struct {
	h      *Host
	l      *link
	stream network.Stream
	ctx    context.Context
	stop   func() bool // releases ctx; false if ctx has reset the stream

	left   atomic.Int64 // bytes to come
	broken atomic.Bool
	closed atomic.Bool
}

func (b *rangeBody) Read(p []byte) (int, error) {
	left := b.left.Load()
	if left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.readStream(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	b.h.metrics.rangeRecv.Add(float64(n))
	if err != nil {
		b.fail(err)
		if int64(n) == left {
			return n, nil // all is here; that the stream broke later is not the reader's concern
		}
		return n, b.cause(noEOF(err))
	}
	return n, nil
}

// readStream reads what has arrived, and waits for the first byte no longer than
// the stall timeout.
func (b *rangeBody) readStream(p []byte) (int, error) {
	b.stream.SetReadDeadline(time.Now().Add(b.h.opts.StallTimeout))
	n, err := b.stream.Read(p)
	if n > 0 {
		b.l.heard()
	}
	return n, stallError(err)
}

func (b *rangeBody) fail(error) { b.broken.Store(true) }

// cause returns ctx's error where that is what broke the stream.
func (b *rangeBody) cause(err error) error {
	if b.ctx.Err() != nil {
		return context.Cause(b.ctx)
	}
	if b.closed.Load() {
		return fmt.Errorf("p2p: body closed: %w", err)
	}
	return err
}

func (b *rangeBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if b.stop() && b.left.Load() == 0 && !b.broken.Load() {
		b.l.idle.put(b.stream)
	} else {
		b.stream.Reset()
	}
	b.h.release(b.l)
	return nil
}
