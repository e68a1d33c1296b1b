package chunkindex_test

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

const (
	kib = int64(1) << 10
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
		first, second  int   // the numbers of chunks in stripes 0 and 1
		firstChunk     int64 // length of the first chunk
		lastChunk      int64 // length of the last chunk
	}{
		{"empty", 0, mib, 0, 0, 0, 0, 0, 0},
		{"one byte", 1, mib, 1, 1, 1, 0, 1, 1},
		{"a head chunk and a byte", 256*kib + 1, mib, 1, 1, 1, 0, 256*kib + 1, 256*kib + 1},
		{"one chunk exactly", mib, mib, 1, 1, 1, 0, mib, mib},
		{"a whole head and a byte", mib + 1, mib, 5, 1, 5, 0, 256 * kib, 1},
		{"head and one chunk", 2 * mib, mib, 5, 1, 5, 0, 256 * kib, mib},
		{"one stripe exactly", 16 * mib, mib, 19, 1, 19, 0, 256 * kib, mib},
		{"one stripe and a byte", 16*mib + 1, mib, 20, 2, 19, 1, 256 * kib, 1},
		{"largest of 1 MiB", gib, mib, 1027, 64, 19, 16, 256 * kib, mib},
		{"smallest of 4 MiB", gib + 1, 4 * mib, 263, 65, 10, 4, 256 * kib, 1},
		{"largest of 4 MiB", 16 * gib, 4 * mib, 4102, 1024, 10, 4, 256 * kib, 4 * mib},
		{"smallest of 16 MiB", 16*gib + 1, 16 * mib, 1043, 1025, 19, 1, 256 * kib, 1},
		{"largest", chunkindex.MaxBlobSize, 16 * mib, chunkindex.MaxChunks, 65536, 19, 1, 256 * kib, 16 * mib},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := layoutFor(t, tt.size)
			if l.Size() != tt.size || l.ChunkLength() != tt.length || l.Count() != tt.count || l.Stripes() != tt.stripes {
				t.Fatalf("size %d, chunk length %d, %d chunks, %d stripes; want %d, %d, %d, %d",
					l.Size(), l.ChunkLength(), l.Count(), l.Stripes(), tt.size, tt.length, tt.count, tt.stripes)
			}
			for s, want := range []int{tt.first, tt.second} {
				if first, end := l.Stripe(s); end-first != want {
					t.Fatalf("stripe %d is [%d, %d), want %d chunks", s, first, end, want)
				}
			}
			if tt.count == 0 {
				return
			}
			if off, n := l.Chunk(0); off != 0 || n != tt.firstChunk {
				t.Fatalf("first chunk at %d is %d long, want %d", off, n, tt.firstChunk)
			}
			if off, n := l.Chunk(tt.count - 1); n != tt.lastChunk || off+n != tt.size {
				t.Fatalf("last chunk at %d is %d long, want %d up to the end", off, n, tt.lastChunk)
			}
		})
	}
}

// TestHeadOfEachChunkLength writes out where the chunks of a head begin.
func TestHeadOfEachChunkLength(t *testing.T) {
	for _, tt := range []struct {
		size int64
		want []int64 // offsets of the first chunks, in KiB
	}{
		{gib, []int64{0, 256, 512, 768, 1024, 2048, 3072, 4096}},
		{16 * gib, []int64{0, 256, 512, 768, 1024, 2048, 3072, 4096, 8192, 12288, 16384}},
		{17 * gib, []int64{
			0, 256, 512, 768, 1024, 2048, 3072, 4096, 5120, 6144, 7168, 8192,
			9216, 10240, 11264, 12288, 13312, 14336, 15360, 16384, 32768,
		}},
	} {
		l := layoutFor(t, tt.size)
		for i, want := range tt.want {
			if off, _ := l.Chunk(i); off != want*kib {
				t.Errorf("size %d: chunk %d begins at %d, want %d KiB", tt.size, i, off, want)
			}
		}
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
	if first, end := zero.Stripe(0); first != 0 || end != 0 {
		t.Fatalf("stripe 0 of the empty blob is [%d, %d)", first, end)
	}
}

func TestChunkOutsideOfTheBlobPanics(t *testing.T) {
	l := layoutFor(t, 3*mib)
	for _, i := range []int{-1, 6, math.MaxInt} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Chunk(%d) of 6 chunks did not panic", i)
				}
			}()
			l.Chunk(i)
		}()
	}
}

