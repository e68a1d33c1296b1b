package fetcher

import (
	"context"
	"sync"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

const (
	// maxConnecting bounds the connections that are being made at once,
	// maxConnects also those that wait for their turn.
	maxConnecting = 16
	maxConnects   = 256
	// connectTimeout bounds the making of a connection, and then the wait for
	// the peer to be up.
	connectTimeout = 2 * time.Second
)

// connects makes the connections that the core asks for.
type connects struct {
	mu      sync.Mutex
	wanted  map[chunkindex.NodeID]chan struct{} // closed when the peer is up
	waiting []chunkindex.NodeID
	active  int
}

// connect starts Connect. It ends by EvPeerUp, which comes from the transport,
// or by EvUnreachable. Loop only.
func (f *Fetcher) connect(id chunkindex.NodeID) {
	// PeerUp notes that the peer is up first and takes this mutex then.
	c := &f.connects
	c.mu.Lock()
	defer c.mu.Unlock()
	f.mu.RLock()
	up := f.up[id]
	f.mu.RUnlock()
	switch {
	case up: // its EvPeerUp is on its way to the core
	case c.wanted[id] != nil:
	case len(c.wanted) >= maxConnects:
		f.count.connect(connectRefused)
		f.post(policy.Event{Kind: policy.EvUnreachable, Peer: id})
	default:
		c.wanted[id] = make(chan struct{})
		c.waiting = append(c.waiting, id)
		if c.active < maxConnecting && f.spawn(f.connecting) {
			c.active++
		}
	}
}

// connecting makes connections until none waits.
func (f *Fetcher) connecting() {
	c := &f.connects
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.waiting) > 0 && f.ctx.Err() == nil {
		id := c.waiting[0]
		c.waiting = c.waiting[1:]
		up := c.wanted[id]
		if up == nil {
			continue // it came by itself
		}
		c.mu.Unlock()
		how := f.connectTo(id, up)
		c.mu.Lock()
		if c.wanted[id] == up {
			delete(c.wanted, id)
			f.post(policy.Event{Kind: policy.EvUnreachable, Peer: id})
		} else {
			how = connectUp
		}
		f.count.connect(how)
	}
	c.active--
}

func (f *Fetcher) connectTo(id chunkindex.NodeID, up <-chan struct{}) connectResult {
	ctx, cancel := context.WithTimeout(f.ctx, connectTimeout)
	defer cancel()
	if err := f.peers.Connect(ctx, id); err != nil {
		f.log.Debug("connecting to a peer", "peer", id, "err", err)
		return connectFailed
	}
	timer := time.NewTimer(connectTimeout)
	defer timer.Stop()
	select {
	case <-up:
		return connectUp
	case <-timer.C:
	case <-f.ctx.Done():
	}
	return connectSilent
}

// arrived tells that a peer is up, whoever connected to whom.
func (c *connects) arrived(id chunkindex.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if up := c.wanted[id]; up != nil {
		close(up)
		delete(c.wanted, id)
	}
}
