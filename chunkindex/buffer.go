package chunkindex

import (
	"crypto/sha256"
	"hash"
	"io"
)

// Buffer receives the bytes of one chunk and hashes them on the way, so that a
// chunk and its sum cannot be told apart: whoever is handed a full Buffer knows
// that [Buffer.Sum] is the SHA-256 of [Buffer.Bytes]. That makes it the one
// door into a store. A Buffer is not safe for concurrent use.
type Buffer struct {
	data []byte
	h    hash.Hash
	n    int
}

// NewBuffer returns a buffer for a chunk of n bytes. It may reuse the memory of
// recycled, which may be nil and must not be used any more.
func NewBuffer(n int, recycled *Buffer) *Buffer {
	if recycled == nil || cap(recycled.data) < n {
		return &Buffer{data: make([]byte, n), h: sha256.New()}
	}
	recycled.h.Reset()
	recycled.data, recycled.n = recycled.data[:n], 0
	return recycled
}

// ReadFrom reads from r until the chunk is complete and returns the number of
// bytes read. It returns io.ErrUnexpectedEOF if r ends before that, and never
// reads more than the chunk needs.
func (b *Buffer) ReadFrom(r io.Reader) (int64, error) {
	start := b.n
	for b.n < len(b.data) {
		// 128 KiB: hash what is still in the CPU's cache.
		end := min(b.n+128<<10, len(b.data))
		m, err := r.Read(b.data[b.n:end])
		b.h.Write(b.data[b.n : b.n+m])
		b.n += m
		if err == io.EOF && b.n < len(b.data) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && b.n < len(b.data) {
			return int64(b.n - start), err
		}
	}
	return int64(b.n - start), nil
}

// Full reports whether all bytes have arrived.
func (b *Buffer) Full() bool { return b.n == len(b.data) }

// Len is the number of bytes that have arrived.
func (b *Buffer) Len() int { return b.n }

// Bytes returns what has arrived. The caller must not change it.
func (b *Buffer) Bytes() []byte { return b.data[:b.n] }

// Sum is the SHA-256 of what has arrived.
func (b *Buffer) Sum() (s Sum) {
	b.h.Sum(s[:0])
	return s
}
