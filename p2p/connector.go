package p2p

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// enoughPeers: with so many connections the DHT keeps the node connected,
	// and only configured sources are tried any more. Below, every peer that was
	// ever met is.
	enoughPeers = 32
	// A target is tried again after minRetry, doubled each time up to maxRetry.
	minRetry = 100 * time.Millisecond
	maxRetry = 10 * time.Second
	// A source is read again as often as a target is tried, but every
	// sourcePeriod once there are peers, and a file always.
	sourcePeriod = 2 * time.Second
	// maxDials at once.
	maxDials = 16
	// samples is how many unconnected addresses of one source are tried a round
	// by a node that has enough peers: a name with 5,000 addresses must not make
	// everybody dial everybody, yet two halves of a split cluster must find each
	// other again.
	samples = 1
)

// connector keeps the node connected. One goroutine owns its state; others send
// it events.
type connector struct {
	h       *Host
	key     crypto.PrivKey
	sources []*sourceState
	known   *knownPeers

	events chan event

	mu      sync.Mutex
	arrived chan struct{} // closed at the next connection

	// Owned by run.
	targets map[string]*target
	dialing int
}

type sourceState struct {
	source
	reading bool
	retry   retry
	addrs   []bootstrapAddr
	err     error
}

// retry is when something is to be tried again.
type retry struct {
	at    time.Time
	delay time.Duration
}

func (r *retry) failed(now time.Time) {
	r.delay = min(max(2*r.delay, minRetry), maxRetry)
	r.at = now.Add(jitter(r.delay))
}

func (r *retry) reset() { *r = retry{} }

// target is an address, or a known peer with several, to connect to.
type target struct {
	key     string
	addrs   []ma.Multiaddr
	id      peer.ID // "" until learned
	learned bool    // id was learned, not given
	self    bool    // this node answered there
	retry   retry
	dialing bool
	failing bool // logged
	seen    time.Time
}

type event struct {
	met, lost peer.ID
	found     *peer.AddrInfo // by mDNS
	dialled   *target
	id        peer.ID // that answered
	read      *sourceState
	addrs     []bootstrapAddr
	err       error
}

func newConnector(h *Host, ds datastore.Batching) (*connector, error) {
	c := &connector{
		h:       h,
		events:  make(chan event, 256),
		arrived: make(chan struct{}),
		targets: map[string]*target{},
	}
	var err error
	if c.key, err = crypto.UnmarshalEd25519PrivateKey(h.key); err != nil {
		return nil, fmt.Errorf("p2p: identity: %w", err)
	}
	for _, s := range h.opts.Bootstrap {
		src, err := parseSource(s, listenPort(h.opts.Listen), h.opts.Resolver)
		if err != nil {
			return nil, err
		}
		c.sources = append(c.sources, &sourceState{source: src})
	}
	if c.known, err = loadKnownPeers(h.ctx, ds); err != nil {
		return nil, err
	}
	return c, nil
}

// listenPort is the port that other nodes of the cluster presumably use too.
func listenPort(listen []string) int {
	for _, s := range listen {
		if m, err := ma.NewMultiaddr(s); err == nil {
			if v, err := m.ValueForProtocol(ma.P_TCP); err == nil {
				if p, err := strconv.Atoi(v); err == nil && p != 0 {
					return p
				}
			}
		}
	}
	return DefaultPort
}

// arrival returns a channel that is closed when the next peer connects.
func (c *connector) arrival() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.arrived
}

// connected is told of every new peer. It does not block.
func (c *connector) connected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.arrived)
	c.arrived = make(chan struct{})
}

// met is told of every peer that is up, lost of every peer that is gone. An
// event too many is dropped: the loop looks by itself every so often.
func (c *connector) met(p peer.ID)  { c.post(event{met: p}) }
func (c *connector) lost(p peer.ID) { c.post(event{lost: p}) }

func (c *connector) post(e event) {
	select {
	case c.events <- e:
	default:
	}
}

