package p2p

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/prometheus/client_golang/prometheus"
)

// DefaultListen is where a node listens unless told otherwise: reachable from
// this machine only, because nothing yet decides who may join.
const DefaultListen = "/ip4/127.0.0.1/tcp/5051"

// DefaultPort is the port of [DefaultListen].
const DefaultPort = 5051

// Resolver looks names up. *net.Resolver is one.
type Resolver interface {
	// LookupNetIP returns the addresses of a host. network is "ip".
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options are the optional parameters of [New]. The zero value of each field
// means its default.
type Options struct {
	// Listen holds the multiaddrs to listen on (/ip4 or /ip6, then /tcp). Each
	// must be bound for New to succeed. Default: [DefaultListen].
	Listen []string

	// Announce holds the multiaddrs that other nodes are told instead of those
	// that were found out: the listen addresses, where those are unspecified
	// (0.0.0.0, ::) the addresses of this machine's interfaces, except loopback
	// (unless there is no other), link-local ones, and the bridges and virtual
	// interfaces of container runtimes, which lead nowhere from another machine.
	Announce []string

	// Bootstrap holds where other nodes can be found, tried for ever:
	//
	//	/ip4/192.0.2.1/tcp/5051/p2p/12D3…  a multiaddr; without /p2p/ whoever answers
	//	dns:NAME or dns:NAME:PORT          all addresses of a name, with the port
	//	                                   that this node listens on unless given
	//	file:PATH                          one multiaddr a line, # starts a
	//	                                   comment; read again when it changes
	Bootstrap []string

	// MDNS makes the node announce itself and look for others by multicast DNS
	// on the local network.
	MDNS bool

	// ProviderValidity is how long a provider record is believed after it was
	// last announced; a node announces again at a third of it. All nodes of a
	// cluster should agree. Default: 2 h.
	ProviderValidity time.Duration

	// DialTimeout bounds connecting to a peer, handshakes included. Default: 2 s.
	DialTimeout time.Duration

	// StallTimeout is how long a peer may send nothing while bytes of a range or
	// a response are awaited. Default: 2 s.
	StallTimeout time.Duration

	// CallTimeout bounds how long a call's response may take to begin, and the
	// time that the Handler has for it. Default: 10 s.
	CallTimeout time.Duration

	// PeerTimeout is the silence after which a connected peer is held to be
	// dead. Peers send something at least three times in it. Default: 5 s.
	PeerTimeout time.Duration

	// MaxServing bounds the ranges and calls that are served at once, each, to
	// all peers; MaxServingPeer to one, which also gets no more than it leaves
	// free to others. Requests above are answered BUSY. Defaults: 64 and 16.
	MaxServing     int
	MaxServingPeer int

	// LowPeers and HighPeers are the connection manager's watermarks: above
	// HighPeers connected peers, connections outside of the routing table's
	// nearest buckets are closed down to LowPeers, those first over which no
	// range and no control frame has gone for a minute or two. A connection
	// costs about 200 KiB and 0.1 ms of CPU a second when idle; 320 hold the
	// routing table of 5,000 nodes (about 160) and a node's neighbours in several
	// swarms. Defaults: 320 and 400.
	LowPeers  int
	HighPeers int

	// Transport replaces TCP, TLS and yamux as the way to other nodes by another
	// libp2p.Transport and the options that it needs. It has to go by addresses of TCP
	// all the same. It is there for networks that are simulated.
	Transport []libp2p.Option

	// Resolver resolves the names of Bootstrap. Default: net.DefaultResolver.
	Resolver Resolver

	// Logger receives what happens. Default: nothing is logged.
	Logger *slog.Logger

	// Registerer receives the metrics. Default: they are not exposed.
	Registerer prometheus.Registerer

	// Set by tests.
	libp2p     []libp2p.Option                // appended to New's own
	interfaces func() ([]netInterface, error) // instead of the machine's
	grace      time.Duration                  // that new connections have before they can be trimmed
}

func (o *Options) withDefaults() Options {
	var r Options
	if o != nil {
		r = *o
	}
	if len(r.Listen) == 0 {
		r.Listen = []string{DefaultListen}
	}
	fallback(&r.ProviderValidity, 2*time.Hour)
	fallback(&r.DialTimeout, 2*time.Second)
	fallback(&r.StallTimeout, 2*time.Second)
	fallback(&r.CallTimeout, 10*time.Second)
	fallback(&r.PeerTimeout, 5*time.Second)
	fallback(&r.MaxServing, 64)
	fallback(&r.MaxServingPeer, 16)
	fallback(&r.grace, 30*time.Second)
	fallback(&r.LowPeers, 320)
	fallback(&r.HighPeers, max(400, r.LowPeers))
	if r.Resolver == nil {
		r.Resolver = net.DefaultResolver
	}
	if r.Logger == nil {
		r.Logger = slog.New(slog.DiscardHandler)
	}
	if r.Registerer == nil {
		r.Registerer = prometheus.NewRegistry()
	}
	if r.interfaces == nil {
		r.interfaces = machineInterfaces
	}
	return r
}

func fallback[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
