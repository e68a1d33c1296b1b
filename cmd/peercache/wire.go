package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/cmd/peercache/internal/admin"
	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/fetcher"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/p2p"
	"github.com/peercache/peercache/registryproxy"
	"github.com/peercache/peercache/registryproxy/origin"
	"github.com/peercache/peercache/store"
)

const (
	// drainTime is how long responses in flight may take once the node stops,
	// adminDrainTime those of the admin server, stopTime how long the stop may take
	// as a whole.
	drainTime      = 5 * time.Second
	adminDrainTime = time.Second
	stopTime       = 10 * time.Second
)

// node is all of a node, wired:
//
//	clients ── proxy ── fetcher ──┬── store
//	peers ───── host ─────┘       ├── host (p2p)
//	operator ── admin             └── origin
type node struct {
	config  *config.Config
	log     *slog.Logger
	started time.Time

	proxyListener, adminListener net.Listener
	proxy, adminServer           *http.Server
	admin                        *admin.Handler

	store   *store.Store
	origin  *origin.Client
	host    *p2p.Host
	fetcher *fetcher.Fetcher
}

// network is what a node reaches everybody else over. The zero value is the
// machine's; tests have simulated ones.
type network struct {
	// listen binds an address for clients or for operators, by TCP if it is nil.
	listen func(addr string) (net.Listener, error)
	// peers and origin are how peers and origins are reached instead of by TCP:
	// [p2p.Options] and [origin.Options] say more.
	peers  []libp2p.Option
	origin func(ctx context.Context, network, addr string) (net.Conn, error)
}

// openNode binds the addresses, opens the data directory and wires everything.
// It serves nobody before [node.Run]. Close must be called, whether or not Run
// was.
func openNode(c *config.Config, log *slog.Logger) (*node, error) {
	return openNodeOn(network{}, c, log)
}

func openNodeOn(on network, c *config.Config, log *slog.Logger) (_ *node, err error) {
	n := &node{config: c, log: log, started: time.Now()}
	defer func() {
		if err != nil {
			n.Close()
		}
	}()

	// Addresses first: they tell at once, and without traces, that a node runs
	// here already.
	if n.proxyListener, err = on.bind(c, "listen", c.Listen); err != nil {
		return nil, err
	}
	if n.adminListener, err = on.bind(c, "admin", c.Admin); err != nil {
		return nil, err
	}
	if err := on.freeForPeers(c); err != nil {
		return nil, err
	}

	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfoMetric())
	component := func(name string) *slog.Logger { return log.With("component", name) }

	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("%s: data directory: %w", c.At("data"), err)
	}
	var evicted atomic.Pointer[fetcher.Fetcher] // the store may evict before there is a fetcher
	n.store, err = store.Open(filepath.Join(c.Data, "store"), &store.Options{
		MaxBytes:        c.MaxSize,
		MinFreeFraction: minFree(c.MinFree),
		OnEvict: func(d digest.Digest) {
			if f := evicted.Load(); f != nil {
				f.Evicted(d)
			}
		},
		Logger:     component("store"),
		Registerer: metrics,
	})
	if err != nil {
		return nil, dataError(c, err)
	}

	n.host, err = p2p.New(filepath.Join(c.Data, "identity"), n.store.Datastore("p2p"), &p2p.Options{
		Listen:     c.P2PListen,
		Announce:   c.P2PAnnounce,
		Bootstrap:  c.Bootstrap,
		MDNS:       c.MDNS,
		Transport:  on.peers,
		Logger:     component("p2p"),
		Registerer: metrics,
	})
	if err != nil {
		return nil, listenError(c, "p2p-listen", err)
	}

	n.origin, err = origin.New(&origin.Options{
		Origins:    origins(c),
		Allow:      c.AllowOrigins,
		FirstByte:  c.OriginFirstByte,
		Idle:       c.OriginBetweenBytes,
		Instance:   n.host.PeerID(),
		UserAgent:  "peercache/" + readBuildInfo().Version,
		Logger:     component("origin"),
		Registerer: metrics,

		DialContext: on.origin,
	})
	if err != nil {
		return nil, &exitError{exitUsage, fmt.Errorf("%s: %w", c.At("origin"), err)}
	}

	core := policy.DefaultConfig(n.host.Self())
	core.Seed = rand.Uint64()
	if c.Verify == "member" {
		core.Verify = policy.VerifyMember
	}
	core.Label = label(c.Zone, c.Rack)
	switch c.Announce {
	case "blobs":
		core.Announce = policy.AnnounceBlobs
	case "chunks":
		core.Announce = policy.AnnounceChunks
	}
	n.fetcher = fetcher.New(
		storePort{n.store}, peersPort{n.host}, originPort{n.origin},
		keyring{n.host.Self(), n.host.PrivateKey()}, core,
		&fetcher.Options{
			TagLifetime: max(c.TagLifetime, 1), // 0 would be the default
			MaxStale:    max(c.MaxStale, 1),

			UploadRate:    c.LimitUpload,
			DownloadRate:  c.LimitDownload,
			OriginRate:    c.LimitOrigin,
			TagsFromPeers: fetcher.FromPeers(c.TagsFromPeers),

			Logger:     component("fetcher"),
			Registerer: metrics,
		})
	evicted.Store(n.fetcher)

	proxy, err := registryproxy.New(backend{n.fetcher}, &registryproxy.Options{
		DefaultOrigin: c.DefaultOrigin,
		Logger:        component("proxy"),
		Registerer:    metrics,
	})
	if err != nil {
		return nil, err
	}
	n.proxy = registryproxy.NewServer(proxy, &registryproxy.ServerOptions{Logger: component("proxy")})
	n.admin = admin.NewHandler(metrics, component("admin"), c.Pprof)
	n.adminServer = admin.NewServer(n.admin, component("admin"))
	return n, nil
}

