package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/peercache/peercache/chunkindex"
)

// link is what this node keeps about one peer, as long as it is connected or a
// session with it has not ended.
type link struct {
	id   peer.ID
	node chunkindex.NodeID

	// slot is held by the goroutine that runs, or is about to run, a session.
	slot chan struct{}
	// last is when bytes of any of our streams arrived, in nanoseconds since
	// the host was made.
	last  atomic.Int64
	epoch time.Time
	used  atomic.Int64 // when the connection was last tagged as used, likewise; 0: not yet

	serving int // ranges being served to this peer; Host.ranges counts them
	calling int // calls being answered; Host.calls counts them

	idle idleStreams

	// Guarded by Host.mu.
	users   int // goroutines that use the link
	conn    context.Context
	cancel  context.CancelFunc // ends conn; nil while not connected
	opening bool               // a goroutine keeps a session open
	waiting bool               // an inbound stream waits for the slot
	session *session           // the one that holds the slot
	since   time.Time
}

func (l *link) heard() { l.last.Store(int64(time.Since(l.epoch))) }

func (l *link) silence() time.Duration {
	return time.Since(l.epoch) - time.Duration(l.last.Load())
}

// acquire returns the peer's link and keeps it until release. It returns nil for
// a peer that is no node.
func (h *Host) acquire(p peer.ID) *link {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acquireLocked(p)
}

func (h *Host) acquireLocked(p peer.ID) *link {
	l := h.links[p]
	if l == nil {
		node, ok := NodeOf(p)
		if !ok {
			return nil
		}
		l = &link{id: p, node: node, slot: make(chan struct{}, 1), epoch: h.epoch}
		h.links[p] = l
	}
	l.users++
	return l
}

func (h *Host) release(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.releaseLocked(l)
}

func (h *Host) releaseLocked(l *link) {
	if l.users--; l.users == 0 && l.cancel == nil {
		l.idle.close()
		delete(h.links, l.id)
	}
}

// connectedness brings a link in line with whether the peer is connected. It is
// called on every change, in any order, and asks rather than believes.
func (h *Host) connectedness(p peer.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	connected := h.host.Network().Connectedness(p) == network.Connected
	l := h.links[p]
	switch {
	case connected && (l == nil || l.cancel == nil) && h.running:
		if l = h.acquireLocked(p); l == nil {
			return
		}
		l.heard()
		l.used.Store(0) // tags go with the connection
		l.since = time.Now()
		l.conn, l.cancel = context.WithCancel(h.ctx)
		h.releaseLocked(l)
		h.openLocked(l)
		h.connector.connected()
	case !connected && l != nil && l.cancel != nil:
		l.cancel()
		l.cancel = nil
		l.users++
		h.releaseLocked(l)
		h.connector.lost(p)
	}
}

// supersede ends a session over another connection of the peer that is dead, as
// its silence says: the peer has given it up and has made a new one. Without
// that, a node whose part it is to open the stream would do so only when the
// peer timeout is over.
func (h *Host) supersede(c network.Conn) {
	h.mu.Lock()
	var s *session
	if l := h.links[c.RemotePeer()]; l != nil {
		s = l.session
	}
	h.mu.Unlock()
	if s == nil || s.stream.Conn() == c || s.silence() <= h.opts.PeerTimeout/2 || !h.enter() {
		return
	}
	go func() { // closing may wait, which notifications must not
		defer h.wg.Done()
		s.end(errSuperseded)
		s.stream.Conn().Close()
	}()
}

// openLocked starts keeping a session open with a peer, if that is this node's
// part: the node with the lower ID opens the stream.
func (h *Host) openLocked(l *link) {
	if l.opening || h.self.Compare(l.node) >= 0 {
		return
	}
	l.opening = true
	l.users++
	h.wg.Go(func() { h.keepSession(l) })
}

const (
	minReopen = 20 * time.Millisecond
	maxReopen = 2 * time.Second
)

// keepSession keeps a session open for as long as the peer is connected.
func (h *Host) keepSession(l *link) {
	backoff := minReopen
	for {
		h.mu.Lock()
		if l.cancel == nil || h.ctx.Err() != nil {
			l.opening = false
			h.releaseLocked(l)
			h.mu.Unlock()
			return
		}
		ctx := l.conn
		h.mu.Unlock()

		start := time.Now()
		up, err := h.openSession(ctx, l)
		if up && time.Since(start) > maxReopen {
			backoff = minReopen
		}
		if ctx.Err() != nil {
			continue
		}
		var unsupported multistream.ErrNotSupported[protocol.ID]
		if errors.As(err, &unsupported) {
			// A peer that has not got as far as Run, or no peercache at all.
			backoff = max(backoff, maxReopen/4)
		}
		sleep(ctx, jitter(backoff))
		backoff = min(2*backoff, maxReopen)
	}
}

