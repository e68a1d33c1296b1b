package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	ma "github.com/multiformats/go-multiaddr"
)

type fakeResolver struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	asked int
}

func (f *fakeResolver) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	ips, ok := f.names[network+" "+host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return ips, nil
}

func (f *fakeResolver) set(name string, ips ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.names[name] = nil
	for _, s := range ips {
		f.names[name] = append(f.names[name], netip.MustParseAddr(s))
	}
}

func (f *fakeResolver) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func tcpPort(t testing.TB, n *node) string {
	t.Helper()
	return tcpPortOf(t, n.host.Network().ListenAddresses()[0].String())
}

func tcpPortOf(t testing.TB, addr string) string {
	t.Helper()
	p, err := addrs(t, addr)[0].ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBootstrapKinds(t *testing.T) {
	a := start(t, nil)
	port := tcpPort(t, a)
	resolver := &fakeResolver{names: map[string][]netip.Addr{}}
	resolver.set("ip peers.test", "127.0.0.1")
	resolver.set("ip4 peers.test", "127.0.0.1")
	list := filepath.Join(t.TempDir(), "peers")
	if err := os.WriteFile(list, []byte("# the cluster\n\n"+a.Addrs()[0]+" # first\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		a.Addrs()[0],
		"/ip4/127.0.0.1/tcp/" + port, // whoever is there
		"/dns4/peers.test/tcp/" + port,
		"/dns4/peers.test/tcp/" + port + "/p2p/" + a.PeerID(),
		"dns:peers.test:" + port,
		"file:" + list,
	} {
		t.Run(strings.ReplaceAll(s[:min(len(s), 12)], "/", "_"), func(t *testing.T) {
			b := start(t, func(o *Options) { o.Bootstrap, o.Resolver = []string{s}, resolver })
			together(t, a, b)
		})
	}
}

// dns:NAME means the port that the node listens on itself.
func TestBootstrapDNSDefaultPort(t *testing.T) {
	a := start(t, func(o *Options) { o.Listen = []string{"/ip4/127.0.0.2/tcp/0"} })
	resolver := &fakeResolver{names: map[string][]netip.Addr{}}
	b := start(t, func(o *Options) {
		o.Listen = []string{"/ip4/127.0.0.3/tcp/" + tcpPort(t, a)}
		o.Bootstrap, o.Resolver = []string{"dns:peers.test"}, resolver
	})
	// The name appears later, and names the node itself too, as a headless
	// service does.
	until(t, "the name to be looked up in vain", func() bool { return resolver.count() > 2 })
	resolver.set("ip peers.test", "127.0.0.2", "127.0.0.3")
	together(t, a, b)
}

func TestBootstrapFileIsReadAgain(t *testing.T) {
	a, c := start(t, nil), start(t, nil)
	list := filepath.Join(t.TempDir(), "peers")
	b := start(t, bootstrap("file:"+list)) // not there yet
	write := func(s string) {
		tmp := list + ".new"
		if err := errors.Join(os.WriteFile(tmp, []byte(s), 0o600), os.Rename(tmp, list)); err != nil {
			t.Fatal(err)
		}
	}
	write(a.Addrs()[0] + "\n")
	together(t, a, b)
	write("this is not an address\n")
	until(t, "the mistake to be logged", func() bool { return strings.Contains(b.log.String(), "this is not an address") })
	write(a.Addrs()[0] + "\n" + c.Addrs()[0] + "\n")
	together(t, b, c)
}

// The bootstrap node comes up after the node that needs it.
func TestBootstrapRetriesQuickly(t *testing.T) {
	a := start(t, nil)
	a.keepPort()
	addr := a.Addrs()
	a.stop()
	b := start(t, bootstrap(addr...))
	until(t, "a failed attempt", func() bool {
		return b.count(t, "peercache_p2p_dials_total", map[string]string{"result": "failed"}) >= 2
	})
	a.run(t)
	begin := time.Now()
	together(t, a, b)
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("met after %v", d)
	}
}

func TestRestartWithSameKeyAndPort(t *testing.T) {
	a := start(t, nil)
	a.keepPort()
	b := start(t, bootstrap(a.Addrs()...))
	together(t, a, b)
	id := a.Self()
	for range 2 {
		a.stop()
		until(t, "b to notice", func() bool { return !b.rec.isUp(id) })
		a.run(t)
		if a.Self() != id {
			t.Fatal("identity changed over a restart")
		}
		begin := time.Now()
		together(t, a, b)
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("together again after %v", d)
		}
	}
}

