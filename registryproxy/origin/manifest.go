package origin

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxDocument is how large a manifest or list may be. Registries accept 4 MiB
// manifests (distribution-spec, "Pushing Manifests").
const maxDocument = 8 << 20

// defaultAccept is asked for when the client names nothing: all kinds of
// manifests, newest first, lest the origin convert one for us.
var defaultAccept = []string{
	"application/vnd.oci.image.index.v1+json",
	"application/vnd.oci.image.manifest.v1+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
	"application/vnd.docker.distribution.manifest.v2+json",
	"*/*",
}

// schema1 is a manifest of docker's first kind, whose digest is not that of its
// bytes (they hold signatures, which the digest leaves out).
const schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

func manifestCall(src Source, method, reference string, accept []string) *call {
	if len(accept) == 0 {
		accept = defaultAccept
	}
	return &call{
		kind: kindManifest, method: method, src: src,
		path:   "/v2/" + src.Repository + "/manifests/" + reference,
		header: http.Header{"Accept": accept},
	}
}

// manifestSource checks a source and a reference, which is a tag or a digest
// (then the second result is not empty).
func (c *Client) manifestSource(src Source, reference string) (*target, digest.Digest, error) {
	if validTag(reference) {
		t, err := c.source(src)
		return t, "", err
	}
	t, err := c.check(src, digest.Digest(reference))
	return t, digest.Digest(reference), err
}

// Manifest fetches a manifest by tag or digest. accept is the Accept header as
// the client sent it, line by line; empty means all manifest types.
//
// Its bytes are checked: against the digest if that is the reference, else
// against Docker-Content-Digest if the origin sends one. Errors are those of
// Client.Blob, and *DigestError.
func (c *Client) Manifest(ctx context.Context, src Source, reference string, accept []string) (*Manifest, error) {
	t, want, err := c.manifestSource(src, reference)
	if err != nil {
		return nil, err
	}
	q := manifestCall(src, http.MethodGet, reference, accept)
	resp, body, err := c.document(ctx, t, q) //nolint:bodyclose // document has read and closed it
	if err != nil {
		return nil, err
	}
	m := &Manifest{Body: body, MediaType: resp.Header.Get("Content-Type"), Date: date(resp)}
	said := contentDigest(resp)
	if want != "" {
		m.Digest = want.Algorithm().FromBytes(body)
		if m.Digest != want {
			return nil, &DigestError{Want: want, Got: m.Digest, MediaType: m.MediaType, Converted: said != "" && said != want}
		}
		return m, nil
	}
	if said == "" || m.MediaType == schema1 {
		m.Digest = digest.FromBytes(body)
		return m, nil
	}
	if m.Digest = said.Algorithm().FromBytes(body); m.Digest != said {
		return nil, &DigestError{Want: said, Got: m.Digest, MediaType: m.MediaType}
	}
	return m, nil
}

// Resolve asks what a tag (or a digest) points to: by HEAD, and where the
// origin refuses that or leaves out the digest or size, by GET. Errors are those
// of Client.Manifest.
func (c *Client) Resolve(ctx context.Context, src Source, reference string, accept []string) (Descriptor, error) {
	t, want, err := c.manifestSource(src, reference)
	if err != nil {
		return Descriptor{}, err
	}
	q := manifestCall(src, http.MethodHead, reference, accept)
	resp, err := c.do(ctx, t, q)
	if err != nil {
		return Descriptor{}, err
	}
	resp.Body.Close()
	d := Descriptor{Digest: contentDigest(resp), Size: resp.ContentLength, MediaType: resp.Header.Get("Content-Type"), Date: date(resp)}
	switch {
	case resp.StatusCode == http.StatusOK && d.Digest != "" && d.Size > 0:
		if want != "" && d.Digest != want && d.Digest.Algorithm() == want.Algorithm() {
			return Descriptor{}, &DigestError{Want: want, Got: d.Digest, MediaType: d.MediaType, Converted: true}
		}
		if want != "" {
			d.Digest = want
		}
		return d, nil
	case resp.StatusCode != http.StatusOK && !refusesHead(t, resp):
		return Descriptor{}, statusError(q, resp)
	}
	m, err := c.Manifest(ctx, src, reference, accept)
	if err != nil {
		return Descriptor{}, err
	}
	return Descriptor{Digest: m.Digest, Size: int64(len(m.Body)), MediaType: m.MediaType, Date: m.Date, Manifest: m}, nil
}

// document asks for something small and reads it whole. What breaks off is
// asked for again once or twice.
func (c *Client) document(ctx context.Context, t *target, q *call) (*http.Response, []byte, error) {
	end := time.Now().Add(c.opts.RetryFor)
	for n := 0; ; n++ {
		resp, err := c.do(ctx, t, q)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode != http.StatusOK {
			defer resp.Body.Close()
			return nil, nil, statusError(q, resp)
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
		resp.Body.Close()
		switch {
		case err == nil && len(body) > maxDocument:
			return nil, nil, badAnswer(q, fmt.Sprintf("more than %d MiB", maxDocument>>20))
		case err == nil:
			return resp, body, nil
		}
		pause := firstPause << n
		if ctx.Err() != nil || n+1 == maxAttempts || !worthWaiting(ctx, pause, end) {
			return nil, nil, err
		}
		c.metrics.retries.Inc()
		if err := sleep(ctx, pause); err != nil {
			return nil, nil, fmt.Errorf("origin: %s: %w", q, err)
		}
	}
}

// contentDigest is the header Docker-Content-Digest, if it holds a digest.
func contentDigest(resp *http.Response) digest.Digest {
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if d.Validate() != nil {
		return ""
	}
	return d
}

// date is when the origin says that it answered.
func date(resp *http.Response) time.Time {
	t, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}
