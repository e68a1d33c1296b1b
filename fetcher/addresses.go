package fetcher

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// A frame of addresses tells where nodes can be reached which the next message
// names. It is a byte of its kind, a count, and for each node its ID, a count,
// and each address by its length and its text, a multiaddr without /p2p; counts
// and lengths are unsigned varints. Nodes that do not know it ignore it, as its
// kind says (see policy.ErrOptional).
const frameAddresses = 128

const (
	maxAddressNodes = policy.MaxPeers
	// maxAddresses bounds the addresses of one node, maxAddress the bytes of one.
	maxAddresses = 8
	maxAddress   = 128
	// introduced is how long a peer is taken to remember addresses.
	introduced = 5 * time.Minute
	// maxIntroduced bounds what is remembered of who was told of whom.
	maxIntroduced = 8192
)

var errAddresses = errors.New("fetcher: malformed addresses")

// addressesOf is where one node can be reached.
type addressesOf struct {
	node      chunkindex.NodeID
	addresses []string
}

// appendAddresses appends the frame. The entries are within the limits.
func appendAddresses(dst []byte, entries []addressesOf) []byte {
	dst = binary.AppendUvarint(append(dst, frameAddresses), uint64(len(entries)))
	for _, e := range entries {
		dst = append(dst, e.node[:]...)
		dst = binary.AppendUvarint(dst, uint64(len(e.addresses)))
		for _, a := range e.addresses {
			dst = appendBytes(dst, a)
		}
	}
	return dst
}

// decodeAddresses reads a frame. Whether an address is one is for the transport
// to say; here it is text of a length.
func decodeAddresses(frame []byte) ([]addressesOf, error) {
	s := &scanner{data: frame}
	if s.byte() != frameAddresses {
		return nil, errAddresses
	}
	var entries []addressesOf
	for range s.uvarint(maxAddressNodes) {
		var e addressesOf
		for i := range e.node {
			e.node[i] = s.byte()
		}
		for range s.uvarint(maxAddresses) {
			a := string(s.bytes(maxAddress))
			if !s.bad && !validAddress(a) {
				return nil, errAddresses
			}
			e.addresses = append(e.addresses, a)
		}
		if s.bad {
			return nil, errAddresses
		}
		entries = append(entries, e)
	}
	if s.bad || len(s.data) != 0 {
		return nil, errAddresses
	}
	return entries, nil
}

func validAddress(a string) bool {
	if len(a) < 2 || len(a) > maxAddress || a[0] != '/' {
		return false
	}
	for i := range len(a) {
		if a[i] <= ' ' || a[i] > '~' {
			return false
		}
	}
	return true
}

// introductions remembers which peer was told of which nodes, and when. What
// does not fit is forgotten, and told once more.
type introductions struct {
	mu   sync.Mutex
	told map[chunkindex.NodeID]map[chunkindex.NodeID]time.Time
	n    int
}

// due returns the nodes that a peer should be told of.
func (in *introductions) due(to chunkindex.NodeID, nodes []chunkindex.NodeID, now time.Time) []chunkindex.NodeID {
	in.mu.Lock()
	defer in.mu.Unlock()
	var due []chunkindex.NodeID
	for _, id := range nodes {
		if at, ok := in.told[to][id]; !ok || now.Sub(at) >= introduced {
			due = append(due, id)
		}
	}
	return due
}

// note remembers that a peer was told of nodes.
func (in *introductions) note(to chunkindex.NodeID, entries []addressesOf, now time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.n+len(entries) > maxIntroduced {
		in.told, in.n = nil, 0
	}
	if in.told == nil {
		in.told = map[chunkindex.NodeID]map[chunkindex.NodeID]time.Time{}
	}
	of := in.told[to]
	if of == nil {
		of = map[chunkindex.NodeID]time.Time{}
		in.told[to] = of
	}
	before := len(of)
	for _, e := range entries {
		of[e.node] = now
	}
	in.n += len(of) - before
}

// forget drops what is remembered of a peer: it may come back as one that knows
// nobody.
func (in *introductions) forget(to chunkindex.NodeID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.n -= len(in.told[to])
	delete(in.told, to)
}

// introduce tells a peer how to reach nodes that it is about to be told of, as
// far as this node knows and has not done so lately. It does not block.
func (f *Fetcher) introduce(to chunkindex.NodeID, nodes []chunkindex.NodeID) {
	if len(nodes) == 0 {
		return
	}
	now := time.Now()
	var entries []addressesOf
	for _, id := range f.introductions.due(to, nodes, now) {
		if id == to || id == f.keys.Self() || len(entries) == maxAddressNodes {
			continue
		}
		e := addressesOf{node: id}
		for _, a := range f.peers.Addresses(id) {
			if validAddress(a) && len(e.addresses) < maxAddresses {
				e.addresses = append(e.addresses, a)
			}
		}
		if len(e.addresses) > 0 {
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 {
		return
	}
	if f.peers.Send(to, appendAddresses(nil, entries)) == nil {
		f.count.message(frameAddresses, sent)
		f.introductions.note(to, entries, now)
	}
}

// learn takes a frame of addresses from a peer.
func (f *Fetcher) learn(from chunkindex.NodeID, frame []byte) error {
	entries, err := decodeAddresses(frame)
	if err != nil {
		return err
	}
	f.count.message(frameAddresses, received)
	if f.isBanned(from) {
		return nil
	}
	for _, e := range entries {
		if e.node != f.keys.Self() && len(e.addresses) > 0 {
			f.peers.Learn(e.node, e.addresses)
		}
	}
	return nil
}
