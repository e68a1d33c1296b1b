package p2p

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// uvarint reads a uvarint from the front of data and returns the rest. It
// accepts only what binary.AppendUvarint writes: no padding, no overflow.
func uvarint(data []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(data)
	if n <= 0 || n > 1 && data[n-1] == 0 {
		return 0, data, fmt.Errorf("%w: malformed uvarint", ErrProtocol)
	}
	return v, data[n:], nil
}

// readUvarint reads a uvarint of at most limit. It returns io.EOF only if r
// ended before its first byte.
func readUvarint(r io.ByteReader, limit uint64) (uint64, error) {
	var v uint64
	for shift := 0; ; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) && shift > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		if shift == 63 && b > 1 || shift > 0 && b == 0 {
			return 0, fmt.Errorf("%w: malformed uvarint", ErrProtocol)
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	if v > limit {
		return 0, fmt.Errorf("%w: length %d above the limit of %d", ErrProtocol, v, limit)
	}
	return v, nil
}

// growStep bounds what a peer's word alone can make this node allocate.
const growStep = 64 << 10

// readMessage reads n bytes into a new slice. Memory is allocated as bytes
// arrive, never more than twice as much plus growStep: a peer that announces a
// large message and sends nothing costs nothing.
func readMessage(r io.Reader, n int) ([]byte, error) {
	msg := make([]byte, 0, min(n, growStep))
	for len(msg) < n {
		if len(msg) == cap(msg) {
			bigger := make([]byte, len(msg), min(n, 2*cap(msg)))
			copy(bigger, msg)
			msg = bigger
		}
		m, err := io.ReadFull(r, msg[len(msg):cap(msg)])
		msg = msg[:len(msg)+m]
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return msg, nil
}

// byteReader reads single bytes from a stream where no byte after the message
// may be consumed, so that a bufio.Reader is out of the question.
type byteReader struct {
	io.Reader
	one [1]byte
}

func (b *byteReader) ReadByte() (byte, error) {
	_, err := io.ReadFull(b.Reader, b.one[:])
	return b.one[0], err
}
