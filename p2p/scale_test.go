package p2p

import (
	"context"
	"slices"
	"testing"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peercache/peercache/chunkindex"
)

// With more nodes than a committee has seats the network is asked, and all nodes
// agree on the committee, which leaves some of them out.
func TestClosestInLargerCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts 28 nodes")
	}
	nodes := []*node{start(t, nil)}
	for range 27 {
		nodes = append(nodes, start(t, bootstrap(nodes[0].Addrs()...)))
	}
	var ids []peer.ID
	for _, n := range nodes {
		ids = append(ids, PeerID(n.Self()))
	}
	d := digestOf("popular")
	c, _ := chunkindex.CID(d)
	var want []chunkindex.NodeID
	for _, p := range kb.SortClosestPeers(ids, kb.ConvertKey(string(c.Hash())))[:committee] {
		n, _ := NodeOf(p)
		want = append(want, n)
	}
	for _, n := range nodes {
		until(t, "the right committee", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
			defer cancel()
			got, err := n.Closest(ctx, d)
			return err == nil && slices.Equal(got, want)
		})
	}
	nodes[5].Provide(d)
	if took := findProvider(t, nodes[20], nodes[5], d); took > time.Second {
		t.Errorf("found after %v", took)
	}
}
