package p2p

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	"github.com/ipfs/go-datastore/query"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxKnown bounds the peers that are remembered. A few would do to come
	// back; many make it likely that some have kept their address.
	maxKnown = 256
	// maxKnownAddrs a peer.
	maxKnownAddrs = 8
	// forgetAfter is when a peer that was not met again is forgotten.
	forgetAfter = 7 * 24 * time.Hour
)

// knownPeer is a peer that this node was connected to.
type knownPeer struct {
	Addrs []string  `json:"addrs"`
	Seen  time.Time `json:"seen"`
}

// knownPeers remembers peers across restarts: a cluster whose bootstrap nodes
// are gone still finds itself again. Used by the connector's goroutine only.
type knownPeers struct {
	ds    datastore.Batching
	peers map[peer.ID]knownPeer
}

func loadKnownPeers(ctx context.Context, ds datastore.Batching) (*knownPeers, error) {
	k := &knownPeers{ds: namespace.Wrap(ds, datastore.NewKey("/known")), peers: map[peer.ID]knownPeer{}}
	results, err := k.ds.Query(ctx, query.Query{})
	if err != nil {
		return nil, fmt.Errorf("p2p: reading known peers: %w", err)
	}
	defer results.Close()
	for r := range results.Next() {
		if r.Error != nil {
			return nil, fmt.Errorf("p2p: reading known peers: %w", r.Error)
		}
		id, err := peer.Decode(datastore.RawKey(r.Key).BaseNamespace())
		var p knownPeer
		if err == nil {
			err = json.Unmarshal(r.Value, &p)
		}
		if _, ok := NodeOf(id); err != nil || !ok || time.Since(p.Seen) > forgetAfter {
			if err := k.ds.Delete(ctx, datastore.RawKey(r.Key)); err != nil {
				return nil, fmt.Errorf("p2p: forgetting a peer: %w", err)
			}
			continue
		}
		k.peers[id] = p
	}
	return k, nil
}

// add remembers a peer, and forgets the one that was not met for longest where
// there are too many.
func (k *knownPeers) add(ctx context.Context, id peer.ID, addrs []ma.Multiaddr) error {
	p := knownPeer{Seen: time.Now().UTC()}
	for _, a := range addrs[:min(len(addrs), maxKnownAddrs)] {
		p.Addrs = append(p.Addrs, a.String())
	}
	if len(p.Addrs) == 0 {
		return nil
	}
	old, known := k.peers[id]
	if known && time.Since(old.Seen) < time.Hour && equalAddrs(old.Addrs, p.Addrs) {
		return nil // nothing new worth a write
	}
	if !known && len(k.peers) >= maxKnown {
		oldest, at := peer.ID(""), p.Seen
		for id, p := range k.peers {
			if p.Seen.Before(at) {
				oldest, at = id, p.Seen
			}
		}
		delete(k.peers, oldest)
		if err := k.ds.Delete(ctx, datastore.NewKey(oldest.String())); err != nil {
			return fmt.Errorf("forgetting a peer: %w", err)
		}
	}
	k.peers[id] = p
	value, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := k.ds.Put(ctx, datastore.NewKey(id.String()), value); err != nil {
		return fmt.Errorf("remembering a peer: %w", err)
	}
	return nil
}

func equalAddrs(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	in := map[string]bool{}
	for _, s := range a {
		in[s] = true
	}
	for _, s := range b {
		if !in[s] {
			return false
		}
	}
	return true
}
