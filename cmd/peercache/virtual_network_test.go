package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	libp2pnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// virtualNetwork is a network of simulated packets: each host has a link of its own to
// a switch that knows how long a packet takes between two of them. What goes over it is
// QUIC, where production has TCP with TLS and yamux: the congestion control is
// another, what is sent is the same.
type virtualNetwork struct {
	packets simnet.Simnet
	// delay is one way, between two hosts by their numbers.
	delay func(from, to int) time.Duration

	mu     sync.Mutex // also guards packets.NewEndpoint, which is not safe
	hosts  []*virtualHost
	random *rand.Rand
	losses int64                  // packets so far
	lost   func(from, to int) int // parts in a million of the packets between two hosts, under mu
}

// Hosts are numbered: the origin is the first, the nodes follow.
const (
	originHost   = 0
	firstNode    = 1
	maxHosts     = 1 << 16
	peerPort     = 5051
	registryPort = 80
)

func newVirtualNetwork(seed uint64, delay func(from, to int) time.Duration) *virtualNetwork {
	v := &virtualNetwork{delay: delay, random: rand.New(rand.NewPCG(seed, 1))}
	v.packets.LatencyFunc = func(p *simnet.Packet) time.Duration { return delay(hostOf(p.From), hostOf(p.To)) }
	v.packets.Logger = slog.New(slog.DiscardHandler)
	v.packets.Start()
	return v
}

func (v *virtualNetwork) close() { v.packets.Close() }

// lose has packets be lost from now on.
func (v *virtualNetwork) lose(parts func(from, to int) int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lost = parts
}

func (v *virtualNetwork) loses(from, to int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lost == nil || v.random.IntN(1e6) >= v.lost(from, to) {
		return false
	}
	v.losses++
	return true
}

func hostIP(number int) net.IP { return net.IPv4(10, 1, byte(number>>8), byte(number)).To16() }

func hostOf(a net.Addr) int { return hostOfIP(a.(*net.UDPAddr).IP) }

func hostOfIP(ip net.IP) int {
	ip = ip.To4()
	return int(ip[2])<<8 | int(ip[3])
}

// virtualHost is one machine on the network. It outlives what runs on it.
type virtualHost struct {
	on     *virtualNetwork
	number int
	link   simnet.NodeBiDiLinkSettings

	mu    sync.Mutex
	dead  bool
	conns map[virtualEnd]bool    // that are open
	quic  *quicreuse.ConnManager // of the node that runs here
}

// virtualEnd is a host's end of a connection.
type virtualEnd interface {
	abort()      // breaks it, for both
	remote() int // the other host
}

// unlimited is a rate that nothing in a test comes near, in bytes a second.
const unlimited = 1 << 40

// addHost adds a host. Rates are in bytes a second, 0 for no bound.
func (v *virtualNetwork) addHost(number int, up, down int64) *virtualHost {
	settings := func(rate int64) simnet.LinkSettings {
		if rate == 0 {
			rate = unlimited
		}
		return simnet.LinkSettings{BitsPerSecond: int(8 * rate)}
	}
	h := &virtualHost{
		on: v, number: number, conns: map[virtualEnd]bool{},
		link: simnet.NodeBiDiLinkSettings{Uplink: settings(up), Downlink: settings(down)},
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hosts = append(v.hosts, h)
	return h
}

// endpoint is where packets of the host leave and arrive.
func (h *virtualHost) endpoint(port int) net.PacketConn {
	h.on.mu.Lock()
	defer h.on.mu.Unlock()
	return &virtualPackets{h.on.packets.NewEndpoint(&net.UDPAddr{IP: hostIP(h.number), Port: port}, h.link), h}
}

// virtualPackets loses what is to be lost.
type virtualPackets struct {
	*simnet.SimConn
	host *virtualHost
}

func (p *virtualPackets) WriteTo(b []byte, to net.Addr) (int, error) {
	if p.host.isDead() || p.host.on.loses(p.host.number, hostOf(to)) {
		return len(b), nil
	}
	u := to.(*net.UDPAddr)
	return p.SimConn.WriteTo(b, &net.UDPAddr{IP: u.IP.To16(), Port: u.Port})
}

func (h *virtualHost) isDead() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dead
}

// die has the host fall silent at once, as a process that is killed does: whoever runs
// there may not even tell that it loses its connections. Its peers' ends of them break, as
// where its kernel resets them.
func (h *virtualHost) die() {
	h.mu.Lock()
	h.dead, h.conns = true, map[virtualEnd]bool{}
	h.mu.Unlock()
	h.on.mu.Lock()
	others := slices.Clone(h.on.hosts)
	h.on.mu.Unlock()
	for _, o := range others {
		for _, end := range o.ends(func(remote int) bool { return remote == h.number }) {
			end.abort()
		}
	}
}

// ends are the host's ends of open connections to some hosts. They are not counted
// among the open ones any more.
func (h *virtualHost) ends(to func(remote int) bool) []virtualEnd {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ends []virtualEnd
	for c := range h.conns {
		if to(c.remote()) {
			ends = append(ends, c)
			delete(h.conns, c)
		}
	}
	return ends
}

// revive lets something new run on the host.
func (h *virtualHost) revive() {
	h.mu.Lock()
	h.dead = false
	h.mu.Unlock()
}

func (h *virtualHost) opened(c virtualEnd) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = true
}

func (h *virtualHost) ended(c virtualEnd) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