func (c *connector) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	var settling chan struct{}
	for id, p := range c.known.peers {
		var addrs []ma.Multiaddr
		for _, s := range p.Addrs {
			if m, err := ma.NewMultiaddr(s); err == nil {
				addrs = append(addrs, m)
			}
		}
		c.target(string(id), id, addrs)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var e event
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-settling:
			settling = nil
		case e = <-c.events:
		}
		now := time.Now()
		c.handle(ctx, e, now)
		if settling == nil && c.peers() > 0 && !c.h.routing.settled.Load() && c.h.routing.size() > 0 {
			settling = make(chan struct{})
			work.Go(func() {
				c.h.routing.settle(ctx)
				close(settling)
			})
		}
		c.readSources(ctx, now, &work)
		next := c.dial(ctx, now, &work)
		if settling == nil && c.peers() > 0 && !c.h.routing.settled.Load() {
			next = now.Add(50 * time.Millisecond) // until the first peer is in the table
		}
		timer.Reset(max(time.Until(next), 10*time.Millisecond))
	}
}

func (c *connector) peers() int { return len(c.h.host.Network().Peers()) }

func (c *connector) handle(ctx context.Context, e event, now time.Time) {
	switch {
	case e.met != "":
		addrs := c.h.host.Peerstore().Addrs(e.met)
		if err := c.known.add(ctx, e.met, addrs); err != nil && ctx.Err() == nil {
			c.h.log.Error("peer not remembered", "peer", e.met, "err", err)
		}
		c.target(string(e.met), e.met, addrs)
	case e.lost != "":
		if c.peers() == 0 {
			c.h.routing.settled.Store(false)
			for _, s := range c.sources {
				s.retry.reset()
			}
		}
		for _, t := range c.targets {
			if t.id == e.lost {
				t.retry.reset() // at once: it may be restarting
			}
		}
	case e.found != nil:
		c.target(string(e.found.ID), e.found.ID, e.found.Addrs)
	case e.dialled != nil:
		c.dialled(e.dialled, e.id, e.err, now)
	case e.read != nil:
		c.sourceRead(e.read, e.addrs, e.err, now)
	}
}

func (c *connector) dialled(t *target, id peer.ID, err error, now time.Time) {
	c.dialing--
	t.dialing = false
	if err == nil {
		c.h.metrics.dials.WithLabelValues("ok").Inc()
		t.retry.reset()
		if t.id == "" {
			t.id, t.learned = id, true
		}
		t.self, t.failing = id == c.h.host.ID(), false
		if t.self {
			// The address may be somebody else's one day.
			t.retry.at = now.Add(time.Minute)
			t.id = ""
		}
		return
	}
	c.h.metrics.dials.WithLabelValues("failed").Inc()
	t.retry.failed(now)
	if t.learned {
		t.id, t.learned = "", false // perhaps somebody else is there now
	}
	level := c.h.log.Debug
	if !t.failing {
		t.failing, level = true, c.h.log.Info
	}
	level("peer not reached, trying on", "addr", t.addrs, "err", err)
	if t.id != "" && c.peers() < enoughPeers {
		// The DHT would find out by itself, by asking it in vain.
		c.h.routing.dht.RoutingTable().RemovePeer(t.id)
	}
}

// target adds an address to try, or refreshes it.
func (c *connector) target(key string, id peer.ID, addrs []ma.Multiaddr) *target {
	t := c.targets[key]
	if t == nil {
		t = &target{key: key, id: id}
		c.targets[key] = t
	}
	if len(addrs) > 0 {
		t.addrs = addrs
	}
	t.seen = time.Now()
	return t
}

// readSources starts reading the sources that are due. A name server that does
// not answer must not hold anything else up.
func (c *connector) readSources(ctx context.Context, now time.Time, work *sync.WaitGroup) {
	for _, s := range c.sources {
		if s.reading || now.Before(s.retry.at) {
			continue
		}
		s.reading = true
		work.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, c.h.opts.DialTimeout)
			defer cancel()
			addrs, err := s.addresses(bounded)
			c.report(ctx, event{read: s, addrs: addrs, err: err})
		})
	}
}

