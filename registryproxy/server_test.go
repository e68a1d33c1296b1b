package registryproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// countingConn counts how bytes of responses reach the TCP connection: those
// that its ReadFrom takes from a file (which is when package net uses sendfile),
// and all others.
type countingConn struct {
	*net.TCPConn
	counts *connCounts
}

type connCounts struct {
	mu                   sync.Mutex
	fromFile, fromMemory int64
}

func (c *countingConn) ReadFrom(r io.Reader) (int64, error) {
	source := r
	if limited, ok := r.(*io.LimitedReader); ok {
		source = limited.R // what package net looks through, and no further
	}
	_, isFile := source.(file)
	n, err := c.TCPConn.ReadFrom(r)
	c.counts.mu.Lock()
	defer c.counts.mu.Unlock()
	if isFile {
		c.counts.fromFile += n
	} else {
		c.counts.fromMemory += n
	}
	return n, err
}

func (c *countingConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	c.counts.mu.Lock()
	defer c.counts.mu.Unlock()
	c.counts.fromMemory += int64(n)
	return n, err
}

type countingListener struct {
	net.Listener
	counts connCounts
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{conn.(*net.TCPConn), &l.counts}, nil
}

// fileContent serves a section of a file as a store would.
type fileContent struct {
	content
	f     *os.File
	limit int64 // of an io.LimitedReader; 0: none
}

func (c *fileContent) WriteTo(w io.Writer) (int64, error) {
	if c.limit > 0 {
		return io.Copy(w, &io.LimitedReader{R: c.f, N: c.limit})
	}
	return io.Copy(w, c.f)
}

func (c *fileContent) Close() error { return c.f.Close() }

func openFile(t *testing.T, path string, r *ByteRange, limited bool) (Content, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		t.Error(err)
	}
	off, n := int64(0), info.Size()
	if r != nil {
		off, n, _ = r.Resolve(n)
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		t.Error(err)
	}
	opened := &fileContent{content: content{size: info.Size(), off: off, n: n}, f: f}
	if limited {
		opened.limit = n
	}
	return opened, nil
}

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Files reach the kernel as files: a wrapper that hid io.ReaderFrom, or a reader
// that hid the file, would send their bytes through memory and fail this.
func TestSendfile(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 9<<20/16) // more than two pieces
	path := writeFile(t, blob)
	for _, c := range []struct {
		name    string
		header  string
		limited bool
		want    []byte
	}{
		{"whole", "", false, blob},
		{"limited", "", true, blob},
		{"range", "bytes=1000-5000999", true, blob[1000:5001000]},
		{"suffix", "bytes=-100000", false, blob[len(blob)-100000:]},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newMemory()
			b.open = func(_ context.Context, _ Ref, r *ByteRange) (Content, error) { return openFile(t, path, r, c.limited) }
			s := httptest.NewUnstartedServer(nil)
			s.Config = NewServer(newProxy(t, b, nil), nil)
			l := &countingListener{Listener: s.Listener}
			s.Listener = l
			s.Start()
			defer s.Close()
			req, err := http.NewRequest("GET", s.URL+"/v2/a/blobs/"+sha256, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.header != "" {
				req.Header.Set("Range", c.header)
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if body := bodyOf(t, resp); body != string(c.want) {
				t.Fatalf("got %d bytes that differ", len(body))
			}
			s.Close()
			// net/http itself copies the first 512 bytes, with the headers.
			if got, want := l.counts.fromFile, int64(len(c.want)-512); got != want {
				t.Errorf("%d bytes went from file to connection in the kernel, want %d", got, want)
			}
			if l.counts.fromMemory > 4096 {
				t.Errorf("%d bytes went through memory", l.counts.fromMemory)
			}
		})
	}
}

