package fetcher

import (
	"context"
	"io"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Ref names content: a blob or a manifest by digest, and where it may be had
// upstream.
type Ref struct {
	Source
	Digest   digest.Digest
	Manifest bool
}

// Range asks for a part of a blob. Suffix N > 0 means the last N bytes (Start
// and End are ignored); otherwise [Start, End), End -1 for "to the end".
type Range struct {
	Start, End int64
	Suffix     int64
}

// Info describes content without its bytes.
type Info struct {
	Size      int64
	MediaType string // of a manifest; "" where only the bytes tell
}

// Query is a question whose answer changes: what a tag points to, which tags or
// referrers there are.
type Query struct {
	Source
	Kind      QueryKind
	Reference string
	Params    url.Values
	Accept    []string
}

// Answer answers a Query. Stale says that the origin could not be asked and
// the answer is Age old.
type Answer struct {
	Descriptor
	List
	Stale bool
	Age   time.Duration
}

// Content is an open blob or manifest. Read and WriteTo hand out the bytes of
// Range as they become safe to release, and fail rather than end early. WriteTo
// hands *os.File sections to its writer. Not safe for concurrent use.
type Content interface {
	io.ReadCloser
	io.WriterTo
	// Size is that of the whole blob.
	Size() int64
	// Range is what was asked for, resolved against the size.
	Range() (off, n int64)
	// MediaType is that of a manifest where the origin named one.
	MediaType() string
}

// RangeRequest is a peer's request: Length -1 means all of a small blob.
type RangeRequest struct {
	Digest         digest.Digest
	Offset, Length int64
}

// RangeSource is the answer to it: exactly Length bytes in Body, of a blob of
// Size bytes, and claims for the chunk.
type RangeSource struct {
	Size, Length int64
	Claims       []chunkindex.Claim
	Body         io.ReadCloser
}

// Service is what a Fetcher offers; see the method of the same name there.
type Service interface {
	Run(ctx context.Context) error
	Open(ctx context.Context, ref Ref, r *Range) (Content, error)
	Stat(ctx context.Context, ref Ref) (Info, error)
	Resolve(ctx context.Context, q Query) (Answer, error)
}
