package p2p

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	coreconnmgr "github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/peercache/peercache/chunkindex"
)

const (
	controlProtocol protocol.ID = "/peercache/control/1"
	rangeProtocol   protocol.ID = "/peercache/range/1"
	callProtocol    protocol.ID = "/peercache/call/1"

	userAgent = "peercache"
)

// Host is this node among its peers. Its methods are safe for concurrent use.
type Host struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	key     ed25519.PrivateKey
	self    chunkindex.NodeID
	epoch   time.Time
	host    host.Host
	active  coreconnmgr.DecayingTag // of peers that bytes are exchanged with

	routing   *router
	announcer *announcer
	connector *connector

	ranges    admission
	calls     admission
	callBytes *semaphore.Weighted
	connects  chan struct{} // holds a token for each attempt that is dialling
	hearsay   hearsay
	loopback  bool // this node listens on it by name

	// ctx ends with Run, or with Close where Run was never called. stop ends it.
	ctx  context.Context
	stop context.CancelFunc
	done chan struct{} // closed when Run has returned

	handler Handler // set by Run before anything can use it

	// wg counts goroutines that work on streams and links.
	wg sync.WaitGroup

	mu      sync.Mutex
	started bool // Run was called
	running bool // goroutines may be added to wg
	closed  bool
	links   map[peer.ID]*link
	// attempts are those of Connect that go on.
	attempts map[peer.ID]*attempt
	up       int // links whose session is up
}

// New opens a node's identity (keyFile, created if there is none), binds its
// addresses and returns its host. ds holds provider records, the digests that
// this node provides, and the addresses of peers met before; it must outlive the
// host. It may be shared with nobody.
//
// From then on the node can be connected to; it connects to nobody, and answers
// only for the DHT, before Run. Close must be called, whether or not Run was.
//
// It fails for a broken key file, an address that is taken, a listen, announce
// or bootstrap address that is malformed: the error names it.
func New(keyFile string, ds datastore.Batching, opts *Options) (_ *Host, err error) {
	o := opts.withDefaults()
	key, err := LoadIdentity(keyFile)
	if err != nil {
		return nil, err
	}
	listen, err := parseListen(o.Listen)
	if err != nil {
		return nil, err
	}
	book, err := newAddressBook(listen, o.Announce, o.interfaces)
	if err != nil {
		return nil, err
	}
	h := &Host{
		opts: o, log: o.Logger, key: key, epoch: time.Now(),
		ranges:    admission{max: o.MaxServing, maxPeer: o.MaxServingPeer},
		calls:     admission{max: o.MaxServing, maxPeer: o.MaxServingPeer},
		callBytes: semaphore.NewWeighted(maxCallBytes),
		connects:  make(chan struct{}, maxConnects),
		loopback:  slices.ContainsFunc(listen, isLoopback),
		done:      make(chan struct{}),
		links:     map[peer.ID]*link{},
		attempts:  map[peer.ID]*attempt{},
	}
	copy(h.self[:], key.Public().(ed25519.PublicKey))
	h.ctx, h.stop = context.WithCancel(context.Background())
	if h.connector, err = newConnector(h, ds); err != nil {
		return nil, err
	}
	conns, err := newConnManager(o)
	if err != nil {
		return nil, err
	}
	if h.host, err = newLibp2p(key, o, book, conns); err != nil {
		return nil, errors.Join(err, conns.Close())
	}
	defer func() {
		if err != nil {
			h.stop()
			err = errors.Join(err, h.closeParts())
		}
	}()
	if h.active, err = activeTag(conns); err != nil {
		return nil, fmt.Errorf("p2p: connection watermarks: %w", err)
	}
	for _, addr := range listen {
		if err := h.host.Network().Listen(addr); err != nil {
			return nil, fmt.Errorf("p2p: cannot listen on %s: %w", addr, err)
		}
	}
	if h.routing, err = newRouter(h, ds); err != nil {
		return nil, err
	}
	if h.announcer, err = newAnnouncer(h, ds); err != nil {
		return nil, err
	}
	h.metrics = newMetrics(
		func() float64 { h.mu.Lock(); defer h.mu.Unlock(); return float64(h.up) },
		func() float64 { return float64(len(h.host.Network().Peers())) },
		func() float64 { return float64(h.routing.size()) },
	)
	if err := h.metrics.register(o.Registerer); err != nil {
		return nil, fmt.Errorf("p2p: metrics: %w", err)
	}
	return h, nil
}