// ReadFrom keeps to the promised length, which net/http does not check there:
// what is beyond it would be taken for the next response on the connection.
func TestFileOfWrongLength(t *testing.T) {
	path := writeFile(t, bytes.Repeat([]byte{'x'}, 200<<10))
	const size = 200 << 10
	for _, c := range []struct {
		promised, limit int64 // limit 0: the file as it is
		clean           bool
	}{
		{size, 0, true},
		{size, size, true},
		{size, size + 1, true}, // no more to come, whatever the limit
		{size - 1, size - 1, true},
		{size - 1, 0, false},
		{size - 1, size, false},
		{100 << 10, 0, false},
		{size + 1, 0, false},
		{size + 1, size + 1, false},
	} {
		b := newMemory()
		b.open = func(context.Context, Ref, *ByteRange) (Content, error) {
			opened, err := openFile(t, path, nil, c.limit > 0)
			if err != nil {
				return nil, err
			}
			fc := opened.(*fileContent)
			fc.size, fc.n, fc.limit = c.promised, c.promised, c.limit
			return fc, nil
		}
		reg := prometheus.NewRegistry()
		s := serve(t, newProxy(t, b, &Options{Registerer: reg}))
		// Two requests on one connection, if it lives.
		conn := raw(t, s, "GET /v2/a/blobs/"+sha256+" HTTP/1.1\r\nHost: x\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		all, _ := io.ReadAll(conn)
		_, after, _ := bytes.Cut(all, []byte("\r\n\r\n"))
		next := bytes.Index(after, []byte("HTTP/1.1 200"))
		switch {
		case c.clean && int64(next) != c.promised:
			t.Errorf("promised %d, limit %d: next response after %d bytes", c.promised, c.limit, next)
		case !c.clean && (next >= 0 || int64(len(after)) > c.promised):
			t.Errorf("promised %d, limit %d: %d bytes, next response after %d", c.promised, c.limit, len(after), next)
		}
		s.Close()
		if got, want := counts(t, reg, "peercache_proxy_aborted"), fmt.Sprintf("proxy %d", map[bool]int{true: 0, false: 1}[c.clean]); !strings.HasSuffix(got, want) {
			t.Errorf("promised %d, limit %d: counted %s", c.promised, c.limit, got)
		}
	}
}

// raw sends bytes to a server and returns what comes back.
func raw(t *testing.T, s *httptest.Server, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Logf("write: %v", err) // the server may have had enough
	}
	return conn
}

func TestHugeHeadersAreRefused(t *testing.T) {
	b := newMemory()
	s := serve(t, newProxy(t, b, nil))
	for name, request := range map[string]string{
		"header": "GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: " + strings.Repeat("a", 10<<20) + "\r\n\r\n",
		"many":   "GET /v2/ HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("Accept: a/b\r\n", 10<<20/13) + "\r\n",
		"path":   "GET /v2/" + strings.Repeat("a/", 5<<20) + "manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn := raw(t, s, request)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		// The server closes while the client still writes, so that its answer may
		// be lost to a reset.
		if err == nil {
			if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s: got %d", name, resp.StatusCode)
			}
			resp.Body.Close()
		}
		conn.Close()
	}
	if calls := b.took(); calls != "" {
		t.Errorf("backend was asked: %s", calls)
	}
}

func TestRequestsWithABody(t *testing.T) {
	b := newMemory()
	s := serve(t, newProxy(t, b, nil))
	for request, status := range map[string]int{
		// The body never comes: the answer may not wait for it.
		"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n":                                                     405,
		"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n":                                               405,
		"GET /v2/a/blobs/" + sha256 + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n":                                                   400,
		"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n":                                   405,
		"GET /v2/a/blobs/" + sha256 + " HTTP/1.1\r\nHost: x\r\nContent-Length: 46\r\n\r\nGET /v2/smuggled HTTP/1.1\r\nHost: x\r\n\r\n12345": 400,
	} {
		conn := raw(t, s, request)
		answer := bufio.NewReader(conn)
		resp, err := http.ReadResponse(answer, nil)
		if err != nil {
			t.Fatalf("%.60q: %v", request, err)
		}
		if resp.StatusCode != status || !resp.Close {
			t.Errorf("%.60q: got %d, close %v", request, resp.StatusCode, resp.Close)
		}
		bodyOf(t, resp)
		if rest, _ := io.ReadAll(answer); len(rest) > 0 {
			t.Errorf("%.60q: also got %q", request, rest)
		}
		conn.Close()
	}
	if calls := b.took(); calls != "" {
		t.Errorf("backend was asked: %s", calls)
	}
}