// network is what a node on this host stands on. clients is where its clients are.
func (h *virtualHost) network(clients *origintest.Network) network {
	return network{
		listen: func(addr string) (net.Listener, error) { return clients.Listen(addr), nil },
		peers: []libp2p.Option{
			libp2p.QUICReuse(func(l fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, opts ...quicreuse.Option) (*quicreuse.ConnManager, error) {
				m, err := quicreuse.NewConnManager(reset, token, opts...)
				if err == nil {
					l.Append(fx.StopHook(m.Close))
				}
				return m, err
			},
				quicreuse.OverrideListenUDP(func(_ string, a *net.UDPAddr) (net.PacketConn, error) { return h.endpoint(a.Port), nil }),
				quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return hostSource(h.number), nil })),
			libp2p.Transport(func(key crypto.PrivKey, m *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, limits libp2pnet.ResourceManager) (*virtualTransport, error) {
				inner, err := libp2pquic.NewTransport(key, m, psk, gater, limits)
				if err != nil {
					return nil, err
				}
				h.mu.Lock()
				h.quic = m
				h.mu.Unlock()
				return &virtualTransport{inner, h}, nil
			}),
		},
		origin: h.dialOrigin,
	}
}

type hostSource int

func (s hostSource) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return hostIP(int(s)), nil
}

// virtualTransport goes by addresses of TCP, as production does, although it is QUIC
// that is spoken there.
type virtualTransport struct {
	transport.Transport
	host *virtualHost
}

func (t *virtualTransport) Protocols() []int { return []int{ma.P_TCP} }

func (t *virtualTransport) CanDial(a ma.Multiaddr) bool {
	return len(a) == 2 && a[0].Code() == ma.P_IP4 && a[1].Code() == ma.P_TCP
}

func (t *virtualTransport) Dial(ctx context.Context, to ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	return t.own(t.Transport.Dial(ctx, toQUIC(to), p))
}

func (t *virtualTransport) Listen(a ma.Multiaddr) (transport.Listener, error) {
	l, err := t.Transport.Listen(toQUIC(a))
	if err != nil {
		return nil, err
	}
	return &virtualListener{l, t, a}, nil
}

func (t *virtualTransport) own(c transport.CapableConn, err error) (transport.CapableConn, error) {
	if err != nil {
		return nil, err
	}
	own := &virtualConn{c, t}
	t.host.opened(own)
	return own, nil
}

type virtualListener struct {
	transport.Listener
	transport *virtualTransport
	addr      ma.Multiaddr
}

func (l *virtualListener) Accept() (transport.CapableConn, error) {
	return l.transport.own(l.Listener.Accept())
}

func (l *virtualListener) Multiaddr() ma.Multiaddr { return l.addr }

type virtualConn struct {
	transport.CapableConn
	transport *virtualTransport
}

func (c *virtualConn) Transport() transport.Transport { return c.transport }
func (c *virtualConn) LocalMultiaddr() ma.Multiaddr   { return toTCP(c.CapableConn.LocalMultiaddr()) }
func (c *virtualConn) RemoteMultiaddr() ma.Multiaddr  { return toTCP(c.CapableConn.RemoteMultiaddr()) }

func (c *virtualConn) Close() error {
	c.transport.host.ended(c)
	return c.CapableConn.Close()
}

func (c *virtualConn) CloseWithError(code libp2pnet.ConnErrorCode) error {
	c.transport.host.ended(c)
	return c.CapableConn.CloseWithError(code)
}

func (c *virtualConn) abort() { _ = c.CapableConn.CloseWithError(0) }

func (c *virtualConn) remote() int {
	a, err := manet.ToNetAddr(toTCP(c.CapableConn.RemoteMultiaddr()))
	if err != nil {
		panic(err) // of an address that is one
	}
	return hostOfIP(a.(*net.TCPAddr).IP)
}

func translate(a ma.Multiaddr, format string) ma.Multiaddr {
	m, err := ma.NewMultiaddr(fmt.Sprintf(format, a[0].Value(), a[1].Value()))
	if err != nil {
		panic(err) // of an address that was one
	}
	return m
}

func toQUIC(a ma.Multiaddr) ma.Multiaddr { return translate(a, "/ip4/%s/udp/%s/quic-v1") }
func toTCP(a ma.Multiaddr) ma.Multiaddr  { return translate(a, "/ip4/%s/tcp/%s") }

// originProtocol names the bytes of a TCP connection to the origin in a QUIC stream.
const originProtocol = "origin"

// dialOrigin gives a connection to the origin. It shares the host's link with
// what goes to and from peers.
func (h *virtualHost) dialOrigin(ctx context.Context, _, _ string) (net.Conn, error) {
	h.mu.Lock()
	m := h.quic
	h.mu.Unlock()
	to := ma.StringCast(fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", hostIP(originHost), registryPort))
	conn, err := m.DialQUIC(ctx, to, &tls.Config{NextProtos: []string{originProtocol}, InsecureSkipVerify: true}, nil)
	if err != nil {
		return nil, err
	}
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		_ = conn.CloseWithError(0, "")
		return nil, err
	}
	c := &streamConn{s, conn, h}
	h.opened(c)
	return c, nil
}

// streamConn is a QUIC connection with one stream, used as a TCP connection is.
type streamConn struct {
	*quic.Stream
	conn *quic.Conn
	host *virtualHost
}

func (c *streamConn) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *streamConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }
func (c *streamConn) abort()               { _ = c.conn.CloseWithError(1, "") }
func (c *streamConn) remote() int          { return hostOf(c.conn.RemoteAddr()) }

func (c *streamConn) Close() error {
	c.host.ended(c)
	return c.conn.CloseWithError(0, "")
}
