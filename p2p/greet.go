package p2p

import (
	"context"
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"
)

// learnID finds out which peer answers at an address, by a TLS handshake that
// accepts any peer and is followed by nothing. libp2p itself dials known peers
// only, and a DNS name says nothing about keys.
//
// This is safe because nothing is believed that would not have to be proven
// anyway: the handshake shows that whoever answers holds the key of the ID that
// it names, and the connection that is made next demands the same key again.
// Somebody who controls the address can make this node connect to a peer of his
// choice, which is what bootstrapping from that address means; what a peer may
// do once it is connected does not depend on how it was found.
func learnID(ctx context.Context, key crypto.PrivKey, addr ma.Multiaddr) (peer.ID, error) {
	network, address, err := manet.DialArgs(addr)
	if err != nil {
		return "", err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// A handshake that hangs ends with ctx.
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := multistream.SelectProtoOrFail(libp2ptls.ID, conn); err != nil {
		return "", fmt.Errorf("not a libp2p node: %w", err)
	}
	tls, err := libp2ptls.New(libp2ptls.ID, key, nil)
	if err != nil {
		return "", err
	}
	secure, err := tls.SecureOutbound(ctx, conn, "") // any peer
	if err != nil {
		return "", err
	}
	defer secure.Close()
	id := secure.RemotePeer()
	if _, ok := NodeOf(id); !ok {
		return "", fmt.Errorf("peer %s has no Ed25519 key", id)
	}
	return id, nil
}
