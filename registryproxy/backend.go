package registryproxy

import (
	"context"
	"io"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
)

// Ref names content by its digest, and where it belongs.
type Ref struct {
	// Origin is the registry in canonical form ([CanonicalOrigin]), a host with
	// an optional port: "docker.io", "registry.test:5000", "[2001:db8::1]:5000".
	Origin string
	// Repository is the repository's name at the origin, valid by the
	// specification's grammar.
	Repository string
	// Digest is valid, and of sha256 or sha512.
	Digest digest.Digest
	// Manifest tells a manifest or index (asked for under /manifests/) from a blob.
	Manifest bool
}

// Kind says what a [Query] asks for.
type Kind string

// The kinds of questions whose answer changes with time.
const (
	KindTag       Kind = "tag"       // which manifest does a tag mean?
	KindTags      Kind = "tags-list" // which tags has a repository?
	KindReferrers Kind = "referrers" // which manifests refer to a digest?
)

// Query is a question whose answer changes with time.
type Query struct {
	Kind       Kind
	Origin     string // as in [Ref]
	Repository string // as in [Ref]
	// Reference is the tag for [KindTag], the digest for [KindReferrers], empty
	// for [KindTags].
	Reference string
	// Params holds the client's query parameters without ns: n and last,
	// artifactType, and whatever an origin's own Link header carried (Quay's
	// next_page). Empty for [KindTag]. At most 16 values and 4 KiB.
	Params url.Values
	// Accept holds the media ranges of all of the client's Accept headers, one an
	// element, with their parameters, in the client's order.
	Accept []string
}

// Answer answers a [Query].
type Answer struct {
	// Digest is the manifest that a tag means. Only for [KindTag].
	Digest digest.Digest
	// Size is the manifest's length in bytes, 0 if not known. Only for [KindTag].
	Size int64
	// MediaType is the manifest's or the list's, empty if not known.
	MediaType string
	// Body is the list as the origin sent it.
	Body []byte
	// Link is the origin's Link header, as it was; the proxy rewrites it.
	Link string
	// FiltersApplied is the origin's OCI-Filters-Applied header.
	FiltersApplied string
	// Stale says that the answer has outlived its lifetime and that the origin
	// could not be asked again.
	Stale bool
	// Age is how long ago the origin gave the answer.
	Age time.Duration
}

// Info describes content.
type Info struct {
	Size      int64  // bytes
	MediaType string // of a manifest; empty if not known, and for blobs
}

// Backend answers for the proxy. Its methods are called concurrently and
// return as soon as ctx ends. A client that goes away ends the ctx of its
// request, and nothing but its own request may be ended by that.
//
// Errors become responses by the table in errors.go: absence is
// errors.Is(err, fs.ErrNotExist), every other error that a client should see
// has an HTTPStatus() int method, as [Error] has.
type Backend interface {
	// Resolve answers a question whose answer changes with time.
	Resolve(ctx context.Context, q Query) (Answer, error)
	// Stat describes content without downloading a blob. (It may download a
	// manifest.)
	Stat(ctx context.Context, ref Ref) (Info, error)
	// Open opens content, whole if r is nil. It blocks until bytes are there to
	// be sent, or until it is known that they cannot be had. ctx also governs the
	// Content: when it ends, so do the Content's Read and WriteTo.
	//
	// A range that the content does not have gives an error with HTTPStatus 416
	// and TotalSize() int64, such as [RangeError].
	Open(ctx context.Context, ref Ref, r *ByteRange) (Content, error)
}

// Content is opened content. It is used by one goroutine.
type Content interface {
	// Read and WriteTo deliver the bytes of Range, once. WriteTo passes *os.File
	// (or an *io.LimitedReader over one) to w's ReadFrom where it can, so that
	// the kernel copies; see [io.Copy]. Each returns an error if it cannot
	// deliver all bytes.
	io.ReadCloser
	io.WriterTo
	// Size is the length of the whole content.
	Size() int64
	// Range is what will be delivered: n bytes from offset off. For a nil
	// [ByteRange], 0 and Size.
	Range() (off, n int64)
	// MediaType is a manifest's media type, empty if not known, and for blobs.
	MediaType() string
}