func parseListen(listen []string) ([]ma.Multiaddr, error) {
	var addrs []ma.Multiaddr
	for _, s := range listen {
		m, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("p2p: listen address %q: %w", s, err)
		}
		addrs = append(addrs, m)
	}
	return addrs, nil
}

// Run takes part in the cluster until ctx ends or Close is called: it connects
// to peers, keeps connected, announces, serves and reports to the handler. When
// it returns, every PeerUp has had its PeerDown and no method of the handler is
// running. It returns an error only if it could not begin; it can be called once.
func (h *Host) Run(ctx context.Context, handler Handler) error {
	h.mu.Lock()
	if h.closed || h.started {
		h.mu.Unlock()
		return errors.New("p2p: Run called twice, or after Close")
	}
	h.started, h.running, h.handler = true, true, handler
	h.mu.Unlock()
	defer close(h.done)
	defer context.AfterFunc(ctx, h.stop)()

	net := h.host.Network()
	notify := &network.NotifyBundle{
		ConnectedF: func(_ network.Network, c network.Conn) {
			h.connectedness(c.RemotePeer())
			h.supersede(c)
		},
		DisconnectedF: func(_ network.Network, c network.Conn) { h.connectedness(c.RemotePeer()) },
	}
	net.Notify(notify)
	h.handle(controlProtocol, h.handleControl)
	h.handle(rangeProtocol, h.handleRange)
	h.handle(callProtocol, h.handleCall)
	for _, p := range net.Peers() { // connected between New and Run
		h.connectedness(p)
	}

	var parts errgroup.Group
	parts.Go(func() error { h.connector.run(h.ctx); return nil })
	parts.Go(func() error { h.announcer.run(h.ctx); return nil })
	if h.opts.MDNS {
		parts.Go(func() error { h.runMDNS(h.ctx); return nil })
	}
	<-h.ctx.Done()

	for _, p := range []protocol.ID{controlProtocol, rangeProtocol, callProtocol} {
		h.host.RemoveStreamHandler(p)
	}
	net.StopNotify(notify)
	err := parts.Wait()
	h.mu.Lock()
	h.running = false // nothing joins wg any more
	for _, l := range h.links {
		l.idle.close()
	}
	h.mu.Unlock()
	h.wg.Wait()
	return err
}

// Close ends Run and waits for it, then closes everything. Once it has returned,
// the datastore is not used any more.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	started := h.started
	h.mu.Unlock()
	h.stop()
	if started {
		<-h.done
	}
	h.metrics.unregister(h.opts.Registerer)
	return h.closeParts()
}

// closeParts closes what New has opened, as far as it got. The host goes before
// the DHT: its handlers use the provider store, which must not be gone before
// they are.
func (h *Host) closeParts() error {
	var errs []error
	if h.announcer != nil {
		errs = append(errs, h.announcer.close())
	}
	if h.host != nil {
		errs = append(errs, h.host.Close())
	}
	if h.routing != nil {
		errs = append(errs, h.routing.close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("p2p: closing: %w", err)
	}
	return nil
}

// enter reports whether the host is running, and if so keeps it from finishing
// until wg.Done.
func (h *Host) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running || h.ctx.Err() != nil {
		return false
	}
	h.wg.Add(1)
	return true
}

