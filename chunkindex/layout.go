package chunkindex

import (
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

const (
	// MinChunkLength and MaxChunkLength bound the length of a chunk.
	MinChunkLength = mib
	MaxChunkLength = 16 * mib

	// StripeLength is the number of bytes that one origin range request
	// covers. It is a multiple of every chunk length.
	StripeLength = 16 * mib

	// MaxBlobSize bounds the size that anybody may claim for a blob. It keeps
	// arithmetic on offsets far from overflow and a bitfield under 8 KiB.
	MaxBlobSize = int64(1) << 40
)

// ErrLayout says that a size, an offset or a chunk number does not fit a blob.
var ErrLayout = errors.New("chunkindex: outside of the blob")

// Layout cuts a blob into chunks. It is a function of the blob's size alone, so
// that any two nodes which agree on the size agree on every chunk number, and
// the bitfields they exchange mean the same. The zero Layout is that of the
// empty blob, which has no chunks.
type Layout struct {
	size   int64
	length int64
}

// LayoutFor returns the layout of a blob of size bytes: chunks of 1 MiB up to
// 1 GiB, of 4 MiB up to 16 GiB, of 16 MiB above. It fails with [ErrLayout] for
// a negative size and for one above [MaxBlobSize].
func LayoutFor(size int64) (Layout, error) {
	if size < 0 || size > MaxBlobSize {
		return Layout{}, fmt.Errorf("%w: size %d", ErrLayout, size)
	}
	length := MaxChunkLength
	switch {
	case size <= gib:
		length = mib
	case size <= 16*gib:
		length = 4 * mib
	}
	return Layout{size: size, length: length}, nil
}

// Size is the blob's size in bytes.
func (l Layout) Size() int64 { return l.size }

// ChunkLength is the length in bytes of every chunk but the last.
func (l Layout) ChunkLength() int64 {
	if l.length == 0 {
		return MinChunkLength
	}
	return l.length
}

// Count is the number of chunks.
func (l Layout) Count() int {
	return int((l.size + l.ChunkLength() - 1) / l.ChunkLength())
}

// Chunk returns the byte range of chunk i: its offset in the blob and its
// length, which is shorter than [Layout.ChunkLength] for the last chunk only.
// It panics if i is not a chunk of the blob; use [Layout.Valid] on numbers that
// come from elsewhere.
func (l Layout) Chunk(i int) (off, n int64) {
	if !l.Valid(i) {
		panic(fmt.Sprintf("chunkindex: chunk %d of %d", i, l.Count()))
	}
	off = int64(i) * l.ChunkLength()
	return off, min(l.ChunkLength(), l.size-off)
}

// Valid reports whether the blob has a chunk i.
func (l Layout) Valid(i int) bool { return i >= 0 && i < l.Count() }

// At returns the chunk that holds the byte at off, which must lie in the blob.
func (l Layout) At(off int64) int { return int(off / l.ChunkLength()) }

// Span returns the half-open run of chunks [first, end) which covers the n
// bytes at off, cut to the blob. The run is empty where the range is.
func (l Layout) Span(off, n int64) (first, end int) {
	if off < 0 || n <= 0 || off >= l.size {
		return 0, 0
	}
	last := l.size
	if n < l.size-off {
		last = off + n
	}
	return l.At(off), l.At(last-1) + 1
}

// StripeChunks is the number of chunks in a stripe: 16, 4 or 1.
func (l Layout) StripeChunks() int { return int(StripeLength / l.ChunkLength()) }

// Stripes is the number of stripes.
func (l Layout) Stripes() int {
	return (l.Count() + l.StripeChunks() - 1) / l.StripeChunks()
}

// Stripe returns the half-open run of chunks [first, end) of stripe s, cut to
// the blob.
func (l Layout) Stripe(s int) (first, end int) {
	first = s * l.StripeChunks()
	return first, min(first+l.StripeChunks(), l.Count())
}
