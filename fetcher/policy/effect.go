package policy

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// EffectKind says which fields of an [Effect] mean something.
type EffectKind uint8

// The effects. A driver carries them out in the order given; those marked with
// an ID are ended by one event (see [EventKind]), the others are done with when
// the driver has accepted them.
const (
	_ EffectKind = iota

	// EfSend: send Msg to Peer. Best effort; a peer that cannot be sent to
	// goes down.
	EfSend
	// EfConnect (ended by EvPeerUp or EvUnreachable, by Peer): connect to a node
	// that was named by others. Bounded in time by the driver, which knows the
	// addresses that came with the name.
	EfConnect
	// EfLookup (ended by EvLooked, by Blob): ask the DHT for the closest
	// nodes and the providers of Blob; where N > 0 also for the providers of the
	// group of N chunks from Chunk on. Bounded in time by the driver.
	EfLookup
	// EfProvide: announce that this node holds Blob, or where N > 0 the group of
	// N chunks from Chunk on. EfWithdraw: stop announcing Blob and everything
	// of it.
	EfProvide
	EfWithdraw

	// EfOpen (ended by EvOpened, by Blob): open or create the blob's partial of
	// Size bytes in the store, so that chunks can be stored. It cannot fail:
	// a store that refuses reports no levels, and then EvStoreFailed.
	EfOpen
	// EfClose: nobody reads or fetches Blob any more: release what the driver
	// holds for it. What is stored stays stored.
	EfClose

	// EfTransfer (ID): read [Off, Off+N) of Blob, which is Chunk, from Peer
	// into memory. A small blob has N -1: all of it.
	EfTransfer
	// EfCancelTransfer: end transfer ID now.
	EfCancelTransfer

	// EfServe: serve upload ID, which EvUploaded ends. EfBusy: answer it BUSY, and
	// name Peers as others to ask.
	EfServe
	EfBusy

	// EfCooldown: leave the origin of Source alone for Wait, because a peer was
	// told to.
	EfCooldown
	// EfOriginSize (ID): ask the origin at Source for the size of Blob.
	EfOriginSize
	// EfOriginRead (ID): read [Off, Off+N) of Blob from the origin at Source,
	// chunk by chunk from Chunk on. A small blob has N -1.
	EfOriginRead
	// EfCancelOrigin: end origin read or size request ID now.
	EfCancelOrigin

	// EfStore (ended by EvStored or EvStoreFailed, by Blob and Chunk): write the
	// bytes that transfer or read ID brought for Chunk to the store at Level,
	// with Claim where there is one. For a small blob: put the whole.
	EfStore
	// EfDiscard: drop the bytes that ID brought for Chunk from memory.
	EfDiscard
	// EfRaise: record that a stored chunk has risen to Level.
	EfRaise
	// EfDrop: remove a stored chunk: it is, or may be, wrong.
	EfDrop
	// EfProve (ended by EvProven or EvRefuted, by Blob): every chunk is
	// stored: hash the whole and publish it.
	EfProve

	// EfDeliver: Reader may have the bytes before Off; the blob's size is
	// Size. Off only grows. Off reaches Size only when the blob is proven. A
	// small blob is delivered once, when it is in the store; Size may be -1.
	EfDeliver
	// EfFail: Reader gets Status and Reason, and no further byte. It ends the
	// reader; EvCancel must not follow.
	EfFail
	// EfBypass: the store cannot take the blob: serve Reader from where it
	// stands by reading the origin (Source) through memory. It ends the
	// reader for the core.
	EfBypass

	// EfSums: send Peer a MsgSums with the sums of the N chunks from Chunk on of
	// Blob, which is complete in the store (the core does not keep the sums of
	// blobs at rest).
	EfSums

	// EfTimer: an EvTimer is due at At. It replaces the one set before; At 0
	// means none.
	EfTimer
	// EfBan: do not talk to Peer until At. Reason says why.
	EfBan
	// EfCount: add N to the counter Metric.
	EfCount
)

// Reason says why a reader failed or a peer was banned; it ends up in logs and
// in what the client is told.
type Reason uint8

const (
	_ Reason = iota
	// ReasonOrigin: the origin said Status.
	ReasonOrigin
	// ReasonStalled: no byte came within the time that a client is left waiting.
	ReasonStalled
	// ReasonCorrupt: the blob does not hash to its digest and bytes of it
	// have gone out already, or every source gives wrong bytes.
	ReasonCorrupt
	// ReasonRange: the range does not fit the blob.
	ReasonRange
	// ReasonLied: the peer served or signed wrong bytes.
	ReasonLied
	// ReasonUnavailable: neither a peer nor the origin can be reached.
	ReasonUnavailable
)

var reasonTexts = [...]string{"", "the origin refused", "no byte came in time",
	"the bytes do not match the digest", "the range does not fit the blob",
	"served or signed wrong bytes", "no peer has it and the origin cannot be reached"}

// String is the reason in words.
func (r Reason) String() string {
	if int(r) < len(reasonTexts) {
		return reasonTexts[r]
	}
	return "unknown"
}

// Metric names a counter of the core.
type Metric uint8

// The counters. Each counts happenings unless it says bytes.
const (
	_ Metric = iota
	// CountGrant: grants given as coordinator.
	CountGrant
	// CountRegrant: grants given again because the holder went away or gave up.
	CountRegrant
	// CountTakeover: turned to the next rank because a coordinator was silent.
	CountTakeover
	// CountRedirect: redirected an asker to a better-ranked member.
	CountRedirect
	// CountHedge: origin reads past the coordinator because a reader waited
	// too long.
	CountHedge
	// CountStrict: origin reads made because strict verification held bytes
	// back for too long.
	CountStrict
	// CountRefuted: blobs that did not hash to their digest.
	CountRefuted
	// CountConflict: claims for one chunk that differ.
	CountConflict
	// CountWaste: bytes received that were of no use.
	CountWaste
	// CountBan: bans.
	CountBan
	// CountIgnored: messages that made no sense here.
	CountIgnored
	// CountStall: transfers replaced because they stood still.
	CountStall
	// CountBusy: transfers that the peer was too busy for.
	CountBusy
	// CountRefused: uploads refused because this node serves enough.
	CountRefused
	// CountSecond: chunks asked of a second peer because the first was slow.
	CountSecond
	// CountCooldown: times that an origin was left alone because it said so to
	// another node.
	CountCooldown
	// CountProbe: chunks read from the origin to find out who lied.
	CountProbe
	// MetricCount is the number of metrics plus one.
	MetricCount
)

var metricNames = [MetricCount]string{"", "grants", "regrants", "takeovers", "redirects", "hedges",
	"strict_reads", "refuted", "claim_conflicts", "wasted_bytes", "bans", "ignored_messages", "stalls", "busy",
	"uploads_refused", "second_transfers", "cooldowns", "probes"}

// String is the metric's name as in Prometheus, without prefix and suffix.
func (m Metric) String() string {
	if m < MetricCount {
		return metricNames[m]
	}
	return "unknown"
}

// Effect is one thing to do.
type Effect struct {
	Kind   EffectKind
	Blob   digest.Digest
	Peer   chunkindex.NodeID
	ID     ID
	Reader ID
	Chunk  int
	Off    int64
	N      int64
	Size   int64
	Small  bool
	Source Source
	Level  chunkindex.Level
	Claim  *chunkindex.Claim
	At     Time
	Wait   time.Duration
	Status int
	Reason Reason
	Metric Metric
	Peers  []chunkindex.NodeID
	Msg    Message
}
