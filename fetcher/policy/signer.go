package policy

import "github.com/peercache/peercache/chunkindex"

// Most of a blob's chunks are sent, and signed, by the same few nodes: each refers to
// the ID of one, which never changes, and does not hold it.

// senderOf is who sent chunk i; zero: the origin, or not known.
func (b *blob) senderOf(i int) chunkindex.NodeID { return orZero(b.from[i]) }

// signerOf is whose claim chunk i matched; zero: none.
func (b *blob) signerOf(i int) chunkindex.NodeID { return orZero(b.signer[i]) }

func orZero(id *chunkindex.NodeID) chunkindex.NodeID {
	if id == nil {
		return chunkindex.NodeID{}
	}
	return *id
}

// signedBy notes whose claim chunk i matched. A stranger's ID is kept for the blob
// alone, not among the peers: anybody can sign with any number of keys. It is
// mostly that of the chunk before, since nodes read runs of chunks from the origin.
func (c *Core) signedBy(b *blob, i int, id chunkindex.NodeID) {
	switch p := c.peers.get(id); {
	case id.IsZero():
		b.signer[i] = nil
	case p != nil:
		b.signer[i] = &p.id
	case b.signerOf(i) == id:
	case i > 0 && b.signerOf(i-1) == id:
		b.signer[i] = b.signer[i-1]
	case i+1 < b.n && b.signerOf(i+1) == id:
		b.signer[i] = b.signer[i+1]
	default:
		stranger := id // not &id, so that only a stranger's is allocated
		b.signer[i] = &stranger
	}
}
