package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/libp2p/go-libp2p-kad-dht/provider"
	"github.com/libp2p/go-libp2p-kad-dht/provider/keystore"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// announcer provides digests on the DHT and goes on doing so.
//
// The digests are persisted (the provider's keystore); the schedule is not: a
// node that starts announces everything it provides again, because its address
// may have changed and because other nodes may have restarted too. The sweeping
// provider makes that cheap, by visiting each region of the key space once.
type announcer struct {
	h        *Host
	provider *provider.SweepingProvider
	keys     keystore.Keystore

	// Changes wait here for run, the last one for each digest counting. That
	// keeps Provide and Withdraw from waiting for the disk, and writes in
	// batches when many change at once.
	mu      sync.Mutex
	changes map[cid.Cid]bool // whether to provide
	wake    chan struct{}
}

func newAnnouncer(h *Host, ds datastore.Batching) (*announcer, error) {
	a := &announcer{h: h, changes: map[cid.Cid]bool{}, wake: make(chan struct{}, 1)}
	var err error
	if a.keys, err = keystore.NewKeystore(namespace.Wrap(ds, datastore.NewKey("/provided"))); err != nil {
		return nil, fmt.Errorf("p2p: opening the list of provided digests: %w", err)
	}
	validity := h.opts.ProviderValidity
	a.provider, err = provider.New(
		// Not WithHost: with it, a peer that could not be reached once loses
		// its addresses, for everybody.
		provider.WithPeerID(h.host.ID()),
		provider.WithRouter(connectedRouter{h}),
		provider.WithMessageSender(h.routing.dht.MessageSender()),
		provider.WithSelfAddrs(h.host.Addrs),
		provider.WithAddLocalRecord(a.addLocal),
		provider.WithKeystore(a.keys),
		provider.WithReplicationFactor(committee),
		provider.WithReprovideInterval(validity/3),
		// The default of an hour would outlast a short validity.
		provider.WithMaxReprovideDelay(validity/6),
		provider.WithConnectivityCheckOnlineInterval(time.Second),
		provider.WithSendProviderRecordTimeout(h.opts.DialTimeout+h.opts.StallTimeout),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("p2p: starting the provider: %w", err), a.keys.Close())
	}
	return a, nil
}

// connectedRouter looks peers up for the provider. Where the node is alone it
// waits for the first peer instead of failing: the provider would back off, for
// up to a minute, and what was to be announced would be announced that late.
type connectedRouter struct{ h *Host }

var errAlone = errors.New("p2p: no peer to announce to")

// GetClosestPeers implements provider.KadClosestPeersRouter. Unlike the DHT's it
// never returns an empty list without an error, which the provider would take
// for a successful announcement to nobody.
func (r connectedRouter) GetClosestPeers(ctx context.Context, key string) ([]peer.ID, error) {
	for r.h.routing.size() == 0 {
		arrived := r.h.connector.arrival()
		if len(r.h.host.Network().Peers()) > 0 {
			// Connected, but not in the table before it has been identified and
			// has answered a query, which nothing reports.
			sleep(ctx, 20*time.Millisecond)
		} else {
			select {
			case <-arrived:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	peers, err := r.h.routing.dht.GetClosestPeers(bounded, key)
	if len(peers) > 0 && ctx.Err() == nil {
		return peers, nil // those known at the time-out are better than none
	}
	if err == nil {
		err = errAlone
	}
	return nil, err
}

// addLocal makes this node answer for itself when it is asked.
func (a *announcer) addLocal(ctx context.Context, h multihash.Multihash) error {
	return a.h.routing.dht.Provide(ctx, cid.NewCidV1(cid.Raw, h), false)
}

func (a *announcer) change(d digest.Digest, provide bool) error {
	c, err := chunkindex.CID(d)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.changes[c] = provide
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return nil
}

func (a *announcer) run(ctx context.Context) {
	for {
		last := false
		select {
		case <-a.wake:
		case <-ctx.Done():
			last = true // what was asked for before the end is still written down
		}
		a.mu.Lock()
		changes := a.changes
		a.changes = map[cid.Cid]bool{}
		a.mu.Unlock()
		var provide, withdraw []multihash.Multihash
		for c, on := range changes {
			if on {
				provide = append(provide, c.Hash())
			} else {
				withdraw = append(withdraw, c.Hash())
			}
		}
		a.apply(context.WithoutCancel(ctx), provide, withdraw)
		if last {
			return
		}
	}
}

func (a *announcer) apply(ctx context.Context, provide, withdraw []multihash.Multihash) {
	a.h.metrics.provides.WithLabelValues("provide").Add(float64(len(provide)))
	a.h.metrics.provides.WithLabelValues("withdraw").Add(float64(len(withdraw)))
	if len(withdraw) > 0 {
		if err := a.provider.StopProviding(withdraw...); err != nil {
			a.h.log.Error("digests not withdrawn", "count", len(withdraw), "err", err)
		}
	}
	for _, h := range provide {
		if err := a.addLocal(ctx, h); err != nil {
			a.h.log.Error("provider record not stored", "err", err)
		}
	}
	if len(provide) > 0 {
		if err := a.provider.StartProviding(false, provide...); err != nil {
			a.h.log.Error("digests not provided", "count", len(provide), "err", err)
		}
	}
}

// close stops the provider, then closes the list, which it uses to the end.
func (a *announcer) close() error {
	return errors.Join(a.provider.Close(), a.keys.Close())
}

// Provide announces on the DHT that this node has a digest, now or as soon as
// there is a peer, and again until Withdraw, restarts included. It never blocks;
// it fails only for an invalid digest. Other nodes find it within a second.
func (h *Host) Provide(d digest.Digest) error { return h.announcer.change(d, true) }

// Withdraw ends what Provide began. Records that are out expire with the
// provider validity; until then others may still ask this node. It never blocks;
// it fails only for an invalid digest.
func (h *Host) Withdraw(d digest.Digest) error { return h.announcer.change(d, false) }

// Provided returns the digests that this node provides, in no particular order.
// After a crash, digests whose blobs are gone may be among them: withdraw them.
// It fails with ctx's error and where the datastore does.
func (h *Host) Provided(ctx context.Context) ([]digest.Digest, error) {
	hashes, err := h.announcer.keys.Get(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("p2p: listing provided digests: %w", err)
	}
	digests := make([]digest.Digest, 0, len(hashes))
	for _, m := range hashes {
		if d, err := chunkindex.Digest(cid.NewCidV1(cid.Raw, m)); err == nil {
			digests = append(digests, d)
		}
	}
	return digests, nil
}