// A client that goes away ends its request's context, also while nothing is
// being written, and gets no empty 200 if it has closed just its own half.
func TestClientGone(t *testing.T) {
	b := newMemory()
	opened := make(chan struct{}, 2)
	b.open = func(ctx context.Context, _ Ref, _ *ByteRange) (Content, error) {
		opened <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	reg := prometheus.NewRegistry()
	s := serve(t, newProxy(t, b, &Options{Registerer: reg}))
	request := "GET /v2/a/blobs/" + sha256 + " HTTP/1.1\r\nHost: x\r\n\r\n"

	conn := raw(t, s, request)
	<-opened
	conn.Close()

	conn = raw(t, s, request)
	<-opened
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(conn); len(got) > 0 {
		t.Errorf("got %q", got)
	}
	s.Close() // waits for the handlers
	if got := counts(t, reg, "peercache_proxy_requests"); got != "peercache_proxy_requests_total 499 blob 2" {
		t.Errorf("counted %s", got)
	}
	if got := counts(t, reg, "peercache_proxy_aborted"); got != "peercache_proxy_aborted_total client 2\npeercache_proxy_aborted_total proxy 0" {
		t.Errorf("counted %s", got)
	}
}

// A client that takes nothing is let go of; one that takes little, is not.
func TestClientThatTakesNothing(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 32<<20/16) // more than sockets buffer
	path := writeFile(t, blob)
	for _, fromFile := range []bool{true, false} {
		t.Run(fmt.Sprint("file ", fromFile), func(t *testing.T) {
			b := newMemory()
			opened := make(chan struct{}, 1)
			b.open = func(_ context.Context, _ Ref, r *ByteRange) (Content, error) {
				opened <- struct{}{}
				if fromFile {
					return openFile(t, path, r, true)
				}
				return &content{Reader: bytes.NewReader(blob), size: int64(len(blob)), n: int64(len(blob))}, nil
			}
			reg := prometheus.NewRegistry()
			s := serve(t, newProxy(t, b, &Options{Registerer: reg, ClientTimeout: 200 * time.Millisecond}))
			conn := raw(t, s, "GET /v2/a/blobs/"+sha256+" HTTP/1.1\r\nHost: x\r\n\r\n")
			<-opened
			s.Close() // waits for the handler, or for ever
			if got := counts(t, reg, "peercache_proxy_aborted"); got != "peercache_proxy_aborted_total client 1\npeercache_proxy_aborted_total proxy 0" {
				t.Errorf("counted %s", got)
			}
			got, err := io.Copy(io.Discard, conn)
			if got >= int64(len(blob)) {
				t.Errorf("got all %d bytes, %v", got, err)
			}
		})
	}
}

// slowServer is a server's ResponseWriter that takes a little of a file in each
// deadline's time, as a TCP connection does: an error, and some progress.
type slowServer struct {
	*httptest.ResponseRecorder
	step      int64
	deadlines int
}

func (s *slowServer) SetWriteDeadline(time.Time) error {
	s.deadlines++
	return nil
}

func (s *slowServer) ReadFrom(r io.Reader) (int64, error) {
	limited := r.(*io.LimitedReader)
	n, err := io.Copy(struct{ io.Writer }{s.ResponseRecorder}, io.LimitReader(limited, s.step))
	if err == nil && limited.N > 0 && s.Body.Len() > firstPiece {
		err = &net.OpError{Op: "readfrom", Err: os.ErrDeadlineExceeded}
	}
	return n, err
}

func TestSlowClientThatGoesOn(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	path := writeFile(t, blob)
	b := newMemory()
	b.open = func(_ context.Context, _ Ref, r *ByteRange) (Content, error) { return openFile(t, path, r, true) }
	p := newProxy(t, b, nil)
	w := &slowServer{ResponseRecorder: httptest.NewRecorder(), step: 100 << 10}
	p.ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/blobs/"+sha256, nil))
	if !bytes.Equal(w.Body.Bytes(), blob) {
		t.Errorf("got %d of %d bytes", w.Body.Len(), len(blob))
	}
	if w.deadlines < 10 {
		t.Errorf("%d deadlines set", w.deadlines)
	}

	// No progress at all is the end.
	w = &slowServer{ResponseRecorder: httptest.NewRecorder(), step: 0}
	w.Body.Write(make([]byte, firstPiece+1))
	if !aborts(func() { p.ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/blobs/"+sha256, nil)) }) {
		t.Error("not broken off")
	}
}

func aborts(f func()) (aborted bool) {
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			aborted = true
		}
	}()
	f()
	return false
}

