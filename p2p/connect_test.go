package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peercache/peercache/chunkindex"
)

// deaf listens, takes connections, and never says a word, as a stopped process
// does. It returns its address, and how many connections are open now and were
// at most.
func deaf(t testing.TB) (addr string, open, most func() int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	now, peak := 0, 0
	count := func(d int) {
		mu.Lock()
		defer mu.Unlock()
		now += d
		peak = max(peak, now)
	}
	done := make(chan struct{})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			count(1)
			wg.Go(func() {
				defer c.Close()
				defer count(-1)
				go func() { <-done; c.Close() }()
				for buf := make([]byte, 1024); ; {
					if _, err := c.Read(buf); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); close(done); wg.Wait() })
	addr = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", ln.Addr().(*net.TCPAddr).Port)
	return addr, func() int { mu.Lock(); defer mu.Unlock(); return now }, func() int { mu.Lock(); defer mu.Unlock(); return peak }
}

// refusing is an address at which nobody listens.
func refusing(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", ln.Addr().(*net.TCPAddr).Port)
}

// Whoever dials, both nodes see the other up.
func TestConnectToLearned(t *testing.T) {
	for _, lower := range []bool{true, false} {
		t.Run(fmt.Sprint("dialled by the lower ID: ", lower), func(t *testing.T) {
			a, b := start(t, nil), start(t, nil)
			if (a.Self().Compare(b.Self()) < 0) != lower {
				a, b = b, a
			}
			addrs := b.Addresses(b.Self())
			if len(addrs) != 1 || addrs[0] != b.host.Addrs()[0].String() {
				t.Fatalf("own addresses %v", addrs)
			}
			a.Learn(b.Self(), addrs)
			if got := a.Addresses(b.Self()); len(got) != 0 {
				t.Errorf("hearsay is passed on: %v", got)
			}
			if err := a.Connect(testContext(t), b.Self()); err != nil {
				t.Fatal(err)
			}
			until(t, "a's handler to know", func() bool { return a.rec.isUp(b.Self()) })
			together(t, a, b)
			// Each knows now from the other itself, and nothing is left of what
			// was told.
			for _, d := range [][2]*node{{a, b}, {b, a}} {
				until(t, "its own word", func() bool { return slices.Equal(d[0].Addresses(d[1].Self()), d[1].Addresses(d[1].Self())) })
			}
			a.Learn(b.Self(), []string{"/ip4/192.0.2.1/tcp/1"})
			if got := a.Addresses(b.Self()); !slices.Equal(got, addrs) || len(a.hearsay.nodes) != 0 {
				t.Errorf("addresses %v, hearsay of %d, after somebody told otherwise", got, len(a.hearsay.nodes))
			}
			if err := a.Connect(testContext(t), b.Self()); err != nil {
				t.Errorf("to a peer that is up: %v", err)
			}
		})
	}
}

// Wrong addresses among right ones cost nothing, and are gone afterwards.
func TestConnectDespiteLies(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	silent, _, _ := deaf(t)
	other := start(t, nil) // somebody else answers there
	a.Learn(b.Self(), []string{refusing(t), silent, other.Addresses(other.Self())[0]})
	a.Learn(b.Self(), b.Addresses(b.Self()))
	if err := a.Connect(testContext(t), b.Self()); err != nil {
		t.Fatal(err)
	}
	if got := a.Addresses(b.Self()); !slices.Equal(got, b.Addresses(b.Self())) {
		t.Errorf("addresses %v", got)
	}
}

