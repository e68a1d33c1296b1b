package policy

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// upload is one chunk on its way to a peer.
type upload struct {
	id      ID
	peer    *peer
	blob    digest.Digest
	small   bool
	head    bool // of the first MiB, whose chunks are short
	started Time
}

// handed notes who was sent a chunk of which blob. Which chunks is noted beside, since all
// but a few are passed over for that alone.
type handed struct {
	chunks [maxHanded]int32
	to     [maxHanded]*peer
	blobs  [maxHanded]digest.Digest
	next   int
}

func (h *handed) note(d digest.Digest, chunk int, to *peer) {
	h.chunks[h.next], h.to[h.next], h.blobs[h.next] = int32(chunk), to, d
	h.next = (h.next + 1) % maxHanded
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
func (c *Core) upload(ev *Event) {
	p := c.peer(ev.Peer)
	small := c.smallAtRest(ev.Blob)
	u := upload{ev.ID, p, ev.Blob, small, !small && ev.Chunk < headChunks, c.now}
	if !c.admits(&u) {
		c.count(CountRefused, 1)
		c.keepWaiting(p, ev.Blob)
		*c.effect() = Effect{Kind: EfBusy, ID: ev.ID, Peer: ev.Peer, Blob: ev.Blob, Peers: c.alternatives(ev)}
		return
	}
	c.uploads = append(c.uploads, u)
	c.stopWaiting(p)
	c.handed.note(ev.Blob, ev.Chunk, p)
	*c.effect() = Effect{Kind: EfServe, ID: ev.ID, Peer: ev.Peer, Blob: ev.Blob}
}

// admits applies the bounds: on small blobs a number of their own, since one
// takes no time to send; on chunks as many as keep the link busy, shared out evenly
// among the peers that are being served. What has taken much longer than usual is
// its receiver's link's fault, and keeps nobody else waiting.
func (c *Core) admits(u *upload) bool {
	if u.peer.banned > c.now || len(c.uploads) >= c.cfg.Uploads+c.cfg.SmallUploads {
		return false
	}
	length := c.chunkLength(u.blob)
	usual := Time(max(slowUpload*c.sendTimes.median(length), time.Duration(length>>10*int64(time.Second)>>10)))
	slots := c.uploadSlots(length)
	if c.lookUp(u.blob).hasPlenty() {
		slots = min(slots+1, c.cfg.Uploads)
	}
	if u.small {
		slots = c.cfg.SmallUploads
	}
	open, own, heads, others := 0, 0, 0, 0
	for i := range c.uploads {
		o := &c.uploads[i]
		if o.small != u.small || c.now > o.started+usual {
			continue
		}
		if open++; open >= slots {
			return false
		}
		if o.head {
			heads++
		}
		if o.peer == u.peer {
			own++
		} else if !slices.ContainsFunc(c.uploads[:i], func(p upload) bool {
			return p.peer == o.peer && p.small == u.small && c.now <= p.started+usual
		}) {
			others++
		}
	}
	if u.head && heads >= headUploads {
		return false
	}
	return open < slots && own < (slots+others)/(others+1)
}

const (
	// headChunks is how many chunks the first MiB of a large blob has.
	headChunks = int(chunkindex.MinChunkLength / chunkindex.HeadChunkLength)
	// headUploads bounds those of them that are sent at once. Everybody waits for the
	// first: it comes to all soonest if each who has it gives it to two, who do the
	// same.
	headUploads = 2
)

// slowUpload is how many times the usual an upload may take before it does not
// count any more.
const slowUpload = 4

// uploadSlots is how many chunks of a length this node sends at once.
func (c *Core) uploadSlots(length int64) int {
	return min(c.cfg.MinUploads+c.ahead(length), c.cfg.Uploads)
}

// chunkLength is the usual length of a blob's chunks.
func (c *Core) chunkLength(d digest.Digest) int64 {
	if h, ok := c.held[d]; ok {
		if l, err := chunkindex.LayoutFor(h.size); err == nil {
			return l.ChunkLength()
		}
	} else if b := c.blobs[d]; b != nil && b.layoutSet() && !b.small {
		return b.layout.ChunkLength()
	}
	return chunkindex.MinChunkLength
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
func (c *Core) alternatives(ev *Event) []chunkindex.NodeID {
	var peers [maxAlternatives]*peer
	n := 0
	h := &c.handed
	for k := maxHanded - 1; k >= 0 && n < maxAlternatives; k-- {
		i := (h.next + k) % maxHanded
		if int(h.chunks[i]) != ev.Chunk {
			continue
		}
		if to := h.to[i]; to != nil && to.id != ev.Peer && h.blobs[i] == ev.Blob && c.aliveP(to) && !slices.Contains(peers[:n], to) {
			peers[n] = to
			n++
		}
	}
	if n == 0 {
		return nil
	}
	ids := make([]chunkindex.NodeID, n)
	for k, p := range peers[:n] {
		ids[n-1-k] = p.id
	}
	return ids
}

// uploaded ends an upload of which n bytes were sent.
func (c *Core) uploaded(id ID, n int64) {
	i := slices.IndexFunc(c.uploads, func(u upload) bool { return u.id == id })
	if i < 0 {
		return
	}
	c.sent.add((c.now-c.uploads[i].started)/Time(len(c.uploads)), n)
	c.sendTimes.add(c.now-c.uploads[i].started, n)
	c.uploads = slices.Delete(c.uploads, i, i+1)
	c.tellWaiting()
}
