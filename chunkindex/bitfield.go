package chunkindex

import (
	"errors"
	"math/bits"
)

// ErrBitfield says that encoded bits do not fit the number of chunks.
var ErrBitfield = errors.New("chunkindex: malformed bitfield")

// Bitfield is a set of chunk numbers below a fixed length. The zero Bitfield
// has length zero. A Bitfield is not safe for concurrent use.
//
// Its encoding is that of BEP 3: one bit a chunk, the first chunk in the high
// bit of the first byte, spare bits zero.
type Bitfield struct {
	words    []uint64
	n, count int32
}

// NewBitfield returns an empty set of numbers below n.
func NewBitfield(n int) Bitfield {
	return Bitfield{words: make([]uint64, (n+63)/64), n: int32(n)}
}

// FullBitfield returns the set of all numbers below n.
func FullBitfield(n int) Bitfield {
	b := NewBitfield(n)
	for i := range n {
		b.Set(i)
	}
	return b
}

// Len is the number of chunks that the set ranges over.
func (b Bitfield) Len() int { return int(b.n) }

// Count is the number of chunks in the set.
func (b Bitfield) Count() int { return int(b.count) }

// Full reports whether the set holds every chunk.
func (b Bitfield) Full() bool { return b.count == b.n }

// Has reports whether i is in the set; a number outside the range is not.
func (b Bitfield) Has(i int) bool {
	return i >= 0 && i < int(b.n) && b.words[i>>6]&(1<<(i&63)) != 0
}

// Set adds i and reports whether that changed the set. A number outside the
// range changes nothing.
func (b *Bitfield) Set(i int) bool {
	if i < 0 || i >= int(b.n) || b.Has(i) {
		return false
	}
	b.words[i>>6] |= 1 << (i & 63)
	b.count++
	return true
}

// Clear removes i and reports whether that changed the set.
func (b *Bitfield) Clear(i int) bool {
	if !b.Has(i) {
		return false
	}
	b.words[i>>6] &^= 1 << (i & 63)
	b.count--
	return true
}

// Union adds every chunk of o, which must have the same length.
func (b *Bitfield) Union(o Bitfield) {
	b.count = 0
	for i := range b.words {
		b.words[i] |= o.words[i]
		b.count += int32(bits.OnesCount64(b.words[i]))
	}
}

// Subtract removes every chunk of o, which must have the same length.
func (b *Bitfield) Subtract(o Bitfield) {
	b.count = 0
	for i := range b.words {
		b.words[i] &^= o.words[i]
		b.count += int32(bits.OnesCount64(b.words[i]))
	}
}

// Intersect removes every chunk that is not in o, which must have the same length.
func (b *Bitfield) Intersect(o Bitfield) {
	b.count = 0
	for i := range b.words {
		b.words[i] &= o.words[i]
		b.count += int32(bits.OnesCount64(b.words[i]))
	}
}

// Complement makes b the set of all chunks that are not in o, which must have the same
// length.
func (b *Bitfield) Complement(o Bitfield) {
	for i := range b.words {
		b.words[i] = ^o.words[i]
	}
	if spare := b.n & 63; spare != 0 {
		b.words[len(b.words)-1] &= 1<<spare - 1
	}
	b.count = b.n - o.count
}

// Intersects reports whether b and o, which must have the same length, have a chunk
// in common.
func (b Bitfield) Intersects(o Bitfield) bool {
	for i, word := range b.words {
		if word&o.words[i] != 0 {
			return true
		}
	}
	return false
}

// CountBeyond is how many chunks of b are not in o, which must have the same length.
func (b Bitfield) CountBeyond(o Bitfield) int {
	n := 0
	for i, word := range b.words {
		n += bits.OnesCount64(word &^ o.words[i])
	}
	return n
}

// Covers reports whether every chunk of o is in b. Sets of different lengths may be
// compared.
func (b Bitfield) Covers(o Bitfield) bool {
	for i, word := range o.words {
		if i < len(b.words) {
			word &^= b.words[i]
		}
		if word != 0 {
			return false
		}
	}
	return true
}

// CountIn is how many chunks from first on and below end are in the set.
func (b Bitfield) CountIn(first, end int) int {
	first, end = max(first, 0), min(end, int(b.n))
	if first >= end {
		return 0
	}
	low, high := ^uint64(0)<<(first&63), ^uint64(0)>>(63-(end-1)&63)
	w, last := first>>6, (end-1)>>6
	if w == last {
		return bits.OnesCount64(b.words[w] & low & high)
	}
	n := bits.OnesCount64(b.words[w]&low) + bits.OnesCount64(b.words[last]&high)
	for w++; w < last; w++ {
		n += bits.OnesCount64(b.words[w])
	}
	return n
}

// Truncate removes all but the lowest n chunks of the set.
func (b *Bitfield) Truncate(n int) {
	if int(b.count) <= n {
		return
	}
	b.count = int32(max(n, 0))
	for i, word := range b.words {
		if ones := bits.OnesCount64(word); ones <= n {
			n -= ones
			continue
		}
		for ; n > 0; n-- {
			word &= word - 1
		}
		b.words[i] &^= word
	}
}