// A node whose addresses are unknown, or lead nowhere, is found by the DHT.
func TestConnectAsksTheDHT(t *testing.T) {
	hub := start(t, nil)
	b := start(t, bootstrap(hub.Addrs()...))
	together(t, hub, b)
	silent, _, _ := deaf(t)
	for name, lie := range map[string][]string{"unknown": nil, "refused": {refusing(t)}, "silent": {silent}} {
		t.Run(name, func(t *testing.T) {
			a := start(t, nil)
			a.Learn(b.Self(), lie)
			if err := a.connect(testContext(t), peer.AddrInfo{ID: hub.host.ID(), Addrs: hub.host.Addrs()}); err != nil {
				t.Fatal(err)
			}
			// The hub is in the routing table as soon as it is known to speak the
			// DHT's protocol.
			until(t, "the node to be found", func() bool { return a.Connect(testContext(t), b.Self()) == nil })
			if got := a.Addresses(b.Self()); !slices.Equal(got, b.Addresses(b.Self())) {
				t.Errorf("addresses %v", got)
			}
		})
	}
}

func TestConnectUnreachable(t *testing.T) {
	const timeout = 300 * time.Millisecond
	a := start(t, func(o *Options) { o.DialTimeout = timeout })
	silent, open, _ := deaf(t)
	for name, tc := range map[string]struct {
		id    chunkindex.NodeID
		addrs []string
		want  string
	}{
		"itself":        {a.Self(), nil, "it is this node"},
		"stranger":      {chunkindex.NodeID{1}, nil, "no address is known"},
		"no key":        {chunkindex.NodeID{2}, []string{refusing(t)}, ""},
		"refused":       {rawID(t), []string{refusing(t)}, "refused"},
		"silent":        {rawID(t), []string{silent}, ""},
		"somebody else": {rawID(t), []string{start(t, nil).host.Addrs()[0].String()}, "peer id mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			a.Learn(tc.id, tc.addrs)
			err := a.Connect(testContext(t), tc.id)
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			p := PeerID(tc.id)
			if got := a.hearsay.about(p, time.Now()); tc.id != a.Self() && len(got)+len(a.host.Peerstore().Addrs(p)) != 0 {
				t.Errorf("%v is still believed", got)
			}
		})
	}
	until(t, "the connections to be given up", func() bool { return open() == 0 })
	a.mu.Lock()
	if len(a.attempts) != 0 || len(a.connects) != 0 {
		t.Errorf("%d attempts left", len(a.attempts))
	}
	a.mu.Unlock()
	a.stop()
	if err := a.Connect(testContext(t), chunkindex.NodeID{1}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func rawID(t testing.TB) chunkindex.NodeID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := NodeOf(p)
	return id
}

// gate refuses everybody after the handshake, which the dialler has finished by
// then.
type gate struct{ onlyNodes }

func (gate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool { return false }

func TestConnectToOneWhoRefuses(t *testing.T) {
	a := start(t, func(o *Options) { o.DialTimeout = time.Second })
	refuses, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.ConnectionGater(gate{}),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer refuses.Close()
	mute := rawHost(t, crypto.Ed25519) // takes connections and speaks no control protocol
	for _, h := range []interface {
		ID() peer.ID
		Addrs() []ma.Multiaddr
	}{refuses, mute} {
		id, _ := NodeOf(h.ID())
		a.Learn(id, []string{h.Addrs()[0].String()})
		if err := a.Connect(testContext(t), id); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v", err)
		}
		if a.rec.upCount(id) != 0 {
			t.Error("it was up")
		}
	}
}

