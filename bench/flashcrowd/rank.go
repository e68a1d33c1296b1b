package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// rank orders nodes for a blob as the policy core does (rank in
// fetcher/policy/peer.go): by rendezvous hashing, the greatest SHA-256 of digest,
// a zero byte and node ID first. The first coordinates.
func rank(d digest.Digest, nodes []chunkindex.NodeID) []chunkindex.NodeID {
	score := func(id chunkindex.NodeID) [sha256.Size]byte {
		return sha256.Sum256(slices.Concat([]byte(d), []byte{0}, id[:]))
	}
	return slices.SortedFunc(slices.Values(nodes), func(a, b chunkindex.NodeID) int {
		sa, sb := score(a), score(b)
		return cmp.Or(bytes.Compare(sb[:], sa[:]), a.Compare(b))
	})
}

// nodeID returns the key that a libp2p peer ID is made of.
func nodeID(text string) (id chunkindex.NodeID, err error) {
	p, err := peer.Decode(text)
	if err != nil {
		return id, err
	}
	key, err := p.ExtractPublicKey()
	if err != nil {
		return id, err
	}
	raw, err := key.Raw()
	if err == nil && copy(id[:], raw) != len(id) {
		err = fmt.Errorf("%s is no Ed25519 key", text)
	}
	return id, err
}
