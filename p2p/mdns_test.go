package p2p

import (
	"os"
	"testing"
)

// Multicast leaves the machine, so this runs only where somebody asked for it.
func TestMDNS(t *testing.T) {
	if os.Getenv("PEERCACHE_TEST_MULTICAST") == "" {
		t.Skip("set PEERCACHE_TEST_MULTICAST=1 to send multicast to the local network")
	}
	on := func(o *Options) { o.MDNS = true }
	together(t, start(t, on), start(t, on))
}

// What mDNS finds is connected to.
func TestFoundPeerIsConnected(t *testing.T) {
	a, b := start(t, nil), start(t, nil)
	info := a.host.Peerstore().PeerInfo(a.host.ID())
	info.Addrs = a.host.Addrs()
	b.connector.HandlePeerFound(info)
	together(t, a, b)
}
