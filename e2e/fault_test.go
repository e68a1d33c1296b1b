//go:build e2e && linux

package e2e

import (
	"fmt"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// knownFirst and knownThen bound how long what the cluster knows may take
	// while the registry is of no use: once while that is found out, and then.
	knownFirst = 2 * time.Second
	knownThen  = 100 * time.Millisecond
)

// TestKnownContentIsQuickWhileTheOriginIsNot: a cluster whose registry hangs
// must start pods as if it answered. Each wait on the registry is a pod that
// doesn't start.
func TestKnownContentIsQuickWhileTheOriginIsNot(t *testing.T) {
	f := startFront(t, sharedRegistry(t).addr, "")
	// Tags are asked for at the origin each time: that is the hard case.
	lifetime := []string{"--tag-lifetime", "1ms"}
	one := startNode(t, f.url(), nil, lifetime...)
	image := shared.amd64
	digest := must[v1.Hash](t)(shared.amd64.Digest()).String()
	layer := largest(t, image).Digest.String()
	index := fetch(t, 30*time.Second, "GET", one.at("app/multi", "manifests/v1"), "Accept", "application/vnd.oci.image.index.v1+json")
	if index.status != 200 {
		t.Fatalf("the index: %v: %s", index, index.body)
	}
	indexDigest := digestOf("sha256:", index.body)
	questions := []struct {
		what, path, digest string
	}{
		{"the tag", "manifests/v1", indexDigest},
		{"the manifest", "manifests/" + digest, digest},
		{"the layer", "blobs/" + layer, layer},
	}
	for _, q := range questions {
		fetch(t, 30*time.Second, "GET", one.at("app/multi", q.path), "Accept", "application/vnd.oci.image.index.v1+json").
			wantWhole(t, q.what, q.digest)
	}
	for _, fault := range originFaults(f) {
		t.Run(fault.name, func(t *testing.T) {
			url := fault.url(t)
			// A node which holds it and one which has to ask for it, each
			// meeting the fault for the first time with each kind of question.
			for _, who := range []string{"holder", "asker"} {
				n := startNode(t, url, []*node{one}, lifetime...)
				if who == "holder" {
					for _, q := range questions {
						fetch(t, 30*time.Second, "GET", n.at("app/multi", q.path), "Accept", "application/vnd.oci.image.index.v1+json").
							wantWhole(t, q.what, q.digest)
					}
				}
				if fault.name != "has no name" {
					if who == "holder" {
						fault.begin(t)
					}
				}
				for round, limit := range []time.Duration{knownFirst, knownThen, knownThen} {
					for _, q := range questions {
						r := fetch(t, 30*time.Second, "GET", n.at("app/multi", q.path), "Accept", "application/vnd.oci.image.index.v1+json")
						r.wantWhole(t, fmt.Sprintf("%s, %s, round %d", who, q.what, round), q.digest)
						if r.took > limit {
							t.Errorf("%s, %s, round %d: took %v, want %v at most", who, q.what, round, r.took, limit)
						}
					}
				}
			}
		})
	}
}
