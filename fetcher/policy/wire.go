package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// ErrMessage says that a frame is not a message: it is cut short, has bytes left
// over, or a field that makes no sense. A node that sends one is broken.
var ErrMessage = errors.New("policy: malformed message")

// ErrOptional says that a frame is a message of a kind that this version does
// not know, and which its sender marked as safe to ignore.
var ErrOptional = errors.New("policy: unknown optional message")

// The encoding of a message is: kind, flags (one byte each), then unsigned
// varints and byte strings (uvarint length, bytes) in the order of the fields
// below. Which fields are there depends on the kind alone, so that a newer
// version adds kinds, not fields. A kind at or above optionalKind may be ignored
// by whoever does not know it.
const optionalKind = 128

const (
	flagSmall = 1 << iota
	flagWant
	flagReply
	flagSized
)

// maxDigest bounds the text of a digest: sha512 has 135 characters.
const maxDigest = 160

// fields lists what follows the digest for each kind.
type fields uint16

const (
	fieldRun fields = 1 << iota
	fieldEpoch
	fieldStatus
	fieldPeer
	fieldPeers
	fieldSums
	fieldBits
	fieldInFlight
	fieldWait // and the origin
	fieldLabel
	fieldLabels // as many as there are peers
	fieldRest
)

var messageFields = map[MessageKind]fields{
	MsgState:    fieldEpoch | fieldBits | fieldInFlight | fieldLabel,
	MsgHave:     fieldRun | fieldRest,
	MsgLeave:    0,
	MsgAsk:      fieldBits | fieldEpoch | fieldPeers,
	MsgGrant:    fieldRun | fieldEpoch,
	MsgGiveBack: fieldRun | fieldStatus | fieldWait,
	MsgRedirect: fieldPeer,
	MsgPeers:    fieldRun | fieldPeers | fieldLabels,
	MsgPing:     0,
	MsgPong:     0,
	MsgAskSums:  fieldRun,
	MsgSums:     fieldRun | fieldSums,
	MsgJoin:     fieldLabel,
	MsgCooldown: fieldStatus | fieldWait,
	MsgFree:     0,
}

// AppendMessage appends the encoding of m to dst.
func AppendMessage(dst []byte, m *Message) []byte {
	f := messageFields[m.Kind]
	var flags byte
	for _, b := range [...]struct {
		on   bool
		flag byte
	}{{m.Small, flagSmall}, {m.Want, flagWant}, {m.Reply, flagReply}, {m.Size >= 0, flagSized}} {
		if b.on {
			flags |= b.flag
		}
	}
	dst = append(dst, byte(m.Kind), flags)
	dst = binary.AppendUvarint(dst, uint64(len(m.Blob)))
	dst = append(dst, m.Blob...)
	if m.Size >= 0 {
		dst = binary.AppendUvarint(dst, uint64(m.Size))
	}
	if f&fieldRun != 0 {
		dst = binary.AppendUvarint(dst, uint64(m.Chunk))
		dst = binary.AppendUvarint(dst, uint64(m.N))
	}
	if f&fieldRest != 0 {
		dst = appendRest(dst, &m.Rest)
	}
	if f&fieldEpoch != 0 {
		dst = binary.AppendUvarint(dst, uint64(m.Epoch))
	}
	if f&fieldStatus != 0 {
		dst = binary.AppendUvarint(dst, uint64(m.Status))
	}
	if f&fieldWait != 0 {
		dst = binary.AppendUvarint(dst, uint64(m.Wait/time.Millisecond))
		dst = binary.AppendUvarint(dst, uint64(m.Origin))
	}
	if f&fieldLabel != 0 {
		dst = appendLabel(dst, m.Label)
	}
	if f&fieldPeer != 0 {
		dst = append(dst, m.Peer[:]...)
	}
	if f&fieldPeers != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.Peers)))
		for _, p := range m.Peers {
			dst = append(dst, p[:]...)
		}
	}
	if f&fieldLabels != 0 {
		for i := range m.Peers {
			var l Label
			if i < len(m.Labels) {
				l = m.Labels[i]
			}
			dst = appendLabel(dst, l)
		}
	}
	if f&fieldSums != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(m.Sums)))
		for _, s := range m.Sums {
			dst = append(dst, s[:]...)
		}
	}
	if f&fieldBits != 0 {
		dst = appendBits(dst, m.Bits)
	}
	if f&fieldInFlight != 0 {
		dst = appendBits(dst, m.InFlight)
	}
	return dst
}

func appendLabel(dst []byte, l Label) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(l.Zone)), uint64(l.Rack))
}

// appendBits writes a set as its length, then nothing for none of them, all of
// them, or the bitfield: most sets in a running cluster are full or empty.
func appendBits(dst []byte, b chunkindex.Bitfield) []byte {
	dst = binary.AppendUvarint(dst, uint64(b.Len()))
	switch {
	case b.Count() == 0:
		return append(dst, 0)
	case b.Full():
		return append(dst, 1)
	}
	return b.Append(append(dst, 2))
}

