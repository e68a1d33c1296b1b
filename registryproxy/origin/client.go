package origin

import (
	"context"
	"io"
	"net"
	"net/url"

	"github.com/opencontainers/go-digest"
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Client asks origins. It is safe for concurrent use.
type Client struct{}

// Body is a blob's bytes from an origin. See Client.Blob.
type Body struct {
	io.ReadCloser
	Size   int64
	Offset int64
	Ranged bool
}

var errUnwired = &Error{Status: 501, Code: CodeUnsupported, Message: "not built yet"}

// New returns a client. It starts nothing.
func New(opts *Options) (*Client, error) { return nil, errUnwired }

// Close ends what is in flight and waits for it.
func (c *Client) Close() error { return nil }

// Blob reads bytes [off, off+n) of a blob; n < 0 means to its end.
func (c *Client) Blob(ctx context.Context, src Source, d digest.Digest, off, n int64) (*Body, error) {
	return nil, errUnwired
}

// Size returns a blob's size without downloading it.
func (c *Client) Size(ctx context.Context, src Source, d digest.Digest) (int64, error) {
	return 0, errUnwired
}

// Manifest fetches a manifest by tag or digest.
func (c *Client) Manifest(ctx context.Context, src Source, reference string, accept []string) (*Manifest, error) {
	return nil, errUnwired
}

// Resolve asks what a tag points to.
func (c *Client) Resolve(ctx context.Context, src Source, tag string, accept []string) (Descriptor, error) {
	return Descriptor{}, errUnwired
}

// List lists tags or referrers (then reference is the digest).
func (c *Client) List(ctx context.Context, src Source, kind ListKind, reference string, params url.Values) (*List, error) {
	return nil, errUnwired
}

// Health reports the hosts of configured origins and those that fail.
func (c *Client) Health() []Health { return nil }

// Reachable reports whether asking the origin now is likely to be answered soon.
func (c *Client) Reachable(origin string) bool { return false }

// Check reports whether policy allows to contact an origin.
func (c *Client) Check(origin string) error { return errUnwired }
