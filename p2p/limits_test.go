package p2p

import (
	"context"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// Above the watermarks connections are closed that nothing goes over; those to
// peers that exchange control frames stay, whoever connected first or last.
func TestNeighboursAreNotTrimmed(t *testing.T) {
	const low, high, idle = 2, 4, 6
	n := start(t, func(o *Options) { o.LowPeers, o.HighPeers, o.grace = low, high, time.Millisecond })
	// Raw peers are in no routing table, which would protect some of them.
	neighbour := func() raw {
		r := rawOpener(t, n)
		s := r.open(t, n, controlProtocol)
		s.Write([]byte{1, controlVersion})
		until(t, "the neighbour to be up", func() bool { return n.rec.isUp(r.node) })
		return r
	}
	// The first one sends frames, the last one only receives them.
	sends := neighbour()
	var others []raw
	for range idle {
		others = append(others, rawPeer(t, n))
	}
	receives := neighbour()
	quiet := neighbour() // says hello, and nothing else
	for _, s := range sends.host.Network().Conns()[0].GetStreams() {
		if s.Protocol() == controlProtocol {
			s.Write([]byte{3, 'a', 'b', 'c'})
		}
	}
	if err := n.Send(receives.node, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	conns := n.host.ConnManager()
	value := func(r raw) int {
		if info := conns.GetTagInfo(r.host.ID()); info != nil {
			return info.Value
		}
		return 0
	}
	until(t, "the neighbours to count as used", func() bool { return value(sends) >= activeBump && value(receives) >= activeBump })
	if v := value(quiet); v != 0 {
		t.Errorf("a peer that only says hello counts %d", v)
	}
	connected := func(r raw) bool { return n.host.Network().Connectedness(r.host.ID()) == network.Connected }
	until(t, "the idle connections to be closed", func() bool {
		conns.TrimOpenConns(context.Background())
		for _, r := range append(others, quiet) {
			if connected(r) {
				return false
			}
		}
		return true
	})
	for _, r := range []raw{sends, receives} {
		if !connected(r) || !n.rec.isUp(r.node) || n.rec.upCount(r.node) != 1 {
			t.Error("a neighbour was cut off")
		}
	}
}

// A cluster behind one address can connect, and the total is bounded all the
// same.
func TestConnectionsFromOneAddress(t *testing.T) {
	o := (&Options{}).withDefaults()
	m, err := newResourceManager(o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	addr := addrs(t, "/ip4/192.0.2.1/tcp/5051")[0]
	opened := 0
	var last error
	var scopes []network.ConnManagementScope
	for opened < 10_000 {
		// A connection leaves the transient scope when its peer is known.
		s, err := m.OpenConnection(network.DirInbound, true, addr)
		if err != nil {
			last = err
			break
		}
		var id [32]byte
		id[0], id[1] = byte(opened), byte(opened>>8)
		if err := s.SetPeer(PeerID(id)); err != nil {
			last = err
			break
		}
		scopes = append(scopes, s)
		opened++
	}
	for _, s := range scopes {
		s.Done()
	}
	if opened < 2*o.HighPeers || opened > 4*o.HighPeers {
		t.Errorf("%d connections from one address, then %v", opened, last)
	}
}
