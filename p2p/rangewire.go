package p2p

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// The range protocol: a stream carries any number of exchanges, one after the
// other. All integers are uvarints.
//
//	request   length of what follows (at most 1 KiB)
//	          length of the digest, the digest as text; offset; length + 1
//	response  length of what follows up to the body (at most 16 KiB)
//	          status; and only if that is OK:
//	          blob size; body length; number of claims (at most 64), claims
//	          then the body; only if it is BUSY, nothing or:
//	          number of other nodes to ask (1 to 8), their IDs of 32 bytes,
//	          none twice
//
// Both decoders accept exactly what the encoders write.
const (
	maxRequestHeader  = 1 << 10
	maxResponseHeader = 16 << 10
)

// status is the outcome of a request, as it travels.
type status uint64

const (
	statusOK status = iota
	statusNotFound
	statusBusy
	statusBadRange
	statusFailed
	statusCount
)

var statusNames = [statusCount]string{"ok", "not_found", "busy", "bad_range", "failed"}

func (s status) String() string {
	if s < statusCount {
		return statusNames[s]
	}
	return "invalid"
}

// err returns the error that stands for the status at the asking node.
func (s status) err() error {
	switch s {
	case statusOK:
		return nil
	case statusNotFound:
		return ErrNotFound
	case statusBusy:
		return ErrBusy
	case statusBadRange:
		return ErrBadRange
	default:
		return ErrRefused
	}
}

// statusOf returns the status that stands for a handler's error.
func statusOf(err error) status {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return statusNotFound
	case errors.Is(err, ErrBusy):
		return statusBusy
	case errors.Is(err, ErrBadRange):
		return statusBadRange
	default:
		return statusFailed
	}
}

// valid reports whether the request can be sent and served at all.
func (r RangeRequest) valid() error {
	if _, err := chunkindex.CID(r.Digest); err != nil {
		return err
	}
	if r.Offset < 0 || r.Length < -1 || r.Offset > chunkindex.MaxBlobSize || r.Length > chunkindex.MaxBlobSize {
		return fmt.Errorf("%w: %d bytes at %d", ErrBadRange, r.Length, r.Offset)
	}
	return nil
}

// appendRequest appends the request without its length prefix.
func appendRequest(dst []byte, r RangeRequest) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(r.Digest)))
	dst = append(dst, r.Digest...)
	dst = binary.AppendUvarint(dst, uint64(r.Offset))
	return binary.AppendUvarint(dst, uint64(r.Length+1))
}

