package p2p

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
)

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
