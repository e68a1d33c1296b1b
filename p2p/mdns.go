package p2p

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

// HandlePeerFound implements mdns.Notifee.
func (c *connector) HandlePeerFound(p peer.AddrInfo) { c.post(event{found: &p}) }

// mdnsService is the service's name on the local network.
const mdnsService = "_peercache._udp"

// runMDNS announces this node on the local network and hands those that it finds
// to the connector. Where multicast is impossible the node goes on without.
func (h *Host) runMDNS(ctx context.Context) {
	for {
		s := mdns.NewMdnsService(h.host, mdnsService, h.connector)
		err := s.Start()
		if err == nil {
			<-ctx.Done()
		} else if ctx.Err() == nil {
			h.log.Warn("mDNS cannot be used, trying on", "err", err)
			sleep(ctx, jitter(maxRetry))
		}
		if err := s.Close(); err != nil {
			h.log.Warn("mDNS not closed", "err", err)
		}
		if ctx.Err() != nil {
			return
		}
	}
}
