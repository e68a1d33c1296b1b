package p2p

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

func randomBytes(n int) []byte {
	var seed [32]byte
	data := make([]byte, n)
	rand.NewChaCha8(seed).Read(data)
	return data
}

func (r *recorder) add(data []byte) digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := digest.FromBytes(data)
	r.blobs[d] = data
	return d
}

func readAll(t testing.TB, n *node, from *node, r RangeRequest) ([]byte, *RangeResponse, error) {
	t.Helper()
	resp, err := n.Read(testContext(t), from.Self(), r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return data, resp, err
}

func TestRangeRead(t *testing.T) {
	a, b := pair(t, nil)
	blob := randomBytes(3<<20 + 17)
	d := a.rec.add(blob)
	empty := a.rec.add(nil)
	large := a.rec.add(make([]byte, MaxWhole+1))
	layout, _ := chunkindex.LayoutFor(int64(len(blob)))
	for i := range MaxClaims {
		a.rec.claims = append(a.rec.claims, chunkindex.Sign(a.PrivateKey(), d, layout, i%layout.Count(), chunkindex.Sum(sha256.Sum256([]byte{byte(i)}))))
	}
	size := int64(len(blob))
	for _, tc := range []struct {
		name string
		req  RangeRequest
		want []byte
		err  error
	}{
		{"first chunk", RangeRequest{d, 0, 1 << 20}, blob[:1<<20], nil},
		{"last bytes", RangeRequest{d, size - 17, 17}, blob[size-17:], nil},
		{"one byte", RangeRequest{d, 5, 1}, blob[5:6], nil},
		{"no byte", RangeRequest{d, 5, 0}, nil, nil},
		{"all", RangeRequest{d, 0, size}, blob, nil},
		{"to the end", RangeRequest{d, 10, -1}, blob[10:], nil},
		{"to the end, from the end", RangeRequest{d, size, -1}, nil, nil},
		{"empty blob", RangeRequest{empty, 0, -1}, nil, nil},
		{"too large to be had as a whole", RangeRequest{large, 0, -1}, nil, ErrBadRange},
		{"past the end", RangeRequest{d, size - 1, 2}, nil, ErrBadRange},
		{"from past the end", RangeRequest{d, size + 1, -1}, nil, ErrBadRange},
		{"unknown", RangeRequest{digestOf("unknown"), 0, -1}, nil, ErrNotFound},
		{"negative offset", RangeRequest{d, -1, 1}, nil, ErrBadRange},
		{"negative length", RangeRequest{d, 0, -2}, nil, ErrBadRange},
		{"huge offset", RangeRequest{d, 1 << 62, 1}, nil, ErrBadRange},
		{"malformed digest", RangeRequest{"sha256:xyz", 0, 1}, nil, chunkindex.ErrDigest},
		{"unknown algorithm", RangeRequest{"md5:d41d8cd98f00b204e9800998ecf8427e", 0, 1}, nil, chunkindex.ErrDigest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, resp, err := readAll(t, b, a, tc.req)
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if err != nil {
				return
			}
			if !bytes.Equal(got, tc.want) {
				t.Errorf("%d bytes, which are not those of the blob", len(got))
			}
			if resp.Length != int64(len(tc.want)) || len(resp.Claims) != MaxClaims || resp.Claims[1] != a.rec.claims[1] {
				t.Errorf("header %d bytes, %d claims", resp.Length, len(resp.Claims))
			}
		})
	}
	if got := b.count(t, "peercache_p2p_range_bytes_total", map[string]string{"direction": "in"}); got < float64(2*size) {
		t.Errorf("bytes in: %v", got)
	}
	if got := a.count(t, "peercache_p2p_violations_total", nil) + b.count(t, "peercache_p2p_violations_total", nil); got != 0 {
		t.Errorf("violations: %v", got)
	}
}

// Streams are used again: many ranges in parallel need few of them.
func TestRangeStreamsAreReused(t *testing.T) {
	a, b := pair(t, nil)
	blob := randomBytes(4 << 20)
	d := a.rec.add(blob)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 25 {
				off := int64((w*25 + i) * 40_000)
				got, _, err := readAll(t, b, a, RangeRequest{d, off, 40_000})
				if err != nil || !bytes.Equal(got, blob[off:off+40_000]) {
					t.Errorf("range at %d: %v", off, err)
				}
			}
		})
	}
	wg.Wait()
	streams := 0
	for _, c := range b.host.Network().ConnsToPeer(PeerID(a.Self())) {
		for _, s := range c.GetStreams() {
			if s.Protocol() == rangeProtocol {
				streams++
			}
		}
	}
	if streams == 0 || streams > 4 {
		t.Errorf("%d range streams after 100 ranges by 4 workers", streams)
	}
	// A peer that restarts breaks the kept streams; the next read does not
	// notice.
	a.keepPort()
	blobs := a.rec.blobs
	a.stop()
	a.rec = newRecorder()
	a.rec.blobs = blobs
	a.runWith(t, a.rec)
	until(t, "a to be up again", func() bool { return b.rec.isUp(a.Self()) && a.rec.isUp(b.Self()) })
	if _, _, err := readAll(t, b, a, RangeRequest{d, 0, 1000}); err != nil {
		t.Errorf("after the peer's restart: %v", err)
	}
}

