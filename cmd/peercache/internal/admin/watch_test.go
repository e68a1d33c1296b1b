package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ready makes a handler serve the example, whose clock moves with each snapshot.
func ready(h *Handler) *atomic.Int64 {
	var taken atomic.Int64
	h.SetReady(func() Status { return example }, func() (Live, error) {
		l := exampleLive()
		l.AtSeconds = float64(taken.Add(1))
		return l, nil
	})
	return &taken
}

// open starts a watcher of the raw stream.
func open(t *testing.T, addr string) (*http.Response, *bufio.Scanner) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp, bufio.NewScanner(resp.Body)
}

// free waits until nobody watches.
func free(t *testing.T, h *Handler) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for len(h.watchers) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d still watch", len(h.watchers))
		}
		runtime.Gosched()
	}
}

func TestStream(t *testing.T) {
	h, addr := serve(t, false)
	if code, _ := get(t, addr+"/watch"); code != 503 {
		t.Errorf("a stream of a node that starts: %d", code)
	}
	ready(h)
	resp, lines := open(t, addr)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	for want := 1.0; want <= 3; want++ {
		lines.Scan()
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var l Live
		if err := json.Unmarshal([]byte(data), &l); !ok || err != nil || l.AtSeconds != want {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		l.AtSeconds = exampleLive().AtSeconds
		if !reflect.DeepEqual(l.Blobs[0], exampleLive().Blobs[0]) {
			t.Errorf("%+v", l)
		}
		if lines.Scan(); lines.Text() != "" {
			t.Errorf("%q after an event", lines.Text())
		}
	}
	// A snapshot that cannot be had is a comment.
	h.SetReady(func() Status { return example }, func() (Live, error) { return Live{}, errors.New("busy") })
	for lines.Scan() {
	}
	_, lines = open(t, addr)
	if lines.Scan(); !strings.HasPrefix(lines.Text(), ":") {
		t.Errorf("%q", lines.Text())
	}
	// The node stops: so does the stream, and says so.
	h.SetUnready("stopping")
	var last []string
	for lines.Scan() {
		last = append(last, lines.Text())
	}
	if got := strings.Join(last, "|"); lines.Err() != nil || !strings.HasSuffix(got, `event: end|data: "stopping"|`) {
		t.Errorf("%q, %v", got, lines.Err())
	}
	free(t, h)
}

// There are only so many watchers, and one that goes makes room.
func TestWatchersAreBounded(t *testing.T) {
	h, addr := serve(t, false)
	ready(h)
	var first *http.Response
	for i := range maxWatchers {
		resp, lines := open(t, addr)
		if !lines.Scan() {
			t.Fatalf("watcher %d: %s", i, resp.Status)
		}
		if first == nil {
			first = resp
		}
	}
	if code, body := get(t, addr+"/watch"); code != 429 || !strings.Contains(body, "16 are watching already") {
		t.Errorf("one too many: %d %s", code, body)
	}
	if err := Watch(t.Context(), addr, nil); err == nil || !strings.Contains(err.Error(), "16 are watching already") {
		t.Errorf("one too many: %v", err)
	}
	first.Body.Close()
	deadline := time.Now().Add(30 * time.Second)
	for {
		if resp, _ := open(t, addr); resp.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no room after one has gone")
		}
	}
	if code, _ := get(t, addr+"/status"); code != 200 {
		t.Errorf("status beside the watchers: %d", code)
	}
	h.SetUnready("stopping")
	free(t, h)
}

// A watcher that does not read holds up nobody.
func TestSlowWatcher(t *testing.T) {
	h := NewHandler(prometheus.NewRegistry(), quiet, false)
	big := exampleLive()
	big.Version = strings.Repeat("x", 4<<20)
	h.SetReady(func() Status { return example }, func() (Live, error) { return big, nil })
	s := httptest.NewServer(h)
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(4096)
	io.WriteString(conn, "GET /watch HTTP/1.1\r\nHost: x\r\n\r\n")
	// Another watcher sees event after event meanwhile.
	_, lines := open(t, s.Listener.Addr().String())
	lines.Buffer(nil, maxEvent)
	for range 2 * 4 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
	}
	// The server's end closes its connection.
	h.SetUnready("stopping")
	s.CloseClientConnections()
	free(t, h)
}