// sourceRead takes the result. Addresses may come with an error about others.
func (c *connector) sourceRead(s *sourceState, addrs []bootstrapAddr, err error, now time.Time) {
	s.reading = false
	if err != nil {
		c.h.metrics.bootstraps.WithLabelValues(s.kind()).Inc()
		if s.err == nil || s.err.Error() != err.Error() {
			c.h.log.Warn("bootstrap source cannot be read, trying on", "kind", s.kind(), "err", err)
		}
	}
	s.err = err
	s.retry.failed(now)
	if s.retry.delay > sourcePeriod && (c.peers() > 0 || s.kind() == "file") {
		s.retry = retry{at: now.Add(jitter(sourcePeriod)), delay: sourcePeriod}
	}
	if err == nil {
		c.dropMissing(s.addrs, addrs)
	}
	if err == nil || len(addrs) > 0 {
		s.addrs = addrs
	}
}

// report delivers an event that must not be lost.
func (c *connector) report(ctx context.Context, e event) {
	select {
	case c.events <- e:
	case <-ctx.Done():
	}
}

// dropMissing forgets addresses that a source does not name any more.
func (c *connector) dropMissing(before, after []bootstrapAddr) {
	keep := map[string]bool{}
	for _, a := range after {
		keep[a.key()] = true
	}
	for _, a := range before {
		if t := c.targets[a.key()]; t != nil && !keep[a.key()] && !t.dialing {
			delete(c.targets, a.key())
		}
	}
}

func (a bootstrapAddr) key() string { return a.addr.String() + "/" + string(a.id) }

// dial starts what is due and returns when to look again.
func (c *connector) dial(ctx context.Context, now time.Time, work *sync.WaitGroup) (next time.Time) {
	next = now.Add(sourcePeriod)
	few := c.peers() < enoughPeers
	sourced := map[string]bool{}
	var due []*target
	for _, s := range c.sources {
		if !s.reading && s.retry.at.Before(next) {
			next = s.retry.at
		}
		tried := 0
		for _, i := range rand.Perm(len(s.addrs)) {
			a := s.addrs[i]
			t := c.target(a.key(), a.id, []ma.Multiaddr{a.addr})
			sourced[t.key] = true
			if c.done(t) {
				continue
			}
			// Few addresses are somebody's list of nodes to stay connected to;
			// many are everybody.
			if few || len(s.addrs) <= enoughPeers || tried < samples {
				tried++
				due = append(due, t)
			}
		}
	}
	if few {
		keys := slices.Collect(maps.Keys(c.targets))
		rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		for _, k := range keys {
			if t := c.targets[k]; !sourced[k] && !c.done(t) {
				due = append(due, t)
			}
		}
	}
	c.forget(now, sourced)
	for _, t := range due {
		switch {
		case t.dialing:
		case now.Before(t.retry.at):
			if t.retry.at.Before(next) {
				next = t.retry.at
			}
		case c.dialing >= maxDials:
			// A result, and with it the next round, is at most a dial timeout away.
		default:
			c.dialing++
			t.dialing = true
			id, addrs := t.id, t.addrs
			work.Go(func() {
				answered, err := c.try(ctx, id, addrs)
				c.report(ctx, event{dialled: t, id: answered, err: err})
			})
		}
	}
	return next
}

// done reports that there is nothing to do for a target now.
func (c *connector) done(t *target) bool {
	return t.id != "" && (t.id == c.h.host.ID() || c.h.host.Network().Connectedness(t.id) == network.Connected)
}

// forget drops targets that no source names and that were not met for long.
func (c *connector) forget(now time.Time, sourced map[string]bool) {
	for k, t := range c.targets {
		if !sourced[k] && !t.dialing && (now.Sub(t.seen) > forgetAfter || len(c.targets) > 4*maxKnown+len(sourced)) && !c.done(t) {
			delete(c.targets, k)
		}
	}
}

// try connects to a target. It returns who answered.
func (c *connector) try(ctx context.Context, id peer.ID, addrs []ma.Multiaddr) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.h.opts.DialTimeout)
	defer cancel()
	if id == "" {
		var err error
		if len(addrs) != 1 {
			return "", errors.New("no address")
		}
		learning, cancel := context.WithTimeout(ctx, c.h.opts.DialTimeout)
		defer cancel()
		if id, err = learnID(learning, c.key, addrs[0]); err != nil {
			return "", err
		}
		if id == c.h.host.ID() {
			return id, nil
		}
	}
	return id, c.h.connect(ctx, peer.AddrInfo{ID: id, Addrs: addrs})
}
