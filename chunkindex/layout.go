package chunkindex

import (
	"errors"
	"fmt"
)

// Sizes in bytes.
const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

const (
	// MinChunkLength and MaxChunkLength bound what [Layout.ChunkLength] gives.
	// A blob of at most MinChunkLength bytes is one chunk: it travels whole.
	MinChunkLength = mib
	MaxChunkLength = 16 * mib

	// HeadChunkLength is the length of the chunks in the first MinChunkLength
	// bytes of a longer blob. No chunk but the last of a blob is shorter.
	HeadChunkLength = 256 * kib

	// MaxChunks is the number of chunks in a blob of MaxBlobSize bytes. No blob
	// has more.
	MaxChunks = int(MaxBlobSize/MaxChunkLength) + headChunks - 1 + int(MaxChunkLength/MinChunkLength) - 1

	// StripeLength is the number of bytes that one origin range request
	// covers. It is a multiple of every chunk length.
	StripeLength = 16 * mib

	// MaxBlobSize bounds the size that anybody may claim for a blob. It keeps
	// arithmetic on offsets far from overflow and a bitfield at about 8 KiB.
	MaxBlobSize = int64(1) << 40
)

// headChunks is the number of chunks in the first MinChunkLength bytes of a
// blob that is longer.
const headChunks = int(MinChunkLength / HeadChunkLength)

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

// LayoutFor returns the layout of a blob of size bytes. A blob of at most 1 MiB
// is one chunk. Of a longer one the first MiB is cut into chunks of 256 KiB, what
// follows up to the offset L into chunks of 1 MiB, and the rest into chunks of L:
// 1 MiB for a blob up to 1 GiB, 4 MiB up to 16 GiB, 16 MiB above. A node passes
// a chunk on once it has all of it, so it is the length of the first chunks that
// decides when the first byte is at the last of many nodes.
//
// It fails with [ErrLayout] for a negative size and for one above [MaxBlobSize].
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

// ChunkLength is the length L in bytes of the chunks from the offset L on, but
// for the last one. Those before L are shorter; see [LayoutFor]. So offsets and
// chunk numbers are never multiples of it: only [Layout.Chunk] and [Layout.At]
// turn one into the other.
func (l Layout) ChunkLength() int64 {
	if l.length == 0 {
		return MinChunkLength
	}
	return l.length
}

// Count is the number of chunks.
func (l Layout) Count() int {
	if l.size == 0 {
		return 0
	}
	return l.At(l.size-1) + 1
}

// Chunk returns the byte range of chunk i: its offset in the blob and its
// length. It panics if i is not a chunk of the blob; use [Layout.Valid] on
// numbers that come from elsewhere.
func (l Layout) Chunk(i int) (off, n int64) {
	if !l.Valid(i) {
		panic(fmt.Sprintf("chunkindex: chunk %d of %d", i, l.Count()))
	}
	off = l.offset(i)
	return off, min(l.offset(i+1), l.size) - off
}

// offset is where chunk i begins, and where the blob's next chunk would begin
// if it were longer.
func (l Layout) offset(i int) int64 {
	switch {
	case l.size <= MinChunkLength:
		return int64(i) * MinChunkLength
	case i < headChunks:
		return int64(i) * HeadChunkLength
	case i < l.skew()+1:
		return int64(i-headChunks+1) * MinChunkLength
	}
	return int64(i-l.skew()) * l.ChunkLength()
}

// skew is how many chunks more than one there are before the offset L of a blob
// that is longer than MinChunkLength: from L on, the chunk at i*L has the number
// i + skew.
func (l Layout) skew() int {
	return headChunks - 1 + int(l.ChunkLength()/MinChunkLength) - 1
}

// Valid reports whether the blob has a chunk i.
func (l Layout) Valid(i int) bool { return i >= 0 && i < l.Count() }

// At returns the chunk that holds the byte at off, which must lie in the blob.
func (l Layout) At(off int64) int {
	switch {
	case l.size <= MinChunkLength:
		return int(off / MinChunkLength)
	case off < MinChunkLength:
		return int(off / HeadChunkLength)
	case off < l.ChunkLength():
		return int(off/MinChunkLength) + headChunks - 1
	}
	return int(off/l.ChunkLength()) + l.skew()
}

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

// StripeOf returns the stripe that chunk i, which must be valid, is part of.
func (l Layout) StripeOf(i int) int { return int(l.offset(i) / StripeLength) }

// Stripe returns the half-open run of chunks [first, end) of stripe s: those of
// the [StripeLength] bytes at s times StripeLength, cut to the blob. Stripe 0
// has more chunks than the others. The run is empty if there is no stripe s.
func (l Layout) Stripe(s int) (first, end int) {
	return l.Span(int64(s)*StripeLength, StripeLength)
}

// Stripes is the number of stripes.
func (l Layout) Stripes() int {
	return int((l.size + StripeLength - 1) / StripeLength)
}
