package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

const (
	// copyBuffer is the size of the buffers that bodies pass through: large, so
	// that a file is read in few system calls, and below the size of L2.
	copyBuffer = 256 << 10
	// firstRequest is how long a new stream may take to bring its first request.
	firstRequest = 5 * time.Second
	// keepStream is how long a stream is kept open for its next request. The
	// asking node gives it up earlier (reuseStream).
	keepStream = 30 * time.Second
	// takeTimeout is how long a peer may take nothing of a body. Holding a slot
	// is all that a slow peer can do, and it holds few.
	takeTimeout = 10 * time.Second
)

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// admission counts what is served at once, in total and to each peer.
type admission struct {
	max     int
	maxPeer int

	mu    sync.Mutex
	total int
}

// enter reports whether one more may be served to the peer whose count is given;
// leave must then follow. The counts belong to the admission.
//
// A peer may hold no more slots than it leaves free (the dynamic threshold of
// Choudhury and Hahne, for buffers that queues share). So one that takes all it
// can get leaves half of them, the next one a quarter, and whoever holds none
// gets the next slot that comes free, whatever the others ask for.
func (a *admission) enter(peer *int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if *peer >= a.maxPeer || *peer >= a.max-a.total {
		return false
	}
	*peer++
	a.total++
	return true
}

func (a *admission) leave(peer *int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*peer--
	a.total--
}

// handleRange serves one stream of the range protocol.
func (h *Host) handleRange(stream network.Stream) {
	l := h.acquire(stream.Conn().RemotePeer())
	if l == nil {
		stream.Reset()
		return
	}
	defer h.release(l)
	ctx := h.peerContext(l)
	stop := context.AfterFunc(ctx, func() { stream.Reset() })
	defer stop()

	wait := firstRequest
	for {
		err := h.serveRange(ctx, l, stream, wait)
		switch {
		case err == nil:
			wait = keepStream
			continue
		case errors.Is(err, io.EOF), isTimeout(err) && wait == keepStream:
			stream.Close()
			return
		case errors.Is(err, ErrProtocol):
			h.violation("range", l.node, err)
		default:
			h.log.Debug("range stream ended", "peer", l.id, "err", err)
		}
		stream.Reset()
		return
	}
}

// serveRange answers one request. It returns an error if the stream can carry no
// further one: io.EOF if the peer has closed it.
func (h *Host) serveRange(ctx context.Context, l *link, stream network.Stream, wait time.Duration) error {
	stream.SetReadDeadline(time.Now().Add(wait))
	in := &byteReader{Reader: stream}
	n, err := readUvarint(in, maxRequestHeader)
	if err != nil {
		return err
	}
	stream.SetReadDeadline(time.Now().Add(firstRequest))
	msg, err := readMessage(in, int(n))
	if err != nil {
		return fmt.Errorf("reading request: %w", err)
	}
	l.heard()
	req, err := decodeRequest(msg)
	if err != nil {
		return err
	}

	var src *RangeSource
	if h.ranges.enter(&l.serving) {
		defer h.ranges.leave(&l.serving)
		src, err = h.openSource(ctx, l, req)
	} else {
		err = ErrBusy
	}
	st := statusOf(err)
	h.metrics.ranges.WithLabelValues("in", st.String()).Inc()
	if st == statusFailed {
		h.log.Warn("range could not be served", "digest", req.Digest, "peer", l.id, "err", err)
	}
	head := responseHeader{Status: st}
	if st == statusBusy {
		head.Peers = alternatives(err, h.self, l.node)
	}
	if st == statusOK {
		defer src.Body.Close()
		h.use(l)
		head.Size, head.Length, head.Claims = src.Size, src.Length, src.Claims
	}
	stream.SetWriteDeadline(time.Now().Add(takeTimeout))
	if _, err := stream.Write(withLength(appendResponse(nil, head))); err != nil {
		return fmt.Errorf("writing response: %w", err)
	}
	if st != statusOK {
		return nil
	}
	return h.copyBody(stream, src)
}

// openSource asks the handler and holds it to its contract: what it answers
// wrongly would otherwise be blamed on this node by its peers.
func (h *Host) openSource(ctx context.Context, l *link, req RangeRequest) (*RangeSource, error) {
	src, err := h.handler.OpenRange(ctx, l.node, req)
	if err != nil {
		return nil, err
	}
	head := responseHeader{Size: src.Size, Length: src.Length}
	if req.Length < 0 && src.Length > MaxWhole {
		err = fmt.Errorf("%w: %d bytes asked for as a whole", ErrBadRange, src.Length)
	} else if e := head.answers(req, h.self, l.node); e != nil || len(src.Claims) > MaxClaims {
		//nolint:errorlint // it is this node that is to blame, so that ErrProtocol must not come through
		err = fmt.Errorf("p2p: handler's source does not fit the request: %d claims, %v", len(src.Claims), e)
	}
	if err != nil {
		src.Body.Close()
		return nil, err
	}
	return src, nil
}

// copyBody sends exactly src.Length bytes. A source that ends early makes the
// stream unusable, which is how the peer learns of it.
func (h *Host) copyBody(stream network.Stream, src *RangeSource) error {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	for left := src.Length; left > 0; {
		n, err := src.Body.Read((*buf)[:min(left, copyBuffer)])
		if n > 0 {
			stream.SetWriteDeadline(time.Now().Add(takeTimeout))
			m, werr := stream.Write((*buf)[:n])
			h.metrics.rangeSent.Add(float64(m))
			if werr != nil {
				return fmt.Errorf("writing body: %w", werr)
			}
			left -= int64(n)
		}
		if err != nil && left > 0 {
			h.log.Error("range source ended early", "missing", left, "err", err)
			return fmt.Errorf("reading body: %v", err) //nolint:errorlint // io.EOF must not look like the stream's
		}
	}
	return nil
}