// Those who ask for one peer at once share an attempt, and one who gives up does
// not end it for the others.
func TestConnectIsShared(t *testing.T) {
	a := start(t, func(o *Options) { o.DialTimeout = 2 * time.Second })
	silent, open, most := deaf(t)
	id := rawID(t)
	a.Learn(id, []string{silent})
	why := errors.New("not needed any more")
	impatient, giveUp := context.WithCancelCause(context.Background())
	gaveUp := make(chan error, 1)
	go func() { gaveUp <- a.Connect(impatient, id) }()
	until(t, "the attempt", func() bool { return open() == 1 })
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := a.Connect(testContext(t), id); !errors.Is(err, ErrUnreachable) {
				t.Errorf("one who waits: %v", err)
			}
		})
	}
	waiting := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		if at := a.attempts[PeerID(id)]; at != nil {
			return at.waiters
		}
		return 0
	}
	until(t, "all to wait", func() bool { return waiting() == 11 })
	giveUp(why)
	if err := <-gaveUp; !errors.Is(err, why) {
		t.Errorf("one who gave up: %v", err)
	}
	if got := waiting(); got != 10 {
		t.Errorf("%d go on waiting", got)
	}
	wg.Wait()
	if got := most(); got != 1 {
		t.Errorf("%d connections at once", got)
	}
	// Where nobody waits any more nothing goes on.
	a.Learn(id, []string{silent})
	impatient, giveUp = context.WithCancelCause(context.Background())
	go func() { gaveUp <- a.Connect(impatient, id) }()
	until(t, "another attempt", func() bool { return open() == 1 })
	giveUp(why)
	<-gaveUp
	until(t, "the attempt to end", func() bool { return open() == 0 && len(a.connects) == 0 })
}

