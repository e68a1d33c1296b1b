package fetcher

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

// A recycled buffer is never much larger than the chunk that it is used for.
func TestBuffersFitTheirChunks(t *testing.T) {
	lengths := []int64{1, chunkindex.HeadChunkLength, chunkindex.HeadChunkLength + 1, chunkindex.MinChunkLength,
		4 << 20, 9 << 20, chunkindex.MaxChunkLength}
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory(1 << 30)
		for _, n := range rapid.SliceOf(rapid.SampledFrom(lengths)).Draw(t, "lengths") {
			b := m.buffer(n)
			if room := int64(cap(b.Bytes())); room < n || room > max(2*n, chunkindex.HeadChunkLength) {
				t.Fatalf("a buffer of %d bytes for a chunk of %d", room, n)
			}
			m.recycle(b)
		}
	})
}