// Run serves until ctx ends, then stops within stopTime: clients first, then
// what they stand on. up is called once clients and peers are served. It returns
// nil if all that happened was that ctx ended.
func (n *node) Run(ctx context.Context, up func() error) error {
	done := make(chan error, 1)
	go func() { done <- n.run(ctx, up) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("the node did not stop within %s; what it stored is checked at the next start", stopTime)
	}
}

func (n *node) run(ctx context.Context, up func() error) error {
	g, all := errgroup.WithContext(context.WithoutCancel(ctx))
	// Each layer outlives those that use it: the end of one ends the one below.
	storeCtx, stopStore := context.WithCancel(all)
	hostCtx, stopHost := context.WithCancel(storeCtx)
	fetcherCtx, stopFetcher := context.WithCancel(hostCtx)
	defer stopStore()
	layer := func(name string, ctx context.Context, below context.CancelFunc, run func(context.Context) error) {
		g.Go(func() error {
			defer below()
			err := run(ctx)
			switch {
			case ctx.Err() == nil:
				return fmt.Errorf("%s stopped by itself: %w", name, err)
			case err != nil && !errors.Is(err, context.Canceled):
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	layer("store", storeCtx, func() {}, n.store.Run)
	layer("p2p", hostCtx, stopStore, func(ctx context.Context) error { return n.host.Run(ctx, peerHandler{n.fetcher}) })
	layer("fetcher", fetcherCtx, stopHost, n.fetcher.Run)
	serve := func(name string, s *http.Server, l net.Listener) {
		g.Go(func() error {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	serve("proxy", n.proxy, n.proxyListener)
	serve("admin", n.adminServer, n.adminListener)
	n.admin.SetReady(n.status, n.live)

	g.Go(func() error {
		err := up()
		if err == nil {
			select {
			case <-ctx.Done():
			case <-all.Done(): // something failed
			}
		}
		n.admin.SetUnready("stopping")
		n.log.Info("stopping")
		drain, cancel := context.WithTimeout(all, drainTime)
		defer cancel()
		if n.proxy.Shutdown(drain) != nil {
			n.proxy.Close()
		}
		stopFetcher()
		// Whoever watches has been told that the node stops, and hears it.
		short, cancel := context.WithTimeout(drain, adminDrainTime)
		defer cancel()
		if n.adminServer.Shutdown(short) != nil {
			n.adminServer.Close()
		}
		return err
	})
	return g.Wait()
}

// Close lets go of everything and returns what could not be saved. Run must have
// returned, or not been called.
func (n *node) Close() error {
	var errs []error
	for _, l := range []net.Listener{n.proxyListener, n.adminListener} {
		if l != nil {
			l.Close()
		}
	}
	// Typed nils must not become closers.
	closers := []struct {
		name  string
		there bool
		io.Closer
	}{
		{"origin", n.origin != nil, n.origin},
		{"p2p", n.host != nil, n.host},
		{"store", n.store != nil, n.store},
	}
	for _, c := range closers {
		if c.there {
			if err := c.Close(); err != nil {
				errs = append(errs, fmt.Errorf("closing %s: %w", c.name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// addresses are those that the node really uses.
func (n *node) addresses() addresses {
	return addresses{
		ID:        n.host.PeerID(),
		Proxy:     n.proxyListener.Addr().String(),
		Admin:     n.adminListener.Addr().String(),
		Addresses: n.host.Addrs(),
	}
}

// status gathers what the admin server tells.
func (n *node) status() admin.Status {
	a, u, f := n.addresses(), n.store.Usage(), n.fetcher.Status()
	s := admin.Status{
		ID: a.ID, Addresses: a.Addresses, Proxy: a.Proxy, Admin: a.Admin,
		Peers:    []admin.Peer{},
		Blobs:    admin.Blobs{Complete: u.Blobs, Partial: u.Partials},
		Store:    admin.Store{Bytes: u.Bytes, MaxBytes: u.MaxBytes, FreeBytes: u.FreeBytes},
		Received: admin.Received{Peer: f.Received.Peer, Origin: f.Received.Origin},
		Served:   admin.Served(f.Served),
		Origins:  []admin.Origin{},
		Active:   []admin.ActiveBlob{},
		Version:  readBuildInfo().Version, UptimeSeconds: time.Since(n.started).Seconds(),
	}
	for _, p := range n.host.Peers() {
		s.Peers = append(s.Peers, admin.Peer{
			ID: p.PeerID, Addresses: []string{p.Addr}, Inbound: p.Inbound,
			ConnectedSeconds: time.Since(p.Since).Seconds(),
		})
	}
	for _, h := range n.origin.Health() {
		s.Origins = append(s.Origins, admin.Origin{
			Origin: h.Origin, Endpoint: h.Endpoint, State: string(h.State), Since: h.Since,
			LastError: h.LastError, CooldownSeconds: h.Cooldown.Seconds(),
		})
	}
	if l, err := n.fetcher.Live(); err == nil {
		s.Active = activeBlobs(l.Blobs)
	} else {
		n.log.Debug("status without active blobs", "err", err)
	}
	return s
}

// live gathers what is under way.
func (n *node) live() (admin.Live, error) {
	l, err := n.fetcher.Live()
	if err != nil {
		return admin.Live{}, err
	}
	return admin.Live{
		ID: n.host.PeerID(), Version: readBuildInfo().Version, UptimeSeconds: time.Since(n.started).Seconds(),
		AtSeconds: l.At.Seconds(), Peers: len(n.host.Peers()), Readers: l.Readers,
		Received: admin.Received{Peer: l.Received.Peer, Origin: l.Received.Origin},
		Served:   admin.Served(l.Served), Blobs: activeBlobs(l.Blobs),
	}, nil
}

// activeBlobs puts what the core is at work on into the words of people.
func activeBlobs(blobs []fetcher.LiveBlob) []admin.ActiveBlob {
	cells := [...]admin.Cell{
		policy.Missing: admin.CellMissing, policy.FromPeer: admin.CellFromPeer,
		policy.FromOrigin: admin.CellFromOrigin, policy.Here: admin.CellHere,
	}
	active := make([]admin.ActiveBlob, 0, len(blobs))
	for _, b := range blobs {
		a := admin.ActiveBlob{
			Digest: b.Blob.String(), Size: b.Size, Have: b.Have, Chunks: len(b.Chunks), Wanted: b.Wanted, Proven: b.Proven,
			Readers: b.Readers, Transfers: b.Transfers, OriginReads: b.Reads,
			Bytes: admin.Served(b.Bytes), Neighbours: make([]admin.Neighbour, 0, len(b.Neighbours)),
			Cells: admin.Cells(len(b.Chunks), admin.MaxCells, func(i int) admin.Cell {
				if c := cells[b.Chunks[i]]; c != admin.CellHere || !b.Proven {
					return c
				}
				return admin.CellProven
			}),
		}
		if !b.Coordinator.IsZero() {
			a.Coordinator = p2p.PeerID(b.Coordinator).String()
		}
		for _, p := range b.Neighbours {
			a.Neighbours = append(a.Neighbours, admin.Neighbour{
				ID: p2p.PeerID(p.Peer).String(), Chunks: p.Chunks, Transfers: p.Transfers, Bytes: b.ByPeer[p.Peer],
			})
		}
		active = append(active, a)
	}
	return active
}

func origins(c *config.Config) []origin.Config {
	var list []origin.Config
	for _, o := range c.Origins {
		list = append(list, origin.Config(o))
	}
	return list
}

// label turns the words for where a node is into the numbers that nodes compare.
// Two words of one number make strangers near, which costs nothing but a hop.
func label(zone, rack string) policy.Label {
	number := func(words string) uint32 {
		h := fnv.New32a()
		_, _ = io.WriteString(h, words) // a hash takes everything
		return max(1, h.Sum32())        // 0 is unknown
	}
	l := policy.Label{}
	if zone != "" {
		l.Zone = number(zone)
		if rack != "" {
			l.Rack = number(zone + "\x00" + rack)
		}
	}
	return l
}

// minFree translates "none", which the store wants negative.
func minFree(fraction float64) float64 {
	if fraction == 0 {
		return -1
	}
	return fraction
}

func buildInfoMetric() prometheus.Collector {
	b := readBuildInfo()
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "peercache_build_info",
		Help:        "Always 1; its labels say what runs.",
		ConstLabels: prometheus.Labels{"version": b.Version, "commit": b.Commit, "go": b.Go},
	})
	g.Set(1)
	return g
}