func TestConnectsAreBounded(t *testing.T) {
	const asked = maxConnects + 8
	a := start(t, func(o *Options) { o.DialTimeout = 2 * patience })
	silent, open, most := deaf(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for range asked {
		id := rawID(t)
		a.Learn(id, []string{silent})
		wg.Go(func() {
			if err := a.Connect(ctx, id); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	until(t, "as many to be dialled as may be", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.attempts) == asked && open() == maxConnects
	})
	if got := most(); got > maxConnects {
		t.Errorf("%d connections at once", got)
	}
	cancel()
	wg.Wait()
	until(t, "all to be given up", func() bool { return open() == 0 && len(a.connects) == 0 })
}

// Closing the host ends what Connect is at.
func TestConnectEndsWithTheHost(t *testing.T) {
	a := start(t, func(o *Options) { o.DialTimeout = 2 * patience })
	silent, open, _ := deaf(t)
	id := rawID(t)
	a.Learn(id, []string{silent})
	failed := make(chan error, 1)
	go func() { failed <- a.Connect(context.Background(), id) }()
	until(t, "the attempt", func() bool { return open() == 1 })
	a.stop()
	if err := <-failed; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// slowToTell is TCP that takes its time, once, to say whether it can dial an address.
type slowToTell struct {
	transport.Transport
	prompt      atomic.Int32 // so many answers come at once before that
	asked, tell chan struct{}
}

func (s *slowToTell) CanDial(addr ma.Multiaddr) bool {
	if s.prompt.Add(-1) == -1 {
		close(s.asked)
		<-s.tell
	}
	return s.Transport.CanDial(addr)
}

// blockedIn reports whether a goroutine has all these functions on its stack.
func blockedIn(functions ...string) bool {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return slices.ContainsFunc(strings.Split(string(stacks), "\n\n"), func(stack string) bool {
		return !slices.ContainsFunc(functions, func(f string) bool { return !strings.Contains(stack, f) })
	})
}

// A host closes while a dial begins. libp2p's goroutine outlives the call that it
// works for and finds a swarm without transports, which once took the process with
// it, and with that every client that was still being served.
func TestCloseAmidDial(t *testing.T) {
	silent, _, _ := deaf(t)
	// A swarm asks for the transport of an address three times before it dials.
	for prompt := range int32(3) {
		slow := &slowToTell{asked: make(chan struct{}), tell: make(chan struct{})}
		slow.prompt.Store(prompt)
		a := start(t, func(o *Options) {
			o.Transport = []libp2p.Option{
				libp2p.Transport(func(u transport.Upgrader, r network.ResourceManager) (transport.Transport, error) {
					tcp, err := tcp.NewTCPTransport(u, r, nil, tcp.DisableReuseport())
					slow.Transport = tcp
					return slow, err
				}),
				libp2p.Security(libp2ptls.ID, libp2ptls.New),
				libp2p.Muxer(yamux.ID, newMuxer()),
			}
		})
		id := rawID(t)
		a.Learn(id, []string{silent})
		failed := make(chan error, 1)
		go func() { failed <- a.Connect(context.Background(), id) }()
		<-slow.asked
		closed := make(chan struct{})
		go func() { a.stop(); close(closed) }()
		if err := <-failed; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		until(t, "the swarm to want the lock that is held while it asks", func() bool {
			return blockedIn("swarm.(*Swarm).close", "sync.(*RWMutex).Lock")
		})
		close(slow.tell)
		<-closed
	}
}

// A peer that comes by a new connection while the old one is dead gets a session
// at once, also where this node is the one to open it.
func TestNewConnectionSupersedesDeadOne(t *testing.T) {
	n := start(t, func(o *Options) { o.PeerTimeout = 10 * patience })
	var key crypto.PrivKey
	for {
		key, _, _ = crypto.GenerateEd25519Key(nil)
		p, _ := peer.IDFromPrivateKey(key)
		if id, _ := NodeOf(p); id.Compare(n.Self()) > 0 {
			break
		}
	}
	p, _ := peer.IDFromPrivateKey(key)
	id, _ := NodeOf(p)
	connect := func() {
		h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs,
			libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New),
			libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		h.SetStreamHandler(controlProtocol, func(s network.Stream) { s.Write([]byte{1, controlVersion}) })
		connectRaw(t, h, n)
	}
	connect()
	until(t, "the peer to be up", func() bool { return n.rec.upCount(id) == 1 })
	n.mu.Lock()
	n.links[p].session.last.Store(-int64(time.Hour))
	n.mu.Unlock()
	connect()
	until(t, "the peer to be up again", func() bool { return n.rec.upCount(id) == 2 && n.rec.isUp(id) })
}

func TestLearnTakesOnlyAddresses(t *testing.T) {
	local := start(t, nil)
	remote := start(t, func(o *Options) { o.Listen = []string{"/ip4/0.0.0.0/tcp/0"} })
	for _, tc := range []struct {
		addr          string
		local, remote bool
	}{
		{"/ip4/192.0.2.1/tcp/5051", true, true},
		{"/ip6/2001:db8::1/tcp/5051", true, true},
		{"/ip4/10.1.2.3/tcp/65535", true, true},
		{"/ip4/127.0.0.1/tcp/5051", true, false},
		{"/ip6/::1/tcp/5051", true, false},
		{"/ip6/::ffff:127.0.0.1/tcp/5051", true, false},
		{"/ip4/192.0.2.1/tcp/0", false, false},
		{"/ip4/192.0.2.1/tcp/65536", false, false},
		{"/ip4/192.0.2.1/udp/5051", false, false},
		{"/ip4/192.0.2.1/udp/5051/quic-v1", false, false},
		{"/ip4/192.0.2.1/tcp/5051/ws", false, false},
		{"/ip4/192.0.2.1/tcp/5051/p2p/12D3KooWGzh9MTGPsbZgHMXa1i7xdn2pCPJxFpgk2Fj8VNQ7m6hE", false, false},
		{"/dns4/example.com/tcp/5051", false, false},
		{"/unix/tmp/socket", false, false},
		{"/ip4/0.0.0.0/tcp/5051", false, false},
		{"/ip6/::/tcp/5051", false, false},
		{"/ip4/224.0.0.1/tcp/5051", false, false},
		{"/ip4/255.255.255.255/tcp/5051", false, false},
		{"/ip4/169.254.169.254/tcp/80", false, false},
		{"/ip6/fe80::1/tcp/5051", false, false},
		{"/ip6zone/eth0/ip6/fe80::1/tcp/5051", false, false},
		{"/ip4/192.0.2.1", false, false},
		{"", false, false},
		{"192.0.2.1:5051", false, false},
		{strings.Repeat("/ip4/192.0.2.1/tcp/5051", 1000), false, false},
	} {
		for _, n := range []struct {
			*node
			want bool
		}{{local, tc.local}, {remote, tc.remote}} {
			n.hearsay.forget(PeerID(chunkindex.NodeID{1}))
			n.Learn(chunkindex.NodeID{1}, []string{tc.addr})
			if got := len(n.hearsay.about(PeerID(chunkindex.NodeID{1}), time.Now())) == 1; got != n.want {
				t.Errorf("%.60s accepted: %t (listening on %s)", tc.addr, got, n.opts.Listen)
			}
		}
	}
	local.Learn(local.Self(), []string{"/ip4/192.0.2.1/tcp/5051"})
	if len(local.hearsay.about(local.host.ID(), time.Now())) != 0 {
		t.Error("a node learns where it is itself")
	}
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i), fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i))
	}
	id := chunkindex.NodeID{9}
	for range 3 {
		local.Learn(id, many)
		many = many[4:]
	}
	if got := local.hearsay.about(PeerID(id), time.Now()); len(got) != maxHearsayAddrs || got[0].String() != "/ip4/192.0.2.4/tcp/1" {
		t.Errorf("of many addresses are kept %v", got)
	}
}

