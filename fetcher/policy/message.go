package policy

import (
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
	// small blob has a bitfield of one.
	MsgState
	// MsgHave: the sender now holds the N chunks from Chunk on.
	MsgHave
	// MsgLeave: the sender lost interest; no more MsgHave, please.
	MsgLeave
	// MsgAsk, to the coordinator: the sender wants the chunks in Bits and
	// can read them from the origin. Epoch counts the refutations that the
	// sender has seen: chunks asked for under a new one are read again, even if
	// somebody holds them.
	MsgAsk
	// MsgGrant, from the coordinator: read the N chunks from Chunk on from the
	// origin.
	MsgGrant
	// MsgGiveBack, to the coordinator: the sender will not read the N chunks
	// from Chunk on. Status is the origin's answer: 401, 403 and 404 mean that
	// this sender cannot have the blob from the origin at all, others that it
	// failed this time, 0 that it no longer wants them.
	MsgGiveBack
	// MsgRedirect: ask Peer instead, it ranks better.
	MsgRedirect
	// MsgPeers: Peers hold or want the blob as well.
	MsgPeers
	// MsgPing asks for a MsgPong at once: are you alive?
	MsgPing
	MsgPong
	// MsgAskSums asks for the SHA-256 of the N chunks from Chunk on, MsgSums
	// answers with those that the sender holds: Sums[i] is that of Chunk+i, and
	// the answer ends before the first one that is missing.
	MsgAskSums
	MsgSums
)

// MaxSums bounds the sums in one message.
const MaxSums = 256

// MaxPeers bounds the nodes in one message.
const MaxPeers = 32

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
	Epoch int
	// Status is an HTTP status.
	Status   int
	Peer     chunkindex.NodeID
	Peers    []chunkindex.NodeID
	Sums     []chunkindex.Sum
	Bits     chunkindex.Bitfield
	InFlight chunkindex.Bitfield
}
