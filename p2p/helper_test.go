package p2p

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/peercache/peercache/chunkindex"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(runChild())
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen; nothing takes nearly
// as long on an idle machine.
const patience = 20 * time.Second

// until waits for a condition that nothing announces.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(2 * time.Millisecond); ; <-tick.C {
		if ok() {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			tick.Stop()
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// recorder is a Handler that keeps what it is told and checks the order.
type recorder struct {
	mu       sync.Mutex
	up       map[chunkindex.NodeID]bool
	ups      map[chunkindex.NodeID]int
	frames   map[chunkindex.NodeID][][]byte
	busy     map[chunkindex.NodeID]bool
	bad      []string
	blobs    map[digest.Digest][]byte
	claims   []chunkindex.Claim
	onUp     func(chunkindex.NodeID)
	onFrame  func(chunkindex.NodeID, []byte)
	onRange  func(ctx context.Context, from chunkindex.NodeID, r RangeRequest) (*RangeSource, error)
	onCall   func(ctx context.Context, from chunkindex.NodeID, request []byte) ([]byte, error)
	requests []RangeRequest
}

func newRecorder() *recorder {
	return &recorder{
		up: map[chunkindex.NodeID]bool{}, ups: map[chunkindex.NodeID]int{},
		frames: map[chunkindex.NodeID][][]byte{}, busy: map[chunkindex.NodeID]bool{},
		blobs: map[digest.Digest][]byte{},
	}
}

// event runs f unless the peer's events overlap, which they must not.
func (r *recorder) event(n chunkindex.NodeID, what string, wantUp bool, f func()) {
	r.mu.Lock()
	if r.busy[n] {
		r.bad = append(r.bad, what+" while another event of the peer is handled")
	}
	if r.up[n] != wantUp {
		r.bad = append(r.bad, fmt.Sprintf("%s of peer %s with up=%t", what, n, r.up[n]))
	}
	r.busy[n] = true
	f()
	r.mu.Unlock()
	if what == "PeerUp" && r.onUp != nil {
		r.onUp(n)
	}
	r.mu.Lock()
	r.busy[n] = false
	r.mu.Unlock()
}

func (r *recorder) PeerUp(n chunkindex.NodeID) {
	r.event(n, "PeerUp", false, func() { r.up[n] = true; r.ups[n]++ })
}

func (r *recorder) PeerDown(n chunkindex.NodeID) {
	r.event(n, "PeerDown", true, func() { r.up[n] = false })
}

// badFrame is what the recorder takes for a frame that no correct peer sends.
const badFrame = "bad frame"

func (r *recorder) Frame(n chunkindex.NodeID, frame []byte) error {
	if r.onFrame != nil {
		r.onFrame(n, frame)
	}
	var err error
	r.event(n, "Frame", true, func() {
		if string(frame) == badFrame {
			err = errors.New("not a message")
			return
		}
		r.frames[n] = append(r.frames[n], frame)
	})
	return err
}

func (r *recorder) OpenRange(ctx context.Context, from chunkindex.NodeID, req RangeRequest) (*RangeSource, error) {
	r.mu.Lock()
	r.requests = append(r.requests, req)
	r.mu.Unlock()
	if r.onRange != nil {
		return r.onRange(ctx, from, req)
	}
	r.mu.Lock()
	data, ok := r.blobs[req.Digest]
	r.mu.Unlock()
	if !ok {
		return nil, ErrNotFound
	}
	size := int64(len(data))
	length := req.Length
	if length < 0 {
		length = size - req.Offset
	}
	if req.Offset > size || length < 0 || length > size-req.Offset {
		return nil, ErrBadRange
	}
	return &RangeSource{Size: size, Length: length, Claims: r.claims, Body: io.NopCloser(bytes.NewReader(data[req.Offset:][:length]))}, nil
}

func (r *recorder) Call(ctx context.Context, from chunkindex.NodeID, request []byte) ([]byte, error) {
	if r.onCall != nil {
		return r.onCall(ctx, from, request)
	}
	return request, nil
}

func (r *recorder) isUp(n chunkindex.NodeID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up[n]
}

func (r *recorder) upCount(n chunkindex.NodeID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ups[n]
}

func (r *recorder) received(n chunkindex.NodeID) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([][]byte(nil), r.frames[n]...)
}

