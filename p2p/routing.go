package p2p

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-datastore"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

const (
	// committee is how many peers are nearest to a digest: Kademlia's k.
	committee = 20
	// providerGrace is how long a lookup that is over, and has found somebody,
	// waits for further providers to answer: one that is dead must not cost the
	// whole deadline.
	providerGrace = 100 * time.Millisecond
	// maxProviders bounds the provider records that one lookup considers.
	maxProviders = 64
)

// router is the DHT.
type router struct {
	h   *Host
	dht *dht.IpfsDHT
	// settled: this node has looked itself up since it last became connected,
	// so that a small routing table means a small cluster.
	settled atomic.Bool
}

func newRouter(h *Host, ds datastore.Batching) (*router, error) {
	d, err := dht.New(h.host,
		dht.Mode(dht.ModeServer),
		dht.ProtocolPrefix("/peercache"),
		dht.DisableValues(),
		dht.BucketSize(committee),
		dht.ProviderDatastore(ds), // keys under /providers
		dht.ProviderManagerOpts(
			records.ProvideValidity(h.opts.ProviderValidity),
			records.ProviderAddrTTL(h.opts.ProviderValidity),
			records.CleanupInterval(max(h.opts.ProviderValidity/2, time.Minute)),
		),
		dht.RoutingTableRefreshQueryTimeout(5*time.Second),
	)
	if err != nil {
		return nil, fmt.Errorf("p2p: starting the DHT: %w", err)
	}
	return &router{h: h, dht: d}, nil
}

func (r *router) size() int { return r.dht.RoutingTable().Size() }

func (r *router) close() error { return r.dht.Close() }

// settle looks this node itself up, which fills the routing table with those
// around it. It is called when the node has become connected.
func (r *router) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if peers, err := r.dht.GetClosestPeers(ctx, string(r.h.host.ID())); err == nil && len(peers) > 0 {
		r.settled.Store(true)
	}
}

// Closest returns the nodes nearest to a digest on the DHT, nearest first, at
// most 20, this node among them where it belongs. It fails only for a digest
// that is invalid.
//
// In a cluster of at most 20 others the routing table knows them all and is the
// answer. Otherwise the network is asked for as long as ctx allows, and what is
// known by then is the answer: give it a deadline.
func (h *Host) Closest(ctx context.Context, d digest.Digest) ([]chunkindex.NodeID, error) {
	c, err := chunkindex.CID(d)
	if err != nil {
		return nil, err
	}
	r := h.routing
	key := string(c.Hash())
	table := r.dht.RoutingTable().NearestPeers(kb.ConvertKey(key), committee)
	if len(table) < committee && r.settled.Load() || !h.enter() {
		return h.nearest(key, table), nil
	}
	start := time.Now()
	found := make(chan []peer.ID, 1)
	go func() {
		defer h.wg.Done()
		// With ctx at its end this returns what it has so far.
		peers, _ := r.dht.GetClosestPeers(ctx, key)
		found <- peers
	}()
	select {
	case peers := <-found:
		table = append(table, peers...)
	case <-ctx.Done():
	}
	h.metrics.lookups.WithLabelValues("closest").Observe(time.Since(start).Seconds())
	return h.nearest(key, table), nil
}

// nearest sorts peers and this node by their distance from the key. Leaving
// itself out, as the DHT's own lookups do, no node would ever know that it is
// the nearest.
func (h *Host) nearest(key string, peers []peer.ID) []chunkindex.NodeID {
	seen := map[peer.ID]bool{h.host.ID(): true}
	all := []peer.ID{h.host.ID()}
	for _, p := range peers {
		if !seen[p] {
			seen[p] = true
			all = append(all, p)
		}
	}
	nodes := make([]chunkindex.NodeID, 0, committee)
	for _, p := range kb.SortClosestPeers(all, kb.ConvertKey(key)) {
		if n, ok := NodeOf(p); ok && len(nodes) < committee {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Providers finds up to limit other nodes that provide a digest and are
// connected, or could be connected to while ctx lasts: give it a deadline. It
// returns as soon as it has them, or with those that it has at the deadline. It
// fails only for an invalid digest.
func (h *Host) Providers(ctx context.Context, d digest.Digest, limit int) ([]chunkindex.NodeID, error) {
	c, err := chunkindex.CID(d)
	if err != nil {
		return nil, err
	}
	if limit <= 0 || !h.enter() {
		return nil, nil
	}
	defer h.wg.Done()
	start := time.Now()
	defer func() { h.metrics.lookups.WithLabelValues("providers").Observe(time.Since(start).Seconds()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	reachable := make(chan chunkindex.NodeID, maxProviders) // room for all: nobody ever blocks on it
	searched := make(chan struct{})
	dialled := make(chan struct{})
	h.wg.Add(1) // allowed: this call is counted already
	go func() {
		defer h.wg.Done()
		defer close(dialled)
		var dials sync.WaitGroup
		defer dials.Wait()
		n := 0
		// Read to the end, even after the deadline: the DHT would block.
		for p := range h.routing.dht.FindProvidersAsync(ctx, c, maxProviders) {
			node, ok := NodeOf(p.ID)
			if !ok || p.ID == h.host.ID() || n == maxProviders {
				continue
			}
			n++
			dials.Go(func() {
				if h.reach(ctx, p) == nil {
					reachable <- node
				}
			})
		}
		close(searched)
	}()
	var nodes []chunkindex.NodeID
	var grace <-chan time.Time
	for {
		select {
		case n := <-reachable:
			if nodes = append(nodes, n); len(nodes) == limit {
				return nodes, nil
			}
			if searched == nil && grace == nil {
				grace = time.After(providerGrace)
			}
			continue
		case <-searched:
			searched = nil
			if len(nodes) > 0 {
				grace = time.After(providerGrace)
			}
			continue
		case <-dialled:
		case <-grace:
		case <-ctx.Done():
		}
		for len(nodes) < limit { // what arrived at the same time
			select {
			case n := <-reachable:
				nodes = append(nodes, n)
				continue
			default:
			}
			break
		}
		return nodes, nil
	}
}

// reach connects to a peer, and asks the DHT for its address if it is unknown.
func (h *Host) reach(ctx context.Context, p peer.AddrInfo) error {
	if len(p.Addrs)+len(h.host.Peerstore().Addrs(p.ID))+len(h.hearsay.about(p.ID, time.Now())) == 0 {
		found, err := h.routing.dht.FindPeer(ctx, p.ID)
		if err != nil {
			return err
		}
		p = found
	}
	return h.connect(ctx, p)
}
