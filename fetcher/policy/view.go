package policy

import (
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Bounds of a view: a node at work on more blobs shows the oldest ones that it
// wants itself.
const (
	MaxViewBlobs      = 64
	MaxViewNeighbours = 64
)

// Progress says how far a chunk has come on this node.
type Progress uint8

const (
	// Missing: it is not here, and nothing is under way for it.
	Missing Progress = iota
	// FromPeer, FromOrigin: it is on its way from there. A chunk that comes from
	// both comes from the origin.
	FromPeer
	FromOrigin
	// Here: its bytes are, in the store or on their way to it.
	Here
)

// BlobView shows one blob that the core is at work on.
type BlobView struct {
	Blob digest.Digest
	// Size is in bytes, -1 while it is not known. Have is how many of them are in
	// the store.
	Size, Have int64
	// Chunks has an entry for each chunk; none while the size is not known.
	Chunks []Progress
	// Wanted: this node wants the blob for a client. Others it coordinates, or
	// has a part of which peers ask for.
	Wanted bool
	// Proven: the whole blob hashed to its digest.
	Proven bool
	// Coordinator is who is asked for grants, this node itself where it
	// coordinates, zero while nobody is asked.
	Coordinator chunkindex.NodeID
	// Transfers and Reads count what is under way from peers and the origin.
	Transfers, Reads int
	Neighbours       []NeighbourView
}

// NeighbourView shows a peer as far as one blob goes.
type NeighbourView struct {
	Peer chunkindex.NodeID
	// Chunks is how many it says that it holds, Transfers how many are under way
	// from it.
	Chunks, Transfers int
}

// View returns a copy of what the core is at work on, for people to look at: at
// most [MaxViewBlobs], those that this node wants before the others. Like Step it
// is for the core's owner alone. It changes nothing.
func (c *Core) View() []BlobView {
	var views []BlobView
	for _, wanted := range []bool{true, false} {
		for _, b := range c.order {
			if len(views) == MaxViewBlobs {
				return views
			}
			if b.wanting() == wanted {
				views = append(views, c.view(b))
			}
		}
	}
	return views
}

func (c *Core) view(b *blob) BlobView {
	v := BlobView{Blob: b.id, Size: b.size, Wanted: b.wanting(), Proven: b.proven, Coordinator: b.ask.to}
	if b.coord != nil {
		v.Coordinator = c.cfg.Self
	}
	v.Chunks = make([]Progress, b.n)
	for i := range v.Chunks {
		v.Chunks[i], v.Have = b.progressOf(i), v.Have+b.bytesOf(i)
	}
	from := map[chunkindex.NodeID]int{}
	for _, t := range c.transfers {
		if t.b == b && !t.dead {
			from[t.from.id]++
			v.Transfers++
		}
	}
	for _, r := range c.reads {
		if r.b == b && !r.dead && !r.sizeOnly {
			v.Reads++
		}
	}
	for _, n := range b.neighbours[:min(len(b.neighbours), MaxViewNeighbours)] {
		v.Neighbours = append(v.Neighbours, NeighbourView{Peer: n.p.id, Chunks: n.bits.Count(), Transfers: from[n.p.id]})
	}
	return v
}

func (b *blob) progressOf(i int) Progress {
	switch {
	case b.have.Has(i):
		return Here
	case b.busy[i]&byOrigin != 0:
		return FromOrigin
	case b.busy[i]&byTransfer != 0:
		return FromPeer
	case b.busy[i] != 0:
		return Here
	}
	return Missing
}

// bytesOf is the length of chunk i if it is stored, else 0.
func (b *blob) bytesOf(i int) int64 {
	switch {
	case !b.have.Has(i):
		return 0
	case b.small:
		return max(b.size, 0)
	}
	_, n := b.layout.Chunk(i)
	return n
}