// node is a running host of a test.
type node struct {
	*Host
	rec  *recorder
	dir  string
	ds   datastore.Batching
	opts *Options
	reg  *prometheus.Registry
	log  *lockedBuffer
	stop func()
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a host on loopback. change may be nil. The host is stopped when the
// test ends, and the order of its events checked.
func start(t testing.TB, change func(*Options)) *node {
	t.Helper()
	n := &node{
		dir: t.TempDir(), ds: dssync.MutexWrap(datastore.NewMapDatastore()),
		opts: &Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}}, log: &lockedBuffer{},
	}
	if change != nil {
		change(n.opts)
	}
	n.run(t)
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", n.Self(), n.log)
		}
	})
	return n
}

// run starts the node's host, with the same key, datastore and options as before.
func (n *node) run(t testing.TB) {
	t.Helper()
	n.rec = newRecorder()
	n.runWith(t, n.rec)
}

func (n *node) runWith(t testing.TB, handler Handler) {
	t.Helper()
	n.reg = prometheus.NewRegistry()
	n.opts.Registerer = n.reg
	n.opts.Logger = slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	h, err := New(filepath.Join(n.dir, "identity.pem"), n.ds, n.opts)
	if err != nil {
		t.Fatal(err)
	}
	n.Host = h
	ran := make(chan error, 1)
	go func() { ran <- h.Run(context.Background(), handler) }()
	until(t, "Run to begin", func() bool { h.mu.Lock(); defer h.mu.Unlock(); return h.running })
	var once sync.Once
	rec := n.rec
	n.stop = func() {
		once.Do(func() {
			if err := errors.Join(h.Close(), <-ran); err != nil {
				t.Errorf("stopping: %v", err)
			}
			rec.mu.Lock()
			defer rec.mu.Unlock()
			for _, s := range rec.bad {
				t.Errorf("events of %s: %s", h.Self(), s)
			}
			for p, up := range rec.up {
				if up {
					t.Errorf("peer %s never went down", p)
				}
			}
		})
	}
}

// port makes a node that listens on port 0 keep the port it got.
func (n *node) keepPort() {
	n.opts.Listen = []string{n.host.Network().ListenAddresses()[0].String()}
}

func bootstrap(addrs ...string) func(*Options) {
	return func(o *Options) { o.Bootstrap = addrs }
}

// together waits until all nodes are up at all others.
func together(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				until(t, fmt.Sprintf("%s up at %s", b.Self(), a.Self()), func() bool { return a.rec.isUp(b.Self()) })
			}
		}
	}
}

// pair starts two connected nodes.
func pair(t testing.TB, change func(*Options)) (a, b *node) {
	t.Helper()
	a = start(t, change)
	b = start(t, func(o *Options) {
		o.Bootstrap = a.Addrs()
		if change != nil {
			change(o)
		}
	})
	together(t, a, b)
	return a, b
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func digestOf(s string) digest.Digest { return digest.FromString(s) }

// count reads a counter.
func (n *node) count(t testing.TB, name string, labels map[string]string) float64 {
	t.Helper()
	families, err := n.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue next
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// relay forwards TCP connections to a target until it is told to hold them: then
// bytes stop without anybody being told, as when a cable is pulled.
type relay struct {
	ln     net.Listener
	target string
	mu     sync.Mutex
	held   bool
	resume *sync.Cond
	conns  []net.Conn
	wg     sync.WaitGroup
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{ln: ln, target: target}
	r.resume = sync.NewCond(&r.mu)
	r.wg.Go(r.accept)
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		r.held = false
		r.resume.Broadcast()
		for _, c := range r.conns {
			c.Close()
		}
		r.mu.Unlock()
		r.wg.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		a, err := r.ln.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", r.target)
		if err != nil {
			a.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, a, b)
		r.mu.Unlock()
		r.wg.Go(func() { r.copy(a, b) })
		r.wg.Go(func() { r.copy(b, a) })
	}
}

func (r *relay) copy(dst, src net.Conn) {
	defer dst.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		r.mu.Lock()
		for r.held {
			r.resume.Wait()
		}
		r.mu.Unlock()
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
}