// decodeRequest reads what appendRequest wrote. What it returns is valid.
func decodeRequest(data []byte) (RangeRequest, error) {
	n, data, err := uvarint(data)
	if err != nil {
		return RangeRequest{}, err
	}
	if n > uint64(len(data)) {
		return RangeRequest{}, fmt.Errorf("%w: digest cut short", ErrProtocol)
	}
	r := RangeRequest{Digest: digest.Digest(data[:n])}
	off, data, err := uvarint(data[n:])
	if err != nil {
		return RangeRequest{}, err
	}
	length, data, err := uvarint(data)
	if err != nil {
		return RangeRequest{}, err
	}
	if len(data) > 0 {
		return RangeRequest{}, fmt.Errorf("%w: %d bytes after the request", ErrProtocol, len(data))
	}
	if off > uint64(chunkindex.MaxBlobSize) || length > uint64(chunkindex.MaxBlobSize)+1 {
		return RangeRequest{}, fmt.Errorf("%w: range", ErrProtocol)
	}
	r.Offset, r.Length = int64(off), int64(length)-1
	if err := r.valid(); err != nil {
		return RangeRequest{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return r, nil
}

// responseHeader is everything of a response but its body.
type responseHeader struct {
	Status status
	Size   int64
	Length int64
	Claims []chunkindex.Claim
	Peers  []chunkindex.NodeID // to ask instead, where Status is BUSY
}

// err returns the error that the response is, or nil.
func (h responseHeader) err() error {
	if len(h.Peers) > 0 {
		return BusyError{Peers: h.Peers}
	}
	return h.Status.err()
}

// alternatives returns those of a handler's alternatives that may be sent to a
// peer: they are neither that peer nor this node.
func alternatives(err error, self, to chunkindex.NodeID) []chunkindex.NodeID {
	var busy BusyError
	if !errors.As(err, &busy) {
		return nil
	}
	var list []chunkindex.NodeID
	for _, n := range busy.Peers {
		if len(list) < MaxAlternatives && !n.IsZero() && n != self && n != to && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

func appendResponse(dst []byte, h responseHeader) []byte {
	dst = binary.AppendUvarint(dst, uint64(h.Status))
	if h.Status == statusBusy && len(h.Peers) > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(h.Peers)))
		for _, n := range h.Peers {
			dst = append(dst, n[:]...)
		}
	}
	if h.Status != statusOK {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(h.Size))
	dst = binary.AppendUvarint(dst, uint64(h.Length))
	dst = binary.AppendUvarint(dst, uint64(len(h.Claims)))
	for _, c := range h.Claims {
		dst = c.Append(dst)
	}
	return dst
}

func decodeResponse(data []byte) (h responseHeader, err error) {
	bad := func(what string) (responseHeader, error) {
		return responseHeader{}, fmt.Errorf("%w: %s in a range response", ErrProtocol, what)
	}
	v, data, err := uvarint(data)
	if err != nil {
		return responseHeader{}, err
	}
	if v >= uint64(statusCount) {
		return bad("unknown status")
	}
	h.Status = status(v)
	if h.Status == statusBusy && len(data) > 0 {
		h.Peers, err = decodeAlternatives(data)
		if err != nil {
			return responseHeader{}, err
		}
		return h, nil
	}
	if h.Status != statusOK {
		if len(data) > 0 {
			return bad("trailing bytes")
		}
		return h, nil
	}
	var fields [3]uint64
	for i := range fields {
		if fields[i], data, err = uvarint(data); err != nil {
			return responseHeader{}, err
		}
	}
	if fields[0] > uint64(chunkindex.MaxBlobSize) || fields[1] > fields[0] {
		return bad("impossible size")
	}
	if fields[2] > MaxClaims || fields[2]*uint64(chunkindex.ClaimLength) != uint64(len(data)) {
		return bad("wrong number of claims")
	}
	h.Size, h.Length = int64(fields[0]), int64(fields[1])
	for len(data) > 0 {
		var c chunkindex.Claim
		if c, data, err = chunkindex.DecodeClaim(data); err != nil {
			return responseHeader{}, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		h.Claims = append(h.Claims, c)
	}
	return h, nil
}

func decodeAlternatives(data []byte) ([]chunkindex.NodeID, error) {
	count, data, err := uvarint(data)
	if err != nil {
		return nil, err
	}
	var n chunkindex.NodeID
	if count == 0 || count > MaxAlternatives || count*uint64(len(n)) != uint64(len(data)) {
		return nil, fmt.Errorf("%w: wrong number of nodes to ask instead", ErrProtocol)
	}
	list := make([]chunkindex.NodeID, 0, count)
	for ; len(data) > 0; data = data[len(n):] {
		copy(n[:], data)
		if n.IsZero() || slices.Contains(list, n) {
			return nil, fmt.Errorf("%w: node to ask instead named twice, or no node", ErrProtocol)
		}
		list = append(list, n)
	}
	return list, nil
}

// answers returns an error unless the header can be the answer of a peer to r.
func (h responseHeader) answers(r RangeRequest, self, from chunkindex.NodeID) error {
	if slices.Contains(h.Peers, self) || slices.Contains(h.Peers, from) {
		return fmt.Errorf("%w: busy peer names itself or the asking node", ErrProtocol)
	}
	if h.Status != statusOK {
		return nil
	}
	want := r.Length
	if want < 0 {
		want = h.Size - r.Offset
		if want > MaxWhole {
			return fmt.Errorf("%w: whole of %d bytes", ErrProtocol, want)
		}
	}
	if want < 0 || h.Length != want || r.Offset > h.Size-want {
		return fmt.Errorf("%w: %d bytes of a blob of %d for a range of %d at %d", ErrProtocol, h.Length, h.Size, r.Length, r.Offset)
	}
	return nil
}

// withLength puts a message's length in front of it.
func withLength(msg []byte) []byte {
	return append(binary.AppendUvarint(make([]byte, 0, len(msg)+binary.MaxVarintLen64), uint64(len(msg))), msg...)
}
