package p2p

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	coreconnmgr "github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/x/rate"
)

// streamWindow is what yamux reserves for each stream, and the resource manager
// counts, whether or not a byte is ever buffered.
const streamWindow = 256 << 10

// newResourceManager bounds what peers can make this node hold.
//
// libp2p's defaults are made for strangers on the Internet: 8 connections and
// 0.2 new ones a second from an IPv4 address. A cluster behind one NAT address,
// or restarted at once, would lock itself out, so there is no limit by address;
// the total is bounded instead. The memory limits count granted windows, not
// held bytes: a connected peer costs about four streams (control, identify, DHT
// both ways), 1 MiB, without buffering anything, and windows may grow (to 16 MiB
// a stream) only while less than half of the limit is granted.
func newResourceManager(o Options) (network.ResourceManager, error) {
	conns := 2*o.HighPeers + 256 // a burst above the watermark, until it is trimmed
	perPeer := rcmgr.ResourceLimits{
		// Two nodes that dial each other at once hold two connections.
		Conns: 8, ConnsInbound: 8, ConnsOutbound: 8, FD: 8,
		Streams: 512, StreamsInbound: 256, StreamsOutbound: 256,
		Memory: 256 << 20,
	}
	system := rcmgr.ResourceLimits{
		Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(conns), ConnsOutbound: rcmgr.LimitVal(conns),
		FD:      rcmgr.LimitVal(conns),
		Streams: rcmgr.LimitVal(8 * conns), StreamsInbound: rcmgr.LimitVal(6 * conns), StreamsOutbound: rcmgr.LimitVal(6 * conns),
		Memory: rcmgr.LimitVal64(8*o.HighPeers*streamWindow + 512<<20),
	}
	transient := rcmgr.ResourceLimits{ // not yet past the handshake
		Conns: 512, ConnsInbound: 256, ConnsOutbound: 256, FD: 512,
		Streams: 1024, StreamsInbound: 512, StreamsOutbound: 512,
		Memory: 256 << 20,
	}
	// Limits of protocols and services would only repeat the above.
	none := rcmgr.ResourceLimits{
		Streams: rcmgr.Unlimited, StreamsInbound: rcmgr.Unlimited, StreamsOutbound: rcmgr.Unlimited,
		Conns: rcmgr.Unlimited, ConnsInbound: rcmgr.Unlimited, ConnsOutbound: rcmgr.Unlimited,
		FD: rcmgr.Unlimited, Memory: rcmgr.Unlimited64,
	}
	limits := rcmgr.PartialLimitConfig{
		System: system, Transient: transient, PeerDefault: perPeer,
		AllowlistedSystem: system, AllowlistedTransient: transient,
		ServiceDefault: none, ServicePeerDefault: perPeer,
		ProtocolDefault: none, ProtocolPeerDefault: perPeer,
		Conn:   rcmgr.ResourceLimits{Conns: 1, ConnsInbound: 1, ConnsOutbound: 1, FD: 1, Memory: 64 << 20},
		Stream: rcmgr.ResourceLimits{Streams: 1, StreamsInbound: 1, StreamsOutbound: 1, Memory: 17 << 20},
	}.Build(rcmgr.InfiniteLimits)

	everywhere := func(p string) []rcmgr.NetworkPrefixLimit {
		return []rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix(p), ConnCount: math.MaxInt}}
	}
	m, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit(everywhere("0.0.0.0/0"), everywhere("::/0")),
		rcmgr.WithConnRateLimiters(&rate.Limiter{
			// New connections, each of which costs a handshake: 500 a second
			// (about half a core), after a burst in which everybody comes back.
			GlobalLimit: rate.Limit{RPS: 500, Burst: 5000},
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("p2p: resource limits: %w", err)
	}
	return m, nil
}

const (
	// tagPeriod is how often a connection in use is tagged as such.
	tagPeriod = 10 * time.Second
	// One tagging lasts one to two minutes: it is worth more than two fadings,
	// and more than the DHT's tag for a peer of its table (5), so that a
	// neighbour in a swarm outlives a peer that is merely known.
	activeBump = 25
	activeFade = 10
	activeMost = 60
)

// activeTag is the connection manager's tag for peers that bytes were exchanged
// with. It fades within minutes.
func activeTag(m *connmgr.BasicConnMgr) (coreconnmgr.DecayingTag, error) {
	return m.RegisterDecayingTag("peercache-active", time.Minute,
		coreconnmgr.DecayFixed(activeFade), coreconnmgr.BumpSumBounded(0, activeMost))
}

// newConnManager closes idle connections above the watermarks. The default of
// 160/192 would make every node of a cluster of 200 drop and dial connections
// all the time.
func newConnManager(o Options) (*connmgr.BasicConnMgr, error) {
	m, err := connmgr.NewConnManager(o.LowPeers, o.HighPeers, connmgr.WithGracePeriod(o.grace))
	if err != nil {
		return nil, fmt.Errorf("p2p: connection watermarks: %w", err)
	}
	return m, nil
}
