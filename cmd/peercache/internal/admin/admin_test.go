package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var quiet = slog.New(slog.DiscardHandler)

func serve(t *testing.T, profiles bool) (*Handler, string) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "peercache_test_total", Help: "test"}))
	h := NewHandler(metrics, quiet, profiles)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return h, strings.TrimPrefix(s.URL, "http://")
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

var example = Status{
	ID: "12D3KooWa", Addresses: []string{"/ip4/10.0.0.1/tcp/5051/p2p/12D3KooWa", "/ip6/::1/tcp/5051/p2p/12D3KooWa"},
	Proxy: "127.0.0.1:5050", Admin: "127.0.0.1:5052",
	Peers:    []Peer{{ID: "12D3KooWb", Addresses: []string{"/ip4/10.0.0.2/tcp/5051"}, ConnectedSeconds: 61, LatencySeconds: 0.0012}},
	Blobs:    Blobs{Complete: 3, Partial: 1},
	Store:    Store{Bytes: 3 << 20, MaxBytes: 50 << 30, FreeBytes: 1 << 40},
	Received: Received{Peer: 1 << 20, Origin: 2 << 20},
	Served:   Served{Store: 5 << 20, Peer: 6 << 20, Origin: 7 << 20},
	Origins:  []Origin{{Origin: "docker.io", Endpoint: "https://registry-1.docker.io", State: "open", LastError: "timeout"}},
	Version:  "v1", UptimeSeconds: 3.5,
	Active: []ActiveBlob{
		{Digest: "sha256:0123456789abcdef0123", Size: 4 << 20, Have: 1 << 20, Wanted: true, Bytes: Served{Peer: 1 << 20}, Neighbours: []Neighbour{{ID: "12D3KooWb"}}},
		{Digest: "sha256:aaaa", Size: -1, Wanted: true},
	},
}

// A node is alive from the start, and ready while it serves.
func TestLife(t *testing.T) {
	h, addr := serve(t, false)
	check := func(when, path string, want int) {
		t.Helper()
		if code, body := get(t, addr+path); code != want {
			t.Errorf("%s: %s gives %d %s", when, path, code, body)
		}
	}
	for _, when := range []string{"starting", "stopping"} {
		h.SetUnready(when)
		check(when, "/healthz", http.StatusOK)
		check(when, "/readyz", http.StatusServiceUnavailable)
		check(when, "/status", http.StatusServiceUnavailable)
		check(when, "/metrics", http.StatusOK)
		if _, _, err := Fetch(t.Context(), addr); err == nil || !strings.Contains(err.Error(), when) {
			t.Errorf("%s: Fetch: %v", when, err)
		}
		h.SetReady(func() Status { return example }, func() (Live, error) { return exampleLive(), nil })
		check("up", "/readyz", http.StatusOK)
		check("up", "/status", http.StatusOK)
	}
	check("always", "/", http.StatusOK)
	check("always", "/nonsense", http.StatusNotFound)
	check("without profiles", "/debug/pprof/", http.StatusNotFound)
	if _, body := get(t, addr+"/metrics"); !strings.Contains(body, "peercache_test_total 0") {
		t.Errorf("metrics: %s", body)
	}
	if resp, err := http.Post("http://"+addr+"/status", "", nil); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %v, %v", resp, err)
	}
	_, addr = serve(t, true)
	check("with profiles", "/debug/pprof/heap", http.StatusOK)
}

func TestFetch(t *testing.T) {
	h, addr := serve(t, false)
	h.SetReady(func() Status { return example }, func() (Live, error) { return exampleLive(), nil })
	s, raw, err := Fetch(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, example) {
		t.Errorf("got %+v", s)
	}
	// The keys that programs rely on.
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"id", "addresses", "peers", "blobs.complete", "blobs.partial", "store.bytes", "store.max_bytes", "store.free_bytes",
		"received.peer", "received.origin", "served.store", "served.peer", "served.origin", "origins", "active", "version", "uptime_seconds",
	} {
		at := any(m)
		for key := range strings.SplitSeq(path, ".") {
			object, _ := at.(map[string]any)
			at = object[key]
		}
		if at == nil {
			t.Errorf("no %s in %s", path, raw)
		}
	}

	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") }))
	defer other.Close()
	if _, _, err := Fetch(t.Context(), strings.TrimPrefix(other.URL, "http://")); err == nil || !strings.Contains(err.Error(), "is not the admin address") {
		t.Errorf("another server: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, _, err := Fetch(ctx, "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no node answers at 127.0.0.1:1") {
		t.Errorf("nobody: %v", err)
	}
}

func TestRender(t *testing.T) {
	var b bytes.Buffer
	if err := example.Render(&b); err != nil {
		t.Fatal(err)
	}
	const want = `node       12D3KooWa
version    v1, up 4s
proxy      http://127.0.0.1:5050
bootstrap  /ip4/10.0.0.1/tcp/5051/p2p/12D3KooWa
           /ip6/::1/tcp/5051/p2p/12D3KooWa
blobs      3 complete, 1 partial
store      3.00 MiB of 50.0 GiB, 1.00 TiB free on the file system
received   1.00 MiB from peers, 2.00 MiB from origins
served     5.00 MiB from store, 6.00 MiB from peers, 7.00 MiB from origins
peers      1

PEER       ADDRESS                 CONNECTED  LATENCY
12D3KooWb  /ip4/10.0.0.2/tcp/5051  1m1s       1.2ms

BLOB                 SIZE      HERE  FROM STORE  FROM PEERS  FROM ORIGIN  NEIGHBOURS
sha256:0123456789ab  4.00 MiB  25%   0 B         1.00 MiB    0 B          1
sha256:aaaa          -         -     0 B         0 B         0 B          0

ORIGIN     ENDPOINT                      STATE  LAST ERROR
docker.io  https://registry-1.docker.io  open   timeout
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
