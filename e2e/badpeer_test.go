//go:build e2e && linux

package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/peercache/peercache/p2p"
)

// TestBadPeers: one member that lies or hangs must not cost another its pull,
// nor be asked for ever.
func TestBadPeers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve func(context.Context, *badPeer, p2p.RangeRequest, int64) (*p2p.RangeSource, error)
		flags []string
		limit time.Duration
		// banned: it is known for what it is afterwards, and left alone.
		banned bool
	}{
		{"corrupts and signs", corrupt, nil, 30 * time.Second, true},
		{"corrupts and signs, members are trusted", corrupt, []string{"--verify", "member"}, 30 * time.Second, true},
		{"corrupts", corruptUnsigned, nil, 30 * time.Second, false},
		{"stalls", stall, nil, 30 * time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := startOrigin(t)
			blobs := [][]byte{contents(500, 40*mib), contents(501, 40*mib)}
			sizes, digests := map[string]int64{}, []string{}
			for _, data := range blobs {
				digest := o.add("sha256", data)
				digests, sizes[digest] = append(digests, digest), int64(len(data))
			}
			honest := startNode(t, o.url(), nil, tt.flags...)
			for _, d := range digests {
				fetch(t, time.Minute, "GET", honest.at("app", "blobs/"+d)).wantWhole(t, "the blob at the honest node", d)
			}
			bad := startBadPeer(t, sizes, []*node{honest}, tt.serve)
			victim := startNode(t, o.url(), []*node{honest}, append([]string{"--bootstrap", bad.host.Addrs()[0]}, tt.flags...)...)
			victim.awaitPeers(t, 2)

			for i, d := range digests {
				before := bad.asked.Load()
				r := fetch(t, time.Minute, "GET", victim.at("app", "blobs/"+d))
				r.wantNotWrong(t, "the blob beside a bad peer", d)
				if tt.flags == nil || r.err == nil {
					r.wantWhole(t, "the blob beside a bad peer", d)
				} else {
					// Bytes that a trusted member signed had gone out: the
					// connection was cut, and the client asks again.
					fetch(t, time.Minute, "GET", victim.at("app", "blobs/"+d)).wantWhole(t, "the second attempt", d)
				}
				if r.took > tt.limit {
					t.Errorf("blob %d took %v, want %v at most", i, r.took, tt.limit)
				}
				asked := bad.asked.Load() - before
				t.Logf("blob %d: %v; the bad peer was asked for %d ranges", i, r, asked)
				if i == 0 && asked == 0 {
					t.Error("the bad peer was never asked: this shows nothing")
				}
				if i == 1 && tt.banned && asked > 0 {
					t.Errorf("a peer that signed wrong bytes was asked for %d more ranges", asked)
				}
			}
			victim.healthy(t)
		})
	}
}
