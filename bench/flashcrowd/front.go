package main

import (
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Kinds of requests, as they are counted.
const (
	headTag      = "HEAD manifest by tag"
	getTag       = "GET manifest by tag"
	headManifest = "HEAD manifest by digest"
	getManifest  = "GET manifest by digest"
	headBlob     = "HEAD blob"
	getBlob      = "GET blob"
	otherRequest = "other"
)

// tally counts requests of one kind.
type tally struct {
	OK      int `json:"ok"`                // 2xx
	Refused int `json:"refused,omitempty"` // 401, 403
	Other   int `json:"other,omitempty"`
}

func (t tally) all() int { return t.OK + t.Refused + t.Other }

// counts is what passed through a front.
type counts struct {
	// Bytes is the body bytes of 2xx responses that were written towards nodes,
	// also of those that broke off. What a dead node's kernel never took counts.
	Bytes      int64            `json:"bytes"`
	ErrorBytes int64            `json:"error_body_bytes"`
	Requests   map[string]tally `json:"requests"`
}

func (c counts) manifests() (n int) {
	for _, kind := range []string{headTag, getTag, headManifest, getManifest} {
		n += c.Requests[kind].all()
	}
	return n
}

// exchange is one GET of a blob.
type exchange struct {
	from        string // IP address
	blob        digest.Digest
	first, last int64 // bytes that were asked for; last is -1 for all
	began       time.Time
	wrote       int64
	open        bool
}

// overlaps reports whether both ask for some of the same bytes.
func (e exchange) overlaps(o exchange) bool {
	return e.blob == o.blob && (e.last < 0 || o.first <= e.last) && (o.last < 0 || e.first <= o.last)
}

// front is a reverse proxy that passes requests on to the registry as they are,
// and counts. It is safe for concurrent use.
type front struct {
	registry  string // host:port
	transport http.RoundTripper
	buffers   sync.Pool
	temper    *temper // nil: it takes all there is

	mu        sync.Mutex
	counts    counts
	exchanges []*exchange // in the order in which they began
	written   time.Time   // when a body byte was written last
	watched   time.Time   // from when on silence is measured, zero for not
	silence   time.Duration
}

func newFront(registry string, t http.RoundTripper) *front {
	f := &front{registry: registry, transport: t, buffers: sync.Pool{New: func() any { return new([64 << 10]byte) }}}
	f.reset()
	return f
}

// reset forgets what was counted.
func (f *front) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts = counts{Requests: map[string]tally{}}
	f.exchanges, f.written, f.watched, f.silence = nil, time.Time{}, time.Time{}, 0
	f.temper.forget()
}

// snapshot returns what was counted so far.
func (f *front) snapshot() (counts, []exchange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.counts
	c.Requests = maps.Clone(c.Requests)
	list := make([]exchange, len(f.exchanges))
	for i, e := range f.exchanges {
		list[i] = *e
	}
	return c, list
}

// bytes returns the body bytes so far.
func (f *front) bytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts.Bytes
}

// reading returns the exchanges that are not over.
func (f *front) reading() []exchange {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []exchange
	for _, e := range f.exchanges {
		if e.open {
			list = append(list, *e)
		}
	}
	return list
}

// watch begins to measure how long at most no body byte is written. What comes
// after the last byte of all does not count.
func (f *front) watch() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watched = time.Now()
}

// longestSilence returns what watch began.
func (f *front) longestSilence() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.silence
}

// kindOf says what is asked for.
func kindOf(method, path string) (kind string, blob digest.Digest) {
	at := strings.LastIndex(path, "/")
	if at < 0 {
		return otherRequest, ""
	}
	reference, get, head := path[at+1:], method == http.MethodGet, method == http.MethodHead
	switch of, isDigest := path[:at], strings.Contains(reference, ":"); {
	case strings.HasSuffix(of, "/manifests") && head && isDigest:
		return headManifest, ""
	case strings.HasSuffix(of, "/manifests") && head:
		return headTag, ""
	case strings.HasSuffix(of, "/manifests") && get && isDigest:
		return getManifest, ""
	case strings.HasSuffix(of, "/manifests") && get:
		return getTag, ""
	case strings.HasSuffix(of, "/blobs") && head && isDigest:
		return headBlob, ""
	case strings.HasSuffix(of, "/blobs") && get && isDigest:
		return getBlob, digest.Digest(reference)
	}
	return otherRequest, ""
}

