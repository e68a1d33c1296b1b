package p2p

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"

	"github.com/peercache/peercache/chunkindex"
)

type raw struct {
	host host.Host
	node chunkindex.NodeID
}

func rawHost(t testing.TB, keyType int) host.Host {
	t.Helper()
	key, _, err := crypto.GenerateKeyPairWithReader(keyType, 2048, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.ResourceManager(&network.NullResourceManager{}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// rawPeer connects a libp2p host that does whatever a test makes it do.
func rawPeer(t testing.TB, n *node) raw {
	t.Helper()
	h := rawHost(t, crypto.Ed25519)
	id, ok := NodeOf(h.ID())
	if !ok {
		t.Fatal("raw peer without a node ID")
	}
	connectRaw(t, h, n)
	return raw{h, id}
}

func connectRaw(t testing.TB, h host.Host, n *node) {
	t.Helper()
	if err := h.Connect(testContext(t), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// rawOpener is a raw peer whose ID is below the node's, so that it has to open
// the control stream; rawAcceptor one whose ID is above.
func rawOpener(t testing.TB, n *node) raw {
	for {
		h := rawHost(t, crypto.Ed25519)
		if id, _ := NodeOf(h.ID()); id.Compare(n.Self()) < 0 {
			connectRaw(t, h, n)
			return raw{h, id}
		}
		h.Close()
	}
}

func (r raw) open(t testing.TB, n *node, id protocol.ID) network.Stream {
	t.Helper()
	s, err := r.host.NewStream(testContext(t), n.host.ID(), id)
	if err != nil {
		t.Fatal(err)
	}
	s.SetDeadline(time.Now().Add(patience))
	return s
}

// wantReset waits until the node has given the stream up.
func wantReset(t testing.TB, s network.Stream) {
	t.Helper()
	_, err := io.Copy(io.Discard, s)
	if err == nil || isTimeout(err) {
		t.Errorf("stream ended with %v, want a reset", err)
	}
}

func TestMalformedControl(t *testing.T) {
	n := start(t, nil)
	hello := []byte{1, controlVersion}
	for name, input := range map[string][]byte{
		"no hello":             {0},
		"other version":        {1, 99},
		"hello too long":       binary.AppendUvarint(nil, maxHello+1),
		"padded length":        {0x81, 0x00},
		"frame above limit":    append(append([]byte{}, hello...), binary.AppendUvarint(nil, MaxFrame+1)...),
		"length overflows":     append(append([]byte{}, hello...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"padded frame length":  append(append([]byte{}, hello...), 0x80, 0x00),
		"refused by handler":   append(append([]byte{}, hello...), append([]byte{byte(len(badFrame))}, badFrame...)...),
		"frame length and end": append(append([]byte{}, hello...), 5, 'x'),
	} {
		t.Run(name, func(t *testing.T) {
			before := n.count(t, "peercache_p2p_violations_total", map[string]string{"protocol": "control"})
			evil := rawOpener(t, n)
			s := evil.open(t, n, controlProtocol)
			if _, err := s.Write(input); err != nil {
				t.Fatal(err)
			}
			if name == "frame length and end" {
				s.CloseWrite()
				wantReset(t, s)
				return
			}
			wantReset(t, s)
			until(t, "the violation to be counted", func() bool {
				return n.count(t, "peercache_p2p_violations_total", map[string]string{"protocol": "control"}) == before+1
			})
			// The connection lives, and so does the node: a correct session works.
			s = evil.open(t, n, controlProtocol)
			s.Write(append(append([]byte{}, hello...), 2, 'o', 'k'))
			until(t, "a good frame", func() bool { return len(n.rec.received(evil.node)) == 1 })
			s.Reset()
			until(t, "the peer to go down", func() bool { return !n.rec.isUp(evil.node) })
		})
	}
}

func TestControlFromHigherIDIsRefused(t *testing.T) {
	n := start(t, nil)
	for {
		h := rawHost(t, crypto.Ed25519)
		id, _ := NodeOf(h.ID())
		if id.Compare(n.Self()) < 0 {
			h.Close()
			continue
		}
		connectRaw(t, h, n)
		s := raw{h, id}.open(t, n, controlProtocol)
		s.Write([]byte{1, controlVersion})
		wantReset(t, s)
		break
	}
	until(t, "the violation", func() bool {
		return n.count(t, "peercache_p2p_violations_total", map[string]string{"protocol": "control"}) == 1
	})
}

// A peer that opens control streams without end costs one session at a time.
func TestManyControlStreams(t *testing.T) {
	n := start(t, nil)
	evil := rawOpener(t, n)
	for range 200 {
		s := evil.open(t, n, controlProtocol)
		s.Write([]byte{1, controlVersion})
	}
	until(t, "streams to be refused", func() bool {
		open := 0
		for _, c := range n.host.Network().Conns() {
			for _, s := range c.GetStreams() {
				if s.Protocol() == controlProtocol {
					open++
				}
			}
		}
		return open <= 2
	})
	if ups := n.rec.upCount(evil.node); ups > 60 {
		t.Errorf("%d sessions", ups)
	}
}

// A peer that says hello and then nothing is dropped.
func TestPeerWithoutKeepAlive(t *testing.T) {
	n := start(t, func(o *Options) { o.PeerTimeout = 500 * time.Millisecond })
	evil := rawOpener(t, n)
	s := evil.open(t, n, controlProtocol)
	s.Write([]byte{1, controlVersion})
	until(t, "the peer to be up", func() bool { return n.rec.upCount(evil.node) == 1 })
	conn := n.host.Network().ConnsToPeer(evil.host.ID())[0]
	until(t, "the connection to be closed", conn.IsClosed)
	until(t, "the peer to be down", func() bool { return !n.rec.isUp(evil.node) })
}

func TestMalformedRequests(t *testing.T) {
	n := start(t, nil)
	evil := rawPeer(t, n)
	good := withLength(appendRequest(nil, RangeRequest{digestOf("x"), 0, 1}))
	for _, tc := range []struct {
		name     string
		protocol protocol.ID
		input    []byte
	}{
		{"request above limit", rangeProtocol, binary.AppendUvarint(nil, maxRequestHeader+1)},
		{"empty request", rangeProtocol, []byte{0}},
		{"cut digest", rangeProtocol, []byte{2, 71, 's'}},
		{"no digest", rangeProtocol, []byte{3, 0, 0, 1}},
		{"traversal for a digest", rangeProtocol, withLength(appendRequest(nil, RangeRequest{"../../etc/passwd", 0, 1}))},
		{"trailing bytes", rangeProtocol, append([]byte{good[0] + 1}, append(good[1:len(good):len(good)], 0)...)},
		{"second request malformed", rangeProtocol, append(good[:len(good):len(good)], 0)},
		{"unknown kind", callProtocol, []byte{7}},
		{"call above limit", callProtocol, binary.AppendUvarint([]byte{kindCall}, MaxCall+1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			label := map[string]string{"protocol": strings.Split(string(tc.protocol), "/")[2]}
			before := n.count(t, "peercache_p2p_violations_total", label)
			s := evil.open(t, n, tc.protocol)
			s.Write(tc.input)
			wantReset(t, s)
			until(t, "the violation to be counted", func() bool {
				return n.count(t, "peercache_p2p_violations_total", label) == before+1
			})
		})
	}
	if got := n.rec.requests; len(got) != 1 {
		t.Errorf("handler saw %v", got)
	}
}

func TestMalformedResponses(t *testing.T) {
	n := start(t, func(o *Options) { o.StallTimeout, o.CallTimeout = 300*time.Millisecond, 300*time.Millisecond })
	evil := rawPeer(t, n)
	ok := func(h responseHeader) []byte { return withLength(appendResponse(nil, h)) }
	for name, tc := range map[string]struct {
		protocol protocol.ID
		response []byte
		want     error
	}{
		"header above limit":    {rangeProtocol, binary.AppendUvarint(nil, maxResponseHeader+1), ErrProtocol},
		"unknown status":        {rangeProtocol, []byte{1, 99}, ErrProtocol},
		"refusal with more":     {rangeProtocol, []byte{2, byte(statusBusy), 0}, ErrProtocol},
		"other length":          {rangeProtocol, ok(responseHeader{Size: 10, Length: 9}), ErrProtocol},
		"blob too small":        {rangeProtocol, ok(responseHeader{Size: 5, Length: 5}), ErrProtocol},
		"claims missing":        {rangeProtocol, []byte{4, 0, 10, 10, 1}, ErrProtocol},
		"too many claims":       {rangeProtocol, ok(responseHeader{Size: 10, Length: 10, Claims: make([]chunkindex.Claim, MaxClaims+1)}), ErrProtocol},
		"busy names asking":     {rangeProtocol, ok(responseHeader{Status: statusBusy, Peers: []chunkindex.NodeID{n.Self()}}), ErrProtocol},
		"busy names itself":     {rangeProtocol, ok(responseHeader{Status: statusBusy, Peers: []chunkindex.NodeID{evil.node}}), ErrProtocol},
		"nothing at all":        {rangeProtocol, nil, ErrStalled},
		"cut header":            {rangeProtocol, []byte{10, 0}, ErrStalled},
		"call: unknown status":  {callProtocol, []byte{99}, ErrProtocol},
		"call: above limit":     {callProtocol, binary.AppendUvarint([]byte{0}, MaxCall+1), ErrProtocol},
		"call: nothing at all":  {callProtocol, nil, ErrStalled},
		"call: promises, stops": {callProtocol, binary.AppendUvarint([]byte{0}, MaxCall), ErrStalled},
	} {
		t.Run(name, func(t *testing.T) {
			evil.host.SetStreamHandler(tc.protocol, func(s network.Stream) {
				s.Write(tc.response)
				io.Copy(io.Discard, s)
			})
			var err error
			if tc.protocol == rangeProtocol {
				_, err = n.Read(testContext(t), evil.node, RangeRequest{digestOf("x"), 0, 10})
			} else {
				_, err = n.Call(testContext(t), evil.node, []byte("hi"))
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

func TestOtherKeysAreRefused(t *testing.T) {
	n := start(t, nil)
	h := rawHost(t, crypto.ECDSA)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// The refusal comes after the handshake, so that Connect may not see it.
	h.Connect(ctx, peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()})
	until(t, "the connection to be closed", func() bool { return len(n.host.Network().Peers()) == 0 && len(h.Network().Peers()) == 0 })
}