// A stream that the serving node gave up while it was kept is not an error.
func TestRangeRetriesStaleStream(t *testing.T) {
	a, b := pair(t, nil)
	d := a.rec.add([]byte("hello"))
	if _, _, err := readAll(t, b, a, RangeRequest{d, 0, 5}); err != nil {
		t.Fatal(err)
	}
	reset := 0
	for _, c := range a.host.Network().Conns() {
		for _, s := range c.GetStreams() {
			if s.Protocol() == rangeProtocol {
				s.Reset()
				reset++
			}
		}
	}
	if reset != 1 {
		t.Fatalf("%d kept streams", reset)
	}
	got, _, err := readAll(t, b, a, RangeRequest{d, 1, 3})
	if err != nil || string(got) != "ell" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRangeErrorsOfHandler(t *testing.T) {
	a, b := pair(t, nil)
	d := digestOf("x")
	var source *RangeSource
	var fail error
	closed := 0
	a.rec.onRange = func(context.Context, chunkindex.NodeID, RangeRequest) (*RangeSource, error) {
		return source, fail
	}
	for _, tc := range []struct {
		fail error
		want error
	}{
		{ErrNotFound, ErrNotFound}, {fmt.Errorf("gone: %w", fs.ErrNotExist), ErrNotFound},
		{ErrBusy, ErrBusy}, {ErrBadRange, ErrBadRange}, {errors.New("disk on fire"), ErrRefused},
	} {
		fail = tc.fail
		if _, _, err := readAll(t, b, a, RangeRequest{d, 0, 1}); !errors.Is(err, tc.want) {
			t.Errorf("%v reaches the peer as %v", tc.fail, err)
		}
	}
	fail = nil
	body := closeFunc{strings.NewReader("xyz"), func() { closed++ }}
	for _, s := range []*RangeSource{
		{Size: 10, Length: 2, Body: body},                                                // other length than asked for
		{Size: 0, Length: 1, Body: body},                                                 // past the end
		{Size: 10, Length: 1, Claims: make([]chunkindex.Claim, MaxClaims+1), Body: body}, // too many
	} {
		source = s
		if _, _, err := readAll(t, b, a, RangeRequest{d, 0, 1}); !errors.Is(err, ErrRefused) {
			t.Errorf("source %+v: %v", s, err)
		}
	}
	if closed != 3 {
		t.Errorf("%d of 3 refused sources closed", closed)
	}
}

type closeFunc struct {
	io.Reader
	f func()
}

func (c closeFunc) Close() error { c.f(); return nil }

func TestRangeShortBody(t *testing.T) {
	a, b := pair(t, nil)
	a.rec.onRange = func(_ context.Context, _ chunkindex.NodeID, r RangeRequest) (*RangeSource, error) {
		return &RangeSource{Size: 100, Length: r.Length, Body: io.NopCloser(strings.NewReader("short"))}, nil
	}
	got, _, err := readAll(t, b, a, RangeRequest{digestOf("x"), 0, 10})
	if err == nil || errors.Is(err, io.EOF) || string(got) != "short" && len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
}

// A raw peer that closes cleanly in the middle is the case that a plain copy
// would take for the end.
func TestRangeCleanEndInTheMiddle(t *testing.T) {
	b := start(t, nil)
	evil := rawPeer(t, b)
	evil.host.SetStreamHandler(rangeProtocol, func(s network.Stream) {
		io.ReadFull(s, make([]byte, 3))
		s.Write(withLength(appendResponse(nil, responseHeader{Size: 100, Length: 10})))
		s.Write([]byte("short"))
		s.Close()
	})
	resp, err := b.Read(testContext(t), evil.node, RangeRequest{digestOf("x"), 0, 10})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "short" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRangeStall(t *testing.T) {
	stall := func(o *Options) { o.StallTimeout = 200 * time.Millisecond }
	a, b := pair(t, stall)
	release := make(chan struct{})
	defer close(release)
	hang := func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-release:
		}
	}
	a.rec.onRange = func(ctx context.Context, _ chunkindex.NodeID, r RangeRequest) (*RangeSource, error) {
		if r.Offset == 1 { // before the header
			hang(ctx)
			return nil, ErrNotFound
		}
		return &RangeSource{Size: 100, Length: r.Length, Body: io.NopCloser(io.MultiReader(
			strings.NewReader("some"), readerFunc(func([]byte) (int, error) { hang(ctx); return 0, io.ErrUnexpectedEOF })))}, nil
	}
	if _, _, err := readAll(t, b, a, RangeRequest{digestOf("x"), 1, 10}); !errors.Is(err, ErrStalled) {
		t.Errorf("stall before the header: %v", err)
	}
	got, _, err := readAll(t, b, a, RangeRequest{digestOf("x"), 0, 10})
	if !errors.Is(err, ErrStalled) || string(got) != "some" {
		t.Errorf("stall in the body: %q, %v", got, err)
	}
	// A cancelled reader gets its own error, at once.
	ctx, cancel := context.WithCancelCause(context.Background())
	resp, err := b.Read(ctx, a.Self(), RangeRequest{digestOf("x"), 0, 10})
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("not needed any more")
	cancel(why)
	if _, err = io.ReadAll(resp.Body); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
	resp.Body.Close()
}

