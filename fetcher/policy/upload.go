package policy

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// upload is one chunk on its way to a peer.
type upload struct {
	peer  *peer
	blob  digest.Digest
	chunk int
	small bool
}

// handed notes who was sent a chunk.
type handed struct {
	blob  digest.Digest
	chunk int
	to    chunkindex.NodeID
}

const (
	// maxHanded is how many of the latest uploads are remembered, for those who
	// come while this node is busy.
	maxHanded = 128
	// maxAlternatives bounds the nodes named in a BUSY answer.
	maxAlternatives = 8
)

// upload admits or refuses a peer that asks for a chunk.
//
// A link that many share serves each of them late, and a chunk is worth nothing to
// its receiver, and to those who wait for it there, before it is whole. So a node
// serves few at once, as many as fill its link, and tells the others whom it has
// served: they take the same chunk from there, or another chunk from somebody
// else whose link is idle. That is what spreads the load: an asker cannot know
// how busy others keep a peer.
func (c *Core) upload(ev Event) {
	p := c.peer(ev.Peer)
	small := c.smallAtRest(ev.Blob)
	if !c.admits(p, ev.Blob, small) {
		c.count(CountRefused, 1)
		c.emit(Effect{Kind: EfBusy, ID: ev.ID, Peer: ev.Peer, Blob: ev.Blob, Peers: c.alternatives(ev)})
		return
	}
	c.uploads[ev.ID] = &upload{p, ev.Blob, ev.Chunk, small}
	if small {
		c.smallUploads++
	} else {
		if p.uploads == 0 {
			c.uploadPeers++
		}
		p.uploads++
	}
	c.handed[c.nextHanded] = handed{ev.Blob, ev.Chunk, ev.Peer}
	c.nextHanded = (c.nextHanded + 1) % maxHanded
	c.emit(Effect{Kind: EfServe, ID: ev.ID, Peer: ev.Peer, Blob: ev.Blob})
}

// admits applies the bounds: on small blobs a number of their own, since one
// takes no time to send; on chunks as many as keep the link busy, shared out evenly
// among the peers that are being served.
func (c *Core) admits(p *peer, d digest.Digest, small bool) bool {
	switch {
	case p.banned > c.now:
		return false
	case small:
		return c.smallUploads < c.cfg.SmallUploads
	}
	open := len(c.uploads) - c.smallUploads
	slots := c.uploadSlots(d)
	if open >= slots {
		return false
	}
	peers := c.uploadPeers
	if p.uploads == 0 {
		peers++
	}
	return p.uploads < (slots+peers-1)/peers
}

// uploadSlots is how many chunks this node sends at once.
func (c *Core) uploadSlots(d digest.Digest) int {
	length := int64(chunkindex.MinChunkLength)
	if h, ok := c.held[d]; ok {
		if l, err := chunkindex.LayoutFor(h.size); err == nil {
			length = l.ChunkLength()
		}
	} else if b := c.blobs[d]; b != nil && b.layoutSet() && !b.small {
		length = b.layout.ChunkLength()
	}
	return min(c.cfg.MinUploads+c.sent.ahead(pipeline, length), c.cfg.Uploads)
}

func (c *Core) smallAtRest(d digest.Digest) bool {
	if h, ok := c.held[d]; ok {
		return h.small
	}
	b := c.blobs[d]
	return b != nil && b.small
}

// alternatives names nodes that were sent the chunk lately, the latest last: it is
// the one that most likely has not been asked for it yet.
func (c *Core) alternatives(ev Event) []chunkindex.NodeID {
	var ids []chunkindex.NodeID
	for k := range maxHanded {
		h := &c.handed[(c.nextHanded+k)%maxHanded]
		if h.chunk == ev.Chunk && h.to != ev.Peer && h.blob == ev.Blob && !slices.Contains(ids, h.to) && c.alive(h.to) {
			ids = append(ids, h.to)
		}
	}
	return ids[max(0, len(ids)-maxAlternatives):]
}

func (c *Core) uploaded(id ID, n int64) {
	u := c.uploads[id]
	if u == nil {
		return
	}
	delete(c.uploads, id)
	c.sent.add(c.now, n)
	if u.small {
		c.smallUploads--
		return
	}
	if u.peer.uploads--; u.peer.uploads == 0 {
		c.uploadPeers--
	}
}