// What is told to others is what they may learn.
func TestAddressesAreLearnable(t *testing.T) {
	n := start(t, func(o *Options) {
		o.Listen = []string{"/ip4/0.0.0.0/tcp/0"}
		o.Announce = []string{"/ip4/192.0.2.7/tcp/5051", "/dns4/node.example/tcp/5051", "/ip4/127.0.0.1/tcp/5051"}
	})
	if got := n.Addresses(n.Self()); !slices.Equal(got, []string{"/ip4/192.0.2.7/tcp/5051"}) {
		t.Errorf("own addresses %v", got)
	}
	var all []ma.Multiaddr
	for i := range 20 {
		all = append(all, addrs(t, fmt.Sprintf("/ip4/192.0.2.%d/tcp/1", i))...)
	}
	n.host.Peerstore().AddAddrs(PeerID(chunkindex.NodeID{1}), all, peerstore.TempAddrTTL)
	if got := n.Addresses(chunkindex.NodeID{1}); len(got) != maxHearsayAddrs {
		t.Errorf("%d addresses", len(got))
	}
}

func TestHearsayIsBoundedAndFades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s hearsay
		id := func(i int) peer.ID { return PeerID(chunkindex.NodeID{byte(i), byte(i >> 8), 1}) }
		at := addrs(t, "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1")
		for i := range maxHearsay {
			s.tell(id(i), at[:1], time.Now())
		}
		s.tell(id(0), at[:1], time.Now()) // told again, so that id(1) is the oldest
		s.tell(id(maxHearsay), at[:1], time.Now())
		s.tell(id(maxHearsay+1), nil, time.Now())
		if len(s.nodes) != maxHearsay || s.order.Len() != maxHearsay {
			t.Errorf("%d and %d nodes", len(s.nodes), s.order.Len())
		}
		for i, want := range map[int]bool{0: true, 1: false, 2: true, maxHearsay: true, maxHearsay + 1: false} {
			if got := len(s.about(id(i), time.Now())) == 1; got != want {
				t.Errorf("node %d known: %t", i, got)
			}
		}
		time.Sleep(hearsayTTL - time.Second)
		s.tell(id(0), at[1:], time.Now())
		time.Sleep(time.Second)
		if s.about(id(2), time.Now()) != nil || len(s.nodes) != maxHearsay-1 {
			t.Error("hearsay does not fade")
		}
		if got := s.about(id(0), time.Now()); len(got) != 2 || !got[0].Equal(at[1]) {
			t.Errorf("what was told again is %v", got)
		}
		s.forget(id(0))
		if s.about(id(0), time.Now()) != nil {
			t.Error("not forgotten")
		}
	})
}
