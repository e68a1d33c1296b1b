package storetest

import (
	"bytes"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Content is a blob to test with.
type Content struct {
	Digest digest.Digest
	Data   []byte
	Layout chunkindex.Layout
}

// NewContent returns n bytes that depend on seed only.
func NewContent(alg digest.Algorithm, n int, seed uint64) Content {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(data) // it never fails
	l, err := chunkindex.LayoutFor(int64(n))
	if err != nil {
		panic(err)
	}
	return Content{Digest: alg.FromBytes(data), Data: data, Layout: l}
}

// Chunk returns the bytes of chunk i.
func (c Content) Chunk(i int) []byte {
	off, n := c.Layout.Chunk(i)
	return c.Data[off : off+n]
}

// Buffer returns a full buffer of data.
func Buffer(data []byte) *chunkindex.Buffer {
	b := chunkindex.NewBuffer(len(data), nil)
	if _, err := b.ReadFrom(bytes.NewReader(data)); err != nil {
		panic(err)
	}
	return b
}

const mib = 1 << 20
