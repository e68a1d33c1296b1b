//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// kind says what a request to a registry asks for.
type kind string

const (
	manifestKind kind = "manifest"
	blobKind     kind = "blob"
	otherKind    kind = "other"
)

func kindOf(path string) kind {
	switch {
	case strings.Contains(path, "/manifests/"):
		return manifestKind
	case strings.Contains(path, "/blobs/"):
		return blobKind
	}
	return otherKind
}

// count is what a front saw of one kind: requests that reached the registry,
// and body bytes that it wrote, those of aborted responses included.
type count struct {
	requests int
	bytes    int64
}

// front stands before a registry, counts what passes and can be slow or out of
// order. It is the only way by which nodes and clients reach the registry.
type front struct {
	addr string // host:port

	mu       sync.Mutex
	counts   map[kind]count
	reading  int              // responses with bodies of blobs that are under way
	requests []string         // method, path, Range: for a failing test's log
	paths    map[string]int64 // body bytes by path
	status   int              // answer everything with this, if not 0
	rate     int64            // body bytes a second each response, 0: no limit
	srv      *http.Server
}

// startFront starts a front before target, a host:port. It listens on addr, or
// where it finds a port if addr is "".
func startFront(t testing.TB, target, addr string) *front {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	f := &front{counts: map[kind]count{}, paths: map[string]int64{}}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	proxy.Transport = &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	proxy.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
		if r.Context().Err() == nil {
			w.WriteHeader(http.StatusBadGateway)
		}
	}
	f.srv = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.serve(proxy, w, r) }),
		// net/http logs aborted responses, which are the point of some tests.
		ErrorLog: nil,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			// What is written into a socket's buffer counts as written by the
			// registry, read or not: keep that small.
			c.(*net.TCPConn).SetWriteBuffer(64 << 10)
			return ctx
		},
	}
	l := must[net.Listener](t)(net.Listen("tcp", addr))
	f.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.srv.Serve(l)
	}()
	t.Cleanup(func() {
		f.close()
		<-done
		proxy.Transport.(*http.Transport).CloseIdleConnections()
		if t.Failed() {
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Logf("the registry was asked for:\n%s", strings.Join(f.requests, "\n"))
		}
	})
	return f
}

// close stops the front: connections are refused from now on.
func (f *front) close() { f.srv.Close() }

func (f *front) url() string { return "http://" + f.addr }

// answer makes the front answer everything with a status; 0 ends that.
func (f *front) answer(status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status = status
}

// limit bounds the rate of each response; 0 ends that.
func (f *front) limit(bytesPerSecond int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rate = bytesPerSecond
}

// seen returns what was counted so far.
func (f *front) seen(k kind) count {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[k]
}

// bytesOf returns the body bytes that went out for paths that end so.
func (f *front) bytesOf(suffix string) (n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path, bytes := range f.paths {
		if strings.HasSuffix(path, suffix) {
			n += bytes
		}
	}
	return n
}

// saw reports whether a request had a Range.
func (f *front) saw(r string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.ContainsFunc(f.requests, func(line string) bool { return strings.HasSuffix(line, " "+r) })
}

// asked counts the requests of a method for paths that end so.
func (f *front) asked(method, suffix string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, line := range f.requests {
		fields := strings.Fields(line) // time, method, path, perhaps Range
		if fields[1] == method && strings.HasSuffix(fields[2], suffix) {
			n++
		}
	}
	return n
}

// read adds to the responses with bodies of blobs that are under way.
func (f *front) read(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading += n
}

// isRead reports whether a body of a blob is under way.
func (f *front) isRead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.reading > 0
}

// reset starts counting anew.
func (f *front) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.counts)
	clear(f.paths)
}

func (f *front) serve(proxy http.Handler, w http.ResponseWriter, r *http.Request) {
	k := kindOf(r.URL.Path)
	f.mu.Lock()
	c := f.counts[k]
	c.requests++
	f.counts[k] = c
	f.requests = append(f.requests, fmt.Sprintf("%s %s %s %s", time.Now().Format("05.000"), r.Method, r.URL.Path, r.Header.Get("Range")))
	status := f.status
	f.mu.Unlock()
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	if k == blobKind && r.Method == http.MethodGet {
		f.read(1)
		defer f.read(-1)
	}
	proxy.ServeHTTP(&countingWriter{ResponseWriter: w, f: f, kind: k, path: r.URL.Path, ctx: r.Context()}, r)
}

type countingWriter struct {
	http.ResponseWriter
	f    *front
	kind kind
	path string
	ctx  context.Context
}

// Unwrap lets net/http flush.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *countingWriter) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		piece := p[written:]
		w.f.mu.Lock()
		rate := w.f.rate
		w.f.mu.Unlock()
		if rate > 0 {
			piece = piece[:min(len(piece), 16<<10)]
			select {
			case <-w.ctx.Done():
				return written, w.ctx.Err()
			case <-time.After(time.Duration(int64(len(piece)) * int64(time.Second) / rate)):
			}
		}
		n, err := w.ResponseWriter.Write(piece)
		written += n
		w.f.mu.Lock()
		c := w.f.counts[w.kind]
		c.bytes += int64(n)
		w.f.counts[w.kind] = c
		w.f.paths[w.path] += int64(n)
		w.f.mu.Unlock()
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

var _ io.Writer = (*countingWriter)(nil)