// stuck is a connection that takes nothing until its deadline.
type stuck struct {
	http.ResponseWriter
	deadline time.Time
}

func (s *stuck) SetWriteDeadline(t time.Time) error { s.deadline = t; return nil }
func (s *stuck) Write([]byte) (int, error) {
	time.Sleep(time.Until(s.deadline))
	return 0, os.ErrDeadlineExceeded
}

// A watcher that takes nothing at all is let go of.
func TestStuckWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHandler(prometheus.NewRegistry(), quiet, false)
		ready(h)
		start := time.Now()
		h.ServeHTTP(&stuck{ResponseWriter: httptest.NewRecorder()}, httptest.NewRequest("GET", "/watch", nil))
		if took := time.Since(start); took != watchWrite || len(h.watchers) != 0 {
			t.Errorf("it ended after %s, and %d watch", took, len(h.watchers))
		}
	})
}

func TestWatch(t *testing.T) {
	h, addr := serve(t, false)
	if err := Watch(t.Context(), addr, nil); !errors.Is(err, ErrNotServing) || !strings.Contains(err.Error(), "is not serving: starting") {
		t.Errorf("starting: %v", err)
	}
	ready(h)
	n := 0
	err := Watch(t.Context(), addr, func(l Live, raw []byte) error {
		var again Live
		if err := json.Unmarshal(raw, &again); err != nil || !reflect.DeepEqual(l, again) || l.ID != self {
			t.Errorf("%+v: %v", l, err)
		}
		if n++; n == 2 {
			h.SetUnready("stopping")
		}
		return nil
	})
	if n != 2 || err == nil || !strings.Contains(err.Error(), "has gone: it stops") {
		t.Errorf("%d snapshots, then %v", n, err)
	}
	ready(h)
	enough := errors.New("enough")
	if err := Watch(t.Context(), addr, func(Live, []byte) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = Watch(ctx, addr, func(Live, []byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	free(t, h)
}

// Streams that no node sends.
func TestReadEvents(t *testing.T) {
	for _, test := range []struct {
		stream string
		want   []string
		err    error
	}{
		{"", nil, io.ErrUnexpectedEOF},
		{": hello\n\ndata: 1\n\ndata:2\n\n", []string{" 1", " 2"}, io.ErrUnexpectedEOF},
		{"event: end\ndata: x\n\ndata: y\n\n", []string{"end x", " y"}, io.ErrUnexpectedEOF},
		{"retry: 7\nid: 3\ndata: 1\r\n\r\n", []string{" 1"}, io.ErrUnexpectedEOF},
		{"\n\n\nevent: end\n\ndata: 1\n\n", []string{" 1"}, io.ErrUnexpectedEOF},
		{"data: cut off", nil, io.ErrUnexpectedEOF},
		{"data: " + strings.Repeat("x", maxEvent) + "\n\n", nil, bufio.ErrTooLong},
	} {
		var got []string
		err := readEvents(strings.NewReader(test.stream), func() {}, func(event string, data []byte) error {
			got = append(got, event+" "+string(data))
			return nil
		})
		if !reflect.DeepEqual(got, test.want) || !errors.Is(err, test.err) {
			t.Errorf("%.40q: %q, %v", test.stream, got, err)
		}
	}
	for _, body := range []string{"data: {}\n\n", "data: no JSON\n\n"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
		err := Watch(t.Context(), s.Listener.Addr().String(), nil)
		if err == nil || !strings.Contains(err.Error(), "an event without a snapshot") {
			t.Errorf("%q: %v", body, err)
		}
		s.Close()
	}
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	if err := Watch(t.Context(), s.Listener.Addr().String(), nil); err == nil || !strings.Contains(err.Error(), "is not the admin address") {
		t.Errorf("another server: %v", err)
	}
}