// appendRest writes the words as how many bytes they take without the zeros at the end,
// and those bytes, the lowest first.
func appendRest(dst []byte, rest *[restWords]uint64) []byte {
	var all [8 * restWords]byte
	n := 0
	for w, x := range rest {
		binary.LittleEndian.PutUint64(all[8*w:], x)
		if x != 0 {
			n = 8*w + (bits.Len64(x)+7)/8
		}
	}
	return append(append(dst, byte(n)), all[:n]...)
}

// maxWait bounds what a message may say to wait for, in milliseconds.
const maxWait = 24 * 60 * 60 * 1000

type decoder struct {
	data []byte
	err  error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = ErrMessage
	}
	d.data = nil
}

func (d *decoder) byte() byte {
	if len(d.data) == 0 {
		d.fail()
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

// uint reads a varint that is at most limit and encoded in the shortest way.
func (d *decoder) uint(limit int64) int64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 || v > uint64(limit) || (n > 1 && d.data[n-1] == 0) {
		d.fail()
		return 0
	}
	d.data = d.data[n:]
	return int64(v)
}

// rest reads what appendRest wrote.
func (d *decoder) rest(rest *[restWords]uint64) {
	var all [8 * restWords]byte
	n := int(d.byte())
	if n > len(all) {
		d.fail()
		return
	}
	if copy(all[:], d.bytes(n)); n > 0 && all[n-1] == 0 {
		d.fail() // there is one encoding of each
		return
	}
	for w := range rest {
		rest[w] = binary.LittleEndian.Uint64(all[8*w:])
	}
}

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.data) {
		d.fail()
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) label() Label {
	return Label{uint32(d.uint(math.MaxUint32)), uint32(d.uint(math.MaxUint32))}
}

func (d *decoder) bits() chunkindex.Bitfield {
	n := int(d.uint(int64(chunkindex.MaxChunks)))
	switch d.byte() {
	case 0:
		if d.err == nil {
			return chunkindex.NewBitfield(n)
		}
	case 1:
		if d.err == nil && n > 0 {
			return chunkindex.FullBitfield(n)
		}
		d.fail()
	case 2:
		b, err := chunkindex.DecodeBitfield(d.bytes((n+7)/8), n)
		if err == nil && d.err == nil && b.Count() > 0 && !b.Full() {
			return b
		}
		d.fail()
	default:
		d.fail()
	}
	return chunkindex.Bitfield{}
}

// DecodeMessage reads the message in a frame. It fails with [ErrMessage], or
// with [ErrOptional] where the frame may be ignored. The result shares no memory
// with data.
func DecodeMessage(data []byte) (Message, error) {
	d := decoder{data: data}
	m := Message{Kind: MessageKind(d.byte()), Size: -1}
	f, known := messageFields[m.Kind]
	switch {
	case d.err != nil:
		return Message{}, d.err
	case !known && m.Kind >= optionalKind:
		return Message{}, ErrOptional
	case !known:
		return Message{}, fmt.Errorf("%w: kind %d", ErrMessage, m.Kind)
	}
	flags := d.byte()
	if d.err != nil {
		return Message{}, d.err
	}
	if flags&^(flagSmall|flagWant|flagReply|flagSized) != 0 {
		return Message{}, ErrMessage
	}
	m.Small, m.Want, m.Reply = flags&flagSmall != 0, flags&flagWant != 0, flags&flagReply != 0
	m.Blob = digest.Digest(d.bytes(int(d.uint(maxDigest))))
	if flags&flagSized != 0 {
		m.Size = d.uint(chunkindex.MaxBlobSize)
	}
	if f&fieldRun != 0 {
		m.Chunk = int(d.uint(chunkindex.MaxBlobSize / chunkindex.MinChunkLength))
		m.N = int(d.uint(chunkindex.MaxBlobSize / chunkindex.MinChunkLength))
	}
	if f&fieldRest != 0 {
		d.rest(&m.Rest)
	}
	if f&fieldEpoch != 0 {
		m.Epoch = int(d.uint(1 << 20))
	}
	if f&fieldStatus != 0 {
		m.Status = int(d.uint(999))
	}
	if f&fieldWait != 0 {
		m.Wait = time.Duration(d.uint(maxWait)) * time.Millisecond
		m.Origin = Origin(d.uint(math.MaxInt64))
	}
	if f&fieldLabel != 0 {
		m.Label = d.label()
	}
	if f&fieldPeer != 0 {
		copy(m.Peer[:], d.bytes(len(m.Peer)))
	}
	if f&fieldPeers != 0 {
		for range d.uint(MaxPeers) {
			var p chunkindex.NodeID
			copy(p[:], d.bytes(len(p)))
			m.Peers = append(m.Peers, p)
		}
	}
	if f&fieldLabels != 0 {
		for range m.Peers {
			m.Labels = append(m.Labels, d.label())
		}
	}
	if f&fieldSums != 0 {
		for range d.uint(MaxSums) {
			var s chunkindex.Sum
			copy(s[:], d.bytes(len(s)))
			m.Sums = append(m.Sums, s)
		}
	}
	if f&fieldBits != 0 {
		m.Bits = d.bits()
	}
	if f&fieldInFlight != 0 {
		m.InFlight = d.bits()
	}
	if d.err == nil && len(d.data) > 0 {
		d.fail()
	}
	if d.err != nil {
		return Message{}, d.err
	}
	if err := m.Blob.Validate(); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return m, nil
}
