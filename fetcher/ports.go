package fetcher

import (
	"context"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Source is a place where content may be had upstream: the origin as the client
// named it, canonical (docker.io, registry.test:5000), and the repository in it.
type Source struct {
	Origin, Repository string
}

// Kind says what a blob is for; stores use it to choose what to evict.
type Kind uint8

// The kinds of blobs.
const (
	KindLayer Kind = iota
	KindConfig
	KindManifest
)

// Store keeps verified chunks and blobs on this node. Absence is
// fs.ErrNotExist; a write that finds no room is an error whose NoSpace method
// returns true. Safe for concurrent use.
type Store interface {
	// Stat returns what is held of a blob.
	Stat(d digest.Digest) (StoreInfo, error)
	// Open opens a complete blob.
	Open(d digest.Digest) (StoredBlob, error)
	// Put stores a small blob; data is verified against d.
	Put(ctx context.Context, d digest.Digest, kind Kind, data []byte) error
	// Partial opens or creates the partial of a blob. One owner at a time.
	Partial(d digest.Digest, l chunkindex.Layout, kind Kind) (Partial, error)
	// SetCopies tells how many other nodes are known to hold the blob.
	SetCopies(d digest.Digest, n int)
	// List calls f for each blob, complete or partial, until it returns false.
	List(f func(d digest.Digest, info StoreInfo) bool) error
	// Record and PutRecord keep small values by key.
	Record(space, key string) ([]byte, error)
	PutRecord(space, key string, value []byte) error
}

// StoreInfo is what a store holds of a blob.
type StoreInfo struct {
	Size     int64
	Kind     Kind
	Complete bool
}

// StoredBlob is an open complete blob. It is not evicted before Close.
type StoredBlob interface {
	Size() int64
	// File is a descriptor of this StoredBlob's own.
	File() *os.File
	// Prove returns nil at once unless the blob was not proven since an
	// unclean stop; then it hashes it.
	Prove(ctx context.Context) error
	// Sum is the SHA-256 of chunk i.
	Sum(i int) (chunkindex.Sum, error)
	Close() error
}

// ChunkState is what a partial knows of one chunk.
type ChunkState struct {
	Level chunkindex.Level
	Sum   chunkindex.Sum
	Claim *chunkindex.Claim
}

// Partial is a blob that is still being fetched. WriteChunk, Raise, Drop,
// HashPrefix and File may be called concurrently.
type Partial interface {
	Chunk(i int) ChunkState
	WriteChunk(i int, b *chunkindex.Buffer, lvl chunkindex.Level, c *chunkindex.Claim) error
	Raise(i int, lvl chunkindex.Level, c *chunkindex.Claim) error
	Drop(i int) error
	// File is a new descriptor, for reading chunks that are there.
	File() (*os.File, error)
	// HashPrefix advances the sequential hash of the whole blob over the
	// chunks that are there.
	HashPrefix(ctx context.Context) (chunks int, err error)
	// Complete proves and publishes the blob; every chunk must be there. A
	// blob that does not hash to its digest is an error whose DigestMismatch
	// method returns true; the partial stays.
	Complete(ctx context.Context) error
	// Close lets go of the partial and keeps what is recorded, Discard removes
	// it with all that is. Either may follow Complete, and then does nothing.
	Close() error
	Discard() error
}

// Peers reaches the other nodes. Safe for concurrent use.
type Peers interface {
	// Send queues a control frame. It never blocks.
	Send(to chunkindex.NodeID, frame []byte) error
	// Read reads a range of a blob from a peer; n -1 means all of a small
	// blob.
	Read(ctx context.Context, to chunkindex.NodeID, d digest.Digest, off, n int64) (*PeerBody, error)
	// Connect returns nil once there is a connection to a node; that it is up is
	// told as ever.
	Connect(ctx context.Context, to chunkindex.NodeID) error
	// Addresses returns where a node can be reached, as multiaddrs without
	// /p2p; none where that is not known. It does not block.
	Addresses(of chunkindex.NodeID) []string
	// Learn takes addresses of a node by another one's word: it validates them,
	// bounds them, and forgets them soon. It does not block.
	Learn(of chunkindex.NodeID, addresses []string)
	// Call sends a small request and returns the response.
	Call(ctx context.Context, to chunkindex.NodeID, request []byte) ([]byte, error)
	// Closest returns the nodes nearest to a digest on the DHT, this one
	// included where it belongs. Bounded by ctx; what it found by then.
	Closest(ctx context.Context, d digest.Digest) ([]chunkindex.NodeID, error)
	// Providers returns other nodes that announced the digest.
	Providers(ctx context.Context, d digest.Digest, most int) ([]chunkindex.NodeID, error)
	// Provide and Withdraw announce a digest, or stop. They don't block.
	Provide(d digest.Digest) error
	Withdraw(d digest.Digest) error
}

// PeerBody is a peer's answer to Read: the bytes, the blob's size by the peer's
// word, and the claims that travel with the chunk (signatures not yet checked).
// Errors of Read: Busy() true for a peer that serves enough (with Alternatives()
// []chunkindex.NodeID where it named others), fs.ErrNotExist for one that does
// not have it.
type PeerBody struct {
	io.ReadCloser
	Size   int64
	Length int64
	Claims []chunkindex.Claim
}

// Origin reaches the upstream registries. Its errors have an HTTPStatus method,
// and a RetryAfter method where the origin asked to be left alone for a while; a Local
// method says that not the origin did, but this node has reasons of its own. Safe for concurrent use.
type Origin interface {
	// Blob opens n bytes of a blob from off on; n -1 means to the end.
	Blob(ctx context.Context, src Source, d digest.Digest, off, n int64) (*OriginBody, error)
	// Size asks for a blob's size without reading it.
	Size(ctx context.Context, src Source, d digest.Digest) (int64, error)
	// Manifest reads a manifest by tag or digest. accept is what the client
	// accepts, nil for every type known.
	Manifest(ctx context.Context, src Source, reference string, accept []string) (*Manifest, error)
	// Resolve asks what a tag points to.
	Resolve(ctx context.Context, src Source, tag string, accept []string) (Descriptor, error)
	// List asks for the tags of a repository or the referrers of a digest.
	List(ctx context.Context, src Source, kind QueryKind, reference string, params url.Values) (*List, error)
	// Reachable reports whether the origin answered lately, or has not been
	// tried; false while its circuit breaker is open.
	Reachable(origin string) bool
	// Public reports whether a repository was read without credentials lately, so
	// that anybody can; it is known not to be public where that took credentials,
	// or failed with them. It does not block.
	Public(src Source) (public, known bool)
	// Anybody is Public, and finds out where the answer would be no, now and then,
	// by asking without credentials about content that is there: a manifest by tag
	// or digest, or a blob.
	Anybody(ctx context.Context, src Source, reference string, blob bool) bool
	// Cooldown leaves an origin alone for wait, since somebody else was asked
	// to: requests fail at once, as after the origin's own word.
	Cooldown(origin string, wait time.Duration)
}

// OriginBody is a body from the origin. Offset is where it really starts, 0
// from an origin that ignores ranges; Size is the blob's size, -1 unknown.
type OriginBody struct {
	io.ReadCloser
	Size, Offset int64
	Ranged       bool
}

// Manifest is a manifest as the origin sent it.
type Manifest struct {
	Body      []byte
	MediaType string
	Digest    digest.Digest
}

// Descriptor is what a tag points to.
type Descriptor struct {
	Digest    digest.Digest
	Size      int64 // -1 unknown
	MediaType string
	Date      time.Time // by the origin's clock; zero unknown
}

// QueryKind is a question to an origin whose answer changes with time.
type QueryKind string

// The questions.
const (
	QueryTag       QueryKind = "tag"
	QueryTags      QueryKind = "tags"
	QueryReferrers QueryKind = "referrers"
)

// List is the answer to QueryTags and QueryReferrers.
type List struct {
	Body           []byte
	MediaType      string
	Link           string
	FiltersApplied string
}

// Keyring signs what this node says to others: claims about chunks, and records
// of what an origin answered.
type Keyring interface {
	Self() chunkindex.NodeID
	// Sign claims that a chunk which this node fetched or proved has a sum.
	Sign(d digest.Digest, l chunkindex.Layout, chunk int, sum chunkindex.Sum) chunkindex.Claim
	// SignRecord is the Ed25519 signature (64 bytes) of this node's key over
	// context, a zero byte, and msg. context keeps signatures of one use from
	// being taken for those of another.
	SignRecord(context string, msg []byte) []byte
}