// A Backend that is silent for too long: an error before the first byte, a
// broken connection after it. Time in which only the client is waited for does
// not count.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemory()
		p := newProxy(t, b, &Options{StallTimeout: 30 * time.Second})
		get := func() (*httptest.ResponseRecorder, bool, time.Duration) {
			w, started := httptest.NewRecorder(), time.Now()
			aborted := aborts(func() { p.ServeHTTP(w, httptest.NewRequest("GET", "/v2/a/blobs/"+sha256, nil)) })
			return w, aborted, time.Since(started)
		}

		b.open = func(ctx context.Context, _ Ref, _ *ByteRange) (Content, error) {
			<-ctx.Done()
			return nil, foreign{status: 418} // whatever it makes of it
		}
		w, aborted, took := get()
		if aborted || took != 30*time.Second {
			t.Errorf("aborted %v after %v", aborted, took)
		}
		wantCode(t, w.Result(), http.StatusGatewayTimeout, "UNAVAILABLE")

		// Each byte starts the time anew.
		silence := []time.Duration{20 * time.Second, 29 * time.Second, 29 * time.Second}
		b.open = func(ctx context.Context, _ Ref, _ *ByteRange) (Content, error) {
			return &content{Reader: &pausing{ctx: ctx, pauses: silence}, size: 4, n: 4}, nil
		}
		w, aborted, took = get()
		if !aborted || took != (20+29+29+30)*time.Second || w.Body.String() != "xxx" {
			t.Errorf("aborted %v after %v with %q", aborted, took, w.Body)
		}
		silence = append(silence, time.Second)
		if w, aborted, _ = get(); aborted || w.Code != 200 || w.Body.String() != "xxxx" {
			t.Errorf("aborted %v, got %d %q", aborted, w.Code, w.Body)
		}
	})
}

// pausing delivers a byte after each pause, and then nothing until its context
// ends, or the end if there were four.
type pausing struct {
	ctx    context.Context
	pauses []time.Duration
	sent   int
}

func (r *pausing) Read(p []byte) (int, error) {
	if r.sent == 4 {
		return 0, io.EOF
	}
	if r.sent == len(r.pauses) {
		<-r.ctx.Done()
		return 0, r.ctx.Err()
	}
	select {
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	case <-time.After(r.pauses[r.sent]):
	}
	r.sent++
	p[0] = 'x'
	return 1, nil
}

func TestTooManyRequests(t *testing.T) {
	b := newMemory()
	d := b.put(someBlob)
	entered, leave := make(chan struct{}), make(chan struct{})
	b.open = func(context.Context, Ref, *ByteRange) (Content, error) {
		entered <- struct{}{}
		<-leave
		return nil, &Error{Status: 404, Message: "done"}
	}
	p := newProxy(t, b, &Options{MaxRequests: 2})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { wantCode(t, ask(p, "GET", "/v2/a/blobs/"+sha256), 404, "BLOB_UNKNOWN") })
		<-entered
	}
	resp := ask(p, "GET", "/v2/")
	wantHeaders(t, resp.Header, "Retry-After: 1")
	wantCode(t, resp, 503, "TOOMANYREQUESTS")
	close(leave)
	wg.Wait()
	if resp := ask(p, "HEAD", "/v2/a/blobs/"+string(d)); resp.StatusCode != 200 {
		t.Errorf("afterwards: got %d", resp.StatusCode)
	}
}

// Small first bytes go out at once: what is to come may take its time.
func TestFirstBytesAreNotHeldBack(t *testing.T) {
	b := newMemory()
	more := make(chan struct{})
	b.open = func(context.Context, Ref, *ByteRange) (Content, error) {
		return &content{Reader: io.MultiReader(strings.NewReader("0123"), waiting{more}, strings.NewReader("4567")), size: 8, n: 8}, nil
	}
	s := serve(t, newProxy(t, b, nil))
	resp, err := s.Client().Get(s.URL + "/v2/a/blobs/" + sha256)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "0123" {
		t.Fatalf("got %q, %v", first, err)
	}
	close(more)
	if rest := bodyOf(t, resp); rest != "4567" {
		t.Errorf("got %q", rest)
	}
}

// waiting ends when its channel is closed.
type waiting struct{ until chan struct{} }

func (w waiting) Read([]byte) (int, error) {
	<-w.until
	return 0, io.EOF
}

// The write deadline of one request does not reach into the next one on the
// same connection.
func TestKeepAliveOutlivesTheClientTimeout(t *testing.T) {
	b := newMemory()
	d := b.put(someBlob)
	s := serve(t, newProxy(t, b, &Options{ClientTimeout: 50 * time.Millisecond}))
	conn := raw(t, s, "")
	answer := bufio.NewReader(conn)
	for i := range 2 {
		if i > 0 {
			<-time.After(60 * time.Millisecond) // the deadline passes; there is no event to wait for
		}
		if _, err := io.WriteString(conn, "GET /v2/a/blobs/"+string(d)+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answer, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body := bodyOf(t, resp); body != string(someBlob) {
			t.Errorf("got %q", body)
		}
	}
}
