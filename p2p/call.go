package p2p

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/peercache/peercache/chunkindex"
)

// The call protocol: one exchange a stream.
//
//	request   kind (1 byte: 0 probe, 1 call); for a call:
//	          uvarint length (at most MaxCall), so many bytes
//	response  uvarint status; for a call that is OK:
//	          uvarint length (at most MaxCall), so many bytes
//
// A probe is answered by the host itself; it asks whether anybody is there.
const (
	kindProbe = 0
	kindCall  = 1
)

// maxCallBytes bounds the requests in memory at once, all peers together.
const maxCallBytes = 64 << 20

// Call sends a small request to a peer and returns its response. It connects to
// the peer if need be. The response must begin within the call timeout; errors
// are those of [Host.Read], and [ErrTooLarge] for a request above [MaxCall].
func (h *Host) Call(ctx context.Context, to chunkindex.NodeID, request []byte) ([]byte, error) {
	if len(request) > MaxCall {
		return nil, fmt.Errorf("%w: request of %d bytes", ErrTooLarge, len(request))
	}
	msg := binary.AppendUvarint(make([]byte, 0, len(request)+binary.MaxVarintLen64+1), kindCall)
	msg = binary.AppendUvarint(msg, uint64(len(request)))
	response, err := h.ask(ctx, to, append(msg, request...), true)
	if err != nil {
		h.metrics.calls.WithLabelValues("out", outcome(err)).Inc()
		return nil, fmt.Errorf("calling peer %s: %w", to, err)
	}
	h.metrics.calls.WithLabelValues("out", statusOK.String()).Inc()
	return response, nil
}

// Probe asks a peer whether it is there, now. It returns nil if it answers, and
// otherwise [ErrUnreachable], [ErrStalled] or ctx's error: give it a context with
// a short deadline. It changes nothing about the connection: a link that is slow
// is not cut because somebody was impatient.
func (h *Host) Probe(ctx context.Context, id chunkindex.NodeID) error {
	if _, err := h.ask(ctx, id, []byte{kindProbe}, false); err != nil {
		return fmt.Errorf("probing peer %s: %w", id, err)
	}
	return nil
}

func (h *Host) ask(ctx context.Context, to chunkindex.NodeID, msg []byte, body bool) ([]byte, error) {
	if !h.enter() {
		return nil, ErrClosed
	}
	defer h.wg.Done()
	l := h.acquire(PeerID(to))
	defer h.release(l)
	stream, err := h.newStream(ctx, l.id, callProtocol)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Reset() })
	defer stop()
	response, err := h.exchangeCall(l, stream, msg, body)
	if err != nil {
		stream.Reset()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if errors.Is(err, ErrProtocol) {
			h.violation("call", to, err)
		}
		return nil, err
	}
	stream.Close()
	return response, nil
}

func (h *Host) exchangeCall(l *link, stream network.Stream, msg []byte, body bool) ([]byte, error) {
	if err := h.writeSteadily(stream, msg); err != nil {
		return nil, err
	}
	_ = stream.CloseWrite() // a courtesy: the length has told where the request ends
	first := true
	in := &byteReader{Reader: readerFunc(func(p []byte) (int, error) {
		wait := h.opts.StallTimeout
		if first {
			wait = h.opts.CallTimeout
		}
		stream.SetReadDeadline(time.Now().Add(wait))
		n, err := stream.Read(p)
		if n > 0 {
			first = false
			l.heard()
		}
		return n, stallError(err)
	})}
	st, err := readUvarint(in, uint64(statusCount-1))
	if err != nil {
		return nil, noEOF(err)
	}
	if err := status(st).err(); err != nil || !body {
		return nil, err
	}
	n, err := readUvarint(in, MaxCall)
	if err != nil {
		return nil, noEOF(err)
	}
	return readMessage(in, int(n))
}

// writeSteadily writes p; each 64 KiB of it may take the stall timeout.
func (h *Host) writeSteadily(stream network.Stream, p []byte) error {
	for len(p) > 0 {
		stream.SetWriteDeadline(time.Now().Add(h.opts.StallTimeout))
		n, err := stream.Write(p[:min(len(p), 64<<10)])
		if err != nil {
			return stallError(err)
		}
		p = p[n:]
	}
	return nil
}

// handleCall answers one call.
func (h *Host) handleCall(stream network.Stream) {
	l := h.acquire(stream.Conn().RemotePeer())
	if l == nil {
		stream.Reset()
		return
	}
	defer h.release(l)
	ctx, cancel := context.WithTimeout(h.peerContext(l), h.opts.CallTimeout)
	defer cancel()
	stop := context.AfterFunc(h.peerContext(l), func() { stream.Reset() })
	defer stop()

	kind, st, err := h.serveCall(ctx, l, stream)
	if kind == kindCall && err == nil {
		h.metrics.calls.WithLabelValues("in", st.String()).Inc()
	}
	switch {
	case err == nil:
		stream.Close()
		return
	case errors.Is(err, ErrProtocol):
		h.violation("call", l.node, err)
	default:
		h.log.Debug("call stream ended", "peer", l.id, "err", err)
	}
	stream.Reset()
}

func (h *Host) serveCall(ctx context.Context, l *link, stream network.Stream) (kind uint64, st status, err error) {
	in := &byteReader{Reader: readerFunc(func(p []byte) (int, error) {
		stream.SetReadDeadline(time.Now().Add(firstRequest))
		return stream.Read(p)
	})}
	if kind, err = readUvarint(in, kindCall); err != nil {
		return kind, st, noEOF(err)
	}
	if kind == kindProbe {
		return kind, statusOK, h.writeSteadily(stream, []byte{byte(statusOK)})
	}
	n, err := readUvarint(in, MaxCall)
	if err != nil {
		return kind, st, noEOF(err)
	}
	response, err := h.answer(ctx, l, in, int(n))
	if errors.Is(err, errReadRequest) {
		return kind, st, err
	}
	st = statusOf(err)
	if st == statusFailed {
		h.log.Warn("call could not be answered", "peer", l.id, "err", err)
	}
	msg := binary.AppendUvarint(nil, uint64(st))
	if st == statusOK {
		msg = binary.AppendUvarint(msg, uint64(len(response)))
	}
	if err := h.writeSteadily(stream, msg); err != nil {
		return kind, st, err
	}
	return kind, st, h.writeSteadily(stream, response)
}

var errReadRequest = errors.New("reading request")

// answer reads a request of n bytes and has the handler answer it, within the
// limits of what may be in memory at once.
func (h *Host) answer(ctx context.Context, l *link, in io.Reader, n int) ([]byte, error) {
	// A refused request is read to its end all the same: a peer that cannot
	// finish writing does not get to the answer.
	refuse := func() ([]byte, error) {
		if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
			return nil, fmt.Errorf("%w: %w", errReadRequest, err)
		}
		return nil, ErrBusy
	}
	if !h.calls.enter(&l.calling) {
		return refuse()
	}
	defer h.calls.leave(&l.calling)
	if !h.callBytes.TryAcquire(int64(n)) {
		return refuse()
	}
	defer h.callBytes.Release(int64(n))
	request, err := readMessage(in, n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errReadRequest, err)
	}
	l.heard()
	response, err := h.handler.Call(ctx, l.node, request)
	if err == nil && len(response) > MaxCall {
		return nil, fmt.Errorf("%w: response of %d bytes", ErrTooLarge, len(response))
	}
	if err != nil {
		return nil, err
	}
	return response, nil
}
