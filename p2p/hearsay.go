package p2p

import (
	"container/list"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peercache/peercache/chunkindex"
)

const (
	// maxHearsay is of how many nodes addresses are kept that others told.
	maxHearsay = 4096
	// maxHearsayAddrs a node, and in an answer about one.
	maxHearsayAddrs = 8
	// hearsayTTL is long enough to connect, and short enough that the addresses
	// of a node that has moved do not go round for ever.
	hearsayTTL = 10 * time.Minute
	// maxAddrText is above the length of the longest address that is accepted.
	maxAddrText = 80
)

// hearsay keeps addresses of nodes that other nodes have told. They are used to
// dial, where whoever answers has to prove to be the node, and for nothing else:
// they are passed on to nobody, and forgotten once the node speaks for itself.
type hearsay struct {
	mu    sync.Mutex
	nodes map[peer.ID]*list.Element
	order list.List // of *rumour, the one told last in front
}

type rumour struct {
	id    peer.ID
	addrs []ma.Multiaddr // at least one
	until time.Time
}

// tell keeps addresses. What is told again lives longer; where there are too
// many, the ones told last are kept.
func (s *hearsay) tell(id peer.ID, addrs []ma.Multiaddr, now time.Time) {
	if len(addrs) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes == nil {
		s.nodes = map[peer.ID]*list.Element{}
	}
	e := s.nodes[id]
	if e == nil {
		e = s.order.PushFront(&rumour{id: id})
		s.nodes[id] = e
	}
	s.order.MoveToFront(e)
	r := e.Value.(*rumour)
	if now.Before(r.until) {
		addrs = distinct(slices.Concat(addrs, r.addrs))
	}
	r.addrs, r.until = slices.Clone(addrs[:min(len(addrs), maxHearsayAddrs)]), now.Add(hearsayTTL)
	for s.order.Len() > maxHearsay {
		s.drop(s.order.Back())
	}
}

// about returns what was told of a node.
func (s *hearsay) about(id peer.ID, now time.Time) []ma.Multiaddr {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.nodes[id]
	if e == nil {
		return nil
	}
	r := e.Value.(*rumour)
	if !now.Before(r.until) {
		s.drop(e)
		return nil
	}
	return r.addrs
}

func (s *hearsay) forget(id peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.nodes[id]; e != nil {
		s.drop(e)
	}
}

func (s *hearsay) drop(e *list.Element) {
	delete(s.nodes, s.order.Remove(e).(*rumour).id)
}

func distinct(addrs []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range addrs {
		if !slices.ContainsFunc(out, a.Equal) {
			out = append(out, a)
		}
	}
	return out
}

// Learn takes addresses of a node from another node: multiaddrs without /p2p/,
// as [Host.Addresses] gives them. At most 8 a node are kept, of at most 4,096
// nodes, for ten minutes; they serve to connect to the node, which then has to
// prove who it is, and end when the node speaks for itself. What is no address
// of an IP and a TCP port that another machine could have is left out; loopback
// is accepted only if this node itself listens on it.
func (h *Host) Learn(id chunkindex.NodeID, addrs []string) {
	p := PeerID(id)
	if p == h.host.ID() || h.host.Network().Connectedness(p) == network.Connected {
		return
	}
	var list []ma.Multiaddr
	for _, s := range addrs[:min(len(addrs), maxHearsayAddrs)] {
		if len(s) > maxAddrText {
			continue
		}
		if m, err := ma.NewMultiaddr(s); err == nil && h.dialable(m) {
			list = append(list, m)
		}
	}
	h.hearsay.tell(p, distinct(list), time.Now())
}

// Addresses returns where a node can be reached, as it says itself: at most 8
// multiaddrs without /p2p/, of this node or of another one; none for a node that
// this one was not connected to lately. They are made to be told to other nodes.
func (h *Host) Addresses(id chunkindex.NodeID) []string {
	p := PeerID(id)
	var addrs []ma.Multiaddr
	if p == h.host.ID() {
		addrs = h.host.Addrs()
	} else {
		rumours := h.hearsay.about(p, time.Now())
		for _, m := range h.host.Peerstore().Addrs(p) {
			// To dial, libp2p puts them among the others for a while.
			if !slices.ContainsFunc(rumours, m.Equal) {
				addrs = append(addrs, m)
			}
		}
	}
	var list []string
	for _, m := range addrs {
		if m, _ = peer.SplitAddr(m); m != nil && h.dialable(m) && len(list) < maxHearsayAddrs {
			list = append(list, m.String())
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// dialable reports whether an address is an IP and a TCP port, nothing else,
// that a node may have.
func (h *Host) dialable(m ma.Multiaddr) bool {
	if len(m) != 2 || m[0].Code() != ma.P_IP4 && m[0].Code() != ma.P_IP6 || m[1].Code() != ma.P_TCP {
		return false
	}
	port, err := strconv.ParseUint(m[1].Value(), 10, 16)
	if err != nil || port == 0 {
		return false
	}
	ip, ok := addrIP(m)
	switch {
	case !ok, ip.IsUnspecified(), ip.IsMulticast(), ip.IsLinkLocalUnicast(), ip == broadcast:
		return false
	case ip.IsLoopback():
		return h.loopback
	default:
		return true
	}
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
