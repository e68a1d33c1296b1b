package simulation

import (
	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// Bytes and words that are wrong.

// rotLate tells a chunk that was spoiled after it went into the hash of the whole,
// which therefore does not show it.
const rotLate = 1 << 24

// rot says that bytes were spoiled on a disk, late that the proof did not see it.
func (t taint) rot() bool  { return t < 0 }
func (t taint) late() bool { return t < -rotLate }

// early is the same bytes as the proof sees them when it comes by.
func (t taint) early() taint {
	if t.late() {
		return t + rotLate
	}
	return t
}

// recorded is what the bytes were when they were written, which the store's record
// of them says.
func (t taint) recorded() taint {
	if t.rot() {
		return 0
	}
	return t
}

// spoil spoils a part of the chunks that a node holds.
func (c *cluster) spoil(n *node, part int) {
	for _, h := range n.held {
		if h == nil {
			continue
		}
		for i := range h.level {
			if h.level[i] == chunkindex.Absent && !h.proven || h.bytes[i] != 0 || c.rng.IntN(1_000_000) >= part {
				continue
			}
			n.wicked = true
			h.bytes[i] = -taint(n.index + 1)
			if h.proven || i < h.hashed {
				h.bytes[i] -= rotLate
			}
		}
	}
}

// lie has a message say that its sender holds everything.
func (c *cluster) lie(m *policy.Message) {
	if m.Kind == policy.MsgState {
		m.Bits = chunkindex.FullBitfield(c.blobs[c.blobOf(m.Blob)].n)
	}
}
