//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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
		// cut: the client may have been given wrong bytes, and is cut off.
		cut bool
		// banned: it is known for what it is afterwards, and left alone.
		banned bool
	}{
		{"corrupts and signs", corrupt, nil, 30 * time.Second, false, true},
		{"corrupts and signs, members are trusted", corrupt, []string{"--verify", "member"}, 30 * time.Second, true, true},
		{"corrupts", corruptUnsigned, nil, 30 * time.Second, false, false},
		{"corrupts, members are trusted", corruptUnsigned, []string{"--verify", "member"}, 30 * time.Second, false, false},
		{"stalls", stall, nil, 30 * time.Second, false, false},
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
				if !tt.cut || r.err == nil {
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

// TestMalformedFrames: a peer that sends what is no message is started anew, as
// often as it does so; what may be ignored is ignored. Neither costs anybody else a
// pull.
func TestMalformedFrames(t *testing.T) {
	o := startOrigin(t)
	digest := o.add("sha256", contents(510, 20*mib))
	one := startNode(t, o.url(), nil)
	two := startNode(t, o.url(), []*node{one})
	bad := startBadPeer(t, nil, []*node{one, two}, stall)
	to := one.id(t)
	violations := func() float64 {
		return one.metric(t, "peercache_p2p_violations_total", `protocol="control"`)
	}
	for _, frame := range [][]byte{{100, 0, 1, 2, 3}, {0}, bytes.Repeat([]byte{1}, 1000), {128, 200}} {
		before := violations()
		eventually(t, 20*time.Second, "the frame is taken for what it is", func() error {
			// One that is sent while the session ends is lost.
			if err := bad.host.Send(to, frame); err != nil {
				return err
			}
			if violations() == before {
				return errors.New("no violation")
			}
			return nil
		})
	}
	frames := func() float64 { return one.metric(t, "peercache_p2p_frames_total", `direction="in"`) }
	ignored := func() {
		t.Helper()
		before := frames()
		eventually(t, 20*time.Second, "frames that may be ignored are read", func() error {
			if err := bad.host.Send(to, []byte{255, 255}); err != nil {
				return err
			}
			if got := frames() - before; got < 10 {
				return fmt.Errorf("%v frames", got)
			}
			return nil
		})
	}
	ignored() // and with them, whatever is still on its way
	settled := violations()
	ignored()
	if got := violations(); got != settled {
		t.Errorf("%v violations by frames that may be ignored", got-settled)
	}
	for _, n := range []*node{one, two} {
		fetch(t, time.Minute, "GET", n.at("app", "blobs/"+digest)).wantWhole(t, "the blob beside a peer that is broken", digest)
		n.healthy(t)
	}
}

// TestForgerAndRealClients: containerd and Podman get their image although a
// member claims to hold all of it, serves other bytes and signs that these are the
// right ones; the first that pulls, and the next on another node, both strict as
// nodes are by default.
func TestForgerAndRealClients(t *testing.T) {
	for _, tt := range []struct {
		name string
		pull func(t *testing.T, n *node)
	}{
		{"containerd", func(t *testing.T, n *node) {
			c := startContainerd(t, "", "")
			// No way round the node: the fallback goes nowhere.
			c.mirror(t, n.url(), "http://127.0.0.1:1")
			c.pull(t, "app/middling:v1")
		}},
		{"podman", func(t *testing.T, n *node) {
			newPodman(t, n.proxy+"/"+plainOriginName, "127.0.0.1:1").pull(t, "app/middling:v1")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := startFront(t, sharedRegistry(t).addr, "")
			sizes, total := map[string]int64{}, int64(0)
			for _, l := range layersOf(t, shared.middling) {
				sizes[l.Digest.String()] = l.Size
				total += l.Size
			}
			one := startNode(t, f.url(), nil)
			two := startNode(t, f.url(), []*node{one})
			bad := startBadPeer(t, sizes, []*node{one, two}, corrupt)
			for _, n := range []*node{one, two} {
				n.awaitPeers(t, 2)
			}
			for i, n := range []*node{one, two} {
				before := bad.asked.Load()
				begin := time.Now()
				tt.pull(t, n)
				t.Logf("pull %d took %v; the forger was asked for %d ranges; the registry wrote %.2f copies so far", i+1,
					time.Since(begin).Round(time.Millisecond), bad.asked.Load()-before, float64(f.seen(blobKind).bytes)/float64(total))
				n.healthy(t)
			}
			if bad.asked.Load() == 0 {
				t.Error("the forger was never asked: this shows nothing")
			}
		})
	}
}
