package rig

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/store"
)

// Content is a blob made up from a number: equal numbers and sizes, equal bytes.
type Content struct {
	Number uint64
	Size   int64
}

// Reader returns the blob's bytes.
func (c Content) Reader() io.Reader {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], c.Number)
	return io.LimitReader(rand.NewChaCha8(seed), c.Size)
}

// Digest hashes the blob.
func (c Content) Digest() (digest.Digest, error) { return digest.SHA256.FromReader(c.Reader()) }

// Seed puts a blob into the store of a node that does not run yet, and returns
// its digest and its file.
func Seed(ctx context.Context, data string, c Content) (d digest.Digest, file string, err error) {
	if d, err = c.Digest(); err != nil {
		return "", "", err
	}
	s, err := store.Open(StoreDir(data), &store.Options{MaxBytes: 64 << 30, MinFreeFraction: -1})
	if err != nil {
		return "", "", err
	}
	defer func() {
		if closeErr := s.Close(); err == nil {
			err = closeErr
		}
	}()
	l, err := chunkindex.LayoutFor(c.Size)
	if err != nil {
		return "", "", err
	}
	p, err := s.Partial(d, l, store.KindLayer)
	if err != nil {
		return "", "", err
	}
	defer p.Close()
	r := c.Reader()
	var buf *chunkindex.Buffer
	for i := range l.Count() {
		_, n := l.Chunk(i)
		buf = chunkindex.NewBuffer(int(n), buf)
		if _, err := buf.ReadFrom(r); err != nil {
			return "", "", err
		}
		if err := p.WriteChunk(i, buf, chunkindex.Fetched, nil); err != nil {
			return "", "", err
		}
		if err := ctx.Err(); err != nil {
			return "", "", err
		}
	}
	if err := p.Complete(ctx); err != nil {
		return "", "", fmt.Errorf("seeding a store: %w", err)
	}
	b, err := s.Open(d)
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return d, b.File().Name(), nil
}

// StoreDir is where a node with this data directory has its store.
func StoreDir(data string) string { return filepath.Join(data, "store") }
