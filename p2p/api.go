package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

const (
	// MaxFrame is the largest control frame in bytes.
	MaxFrame = 256 << 10
	// MaxCall is the largest request or response of a call in bytes.
	MaxCall = 4<<20 + 64<<10
	// MaxWhole is the most bytes that a range request of length -1 can yield.
	MaxWhole = 8 << 20
	// MaxClaims is the largest number of claims that travel with a range.
	MaxClaims = 64
	// MaxAlternatives is the most nodes that a [BusyError] can name.
	MaxAlternatives = 8
)

var (
	// ErrNotFound says that the peer does not have these bytes.
	ErrNotFound = errors.New("p2p: peer does not have it")
	// ErrBusy says that the peer serves as much as it is willing to; ask
	// another one.
	ErrBusy = errors.New("p2p: peer is busy")
	// ErrBadRange says that the range does not lie in the blob, or is longer
	// than is served at once.
	ErrBadRange = errors.New("p2p: range outside of the blob")
	// ErrRefused says that the peer answered that it failed, not why.
	ErrRefused = errors.New("p2p: peer failed to answer")
	// ErrStalled says that no byte arrived for as long as the stall timeout.
	ErrStalled = errors.New("p2p: peer stalled")
	// ErrProtocol says that the peer sent what no correct peer sends.
	ErrProtocol = errors.New("p2p: protocol violation")
	// ErrUnreachable says that there is no connection to the peer and none
	// could be made.
	ErrUnreachable = errors.New("p2p: peer unreachable")
	// ErrPeerDown says that frames cannot be sent, since the peer is not up.
	ErrPeerDown = errors.New("p2p: peer is not up")
	// ErrTooLarge says that a frame, request or response exceeds its limit.
	ErrTooLarge = errors.New("p2p: message too large")
	// ErrQueueFull says that the peer does not take frames as fast as they are
	// sent. It has been reported down.
	ErrQueueFull = errors.New("p2p: send queue full")
	// ErrClosed says that the host is closed.
	ErrClosed = errors.New("p2p: host closed")
)

// BusyError is [ErrBusy] with other nodes to ask instead, best first. They are
// the busy peer's word: it says that they hold what was asked for.
//
// From a [Handler] at most [MaxAlternatives] reach the asking node: none twice,
// and neither of the two nodes that talk.
type BusyError struct {
	Peers []chunkindex.NodeID
}

func (e BusyError) Error() string {
	return fmt.Sprintf("%v, and names %d others", ErrBusy, len(e.Peers))
}

// Is makes a BusyError an [ErrBusy].
func (e BusyError) Is(target error) bool { return target == ErrBusy }

// Alternatives returns Peers.
func (e BusyError) Alternatives() []chunkindex.NodeID { return e.Peers }

// RangeRequest names Length bytes at Offset of a blob. Length -1 means to the
// end of the blob, which is only possible where that is at most [MaxWhole].
type RangeRequest struct {
	Digest digest.Digest
	Offset int64
	Length int64
}

// RangeSource is what a [Handler] serves for a [RangeRequest].
type RangeSource struct {
	// Size is that of the whole blob.
	Size int64
	// Length is the number of bytes that Body yields: the request's, or, where
	// that was -1, Size less the request's offset.
	Length int64
	// Claims are the claims for the chunks that the range touches, at most
	// [MaxClaims], in the order of the chunks; may be empty.
	Claims []chunkindex.Claim
	// Body yields exactly Length bytes. It is closed by the host.
	Body io.ReadCloser
}

// RangeResponse is a peer's answer to a [RangeRequest]. Nothing in it is
// verified but its form.
type RangeResponse struct {
	// Size is that of the whole blob, as the peer says.
	Size int64
	// Length is the number of bytes that Body yields.
	Length int64
	Claims []chunkindex.Claim
	// Body yields exactly Length bytes and then io.EOF; a peer that ends early
	// gives io.ErrUnexpectedEOF, one that stops gives [ErrStalled]. The stall
	// timeout runs only during a Read. It must be closed. It is not safe for
	// concurrent use, except that Close may be called at any time.
	Body io.ReadCloser
}

// Handler receives what peers do. Its methods are called concurrently for
// different peers.
//
// For each peer the sequence of PeerUp, Frame and PeerDown is strictly ordered,
// one call at a time: PeerUp, then any number of Frames in the order in which
// the peer sent them, then PeerDown, then perhaps PeerUp again. A peer is up
// when it is connected and has answered on the control protocol. Between a
// PeerDown and the next PeerUp frames may have been lost in both directions,
// and both nodes see a PeerDown for it.
//
// These three methods must not block: a peer's liveness is only as good as they
// are quick.
type Handler interface {
	PeerUp(chunkindex.NodeID)
	PeerDown(chunkindex.NodeID)
	// Frame receives a control frame, which the callee may keep. An error says
	// that no correct peer sends it: the session ends as after any other violation
	// of the protocol, and the peer goes down.
	Frame(from chunkindex.NodeID, frame []byte) error
	// OpenRange opens bytes to serve. [ErrNotFound], [ErrBusy], [BusyError] and
	// [ErrBadRange] reach the peer as such, fs.ErrNotExist as ErrNotFound, any
	// other error as [ErrRefused]. ctx ends when the peer goes away.
	OpenRange(ctx context.Context, from chunkindex.NodeID, r RangeRequest) (*RangeSource, error)
	// Call answers a request of at most [MaxCall] bytes, which the callee may
	// keep, by a response of at most as many. Errors travel as those of
	// OpenRange do, a BusyError as ErrBusy. ctx ends when the peer goes away or the call's time is up.
	Call(ctx context.Context, from chunkindex.NodeID, request []byte) (response []byte, err error)
}

// PeerInfo describes a peer that is up.
type PeerInfo struct {
	ID      chunkindex.NodeID
	PeerID  string    // libp2p's name for it
	Addr    string    // the remote end of the connection, a multiaddr
	Inbound bool      // the peer dialled us
	Since   time.Time // of the connection
}
