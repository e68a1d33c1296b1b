package p2p

import (
	"net"
	"testing"
)

func TestMDNS(t *testing.T) {
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353}
	multicast := false
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range ifs {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 {
			if c, err := net.ListenMulticastUDP("udp4", &i, group); err == nil {
				c.Close()
				multicast = true
			}
		}
	}
	if !multicast {
		t.Skip("no interface with multicast")
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
