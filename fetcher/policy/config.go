package policy

import (
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// Verify says whose word is enough for a byte to be released to a client
// before its whole blob is proven.
type Verify uint8

const (
	// VerifyStrict releases a chunk once this node read it from the origin or
	// two independent holders agree on it. For clusters that anybody may join.
	VerifyStrict Verify = iota
	// VerifyMember also trusts a claim signed by a member. For clusters whose
	// members are known.
	VerifyMember
)

// Announce says what of a blob is announced on the DHT.
type Announce uint8

const (
	// AnnounceGroups announces blobs, and of those above [GroupedSize] also the
	// groups of chunks that are complete here.
	AnnounceGroups Announce = iota
	// AnnounceBlobs announces whole blobs alone.
	AnnounceBlobs
	// AnnounceChunks announces also each chunk of a proven blob by its own
	// SHA-256, so that other blobs with the same chunk can be served.
	AnnounceChunks
)

// Blobs above GroupedSize bytes are announced in groups of GroupLength bytes too.
const (
	GroupedSize = 512 << 20
	GroupLength = 256 << 20
)

// Config is the core's configuration. [DefaultConfig] fills it with defaults.
type Config struct {
	// Self is this node.
	Self chunkindex.NodeID
	// Seed seeds the core's randomness.
	Seed uint64
	// Label says where this node is.
	Label Label
	// Verify is the release rule.
	Verify Verify
	// Announce is what is announced on the DHT.
	Announce Announce

	// StripesInFlight is how many stripes of one blob are read from the origin at
	// once to begin with, cluster-wide, and MaxStripes how many at most, where
	// more bring more bytes a second.
	StripesInFlight, MaxStripes int
	// LoneReads bounds a node's reads at one origin, SharedReads those of one blob
	// that a coordinator grants it while others want the blob too.
	LoneReads, SharedReads int
	// OriginReads bounds the origin reads of this node over all origins.
	OriginReads int
	// MinTransfers is how many transfers from peers run at once on a slow link,
	// Transfers how many at most, over all blobs, TransfersPerPeer how many from
	// one peer.
	MinTransfers, Transfers, TransfersPerPeer int
	// MinUploads is how many chunks are sent to peers at once over a slow link,
	// Uploads how many at most; SmallUploads bounds small blobs apart from these.
	MinUploads, Uploads, SmallUploads int
	// InFlightBytes bounds the bytes of chunks in memory over all blobs.
	InFlightBytes int64
	// Neighbours bounds the peers that one blob's state is exchanged with.
	Neighbours int
	// ReadAhead is how far ahead of a range reader chunks are wanted, in bytes.
	ReadAhead int64
	// Window is how many missing chunks the rarest-first choice looks at.
	Window int

	// AskTimeout is how long a silent coordinator or neighbour is waited for
	// before it is pinged, and again after that before it is passed over.
	AskTimeout time.Duration
	// SettleTimeout bounds how long a coordinator gathers what exists before
	// it grants.
	SettleTimeout time.Duration
	// TransferStall is how long a transfer may bring no byte.
	TransferStall time.Duration
	// Standstill is how long no chunk of a blob may come to anybody, with nobody
	// reading what a reader waits for, before its node turns to the origin itself.
	Standstill time.Duration
	// Patience is how long a reader goes without a byte before this node turns
	// to the origin itself, whatever the coordinator says.
	Patience time.Duration
	// HoldLimit is how long strict verification holds bytes back before this
	// node reads them from the origin itself.
	HoldLimit time.Duration
	// ReaderTimeout is how long a reader goes without a byte before it fails.
	ReaderTimeout time.Duration
	// Linger is how long a whole blob that nobody reads any more is still
	// fetched, and how long a coordinator remembers a blob that nobody asks for.
	Linger time.Duration
	// Avoid is how long a peer that failed a transfer is passed over for that
	// blob while others are there; Ban how long a proven liar is.
	Avoid, Ban time.Duration
	// RetryOrigin is the first pause after an origin failure that may pass; it
	// doubles up to 16 times itself.
	RetryOrigin time.Duration
	// CommitteeTTL is how long a committee is used before it is looked up again.
	CommitteeTTL time.Duration

	// Scratch is memory for the core's use within a step; nil: some of its own. Cores
	// that belong to one goroutine may share it.
	Scratch *Scratch
}

// DefaultConfig returns the defaults for a node.
func DefaultConfig(self chunkindex.NodeID) Config {
	return Config{
		Self:             self,
		Verify:           VerifyStrict,
		StripesInFlight:  2,
		MaxStripes:       16,
		LoneReads:        4,
		SharedReads:      2,
		OriginReads:      8,
		MinTransfers:     2,
		Transfers:        16,
		TransfersPerPeer: 4,
		MinUploads:       2,
		Uploads:          64,
		SmallUploads:     32,
		InFlightBytes:    48 << 20,
		Neighbours:       32,
		ReadAhead:        chunkindex.StripeLength,
		Window:           64,
		AskTimeout:       500 * time.Millisecond,
		SettleTimeout:    300 * time.Millisecond,
		TransferStall:    time.Second,
		Standstill:       2 * time.Second,
		Patience:         10 * time.Second,
		HoldLimit:        20 * time.Second,
		ReaderTimeout:    30 * time.Second,
		Linger:           30 * time.Second,
		Avoid:            5 * time.Second,
		Ban:              10 * time.Minute,
		RetryOrigin:      250 * time.Millisecond,
		CommitteeTTL:     30 * time.Second,
	}
}
