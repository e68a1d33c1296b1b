package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestKindOf(t *testing.T) {
	const d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, c := range []struct {
		method, path, kind string
		blob               digest.Digest
	}{
		{"HEAD", "/v2/a/b/manifests/v1", headTag, ""},
		{"GET", "/v2/a/b/manifests/v1", getTag, ""},
		{"HEAD", "/v2/a/manifests/" + d, headManifest, ""},
		{"GET", "/v2/a/manifests/" + d, getManifest, ""},
		{"HEAD", "/v2/a/blobs/" + d, headBlob, ""},
		{"GET", "/v2/a/blobs/" + d, getBlob, d},
		{"GET", "/v2/a/manifests/blobs/" + d, getBlob, d}, // a repository a/manifests
		{"PUT", "/v2/a/manifests/v1", otherRequest, ""},
		{"GET", "/v2/a/tags/list", otherRequest, ""},
		{"GET", "/v2/", otherRequest, ""},
		{"OPTIONS", "*", otherRequest, ""},
	} {
		if kind, blob := kindOf(c.method, c.path); kind != c.kind || blob != c.blob {
			t.Errorf("%s %s: %s %s", c.method, c.path, kind, blob)
		}
	}
}

func TestRangeOf(t *testing.T) {
	for header, want := range map[string][2]int64{
		"": {0, -1}, "bytes=0-": {0, -1}, "bytes=5-9": {5, 9}, "bytes=7-": {7, -1}, "bytes=-5": {0, -1}, "items=1-2": {0, -1}, "bytes=x-2": {0, -1},
	} {
		if first, last := rangeOf(header); first != want[0] || last != want[1] {
			t.Errorf("%q: %d to %d, want %v", header, first, last, want)
		}
	}
}

func TestOverlaps(t *testing.T) {
	at := func(first, last int64) exchange { return exchange{blob: "b", first: first, last: last} }
	for _, c := range []struct {
		a, b exchange
		want bool
	}{
		{at(0, 9), at(9, 20), true}, {at(0, 9), at(10, 20), false}, {at(0, -1), at(10, 20), true}, {at(15, -1), at(10, 20), true},
		{at(21, -1), at(10, 20), false}, {at(0, -1), at(5, -1), true}, {at(0, 9), exchange{blob: "c", last: -1}, false},
	} {
		if c.a.overlaps(c.b) != c.want || c.b.overlaps(c.a) != c.want {
			t.Errorf("%v and %v: want %v", c.a, c.b, c.want)
		}
	}
}

// What the registry wrote is what the front counts, and nothing of it is changed.
func TestFront(t *testing.T) {
	body := strings.Repeat("x", 300_000)
	const d = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "secret"):
			http.Error(w, "no", http.StatusUnauthorized)
		case strings.Contains(r.URL.Path, "short"):
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			if _, err := io.WriteString(w, body[:100_000]); err != nil {
				t.Error(err)
			}
			w.(http.Flusher).Flush() // or nothing would come
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Docker-Content-Digest", d)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
		}
	}))
	defer registry.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	f := newFront(strings.TrimPrefix(registry.URL, "http://"), transport)
	s := httptest.NewServer(f)
	defer s.Close()
	ask := func(method, path, bounds string) (int, string, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if bounds != "" {
			req.Header.Set("Range", bounds)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(got), err
	}
	if status, got, err := ask("HEAD", "/v2/a/manifests/v1", ""); status != 200 || got != "" || err != nil {
		t.Errorf("HEAD: %d, %d bytes, %v", status, len(got), err)
	}
	if status, got, err := ask("GET", "/v2/a/blobs/"+d, ""); status != 200 || got != body || err != nil {
		t.Errorf("GET: %d, %d bytes, %v", status, len(got), err)
	}
	if status, got, err := ask("GET", "/v2/a/blobs/"+d, "bytes=10-19"); status != 206 || got != body[:10] || err != nil {
		t.Errorf("GET of a range: %d, %d bytes, %v", status, len(got), err)
	}
	if status, _, err := ask("GET", "/v2/secret/blobs/"+d, ""); status != 401 || err != nil {
		t.Errorf("GET of what is refused: %d, %v", status, err)
	}
	if status, got, err := ask("GET", "/v2/short/blobs/"+d, ""); status != 200 || len(got) > 100_000 || err == nil {
		t.Errorf("GET that breaks off: %d, %d bytes, %v; want an error", status, len(got), err)
	}
	c, list := f.snapshot()
	if want := int64(300_000 + 10); c.Bytes < want || c.Bytes > want+100_000 || c.ErrorBytes != 3 {
		t.Errorf("counted %d bytes and %d of errors", c.Bytes, c.ErrorBytes)
	}
	if got := c.Requests[getBlob]; got != (tally{OK: 3, Refused: 1}) {
		t.Errorf("GET of blobs: %+v", got)
	}
	if got := c.Requests[headTag]; got != (tally{OK: 1}) || c.manifests() != 1 {
		t.Errorf("HEAD by tag: %+v; manifests: %d", got, c.manifests())
	}
	if len(list) != 4 || list[1].first != 10 || list[1].last != 19 || list[1].wrote != 10 || list[1].from != "127.0.0.1" {
		t.Errorf("exchanges: %+v", list)
	}
	f.reset()
	if c, list := f.snapshot(); c.Bytes != 0 || len(c.Requests) != 0 || len(list) != 0 || len(f.reading()) != 0 {
		t.Errorf("after a reset: %+v, %d exchanges", c, len(list))
	}
}
