package registryproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// What clients really send, as recorded from containerd 1.6.20 and 2.4.2,
// Podman 4.3, BuildKit 0.25 and Docker, against what the Backend is asked.
func TestRequestsOfClients(t *testing.T) {
	const accept = "Accept: " + ociIndex + ", " + ociManifest + ", */*"
	type request struct {
		line    string
		headers []string
		status  int
		calls   string
	}
	layer, config := []byte("layer"), []byte(`{"architecture":"amd64"}`)
	b := newMemory()
	l, c := b.put(layer), b.put(config)
	layerID, configID := l.Encoded()[:6], c.Encoded()[:6]
	b.tag("registry.test:5000", "team/app", "v1", ociManifest, someOCI)
	m := b.tag("docker.io", "team/app", "v1", ociManifest, someOCI)
	id := m.Encoded()[:6]

	for name, requests := range map[string][]request{
		"containerd 1.6": {
			{"HEAD /v2/team/app/manifests/v1?ns=registry.test%3A5000", []string{accept}, 200, "resolve tag registry.test:5000/team/app v1"},
			{"GET /v2/team/app/manifests/" + string(m) + "?ns=registry.test%3A5000", []string{accept, "Accept-Encoding: gzip"}, 200, "open manifest registry.test:5000/team/app@" + id},
			{"GET /v2/team/app/blobs/" + string(c) + "?ns=registry.test%3A5000", []string{"Accept-Encoding: gzip"}, 200, "open blob registry.test:5000/team/app@" + configID},
			{"GET /v2/team/app/blobs/" + string(l) + "?ns=registry.test%3A5000", []string{"Accept-Encoding: gzip"}, 200, "open blob registry.test:5000/team/app@" + layerID},
			// Resuming after a broken connection.
			{"GET /v2/team/app/blobs/" + string(l) + "?ns=registry.test%3A5000", []string{"Range: bytes=2-"}, 206, "open blob registry.test:5000/team/app@" + layerID + " bytes=2-"},
		},
		"containerd 2.4, BuildKit": {
			{"HEAD /v2/team/app/manifests/v1?ns=docker.io", []string{accept}, 200, "resolve tag docker.io/team/app v1"},
			{"GET /v2/team/app/blobs/" + string(l) + "?ns=docker.io", []string{"Accept-Encoding: zstd, gzip, deflate"}, 200, "open blob docker.io/team/app@" + layerID},
			{"GET /v2/team/app/blobs/" + string(l) + "?ns=docker.io", []string{"Accept-Encoding: zstd, gzip, deflate", "Range: bytes=0-"}, 206, "open blob docker.io/team/app@" + layerID + " bytes=0-"},
			// BuildKit's cache export towards a mirror, if its reference names it.
			{"HEAD /v2/team/app/blobs/" + string(l), nil, 200, "stat blob docker.io/team/app@" + layerID},
			{"POST /v2/team/app/blobs/uploads/?mount=" + string(l) + "&from=team/other", nil, 405, ""},
			{"PUT /v2/team/app/manifests/v1", nil, 405, ""},
		},
		"Podman 4.3, mirror location with a path": {
			{"GET /v2/", []string{"Connection: close"}, 200, ""},
			{"GET /v2/registry.test:5000/team/app/manifests/v1", []string{accept}, 200, "resolve tag registry.test:5000/team/app v1; open manifest registry.test:5000/team/app@" + id},
			{"GET /v2/registry.test:5000/team/app/blobs/" + string(c), nil, 200, "open blob registry.test:5000/team/app@" + configID},
			{"GET /v2/registry.test:5000/team/app/blobs/" + string(l), nil, 200, "open blob registry.test:5000/team/app@" + layerID},
		},
		"Docker registry-mirrors": {
			{"GET /v2/", nil, 200, ""},
			{"HEAD /v2/team/app/manifests/v1", []string{accept}, 200, "resolve tag docker.io/team/app v1"},
			{"GET /v2/team/app/manifests/" + string(m), []string{accept}, 200, "open manifest docker.io/team/app@" + id},
			{"GET /v2/team/app/blobs/" + string(l), nil, 200, "open blob docker.io/team/app@" + layerID},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, b, nil)
			b.took()
			for _, r := range requests {
				method, target, _ := strings.Cut(r.line, " ")
				resp := ask(p, method, target, r.headers...)
				if resp.StatusCode != r.status {
					t.Errorf("%s: got %d, want %d", r.line, resp.StatusCode, r.status)
				}
				wantHeaders(t, resp.Header, "Content-Encoding:", "Transfer-Encoding:")
				if calls := b.took(); calls != r.calls {
					t.Errorf("%s: backend was asked %q, want %q", r.line, calls, r.calls)
				}
			}
		})
	}
}

// containerd 2 with concurrent_layer_fetch_buffer: open-ended ranges in
// parallel, of each of which it takes its piece and then hangs up. The Backend
// sees each range once, and each request's context end.
func TestParallelOpenEndedRangesWithHangUps(t *testing.T) {
	const piece, pieces = 1 << 20, 8
	blob := bytes.Repeat([]byte("0123456789abcdef"), pieces*piece/16)
	b := newMemory()
	d := b.put(blob)
	var ended sync.WaitGroup
	b.open = func(ctx context.Context, ref Ref, r *ByteRange) (Content, error) {
		off, n, _ := r.Resolve(int64(len(blob)))
		ended.Add(1)
		context.AfterFunc(ctx, ended.Done)
		return &content{Reader: bytes.NewReader(blob[off : off+n]), size: int64(len(blob)), off: off, n: n}, nil
	}
	s := serve(t, newProxy(t, b, nil))

	var clients sync.WaitGroup
	for i := range pieces {
		clients.Go(func() {
			req, err := http.NewRequest("GET", s.URL+"/v2/a/blobs/"+string(d)+"?ns=x.test", nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", i*piece))
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close() // hangs up, as there is more to come
			if want := fmt.Sprintf("bytes %d-%d/%d", i*piece, len(blob)-1, len(blob)); resp.StatusCode != 206 || resp.Header.Get("Content-Range") != want {
				t.Errorf("got %d %s, want %s", resp.StatusCode, resp.Header.Get("Content-Range"), want)
			}
			got, err := io.ReadAll(io.LimitReader(resp.Body, piece))
			if err != nil || !bytes.Equal(got, blob[i*piece:(i+1)*piece]) {
				t.Errorf("piece %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	clients.Wait()
	ended.Wait() // or the test times out
	if n := strings.Count(b.took(), "open"); n != pieces {
		t.Errorf("%d opens for %d ranges", n, pieces)
	}
}