// blobSize draws sizes around the borders where layouts change as often as
// sizes in between.
func blobSize(t *rapid.T, most int64) int64 {
	borders := []int64{0, 1, 256 * kib, mib, 2 * mib, 16 * mib, gib, 16 * gib, chunkindex.MaxBlobSize}
	if rapid.Bool().Draw(t, "at a border") {
		b := rapid.SampledFrom(borders).Draw(t, "border")
		return min(max(b+rapid.Int64Range(-2, 2).Draw(t, "beside"), 0), most)
	}
	return rapid.Int64Range(0, most).Draw(t, "size")
}

func TestChunksAndStripesCoverTheBlobExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layoutFor(t, blobSize(t, chunkindex.MaxBlobSize))
		next, chunk := int64(0), 0
		for s := range l.Stripes() {
			first, end := l.Stripe(s)
			if first != chunk || end <= first {
				t.Fatalf("stripe %d is [%d, %d), want it to begin at %d", s, first, end, chunk)
			}
			if next != int64(s)*chunkindex.StripeLength {
				t.Fatalf("stripe %d begins at byte %d", s, next)
			}
			for ; chunk < end; chunk++ {
				off, n := l.Chunk(chunk)
				if off != next || n < 1 {
					t.Fatalf("chunk %d is [%d, +%d), want it to begin at %d", chunk, off, n, next)
				}
				if want := lengthAt(l, off); n != min(want, l.Size()-off) {
					t.Fatalf("chunk %d at %d of %d is %d long, want %d or the rest", chunk, off, l.Size(), n, want)
				}
				if l.At(off) != chunk || l.At(off+n-1) != chunk {
					t.Fatalf("At doesn't find chunk %d at its ends", chunk)
				}
				if l.StripeOf(chunk) != s {
					t.Fatalf("StripeOf(%d) = %d, want %d", chunk, l.StripeOf(chunk), s)
				}
				next += n
			}
		}
		if l.Count() > chunkindex.MaxChunks {
			t.Fatalf("%d chunks are more than MaxChunks", l.Count())
		}
		if next != l.Size() || chunk != l.Count() || l.Valid(chunk) {
			t.Fatalf("covered %d of %d bytes in %d of %d chunks", next, l.Size(), chunk, l.Count())
		}
		if first, end := l.Stripe(l.Stripes()); first != end {
			t.Fatalf("stripe %d of %d is [%d, %d)", l.Stripes(), l.Stripes(), first, end)
		}
	})
}

// lengthAt is how long a whole chunk at off is.
func lengthAt(l chunkindex.Layout, off int64) int64 {
	switch {
	case l.Size() <= mib:
		return mib
	case off < mib:
		return 256 * kib
	case off < l.ChunkLength():
		return mib
	}
	return l.ChunkLength()
}

func TestAtFindsTheChunkThatHoldsTheByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layoutFor(t, max(blobSize(t, chunkindex.MaxBlobSize), 1))
		off := rapid.OneOf(
			rapid.Int64Range(0, l.Size()-1), rapid.Int64Range(0, min(l.Size(), 20*mib)-1),
		).Draw(t, "off")
		i := l.At(off)
		if !l.Valid(i) {
			t.Fatalf("At(%d) = %d of %d chunks", off, i, l.Count())
		}
		if o, n := l.Chunk(i); off < o || off >= o+n {
			t.Fatalf("At(%d) = %d, which is [%d, +%d)", off, i, o, n)
		}
		if s := l.StripeOf(i); int64(s) != off/chunkindex.StripeLength {
			t.Fatalf("byte %d of chunk %d is in stripe %d", off, i, s)
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
