//go:build e2e && linux

package e2e

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// origin is a registry that does what a test scripts. It serves blobs and
// manifests of one repository, with Range; a script may take any request over.
type origin struct {
	addr string
	srv  *http.Server

	mu        sync.Mutex
	blobs     map[string][]byte // by digest
	manifests map[string]manifest
	script    script
	requests  []string
}

type manifest struct {
	mediaType string
	body      []byte
}

// script answers a request for content in the origin's stead, or returns false
// to leave it alone. n counts the requests for content before this one.
type script func(w http.ResponseWriter, r *http.Request, content []byte, n int) bool

// startOrigin starts a scripted origin, with no script.
func startOrigin(t testing.TB) *origin {
	t.Helper()
	o := &origin{blobs: map[string][]byte{}, manifests: map[string]manifest{}}
	o.srv = &http.Server{Handler: http.HandlerFunc(o.serve)}
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	o.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.srv.Serve(l)
	}()
	t.Cleanup(func() {
		o.srv.Close()
		<-done
		if t.Failed() {
			o.mu.Lock()
			defer o.mu.Unlock()
			t.Logf("the origin was asked for:\n%s", strings.Join(o.requests, "\n"))
		}
	})
	return o
}

func (o *origin) url() string { return "http://" + o.addr }

// add serves data as a blob, under its digest by the algorithm.
func (o *origin) add(algorithm string, data []byte) (digest string) {
	digest = digestOf(algorithm+":", data)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blobs[digest] = data
	return digest
}

// addManifest serves a manifest by its digest and by a tag.
func (o *origin) addManifest(tag, mediaType string, body []byte) (digest string) {
	digest = digestOf("sha256:", body)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.manifests[digest] = manifest{mediaType, body}
	o.manifests[tag] = manifest{mediaType, body}
	return digest
}

// play sets the script.
func (o *origin) play(s script) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.script = s
}

// asked returns how many requests for content came.
func (o *origin) asked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.requests)
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		w.WriteHeader(http.StatusOK)
		return
	}
	ref := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	o.mu.Lock()
	n, s := len(o.requests), o.script
	o.requests = append(o.requests, fmt.Sprintf("%s %s %s", r.Method, r.URL, r.Header.Get("Range")))
	content, found := o.blobs[ref], false
	mediaType := "application/octet-stream"
	if content != nil {
		found = strings.Contains(r.URL.Path, "/blobs/")
	} else if m, ok := o.manifests[ref]; ok {
		content, mediaType, found = m.body, m.mediaType, strings.Contains(r.URL.Path, "/manifests/")
	}
	o.mu.Unlock()
	if s != nil && s(w, r, content, n) {
		return
	}
	if !found {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	if mediaType != "application/octet-stream" {
		w.Header().Set("Docker-Content-Digest", digestOf("sha256:", content))
	}
	serveRange(w, r, content)
}

// serveRange answers with content or the part of it that a single range asks
// for.
func serveRange(w http.ResponseWriter, r *http.Request, content []byte) {
	start, end, ranged := rangeOf(r, len(content))
	w.Header().Set("Content-Length", strconv.Itoa(end-start))
	if ranged {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == http.MethodGet {
		w.Write(content[start:end])
	}
}

// rangeOf returns the part of n bytes that a request asks for.
func rangeOf(r *http.Request, n int) (start, end int, ranged bool) {
	spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok {
		return 0, n, false
	}
	from, to, _ := strings.Cut(spec, "-")
	start, err := strconv.Atoi(from)
	if err != nil || start >= n {
		return 0, n, false
	}
	end = n
	if last, err := strconv.Atoi(to); err == nil && last+1 < n {
		end = last + 1
	}
	return start, end, true
}