// A node comes back to peers that it only ever met, with its bootstrap gone.
func TestKnownPeersSurviveRestart(t *testing.T) {
	a := start(t, nil)
	b := start(t, bootstrap(a.Addrs()...))
	c := start(t, bootstrap(a.Addrs()...))
	together(t, a, b, c)
	until(t, "c to remember b", func() bool {
		ok, err := c.ds.Has(context.Background(), datastore.NewKey("/known/"+b.PeerID()))
		return ok && err == nil
	})
	a.stop()
	c.stop()
	c.opts.Bootstrap = nil
	c.run(t)
	together(t, b, c)
}

func TestBadBootstrapIsNamed(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("/ip4/127.0.0.1/tcp/5051\n/ip4/nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", "localhost:5051", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/5051/quic-v1", "/ip4/1.2.3/tcp/1",
		"/p2p/12D3KooWGzh9MTGPsbZgHMXa1i7xdn2pCPJxFpgk2Fj8VNQ7m6hE",
		"/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
		"dns:", "dns:a:b:c", "dns:name:0", "dns:name:99999", "dns:na me", "file:", "file:" + bad, "ftp://x",
	} {
		_, err := New(filepath.Join(t.TempDir(), "id"), datastore.NewMapDatastore(), &Options{
			Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Bootstrap: []string{s},
		})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", s)) {
			t.Errorf("bootstrap %q: %v", s, err)
		}
	}
}

func TestPortTakenIsNamed(t *testing.T) {
	a := start(t, nil)
	taken := a.host.Network().ListenAddresses()[0].String()
	_, err := New(filepath.Join(t.TempDir(), "id"), datastore.NewMapDatastore(), &Options{
		Listen: []string{"/ip4/127.0.0.1/tcp/0", taken},
	})
	if err == nil || !strings.Contains(err.Error(), taken) || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a taken port gives %v", err)
	}
	for _, s := range []string{"127.0.0.1:5051", "/ip4/127.0.0.1/udp/1/quic-v1", "/ip4/192.0.2.99/tcp/0"} {
		_, err := New(filepath.Join(t.TempDir(), "id"), datastore.NewMapDatastore(), &Options{Listen: []string{s}})
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("listening on %s gives %v", s, err)
		}
	}
}

func TestSilentPeerGoesDown(t *testing.T) {
	quick := func(o *Options) { o.PeerTimeout = time.Second }
	a := start(t, quick)
	r := newRelay(t, "127.0.0.1:"+tcpPort(t, a))
	b := start(t, func(o *Options) {
		quick(o)
		o.Bootstrap = []string{"/ip4/127.0.0.1/tcp/" + strings.TrimPrefix(r.ln.Addr().String(), "127.0.0.1:")}
	})
	together(t, a, b)
	if err := b.Probe(testContext(t), a.Self()); err != nil {
		t.Errorf("probe of a live peer: %v", err)
	}
	r.hold()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if err := b.Probe(ctx, a.Self()); err == nil {
		t.Error("probe of a silent peer succeeded")
	}
	begin := time.Now()
	// b finds another way to a at once: identify told it a's own address.
	down := func(n, of *node) {
		until(t, "a silent peer to go down", func() bool { return !n.rec.isUp(of.Self()) || n.rec.upCount(of.Self()) > 1 })
	}
	down(b, a)
	down(a, b)
	if d := time.Since(begin); d > 3*time.Second {
		t.Errorf("down after %v with a timeout of 1 s", d)
	}
	together(t, a, b)
}