func TestRangeBusy(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 8)
	a, b := pair(t, func(o *Options) { o.MaxServingPeer, o.StallTimeout = 2, 10*time.Second })
	a.rec.onRange = func(context.Context, chunkindex.NodeID, RangeRequest) (*RangeSource, error) {
		entered <- struct{}{}
		<-release
		return nil, ErrNotFound
	}
	var wg sync.WaitGroup
	req := RangeRequest{digestOf("x"), 0, 1}
	for range 2 {
		wg.Go(func() {
			if _, err := b.Read(testContext(t), a.Self(), req); !errors.Is(err, ErrNotFound) {
				t.Errorf("one that is served: %v", err)
			}
		})
	}
	<-entered
	<-entered
	if _, err := b.Read(testContext(t), a.Self(), req); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	close(release)
	wg.Wait()
	a.rec.onRange = nil
	until(t, "the slots to be free", func() bool {
		_, err := b.Read(testContext(t), a.Self(), req)
		return errors.Is(err, ErrNotFound)
	})
	if got := a.count(t, "peercache_p2p_range_requests_total", map[string]string{"direction": "in", "status": "busy"}); got < 1 {
		t.Errorf("busy answers counted: %v", got)
	}
}

// A busy peer's alternatives arrive, and the stream can go on.
func TestRangeBusyNamesOthers(t *testing.T) {
	a, b := pair(t, nil)
	others := nodeIDs(3)
	a.rec.onRange = func(context.Context, chunkindex.NodeID, RangeRequest) (*RangeSource, error) {
		return nil, fmt.Errorf("full: %w", BusyError{Peers: append(others[:3:3], a.Self(), b.Self(), others[0])})
	}
	for range 2 {
		_, err := b.Read(testContext(t), a.Self(), RangeRequest{digestOf("x"), 0, 1})
		var busy BusyError
		if !errors.Is(err, ErrBusy) || !errors.As(err, &busy) || !slices.Equal(busy.Alternatives(), others) {
			t.Errorf("%v names %v", err, busy.Peers)
		}
	}
	if got := b.count(t, "peercache_p2p_range_requests_total", map[string]string{"direction": "out", "status": "busy"}); got != 2 {
		t.Errorf("busy answers counted: %v", got)
	}
	// A call has nobody else to name.
	a.rec.onCall = func(context.Context, chunkindex.NodeID, []byte) ([]byte, error) { return nil, BusyError{Peers: others} }
	if _, err := b.Call(testContext(t), a.Self(), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("busy call: %v", err)
	}
}

// One peer that asks for 16 ranges at once leaves room for another that asks for
// one, also where there are few slots.
func TestRangeFairness(t *testing.T) {
	const slots = 4
	a := start(t, func(o *Options) { o.MaxServing, o.StallTimeout = slots, patience })
	greedy := start(t, func(o *Options) { o.Bootstrap, o.StallTimeout = a.Addrs(), patience })
	modest := start(t, func(o *Options) { o.Bootstrap, o.StallTimeout = a.Addrs(), patience })
	together(t, a, greedy, modest)
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	var wg sync.WaitGroup
	defer func() { free(); wg.Wait() }()
	var mu sync.Mutex
	serving := map[chunkindex.NodeID]int{}
	a.rec.onRange = func(_ context.Context, from chunkindex.NodeID, _ RangeRequest) (*RangeSource, error) {
		mu.Lock()
		serving[from]++
		mu.Unlock()
		<-release
		return nil, ErrNotFound
	}
	served := func(n *node) int { mu.Lock(); defer mu.Unlock(); return serving[n.Self()] }
	req := RangeRequest{digestOf("x"), 0, 1}
	var busy atomic.Int32
	for range 16 {
		wg.Go(func() {
			// A client that never gives up.
			for {
				_, err := greedy.Read(testContext(t), a.Self(), req)
				if !errors.Is(err, ErrBusy) {
					return
				}
				busy.Add(1)
			}
		})
	}
	until(t, "the greedy peer to get all it can, and more to be refused", func() bool {
		return served(greedy) == slots/2 && busy.Load() > 100
	})
	wg.Go(func() {
		if _, err := modest.Read(testContext(t), a.Self(), req); !errors.Is(err, ErrNotFound) {
			t.Errorf("the modest peer: %v", err)
		}
	})
	until(t, "the modest peer to be served", func() bool { return served(modest) == 1 })
	if got := served(greedy); got != slots/2 {
		t.Errorf("%d of %d slots for one peer", got, slots)
	}
}

