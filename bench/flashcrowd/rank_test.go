package main

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

func TestRank(t *testing.T) {
	d := digest.FromString("blob")
	var nodes []chunkindex.NodeID
	for i := range 40 {
		nodes = append(nodes, chunkindex.NodeID(sha256.Sum256([]byte{byte(i)})))
	}
	ranked := rank(d, nodes)
	score := func(id chunkindex.NodeID) []byte {
		s := sha256.Sum256([]byte(string(d) + "\x00" + string(id[:])))
		return s[:]
	}
	if !slices.IsSortedFunc(ranked, func(a, b chunkindex.NodeID) int { return bytes.Compare(score(b), score(a)) }) {
		t.Error("not the greatest score first")
	}
	slices.Reverse(nodes)
	if !slices.Equal(rank(d, nodes), ranked) {
		t.Error("the order of the nodes matters")
	}
	// Who goes moves nobody else.
	without := slices.Delete(slices.Clone(ranked), 3, 4)
	if !slices.Equal(rank(d, without), without) {
		t.Error("one that goes moves others")
	}
}

func TestNodeID(t *testing.T) {
	_, public, err := crypto.GenerateEd25519Key(bytes.NewReader(make([]byte, 64)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.IDFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := public.Raw()
	if err != nil {
		t.Fatal(err)
	}
	got, err := nodeID(p.String())
	if err != nil || !bytes.Equal(got[:], raw) {
		t.Errorf("%s: %x, %v; want %x", p, got[:], err, raw)
	}
	for _, text := range []string{"", "x", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"} {
		if id, err := nodeID(text); err == nil {
			t.Errorf("%q: %s, want an error", text, id)
		}
	}
}