// rangeOf returns the first and the last byte that a Range header asks for; last
// is -1 for the end.
func rangeOf(header string) (first, last int64) {
	bounds, ok := strings.CutPrefix(header, "bytes=")
	from, to, found := strings.Cut(bounds, "-")
	if !ok || !found {
		return 0, -1
	}
	first, err := strconv.ParseInt(from, 10, 64)
	if err != nil {
		return 0, -1
	}
	if last, err = strconv.ParseInt(to, 10, 64); err != nil {
		return first, -1
	}
	return first, last
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	kind, blob := kindOf(req.Method, req.URL.Path)
	var e *exchange
	ip, _, err := net.SplitHostPort(req.RemoteAddr)
	if err != nil {
		ip = req.RemoteAddr
	}
	mood, leave := f.temper.meet(req.Context(), ip, strings.Contains(kind, "manifest"))
	defer leave()
	if mood.cut == 1 {
		panic(http.ErrAbortHandler)
	}
	if mood.status != 0 {
		f.count(kind, mood.status)
		mood.refuse(w)
		return
	}
	if blob != "" {
		e = &exchange{from: ip, blob: blob, began: time.Now(), open: true}
		e.first, e.last = rangeOf(req.Header.Get("Range"))
		f.mu.Lock()
		f.exchanges = append(f.exchanges, e)
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			e.open = false
			f.mu.Unlock()
		}()
	}
	on := req.Clone(req.Context())
	on.URL.Scheme, on.URL.Host, on.RequestURI = "http", f.registry, ""
	resp, err := f.transport.RoundTrip(on)
	if err != nil {
		f.count(kind, http.StatusBadGateway)
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	f.count(kind, resp.StatusCode)
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	buf := f.buffers.Get().(*[64 << 10]byte)
	defer f.buffers.Put(buf)
	body := io.Reader(resp.Body)
	if mood.cut > 0 && resp.ContentLength > 0 {
		body = io.MultiReader(io.LimitReader(body, resp.ContentLength/int64(mood.cut)), broken{})
	}
	out := &countingWriter{f.temper.pace(req.Context(), w, ip), f, e, resp.StatusCode/100 == 2}
	if _, err := io.CopyBuffer(out, body, buf[:]); err != nil {
		if mood.cut > 0 {
			_ = http.NewResponseController(w).Flush() // what was sent arrives before the end does
		}
		// Whoever reads must see that something is missing.
		panic(http.ErrAbortHandler)
	}
}

func (f *front) count(kind string, status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.counts.Requests[kind]
	switch {
	case status/100 == 2:
		t.OK++
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		t.Refused++
	default:
		t.Other++
	}
	f.counts.Requests[kind] = t
}

// countingWriter counts what it wrote. It is no io.ReaderFrom on purpose: a
// number that comes after the whole body would come too late.
type countingWriter struct {
	w  io.Writer
	f  *front
	e  *exchange // nil where it is no blob
	ok bool
}

// Write implements io.Writer.
func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	now := time.Now()
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if !c.ok {
		c.f.counts.ErrorBytes += int64(n)
		return n, err
	}
	c.f.counts.Bytes += int64(n)
	if c.e != nil {
		c.e.wrote += int64(n)
	}
	if !c.f.watched.IsZero() {
		since := c.f.watched
		if c.f.written.After(since) {
			since = c.f.written
		}
		c.f.silence = max(c.f.silence, now.Sub(since))
	}
	c.f.written = now
	return n, err
}