func TestAdmission(t *testing.T) {
	fill := func(a *admission, peer *int) int {
		for a.enter(peer) {
		}
		return *peer
	}
	for _, tc := range []struct {
		max, maxPeer int
		want         []int // what peers get that ask for all, one after the other
	}{
		{64, 16, []int{16, 16, 16, 8, 4, 2, 1, 1, 0}},
		{16, 16, []int{8, 4, 2, 1, 1, 0}},
		{4, 16, []int{2, 1, 1, 0}},
		{2, 16, []int{1, 1, 0}},
		{1, 16, []int{1, 0}},
		{16, 1, []int{1, 1, 1}},
	} {
		a := &admission{max: tc.max, maxPeer: tc.maxPeer}
		peers := make([]int, len(tc.want))
		for i, want := range tc.want {
			if got := fill(a, &peers[i]); got != want {
				t.Errorf("%d slots, %d a peer: peer %d gets %d, want %d", tc.max, tc.maxPeer, i, got, want)
			}
		}
	}
	// The slot that comes free goes to who has none, not to who asks loudest.
	a := &admission{max: 2, maxPeer: 16}
	var loud, other, late int
	fill(a, &loud)
	fill(a, &other)
	a.leave(&other)
	if a.enter(&loud) || !a.enter(&late) {
		t.Errorf("loud %d, late %d", loud, late)
	}
	a.leave(&loud)
	a.leave(&late)
	if a.total != 0 || loud != 0 || other != 0 || late != 0 {
		t.Errorf("%d slots taken at the end", a.total)
	}
}

func TestReadUnreachable(t *testing.T) {
	a := start(t, nil)
	if _, err := a.Read(testContext(t), chunkindex.NodeID{1, 2, 3}, RangeRequest{digestOf("x"), 0, 1}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a stranger: %v", err)
	}
	if _, err := a.Read(testContext(t), a.Self(), RangeRequest{digestOf("x"), 0, 1}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("itself: %v", err)
	}
	a.stop()
	if _, err := a.Read(testContext(t), chunkindex.NodeID{1}, RangeRequest{digestOf("x"), 0, 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestCall(t *testing.T) {
	a, b := pair(t, func(o *Options) { o.CallTimeout, o.MaxServingPeer = 300*time.Millisecond, 1 })
	for _, n := range []int{0, 1, 70 << 10, MaxCall} {
		msg := randomBytes(n)
		got, err := b.Call(testContext(t), a.Self(), msg)
		if err != nil || !bytes.Equal(got, msg) {
			t.Errorf("echo of %d bytes: %d bytes, %v", n, len(got), err)
		}
	}
	if _, err := b.Call(testContext(t), a.Self(), make([]byte, MaxCall+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("request above the limit: %v", err)
	}
	for _, tc := range []struct{ fail, want error }{
		{ErrNotFound, ErrNotFound}, {ErrBusy, ErrBusy}, {errors.New("other"), ErrRefused},
	} {
		a.rec.onCall = func(context.Context, chunkindex.NodeID, []byte) ([]byte, error) { return nil, tc.fail }
		if _, err := b.Call(testContext(t), a.Self(), nil); !errors.Is(err, tc.want) {
			t.Errorf("%v reaches the peer as %v", tc.fail, err)
		}
	}
	a.rec.onCall = func(context.Context, chunkindex.NodeID, []byte) ([]byte, error) { return make([]byte, MaxCall+1), nil }
	if _, err := b.Call(testContext(t), a.Self(), nil); !errors.Is(err, ErrRefused) {
		t.Errorf("response above the limit: %v", err)
	}
	// A handler's time is bounded, and so is the caller's patience.
	entered := make(chan struct{}, 1)
	a.rec.onCall = func(ctx context.Context, _ chunkindex.NodeID, _ []byte) ([]byte, error) {
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := b.Call(testContext(t), a.Self(), nil); !errors.Is(err, ErrStalled) && !errors.Is(err, ErrRefused) {
			t.Errorf("a handler that hangs: %v", err)
		}
	})
	<-entered
	// The refusal arrives although the request is larger than any window.
	if _, err := b.Call(testContext(t), a.Self(), make([]byte, 2<<20)); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	wg.Wait()
}
