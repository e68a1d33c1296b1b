package chunkindex_test

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
)

func layoutFor(t interface {
	Helper()
	Fatalf(string, ...any)
}, size int64) chunkindex.Layout {
	t.Helper()
	l, err := chunkindex.LayoutFor(size)
	if err != nil {
		t.Fatalf("LayoutFor(%d): %v", size, err)
	}
	return l
}

func TestLayoutFollowsTheTable(t *testing.T) {
	for _, tt := range []struct {
		name           string
		size, length   int64
		count, stripes int
		perStripe      int
		lastChunk      int64 // length of the last chunk
	}{
		{"empty", 0, mib, 0, 0, 16, 0},
		{"one byte", 1, mib, 1, 1, 16, 1},
		{"one chunk exactly", mib, mib, 1, 1, 16, mib},
		{"one chunk and a byte", mib + 1, mib, 2, 1, 16, 1},
		{"one stripe exactly", 16 * mib, mib, 16, 1, 16, mib},
		{"one stripe and a byte", 16*mib + 1, mib, 17, 2, 16, 1},
		{"largest of 1 MiB", gib, mib, 1024, 64, 16, mib},
		{"smallest of 4 MiB", gib + 1, 4 * mib, 257, 65, 4, 1},
		{"largest of 4 MiB", 16 * gib, 4 * mib, 4096, 1024, 4, 4 * mib},
		{"smallest of 16 MiB", 16*gib + 1, 16 * mib, 1025, 1025, 1, 1},
		{"largest", chunkindex.MaxBlobSize, 16 * mib, 65536, 65536, 1, 16 * mib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := layoutFor(t, tt.size)
			if l.Size() != tt.size || l.ChunkLength() != tt.length || l.Count() != tt.count ||
				l.Stripes() != tt.stripes || l.StripeChunks() != tt.perStripe {
				t.Fatalf("size %d, chunk length %d, %d chunks, %d stripes of %d; want %d, %d, %d, %d of %d",
					l.Size(), l.ChunkLength(), l.Count(), l.Stripes(), l.StripeChunks(),
					tt.size, tt.length, tt.count, tt.stripes, tt.perStripe)
			}
			if tt.count == 0 {
				return
			}
			if off, n := l.Chunk(tt.count - 1); n != tt.lastChunk || off+n != tt.size {
				t.Fatalf("last chunk at %d is %d long, want %d up to the end", off, n, tt.lastChunk)
			}
		})
	}
}

func TestLayoutRefusesSizesThatNobodyMayClaim(t *testing.T) {
	for _, size := range []int64{-1, math.MinInt64, chunkindex.MaxBlobSize + 1, math.MaxInt64} {
		if _, err := chunkindex.LayoutFor(size); !errors.Is(err, chunkindex.ErrLayout) {
			t.Errorf("LayoutFor(%d) = %v, want ErrLayout", size, err)
		}
	}
}

func TestZeroLayoutIsTheEmptyBlob(t *testing.T) {
	var zero chunkindex.Layout
	if zero.Count() != 0 || zero.Stripes() != 0 || zero.Size() != 0 || zero.Valid(0) {
		t.Fatalf("%d chunks, %d stripes, size %d", zero.Count(), zero.Stripes(), zero.Size())
	}
	if first, end := zero.Span(0, math.MaxInt64); first != 0 || end != 0 {
		t.Fatalf("Span of the empty blob is [%d, %d)", first, end)
	}
}

func TestChunkOutsideOfTheBlobPanics(t *testing.T) {
	l := layoutFor(t, 3*mib)
	for _, i := range []int{-1, 3, math.MaxInt} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Chunk(%d) of 3 chunks did not panic", i)
				}
			}()
			l.Chunk(i)
		}()
	}
}

// blobSize draws sizes around the borders where layouts change as often as
// sizes in between.
func blobSize(t *rapid.T, most int64) int64 {
	borders := []int64{0, 1, mib, 16 * mib, gib, 16 * gib, chunkindex.MaxBlobSize}
	if rapid.Bool().Draw(t, "at a border") {
		b := rapid.SampledFrom(borders).Draw(t, "border")
		return min(max(b+rapid.Int64Range(-2, 2).Draw(t, "beside"), 0), most)
	}
	return rapid.Int64Range(0, most).Draw(t, "size")
}

func TestChunksAndStripesCoverTheBlobExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layoutFor(t, blobSize(t, chunkindex.MaxBlobSize))
		if chunkindex.StripeLength%l.ChunkLength() != 0 {
			t.Fatalf("a stripe is no whole number of chunks of %d", l.ChunkLength())
		}
		next, chunk := int64(0), 0
		for s := range l.Stripes() {
			first, end := l.Stripe(s)
			if first != chunk || end <= first || end-first > l.StripeChunks() {
				t.Fatalf("stripe %d is [%d, %d), want it to begin at %d", s, first, end, chunk)
			}
			if s < l.Stripes()-1 && end-first != l.StripeChunks() {
				t.Fatalf("stripe %d of %d is short", s, l.Stripes())
			}
			for ; chunk < end; chunk++ {
				off, n := l.Chunk(chunk)
				if off != next || n < 1 || n > l.ChunkLength() {
					t.Fatalf("chunk %d is [%d, +%d), want it to begin at %d", chunk, off, n, next)
				}
				if l.At(off) != chunk || l.At(off+n-1) != chunk {
					t.Fatalf("At doesn't find chunk %d at its ends", chunk)
				}
				next += n
			}
		}
		if next != l.Size() || chunk != l.Count() || l.Valid(chunk) {
			t.Fatalf("covered %d of %d bytes in %d of %d chunks", next, l.Size(), chunk, l.Count())
		}
	})
}

func TestSpanIsTheLeastRunThatCoversTheRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layoutFor(t, blobSize(t, chunkindex.MaxBlobSize))
		off := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-1, l.Size()+1)).Draw(t, "off")
		n := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-1, 40*mib)).Draw(t, "n")
		first, end := l.Span(off, n)
		if off < 0 || n <= 0 || off >= l.Size() {
			if first != 0 || end != 0 {
				t.Fatalf("empty range [%d, +%d) of %d gave [%d, %d)", off, n, l.Size(), first, end)
			}
			return
		}
		last := l.Size() - 1 // the last byte of the range, cut to the blob
		if n <= last-off {
			last = off + n - 1
		}
		if !l.Valid(first) || !l.Valid(end-1) {
			t.Fatalf("[%d, %d) lies outside of %d chunks", first, end, l.Count())
		}
		if o, m := l.Chunk(first); off < o || off >= o+m {
			t.Fatalf("first byte %d is not in the first chunk %d", off, first)
		}
		if o, m := l.Chunk(end - 1); last < o || last >= o+m {
			t.Fatalf("last byte %d is not in the last chunk %d", last, end-1)
		}
	})
}
