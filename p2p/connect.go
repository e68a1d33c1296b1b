package p2p

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peercache/peercache/chunkindex"
)

// maxConnects bounds how many connections [Host.Connect] makes at once.
const maxConnects = 32

// attempt is one connecting to a peer, for all who ask for it meanwhile. It does
// not belong to any of them: one who gives up does not take it from the others.
type attempt struct {
	cancel context.CancelFunc
	up     chan struct{} // closed when the peer is up
	done   chan struct{} // closed when err is set
	err    error

	waiters int // guarded by Host.mu
}

// reached says that the peer is up, perhaps not for the first time. The caller
// holds Host.mu.
func (a *attempt) reached() {
	select {
	case <-a.up:
	default:
		close(a.up)
	}
}

// Connect makes sure that a peer is up. It returns nil once the peer is
// connected and has answered on the control protocol: its PeerUp has been called
// or is about to be. The addresses are those that the peer has told itself, those
// of [Host.Learn], and where these are none, or do not lead to it, those that the
// DHT knows.
//
// All of that may take the dial timeout, once it begins: 32 peers are connected
// to at once, others wait for their turn. Calls for one peer share an attempt. It
// fails with [ErrUnreachable] and the reason, with ctx's error or [ErrClosed].
func (h *Host) Connect(ctx context.Context, id chunkindex.NodeID) error {
	if err := h.connectNode(ctx, PeerID(id)); err != nil {
		return fmt.Errorf("connecting to peer %s: %w", id, err)
	}
	return nil
}

func (h *Host) connectNode(ctx context.Context, p peer.ID) error {
	if p == h.host.ID() {
		return fmt.Errorf("%w: it is this node", ErrUnreachable)
	}
	h.mu.Lock()
	if !h.running || h.ctx.Err() != nil {
		h.mu.Unlock()
		return ErrClosed
	}
	if l := h.links[p]; l != nil && l.session != nil && l.session.up {
		h.mu.Unlock()
		return nil
	}
	a := h.attempts[p]
	if a == nil {
		a = &attempt{up: make(chan struct{}), done: make(chan struct{})}
		var dialing context.Context
		dialing, a.cancel = context.WithCancel(h.ctx)
		h.attempts[p] = a
		h.wg.Go(func() { h.attempt(dialing, p, a) })
	}
	a.waiters++
	h.mu.Unlock()

	var err error
	select {
	case <-a.done:
		err = a.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.waiters--; a.waiters == 0 {
		// Whoever asks from now on gets an attempt of his own.
		a.cancel()
		h.attemptOver(p, a)
	}
	return err
}

// attemptOver takes an attempt from the list, where it may have a successor
// already. The caller holds h.mu.
func (h *Host) attemptOver(p peer.ID, a *attempt) {
	if h.attempts[p] == a {
		delete(h.attempts, p)
	}
}

func (h *Host) attempt(ctx context.Context, p peer.ID, a *attempt) {
	err := h.bringUp(ctx, p, a.up)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		err = ErrClosed
	}
	a.err = err
	close(a.done)
	a.cancel()
	h.attemptOver(p, a)
}

// bringUp connects to a peer and waits until it is up.
func (h *Host) bringUp(ctx context.Context, p peer.ID, up <-chan struct{}) error {
	select {
	case h.connects <- struct{}{}:
		defer func() { <-h.connects }()
	case <-up: // it has connected to this node meanwhile
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, h.opts.DialTimeout)
	defer cancel()
	if err := h.dialAnywhere(ctx, p); err != nil {
		select {
		case <-up:
			return nil
		default:
			return err
		}
	}
	// The notification of the connection may still be on its way.
	h.connectedness(p)
	gone := h.gone(p)
	select {
	case <-up:
		return nil
	case <-gone:
		// One of two connections that both sides made at once may be left, or the
		// peer may refuse this node, which shows only after the handshake.
		return fmt.Errorf("%w: it closed the connection", ErrUnreachable)
	case <-ctx.Done():
		return fmt.Errorf("%w: connected, but it does not answer on the control protocol", ErrUnreachable)
	}
}

// gone returns a channel that is closed once a peer is not connected.
func (h *Host) gone(p peer.ID) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.links[p]; l != nil && l.cancel != nil {
		return l.conn.Done()
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// dialAnywhere connects to a peer at the addresses that are known, and at those
// that the DHT finds where there are none, or they fail, or they do not answer
// soon: a node that has moved leaves nobody to refuse a connection.
func (h *Host) dialAnywhere(ctx context.Context, p peer.ID) error {
	if h.host.Network().Connectedness(p) == network.Connected {
		return nil
	}
	own := h.host.Peerstore().Addrs(p)
	rumours := slices.DeleteFunc(slices.Clone(h.hearsay.about(p, time.Now())), func(m ma.Multiaddr) bool {
		return slices.ContainsFunc(own, m.Equal)
	})
	err := fmt.Errorf("%w: no address is known", ErrUnreachable)
	var dialled chan error
	if len(own)+len(rumours) > 0 {
		dialled = make(chan error, 1)
		h.wg.Go(func() { dialled <- h.connect(ctx, peer.AddrInfo{ID: p}) })
		select {
		case err = <-dialled:
			if err == nil {
				return nil
			}
			dialled = nil
			h.disbelieve(p, rumours)
		case <-time.After(h.opts.DialTimeout / 4):
		}
	}
	found, lookup := h.routing.dht.FindPeer(ctx, p)
	if lookup == nil && slices.ContainsFunc(found.Addrs, func(m ma.Multiaddr) bool {
		return !slices.ContainsFunc(own, m.Equal) && !slices.ContainsFunc(rumours, m.Equal)
	}) {
		// libp2p joins this dial with the one that may still be going on.
		err = h.connect(ctx, found)
	} else if dialled != nil {
		err = <-dialled
	}
	if err != nil && dialled != nil {
		h.disbelieve(p, rumours)
	}
	return err
}

// disbelieve forgets rumours that have led nowhere, also where libp2p put them in
// order to dial.
func (h *Host) disbelieve(p peer.ID, rumours []ma.Multiaddr) {
	if len(rumours) > 0 && h.host.Network().Connectedness(p) != network.Connected {
		h.hearsay.forget(p)
		h.host.Peerstore().SetAddrs(p, rumours, 0)
	}
}
