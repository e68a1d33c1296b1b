package policy

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Time is a number of nanoseconds since an arbitrary, fixed instant of the
// driver's choice. It never goes back.
type Time int64

// Add returns t + d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// ID names one started effect or one reader for as long as it lives. IDs of
// effects come from the core, IDs of readers from the driver; the two spaces
// are apart.
type ID uint64

// Source is a driver's name for a place where a blob may be had upstream: an
// origin and a repository. Zero is no source. The core only compares sources.
type Source uint32

// Origin stands for an origin, whatever the repository: below 2^63, and the same on
// every node. Zero is none.
type Origin uint64

// EventKind says which fields of an [Event] mean something.
type EventKind uint8

// The events. Those that end an effect carry its ID; each effect with an ID is
// ended by exactly one of them, cancelled or not.
const (
	_ EventKind = iota

	// EvTimer: the time asked for by the last SetTimer has come.
	EvTimer
	// EvPeerUp, EvPeerDown: Peer became reachable, or stopped being so. All
	// that was promised by it is void.
	EvPeerUp
	EvPeerDown
	// EvUnreachable ends Connect: there is no way to Peer now.
	EvUnreachable
	// EvMessage: Peer sent Msg. Messages of one peer arrive in order.
	EvMessage

	// EvLooked ends Lookup: Closest are the nodes closest to the blob on the
	// DHT (this node among them where it belongs), Providers those that
	// announced the blob. Either may be incomplete or empty.
	EvLooked
	// EvOpened ends Open: the blob's partial is ready in the store. Levels
	// holds a level for each chunk that is there already, nil for none.
	EvOpened

	// EvTransferProgress: N more bytes of transfer ID arrived; 0 when the peer has
	// answered that it will send them. Ends nothing.
	EvTransferProgress
	// EvTransferDone ends Transfer: the chunk's bytes are in memory, hash to
	// Sum, and came with Claims whose signatures are valid. For a small blob,
	// the bytes hashed to the blob's digest.
	EvTransferDone
	// EvTransferFailed ends Transfer. Fault says how; with FaultBusy, Peers are
	// other nodes that have the chunk, or soon will, by the peer's word.
	EvTransferFailed

	// EvUpload: Peer asks this node for Chunk of Blob. The core answers at once,
	// with Serve or with Busy. IDs of uploads come from the driver, and are
	// apart from those of readers and of effects.
	EvUpload
	// EvUploaded ends Serve: the upload is over, well or not.
	EvUploaded

	// EvOriginHeaders: the origin answered read ID; Size is the blob's size (-1
	// unknown), Ranged whether it honours ranges. Where it does not, the
	// read goes on over the whole blob from chunk 0. Ends nothing.
	EvOriginHeaders
	// EvOriginProgress: N more bytes of origin read ID arrived. Ends nothing.
	EvOriginProgress
	// EvOriginChunk: read ID brought Chunk, which hashes to Sum; its bytes
	// are in memory. For a small blob, they hashed to the blob's digest. Ends
	// nothing.
	EvOriginChunk
	// EvOriginDone ends OriginRead or OriginSize: everything asked for came.
	// After OriginSize, Size holds the size.
	EvOriginDone
	// EvOriginFailed ends OriginRead or OriginSize. Status is the HTTP status
	// that describes the failure (401, 403 and 404 are the origin's own word;
	// 5xx may be the driver's for an origin that it cannot reach), Wait how
	// long the origin asked to be left alone.
	EvOriginFailed

	// EvStored ends Store: the chunk is recorded and can be read back.
	EvStored
	// EvStoreFailed ends Store: it is not; the disk is full or broken.
	EvStoreFailed
	// EvProven, EvRefuted end Prove: the whole blob does, or does not, hash
	// to its digest. A proven blob is complete in the store.
	EvProven
	EvRefuted
	// EvHeld: the store holds Blob of Size bytes (Small as in EvRead), complete
	// if Whole, else as a partial. Told for each blob at the start.
	EvHeld
	// EvEvicted: the store dropped the blob.
	EvEvicted

	// EvRead: reader Reader wants the bytes [Off, End) of the blob; End is -1
	// for "to the end". Whole says that it asked for the blob without a
	// range. Small says that the blob travels inline (a manifest, or Size is at
	// most one chunk). Size is -1 where nobody has told. Source says where
	// this reader's blob may be had upstream, Origin which of the origins that
	// is: the sources of one origin share its connections and its cooldowns.
	EvRead
	// EvConsumed: Reader has taken the bytes before Off.
	EvConsumed
	// EvCancel: Reader went away. It ends the reader.
	EvCancel
)

// Fault says how a transfer failed.
type Fault uint8

const (
	_ Fault = iota
	// FaultGone: the peer does not have the chunk after all.
	FaultGone
	// FaultBusy: the peer serves as many as it wants to.
	FaultBusy
	// FaultStalled: no byte came for the time-out.
	FaultStalled
	// FaultBroken: the connection broke, or the peer broke the protocol.
	FaultBroken
	// FaultCorrupt: a small blob's bytes do not hash to its digest, or its
	// size is not what the peer says.
	FaultCorrupt
	// FaultCancelled: the core cancelled it.
	FaultCancelled
	// FaultLocal: this node's own fault (memory, shutdown).
	FaultLocal
)

// Event is one thing that happened. It is a tagged struct, so that handing one
// to [Core.Step] allocates nothing. Slices are the callee's to keep.
type Event struct {
	Kind   EventKind
	Blob   digest.Digest
	Peer   chunkindex.NodeID
	ID     ID
	Reader ID
	Chunk  int
	N      int64
	Off    int64
	End    int64
	Size   int64
	Whole  bool
	Small  bool
	Ranged bool
	Source Source
	Origin Origin
	Status int
	Wait   time.Duration
	Fault  Fault
	Sum    chunkindex.Sum
	Claims []chunkindex.Claim
	Levels []chunkindex.Level
	// Sums go with Levels: the SHA-256 of each chunk that is there.
	Sums      []chunkindex.Sum
	Closest   []chunkindex.NodeID
	Providers []chunkindex.NodeID
	Peers     []chunkindex.NodeID
	Msg       Message
}
