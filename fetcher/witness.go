package fetcher

import (
	"context"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
)

// witness is an origin of which each answer tells whether this node may read a
// repository: see access.go.
type witness struct {
	Origin
	learn func(src Source, err error)
}

// Blob implements Origin.
func (w witness) Blob(ctx context.Context, src Source, d digest.Digest, off, n int64) (*OriginBody, error) {
	b, err := w.Origin.Blob(ctx, src, d, off, n)
	w.learn(src, err)
	return b, err
}

// Size implements Origin.
func (w witness) Size(ctx context.Context, src Source, d digest.Digest) (int64, error) {
	n, err := w.Origin.Size(ctx, src, d)
	w.learn(src, err)
	return n, err
}

// Manifest implements Origin.
func (w witness) Manifest(ctx context.Context, src Source, reference string, accept []string) (*Manifest, error) {
	m, err := w.Origin.Manifest(ctx, src, reference, accept)
	w.learn(src, err)
	return m, err
}

// Resolve implements Origin.
func (w witness) Resolve(ctx context.Context, src Source, tag string, accept []string) (Descriptor, error) {
	d, err := w.Origin.Resolve(ctx, src, tag, accept)
	w.learn(src, err)
	return d, err
}

// List implements Origin.
func (w witness) List(ctx context.Context, src Source, kind QueryKind, reference string, params url.Values) (*List, error) {
	l, err := w.Origin.List(ctx, src, kind, reference, params)
	w.learn(src, err)
	return l, err
}

// witnessed takes in how an origin answered about a repository. That it has not
// what was asked for, or cannot be reached, says nothing.
func (f *Fetcher) witnessed(src Source, err error) {
	switch {
	case err == nil:
		public, known := f.origin.Public(src)
		f.learnAccess(src, func(a *access, now stamp) {
			a.accepted = now
			switch {
			case public:
				a.public = now
			case known && !a.public.within(f.opts.AccessLifetime):
				// Else another node needed none of the credentials that were sent.
				a.private = now
			}
		})
	case denies(err):
		f.learnAccess(src, func(a *access, now stamp) { *a = access{private: now} })
	}
}

// denies reports whether an error is the origin's word that this node may not
// read a repository.
func denies(err error) bool {
	status := statusOf(err)
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}