// Reset makes b the empty set of numbers below n, in the memory that it has where
// that is enough.
func (b *Bitfield) Reset(n int) {
	words := (n + 63) / 64
	if cap(b.words) < words {
		b.words = make([]uint64, words)
	}
	b.words, b.n, b.count = b.words[:words], int32(n), 0
	clear(b.words)
}

// Next returns the lowest number in the set that is at least i, or -1.
func (b Bitfield) Next(i int) int {
	i = max(i, 0)
	if i >= int(b.n) {
		return -1
	}
	w := i >> 6
	word := b.words[w] >> (i & 63) << (i & 63)
	for word == 0 {
		if w++; w == len(b.words) {
			return -1
		}
		word = b.words[w]
	}
	return w<<6 + bits.TrailingZeros64(word)
}

// NextClear returns the lowest number at least i that is not in the set, or -1.
func (b Bitfield) NextClear(i int) int {
	for i = max(i, 0); i < int(b.n); i++ {
		word := ^b.words[i>>6] >> (i & 63)
		if word == 0 {
			i |= 63
			continue
		}
		if i += bits.TrailingZeros64(word); i < int(b.n) {
			return i
		}
	}
	return -1
}

// Clone returns a copy that shares nothing with b.
func (b Bitfield) Clone() Bitfield {
	b.words = append([]uint64(nil), b.words...)
	return b
}

// Append appends the encoding of b to dst.
func (b Bitfield) Append(dst []byte) []byte {
	for i := 0; i < (int(b.n)+7)/8; i++ {
		dst = append(dst, bits.Reverse8(byte(b.words[i>>3]>>(8*(i&7)))))
	}
	return dst
}

// DecodeBitfield reads the set of numbers below n from data, which must be
// exactly as long as the encoding. It fails with [ErrBitfield] on another
// length and on spare bits that are not zero.
func DecodeBitfield(data []byte, n int) (Bitfield, error) {
	if n < 0 || len(data) != (n+7)/8 {
		return Bitfield{}, ErrBitfield
	}
	b := NewBitfield(n)
	for i, x := range data {
		b.words[i>>3] |= uint64(bits.Reverse8(x)) << (8 * (i & 7))
	}
	if spare := n & 63; spare != 0 && b.words[n>>6]>>spare != 0 {
		return Bitfield{}, ErrBitfield
	}
	for _, w := range b.words {
		b.count += int32(bits.OnesCount64(w))
	}
	return b, nil
}

// Words is how many words a set of numbers below n has, for who keeps many sets side by
// side: see [Bitfield.MoveTo].
func Words(n int) int { return (n + 63) / 64 }

// MoveTo has b be in the words given from now on, as many as [Words] says. Nothing else may
// change them. They may overlap those where it was.
func (b *Bitfield) MoveTo(words []uint64) {
	words = words[:len(b.words):len(b.words)]
	copy(words, b.words)
	b.words = words
}

// Meets reports whether b has a chunk in common with the set in words, which has the same
// length.
func (b Bitfield) Meets(words []uint64) bool {
	words = words[:len(b.words)]
	for i, word := range b.words {
		if word&words[i] != 0 {
			return true
		}
	}
	return false
}

// Join adds every chunk of the set in words, which has the same length.
func (b *Bitfield) Join(words []uint64) { b.Union(Bitfield{words: words}) }

// NthClear returns the n-th number from first on that is not in the set, counted from 1, or
// -1 if there are not so many.
func (b Bitfield) NthClear(first, n int) int {
	first = max(first, 0)
	low := ^uint64(0) << (first & 63)
	for w := first >> 6; w < len(b.words); w++ {
		word := ^b.words[w] & low
		low = ^uint64(0)
		ones := bits.OnesCount64(word)
		if ones < n {
			n -= ones
			continue
		}
		for ; n > 1; n-- {
			word &= word - 1
		}
		if i := w<<6 + bits.TrailingZeros64(word); i < int(b.n) {
			return i
		}
		break
	}
	return -1
}

// UnionIn adds the chunks of o, which must have the same length, from first on and below end.
func (b *Bitfield) UnionIn(o Bitfield, first, end int) {
	first, end = max(first, 0), min(end, int(b.n))
	if first >= end {
		return
	}
	mask := ^uint64(0) << (first & 63)
	for w := first >> 6; w <= (end-1)>>6; w++ {
		if w == (end-1)>>6 {
			mask &= ^uint64(0) >> (63 - (end-1)&63)
		}
		add := o.words[w] & mask &^ b.words[w]
		b.words[w] |= add
		b.count += int32(bits.OnesCount64(add))
		mask = ^uint64(0)
	}
}

// NextBeyond returns the lowest number in the set that is at least i and not in o, which
// must have the same length, or -1.
func (b Bitfield) NextBeyond(o Bitfield, i int) int {
	i = max(i, 0)
	low := ^uint64(0) << (i & 63)
	for w := i >> 6; w < len(b.words); w++ {
		if word := b.words[w] &^ o.words[w] & low; word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
		low = ^uint64(0)
	}
	return -1
}
