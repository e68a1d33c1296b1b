package policy

import (
	"iter"
	"math/bits"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// MessageKind says which fields of a [Message] mean something. The numbers are
// the wire's.
type MessageKind uint8

// The messages between nodes. All are about one blob.
const (
	_ MessageKind = iota

	// MsgState says what the sender holds of Blob (Bits, of a blob of Size
	// bytes, -1 unknown), what it is reading from the origin right now
	// (InFlight), whether it wants the blob (Want: it asks to be told of what
	// the receiver gets) and whether it expects a MsgState in return (Reply). A
	// small blob has a bitfield of one. Epoch is the sender's: what it said of
	// itself under an earlier one is void.
	MsgState
	// MsgHave: the sender now holds the N chunks from Chunk on, and of those after
	// them each for which Rest has a bit: bit k of word w stands for chunk Chunk+N+64w+k.
	MsgHave
	// MsgLeave: the sender lost interest; no more MsgHave, please.
	MsgLeave
	// MsgAsk, to the coordinator: the sender wants the chunks in Bits and
	// can read them from the origin. Want: others come to it from peers meanwhile, so
	// that it is in no hurry. Epoch counts the refutations that the
	// sender has seen: chunks asked for under a new one are read again, even if
	// somebody holds them.
	MsgAsk
	// MsgGrant, from the coordinator: read the N chunks from Chunk on from the
	// origin.
	MsgGrant
	// MsgGiveBack, to the coordinator: the sender will not read the N chunks
	// from Chunk on. Status is the origin's answer: 401, 403 and 404 mean that
	// this sender cannot have the blob from the origin at all, others that it
	// failed this time (Wait: and asked to be left alone for so long), 0 that it
	// no longer wants them, 200 that others hold them now by the sender's help.
	MsgGiveBack
	// MsgRedirect: ask Peer instead, it ranks better.
	MsgRedirect
	// MsgPeers: Peers hold or want the blob as well, or did a moment ago. Labels
	// say where they are, in the same order. N is how many nodes want or hold the
	// blob as far as the sender can tell.
	MsgPeers
	// MsgPing asks for a MsgPong at once: are you alive?
	MsgPing
	MsgPong
	// MsgAskSums asks for the SHA-256 of the N chunks from Chunk on, MsgSums
	// answers with those that the sender vouches for: Sums[i] is that of Chunk+i,
	// and the answer ends before the first one that is missing. With Reply, in
	// both, they are those of whatever the sender holds, zero for a chunk that it
	// does not.
	MsgAskSums
	MsgSums
	// MsgJoin, to a member of the committee: the sender wants the blob, and wants
	// to know of others; answered by MsgPeers.
	MsgJoin
	// MsgCooldown: Origin asked to be left alone; nobody should ask it for Wait
	// from now on. Status is what it said. Status 502: the origin fails whoever
	// is told to read from it, and the sender grants nothing for Wait.
	MsgCooldown
	// MsgFree: the sender, which refused the receiver a chunk because it was sending
	// enough, has room now. It keeps it for nobody.
	MsgFree
)

// MaxSums bounds the sums in one message.
const MaxSums = 256

// MaxPeers bounds the nodes in one message.
const MaxPeers = 64

// Label says where a node is: numbers that stand for its zone and its rack, equal
// for nodes in the same one. Zero is unknown, and near to nobody. A rack lies in
// one zone.
type Label struct{ Zone, Rack uint32 }

// Message is what one core says to another.
type Message struct {
	Kind  MessageKind
	Blob  digest.Digest
	Size  int64
	Small bool
	Want  bool
	Reply bool
	Chunk int
	N     int
	Rest  [restWords]uint64
	Epoch int
	// Status is an HTTP status of Origin. Wait goes with it, in whole milliseconds
	// on the wire.
	Status int
	Wait   time.Duration
	Origin Origin
	// Label is the sender's, Labels are those of Peers.
	Label    Label
	Peer     chunkindex.NodeID
	Peers    []chunkindex.NodeID
	Labels   []Label
	Sums     []chunkindex.Sum
	Bits     chunkindex.Bitfield
	InFlight chunkindex.Bitfield
}

// restWords is the length of Rest, restBits how many chunks it can speak of: all that a
// node with [Config.Window] chunks to choose from got since it told a neighbour last, but
// for those at the end of a blob of many chunks.
const (
	restWords = 4
	restBits  = 64 * restWords
)

// end is one more than the highest chunk that a MsgHave speaks of.
func (m *Message) end() int {
	for w := restWords - 1; w >= 0; w-- {
		if m.Rest[w] != 0 {
			return m.Chunk + m.N + 64*w + bits.Len64(m.Rest[w])
		}
	}
	return m.Chunk + m.N
}

// chunks are those that a MsgHave speaks of, in order.
func (m *Message) chunks() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := range m.N {
			if !yield(m.Chunk + i) {
				return
			}
		}
		for w, rest := range m.Rest {
			for ; rest != 0; rest &= rest - 1 {
				if !yield(m.Chunk + m.N + 64*w + bits.TrailingZeros64(rest)) {
					return
				}
			}
		}
	}
}