func (h *Host) openSession(ctx context.Context, l *link) (up bool, err error) {
	select {
	case l.slot <- struct{}{}:
		defer func() { <-l.slot }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	opening, cancel := context.WithTimeout(network.WithNoDial(ctx, "control"), h.opts.PeerTimeout)
	stream, err := h.host.NewStream(opening, l.id, controlProtocol)
	cancel()
	if err != nil {
		return false, err
	}
	up, err = h.runSession(ctx, l, stream)
	h.sessionEnded(l, up, err)
	return up, err
}

// handleControl receives the control stream of a node with a lower ID.
func (h *Host) handleControl(stream network.Stream) {
	h.mu.Lock()
	l := h.acquireLocked(stream.Conn().RemotePeer())
	if l == nil {
		h.mu.Unlock()
		stream.Reset()
		return
	}
	defer h.release(l)
	if h.self.Compare(l.node) <= 0 {
		h.mu.Unlock()
		stream.Reset()
		h.violation("control", l.node, errors.New("stream opened by the node with the higher ID"))
		return
	}
	// The peer opens a new stream because it has given the old one up, of which
	// this node may not have heard yet. One at a time may wait for that.
	if l.waiting {
		h.mu.Unlock()
		stream.Reset()
		return
	}
	l.waiting = true
	current, ctx := l.session, l.conn
	if l.cancel == nil {
		ctx = h.ctx // the stream was faster than the notification
	}
	h.mu.Unlock()
	if current != nil {
		current.end(errSuperseded)
		if old := current.stream.Conn(); old != stream.Conn() && current.silence() > h.opts.PeerTimeout/2 {
			// The peer has given up a connection that is dead, and has made
			// another one. Streams must not be opened on the dead one.
			old.Close()
		}
	}
	l.slot <- struct{}{} // sessions end as soon as they are told
	h.mu.Lock()
	l.waiting = false
	h.mu.Unlock()
	start := time.Now()
	up, err := h.runSession(ctx, l, stream)
	h.sessionEnded(l, up, err)
	if time.Since(start) < time.Second {
		// A peer that opens streams in a loop gets fifty sessions a second.
		sleep(ctx, minReopen)
	}
	<-l.slot
}

// sessionEnded does what is left to do after a session, whoever opened it.
func (h *Host) sessionEnded(l *link, up bool, err error) {
	if up {
		h.metrics.sessions.WithLabelValues(endReason(err)).Inc()
	}
	switch {
	case errors.Is(err, ErrProtocol):
		h.violation("control", l.node, err)
	case errors.Is(err, errSilent):
		h.log.Info("peer is silent, closing the connection", "peer", l.id)
		if err := h.host.Network().ClosePeer(l.id); err != nil {
			h.log.Debug("closing the connection of a silent peer", "peer", l.id, "err", err)
		}
	case up:
		h.log.Debug("control stream ended", "peer", l.id, "err", err)
	}
}

func (h *Host) violation(protocol string, from chunkindex.NodeID, err error) {
	h.metrics.violations.WithLabelValues(protocol).Inc()
	h.log.Warn("peer broke the protocol", "protocol", protocol, "peer", PeerID(from), "err", err)
}

// setUp opens or closes the session's queue to Send.
func (h *Host) setUp(s *session, up bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.up = up
	if up {
		h.up++
		if a := h.attempts[s.link.id]; a != nil {
			a.reached()
		}
	} else {
		h.up--
	}
}

// Send queues a control frame for a peer. The frame must not be changed
// afterwards. Frames arrive in the order of the calls.
//
// It never blocks. It fails with [ErrTooLarge], with [ErrPeerDown] while the
// peer is not up, and with [ErrQueueFull] if the peer does not keep up; the
// peer is then reported down, and up again when it answers: what was queued is
// lost.
func (h *Host) Send(to chunkindex.NodeID, frame []byte) error {
	if len(frame) == 0 || len(frame) > MaxFrame {
		return fmt.Errorf("%w: frame of %d bytes", ErrTooLarge, len(frame))
	}
	h.mu.Lock()
	l := h.links[PeerID(to)]
	var s *session
	if l != nil && l.session != nil && l.session.up {
		s = l.session
	}
	h.mu.Unlock()
	if s == nil {
		return ErrPeerDown
	}
	err := s.queue.push(frame)
	if errors.Is(err, ErrQueueFull) {
		// end resets the stream, which may wait for the connection to take the
		// message: not on the caller's time.
		go s.end(err)
	}
	return err
}

// Peers returns the peers that are up, in no particular order.
func (h *Host) Peers() []PeerInfo {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]PeerInfo, 0, h.up)
	for _, l := range h.links {
		if s := l.session; s != nil && s.up {
			c := s.stream.Conn()
			list = append(list, PeerInfo{
				ID: l.node, PeerID: l.id.String(), Addr: c.RemoteMultiaddr().String(),
				Inbound: c.Stat().Direction == network.DirInbound, Since: l.since,
			})
		}
	}
	return list
}
