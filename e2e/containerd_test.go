//go:build e2e && linux

package e2e

import (
	"net/http"
	"os"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// wantNoBlobBytes fails the test if the front has passed on bytes of blobs.
func wantNoBlobBytes(t testing.TB, f *front, who string) {
	t.Helper()
	if got := f.seen(blobKind); got.bytes != 0 {
		t.Fatalf("%s took %d blob bytes from the registry in %d requests, want none", who, got.bytes, got.requests)
	}
}

// TestContainerd is the main promise: the second node's pull takes no layer
// byte from the registry, and a third one's works when the registry is gone,
// however it is gone. Without it Peercache is a cache for one machine.
func TestContainerd(t *testing.T) { testContainerd(t, "", "", false) }

// TestContainerd2 is the same with containerd 2.4 as `make test-containerd2`
// built it, fetching each layer by parallel ranges.
func TestContainerd2(t *testing.T) {
	bin := os.Getenv("PEERCACHE_E2E_CONTAINERD2")
	if bin == "" {
		t.Skip("containerd 2 takes minutes to build: make test-containerd2 does it and runs this test")
	}
	testContainerd(t, bin, `
[plugins."io.containerd.transfer.v1.local"]
  config_path = ""
  max_concurrent_downloads = 3
  concurrent_layer_fetch_buffer = 8388608
`, true)
}

func testContainerd(t *testing.T, bin, config string, parallel bool) {
	reg := sharedRegistry(t)
	f := startFront(t, reg.addr, "")
	one := startNode(t, f.url(), nil)
	two := startNode(t, f.url(), []*node{one})
	client := startContainerd(t, bin, config)
	// Where the mirror fails containerd goes to the front itself, where it
	// would be counted.
	via := func(n *node) { client.mirror(t, n.url(), f.url()) }

	// What the client sends, seen from before the first node.
	between := startFront(t, one.proxy, "")
	client.mirror(t, between.url(), f.url())
	f.reset()
	client.pull(t, bigImage)
	greets(t, client.run(t, bigImage, "one"))
	if parallel != between.saw("bytes=8388608-") {
		t.Fatalf("parallel ranges expected: %t; the client didn't do so", parallel)
	}
	if got := f.seen(blobKind).bytes; got < runnable.size || got > runnable.size+1*mib {
		t.Fatalf("the first pull took %d blob bytes from the registry for an image of %d", got, runnable.size)
	}
	client.forget(t, bigImage)

	via(two)
	f.reset()
	client.pull(t, bigImage)
	greets(t, client.run(t, bigImage, "two"))
	wantNoBlobBytes(t, f, "the second node's pull")
	if s := two.status(t); s.Received.Peer < runnable.size || s.Received.Origin > 1*mib {
		t.Fatalf("the second node says that it received %d bytes from peers and %d from the origin, for an image of %d",
			s.Received.Peer, s.Received.Origin, runnable.size)
	}
	client.forget(t, bigImage)

	for _, fault := range originFaults(f) {
		t.Run(fault.name, func(t *testing.T) {
			three := startNode(t, fault.url(t), []*node{one, two})
			via(three)
			f.reset()
			fault.begin(t)
			client.pull(t, bigImage)
			greets(t, client.run(t, bigImage, "three"))
			wantNoBlobBytes(t, f, "the third node's pull")
			client.forget(t, bigImage)
		})
	}
}

// TestPodman is the main promise for Podman, which names the origin in the path
// and, once we have answered a manifest, has nobody else to turn to.
func TestPodman(t *testing.T) {
	reg := sharedRegistry(t)
	f := startFront(t, reg.addr, "")
	one := startNode(t, f.url(), nil)
	two := startNode(t, f.url(), []*node{one})
	pull := func(t testing.TB, n *node) {
		p := newPodman(t, n.proxy+"/"+plainOriginName, f.addr)
		p.pull(t, bigImage)
		greets(t, p.run(t, bigImage))
	}
	pull(t, one)
	f.reset()
	pull(t, two)
	wantNoBlobBytes(t, f, "the second node's pull")
	for _, fault := range originFaults(f) {
		t.Run(fault.name, func(t *testing.T) {
			three := startNode(t, fault.url(t), []*node{one, two})
			f.reset()
			fault.begin(t)
			pull(t, three)
			wantNoBlobBytes(t, f, "the third node's pull")
		})
	}
}

// TestPlatforms: of an index, the node fetches what its client wants and
// nothing for machines of another kind; a docker schema 2 list keeps its types.
func TestPlatforms(t *testing.T) {
	f := startFront(t, sharedRegistry(t).addr, "")
	n := startNode(t, f.url(), nil)
	client := startContainerd(t, "", "")
	client.mirror(t, n.url(), "http://127.0.0.1:1")

	client.pull(t, "app/multi:v1")
	for _, l := range layersOf(t, shared.amd64) {
		if got := f.bytesOf(l.Digest.String()); got != l.Size {
			t.Errorf("%d bytes of a wanted layer of %d", got, l.Size)
		}
	}
	unwanted := must[*v1.Manifest](t)(shared.arm64.Manifest())
	for _, l := range append(unwanted.Layers, unwanted.Config) {
		if got := f.bytesOf(l.Digest.String()); got != 0 {
			t.Errorf("%d bytes were fetched for another platform", got)
		}
	}

	client.pull(t, "app/list:v1")
	for _, l := range layersOf(t, shared.listed) {
		if got := f.bytesOf(l.Digest.String()); got != l.Size {
			t.Errorf("%d bytes of the listed layer of %d", got, l.Size)
		}
	}
	req := must[*http.Request](t)(http.NewRequest(http.MethodGet, n.url()+"/v2/app/list/manifests/v1?ns="+originName, nil))
	req.Header.Set("Accept", "application/vnd.docker.distribution.manifest.list.v2+json")
	resp := must[*http.Response](t)(http.DefaultClient.Do(req))
	resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "application/vnd.docker.distribution.manifest.list.v2+json" {
		t.Errorf("the list came as %s", got)
	}
	if n.status(t).Blobs.Complete == 0 {
		t.Error("the node kept nothing")
	}
}
