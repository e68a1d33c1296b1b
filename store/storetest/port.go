package storetest

import (
	"context"
	"os"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/store"
)

// Store is what the suite tests: see package store for what each method promises.
type Store interface {
	Stat(d digest.Digest) (store.Info, error)
	List(fn func(store.Info) bool) error
	Open(d digest.Digest) (Blob, error)
	Put(ctx context.Context, d digest.Digest, kind store.Kind, data []byte) error
	Partial(d digest.Digest, l chunkindex.Layout, kind store.Kind) (Partial, error)
	SetKind(d digest.Digest, k store.Kind)
	Pin(d digest.Digest, pinned bool) error
	Delete(d digest.Digest) error
	Usage() store.Usage
	PutRecord(space, key string, value []byte) error
	Record(space, key string) ([]byte, error)
	Records(space string, fn func(key string, value []byte) bool) error
	DeleteRecord(space, key string) error
	Close() error
}

// Blob is an open, complete blob.
type Blob interface {
	Size() int64
	File() *os.File
	Prove(ctx context.Context) error
	Sum(i int) (chunkindex.Sum, error)
	Close() error
}

// Partial is a blob that is being fetched.
type Partial interface {
	Chunk(i int) store.ChunkState
	WriteChunk(i int, b *chunkindex.Buffer, lvl chunkindex.Level, c *chunkindex.Claim) error
	Raise(i int, lvl chunkindex.Level, c *chunkindex.Claim) error
	Drop(i int) error
	File() (*os.File, error)
	HashPrefix(ctx context.Context) (int, error)
	Complete(ctx context.Context) error
	Close() error
	Discard() error
}

// Wrap makes a *store.Store a Store.
func Wrap(s *store.Store) Store { return wrapped{s} }

type wrapped struct{ *store.Store }

func (w wrapped) Open(d digest.Digest) (Blob, error) {
	b, err := w.Store.Open(d)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (w wrapped) Partial(d digest.Digest, l chunkindex.Layout, kind store.Kind) (Partial, error) {
	p, err := w.Store.Partial(d, l, kind)
	if err != nil {
		return nil, err
	}
	return p, nil
}
