package store

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// Kind says what a blob is for. It decides only how soon it may be evicted.
type Kind uint8

const (
	// KindLayer is a layer, or anything whose use is unknown.
	KindLayer Kind = iota
	// KindConfig is an image's configuration.
	KindConfig
	// KindManifest is a manifest or an index.
	KindManifest
)

// String returns the kind's name in logs and JSON.
func (k Kind) String() string {
	switch k {
	case KindLayer:
		return "layer"
	case KindConfig:
		return "config"
	case KindManifest:
		return "manifest"
	}
	return "invalid"
}

// Info describes a blob that the store holds, whole or in part.
type Info struct {
	Digest digest.Digest
	// Size is the blob's whole size in bytes, also while it is partial.
	Size int64
	Kind Kind
	// Complete: the whole blob hashed to its digest.
	Complete bool
	// Have is the number of its chunks that are here. After an unclean stop
	// chunks of a partial blob count again once they were read back.
	Have     int
	Pinned   bool
	LastUsed time.Time
}

// Usage is the state of the byte budget.
type Usage struct {
	// Bytes counts complete blobs and the chunks of partial ones. MaxBytes is
	// what they may come to.
	Bytes, MaxBytes int64
	// FreeBytes is what the file system has left for this process.
	FreeBytes int64
	// Blobs are complete, Partials are not.
	Blobs, Partials int
}