func (h *Host) handle(id protocol.ID, f func(network.Stream)) {
	h.host.SetStreamHandler(id, func(s network.Stream) {
		if !h.enter() {
			s.Reset()
			return
		}
		defer h.wg.Done()
		f(s)
	})
}

// peerContext ends when the peer goes away.
func (h *Host) peerContext(l *link) context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.cancel == nil {
		return h.ctx // its stream was faster than the notification of its connection
	}
	return l.conn
}

// newStream opens a stream, after connecting where that is necessary.
func (h *Host) newStream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*h.opts.DialTimeout)
	defer cancel()
	if err := h.connect(ctx, peer.AddrInfo{ID: p}); err != nil {
		return nil, err
	}
	stream, err := h.host.NewStream(network.WithNoDial(ctx, "connected"), p, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return stream, nil
}

// connect makes sure that there is a connection. libp2p's back-off (5 s to 5 min
// for an address that failed once) is cleared before: callers have their own, and a
// peer that restarts is back sooner. network.WithForceDirectDial would pass it by
// too, but a dial of that kind that begins while the swarm closes is a nil pointer
// in libp2p (v0.51.0), which takes the process with it.
func (h *Host) connect(ctx context.Context, p peer.AddrInfo) error {
	if h.host.Network().Connectedness(p.ID) == network.Connected {
		return nil
	}
	if p.ID == h.host.ID() {
		return fmt.Errorf("%w: it is this node", ErrUnreachable)
	}
	if rumours := h.hearsay.about(p.ID, time.Now()); len(rumours) > 0 {
		p.Addrs = slices.Concat(p.Addrs, rumours)
	}
	if s, ok := h.host.Network().(interface{ Backoff() *swarm.DialBackoff }); ok {
		s.Backoff().Clear(p.ID)
	}
	if err := h.host.Connect(network.WithDialPeerTimeout(ctx, h.opts.DialTimeout), p); err != nil {
		return fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	// Connect can succeed without leaving a connection: the other side may have
	// refused it after the handshake.
	if h.host.Network().Connectedness(p.ID) != network.Connected {
		return fmt.Errorf("%w: it closed the connection", ErrUnreachable)
	}
	return nil
}

// Self is this node's ID: its public key.
func (h *Host) Self() chunkindex.NodeID { return h.self }

// PeerID is libp2p's name for this node.
func (h *Host) PeerID() string { return h.host.ID().String() }

// PrivateKey is the node's key, with which it signs claims.
func (h *Host) PrivateKey() ed25519.PrivateKey { return h.key }

// Addrs returns the multiaddrs, /p2p/ included, at which other nodes can reach
// this one: any of them will do as another node's bootstrap address.
func (h *Host) Addrs() []string {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.host.ID(), Addrs: h.host.Addrs()})
	if err != nil {
		return nil
	}
	list := make([]string, len(addrs))
	for i, a := range addrs {
		list[i] = a.String()
	}
	return list
}

// Protect keeps the connection to a peer from being closed for being idle, or
// lets go of it again.
func (h *Host) Protect(id chunkindex.NodeID, on bool) {
	const tag = "peercache"
	if on {
		h.host.ConnManager().Protect(PeerID(id), tag)
	} else {
		h.host.ConnManager().Unprotect(PeerID(id), tag)
	}
}

// use marks the connection to a peer as one that is used: bytes of ranges or
// control frames, not mere keep-alives, have gone over it. It is called for each
// of them, and tags the connection every so often.
func (h *Host) use(l *link) {
	now, last := int64(time.Since(l.epoch)), l.used.Load()
	if last != 0 && now-last < int64(tagPeriod) || !l.used.CompareAndSwap(last, now) {
		return
	}
	if err := h.active.Bump(l.id, activeBump); err != nil {
		l.used.Store(last) // the connection manager has a queue; the next use is soon
		h.log.Debug("connection not tagged", "peer", l.id, "err", err)
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// jitter returns a random duration within a quarter of d, so that nodes that
// failed together do not try again together.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}
