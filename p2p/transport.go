package p2p

import (
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
)

// newLibp2p makes a libp2p host that does what this package needs and nothing
// more: TCP, TLS and yamux (with libp2p's window of up to 16 MiB a stream), no
// QUIC (more than twice the CPU a byte), no relay, no NAT traversal, no
// reachability checks, no guessing of addresses from what peers observe.
func newLibp2p(key ed25519.PrivateKey, o Options, book *addressBook, conns *connmgr.BasicConnMgr) (host.Host, error) {
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("p2p: identity: %w", err)
	}
	limits, err := newResourceManager(o)
	if err != nil {
		return nil, err
	}
	options := []libp2p.Option{
		libp2p.Identity(priv),
		libp2p.UserAgent(userAgent),
		libp2p.NoListenAddrs, // listened on one by one, so that each must succeed
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.ConnectionGater(onlyNodes{}),
		libp2p.AddrsFactory(book.choose),
		libp2p.DisableRelay(),
		libp2p.Ping(false),
		libp2p.DisableMetrics(), // they would be global
		libp2p.DisableIdentifyAddressDiscovery(),
		// A cluster's IPv6 works or does not; a detector that stops dialling
		// after some failures would keep a partition alive.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		libp2p.WithDialTimeout(o.DialTimeout),
		libp2p.SwarmOpts(swarm.WithDialTimeoutLocal(o.DialTimeout)),
	}
	transport := o.Transport
	if transport == nil {
		transport = []libp2p.Option{
			// Without SO_REUSEPORT: with it, a second node on the same port would
			// start, and take half of the first one's connections.
			libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport(), tcp.WithConnectionTimeout(o.DialTimeout)),
			libp2p.Security(libp2ptls.ID, libp2ptls.New),
			libp2p.Muxer(yamux.ID, newMuxer()),
		}
	}
	return libp2p.New(slices.Concat(options, transport, o.libp2p)...)
}

// onlyNodes refuses peers whose key is not Ed25519: they have no NodeID.
type onlyNodes struct{}

func (onlyNodes) InterceptPeerDial(p peer.ID) bool                                { _, ok := NodeOf(p); return ok }
func (onlyNodes) InterceptAddrDial(peer.ID, ma.Multiaddr) bool                    { return true }
func (onlyNodes) InterceptAccept(network.ConnMultiaddrs) bool                     { return true }
func (onlyNodes) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
func (onlyNodes) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	_, ok := NodeOf(p)
	return ok
}
