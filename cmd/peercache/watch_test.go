package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/cmd/peercache/internal/admin"
	"github.com/peercache/peercache/fetcher"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/p2p"
)

// output is what a command has printed so far.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// after waits until what follows the first from bytes holds want, and returns how
// much has been printed up to and with it.
func (o *output) after(t *testing.T, from int, want string) int {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s := o.String()
		if i := strings.Index(s[from:], want); i >= 0 {
			return from + i + len(want)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q after %d bytes of:\n%s", want, from, s)
		}
		<-tick.C
	}
}

// fakeAdmin is a node's admin server that says what the test wants.
type fakeAdmin struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	id     string
	drop   chan struct{} // closed: streams end
}

func newFakeAdmin(t *testing.T) *fakeAdmin {
	f := &fakeAdmin{status: http.StatusOK, id: "first", drop: make(chan struct{})}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		status, id, drop := f.status, f.id, f.drop
		f.mu.Unlock()
		if status != http.StatusOK {
			http.Error(w, "stopping", status)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 1; ; n++ {
			data, _ := json.Marshal(admin.Live{ID: id, AtSeconds: float64(n), Received: admin.Received{Peer: int64(n) << 20}})
			fmt.Fprintf(w, "data: %s\n\n", data)
			http.NewResponseController(w).Flush()
			select {
			case <-tick.C:
			case <-drop:
				return
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(f.Close)
	return f
}

// set changes what new streams are told, and ends the old ones.
func (f *fakeAdmin) set(status int, id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.id = status, id
	close(f.drop)
	f.drop = make(chan struct{})
}

// watching runs `peercache status --watch` against the server.
func (f *fakeAdmin) watching(t *testing.T, args ...string) (out, errs *output, stop func() int) {
	out, errs = &output{}, &output{}
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	args = append([]string{"status", "--watch", "--interval", "100ms", "--admin", f.Listener.Addr().String()}, args...)
	go func() { code <- run(ctx, args, func(string) string { return "" }, out, errs) }()
	return out, errs, func() int { cancel(); return <-code }
}

// Views come one after the other; a node that goes is said to have gone, once,
// and waited for; an interrupt is no failure, and leaves nothing behind.
func TestStatusWatch(t *testing.T) {
	f := newFakeAdmin(t)
	before := goleak.IgnoreCurrent()
	out, _, stop := f.watching(t)
	at := out.after(t, 0, "first  up 0s\n")
	at = out.after(t, at, "\nnothing is under way\n\nfirst")
	at = out.after(t, at, "1.00 MiB/s from peers") // 1 MiB each second of the node's clock
	f.set(http.StatusServiceUnavailable, "")
	at = out.after(t, at, "has gone: unexpected EOF; waiting for it\n")
	f.set(http.StatusOK, "second")
	at = out.after(t, at, "second  up 0s\n")
	out.after(t, at, "1.00 MiB/s from peers")
	if code := stop(); code != 0 {
		t.Errorf("interrupted: exit code %d", code)
	}
	if n := strings.Count(out.String(), "waiting"); n != 1 || strings.Contains(out.String(), "\x1b") {
		t.Errorf("%d times waiting in:\n%s", n, out)
	}
	goleak.VerifyNone(t, before)
}

func TestStatusWatchJSON(t *testing.T) {
	f := newFakeAdmin(t)
	out, errs, stop := f.watching(t, "--json")
	at := out.after(t, 0, "\n")
	out.after(t, at, "\n")
	f.set(http.StatusServiceUnavailable, "")
	errs.after(t, 0, "waiting for it\n")
	if code := stop(); code != 0 {
		t.Errorf("interrupted: exit code %d", code)
	}
	for line := range strings.Lines(out.String()) {
		var l admin.Live
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.ID != "first" {
			t.Errorf("%q: %v", line, err)
		}
	}
}

// Nobody at the address at first is an error; a node that starts is waited for.
func TestStatusWatchAtFirst(t *testing.T) {
	f := newFakeAdmin(t)
	f.set(http.StatusNotFound, "")
	_, errs, stop := f.watching(t)
	errs.after(t, 0, "is not the admin address of a Peercache node: GET /watch gives 404 Not Found\n")
	if code := stop(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	f.set(http.StatusServiceUnavailable, "")
	out, _, stop := f.watching(t)
	at := out.after(t, 0, "is not serving: stopping; waiting for it\n")
	f.set(http.StatusOK, "late")
	out.after(t, at, "late  up 0s\n")
	if code := stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A reader of the output that goes away ends the command.
func TestStatusWatchBrokenOutput(t *testing.T) {
	f := newFakeAdmin(t)
	before := goleak.IgnoreCurrent()
	r, w := io.Pipe()
	r.Close()
	args := []string{"status", "--watch", "--admin", f.Listener.Addr().String()}
	if code := run(t.Context(), args, func(string) string { return "" }, w, io.Discard); code != 1 {
		t.Errorf("exit code %d", code)
	}
	goleak.VerifyNone(t, before)
}

func TestRedraw(t *testing.T) {
	for _, test := range []struct {
		old, lines []string
		width      int
		want       string
	}{
		{nil, []string{"a", "b"}, 80, "\ra\x1b[K\nb\x1b[K\n\x1b[J"},
		{[]string{"a", "b"}, []string{"c"}, 80, "\x1b[2A\rc\x1b[K\n\x1b[J"},
		// The terminal folded the first line into three, the second, whose
		// colours take no room, not at all.
		{[]string{strings.Repeat("ä", 25), "\x1b[1;32m" + strings.Repeat("=", 10) + "\x1b[0m", ""}, []string{"x"}, 10, "\x1b[5A\rx\x1b[K\n\x1b[J"},
	} {
		if got := redraw(test.old, test.lines, test.width); got != test.want {
			t.Errorf("%q in the place of %q: %q, want %q", test.lines, test.old, got, test.want)
		}
	}
}

// What the core shows keeps its meaning on the way to people.
func TestActiveBlobs(t *testing.T) {
	var self, peer chunkindex.NodeID
	self[0], peer[0] = 1, 2
	d := digest.FromString("x")
	got := activeBlobs([]fetcher.LiveBlob{
		{
			BlobView: policy.BlobView{
				Blob: d, Size: 4 << 20, Have: 1 << 20, Wanted: true, Coordinator: peer, Transfers: 1, Reads: 2,
				Chunks:     []policy.Progress{policy.Here, policy.FromPeer, policy.FromOrigin, policy.Missing},
				Neighbours: []policy.NeighbourView{{Peer: peer, Chunks: 3, Transfers: 1}, {Peer: self}},
			},
			Bytes: fetcher.Sources{Store: 1, Peer: 2, Origin: 3}, ByPeer: map[chunkindex.NodeID]int64{peer: 2}, Readers: 5,
		},
		{BlobView: policy.BlobView{Blob: d, Size: 1, Have: 1, Proven: true, Chunks: []policy.Progress{policy.Here}}},
		{BlobView: policy.BlobView{Blob: d, Size: -1}},
	})
	want := []admin.ActiveBlob{
		{
			Digest: d.String(), Size: 4 << 20, Have: 1 << 20, Chunks: 4, Cells: "=po.", Wanted: true, Readers: 5, Transfers: 1, OriginReads: 2,
			Bytes: admin.Served{Store: 1, Peer: 2, Origin: 3}, Coordinator: p2p.PeerID(peer).String(),
			Neighbours: []admin.Neighbour{{ID: p2p.PeerID(peer).String(), Chunks: 3, Transfers: 1, Bytes: 2}, {ID: p2p.PeerID(self).String()}},
		},
		{Digest: d.String(), Size: 1, Have: 1, Chunks: 1, Cells: "#", Proven: true, Neighbours: []admin.Neighbour{}},
		{Digest: d.String(), Size: -1, Neighbours: []admin.Neighbour{}},
	}
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}
