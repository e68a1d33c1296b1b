package registryproxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

func (w *response) setLength(n int64) {
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
}

// describe sets the headers that say which content this is.
func (w *response) describe(d digest.Digest) {
	w.Header().Set("Docker-Content-Digest", string(d))
	w.Header().Set("Etag", etag(d))
}

// serveBlob answers a request for a blob, whole or a range of it.
func (p *Proxy) serveBlob(ctx context.Context, w *response, r *http.Request, rt route) error {
	ref := Ref{Origin: rt.origin, Repository: rt.repository, Digest: rt.digest}
	var want *ByteRange
	if r.Method == http.MethodGet && rangeApplies(r.Header, rt.digest) {
		var err error
		if want, err = parseRange(r.Header.Values("Range")); err != nil {
			return refuse(http.StatusRequestedRangeNotSatisfiable, codeRangeInvalid, "%v", err)
		}
	}
	if unchanged := notModified(r.Header, rt.digest); unchanged || r.Method == http.MethodHead {
		info, err := p.stat(ctx, ref)
		if err != nil {
			return err
		}
		w.describe(rt.digest)
		if unchanged {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Content-Type", octetStream)
		w.setLength(info.Size)
		w.WriteHeader(http.StatusOK)
		return nil
	}

	content, err := p.backend.Open(ctx, ref, want)
	if err != nil {
		return err
	}
	defer content.Close()
	status := http.StatusOK
	off, n, err := checkRange(content, want)
	if err != nil {
		return err
	}
	w.describe(rt.digest)
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Type", octetStream)
	if want != nil {
		// Also for bytes=0-: containerd 2 takes a 200 to that for a registry
		// without ranges, and gives up reading in parallel.
		status = http.StatusPartialContent
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, content.Size()))
	}
	return w.sendContent(content, status, n)
}

// checkRange makes sure that the Backend opened what it was asked for, before
// a header promises it.
func checkRange(content Content, want *ByteRange) (off, n int64, err error) {
	off, n = content.Range()
	size := content.Size()
	wantOff, wantLen := int64(0), size
	if want != nil {
		var ok bool
		if wantOff, wantLen, ok = want.Resolve(size); !ok {
			return 0, 0, &RangeError{Size: size}
		}
	}
	if size < 0 || off != wantOff || n != wantLen {
		return 0, 0, fmt.Errorf("registryproxy: backend opened %d bytes from %d of %d, asked for %v", n, off, size, want)
	}
	return off, n, nil
}

// stat asks the Backend, and distrusts its answer.
func (p *Proxy) stat(ctx context.Context, ref Ref) (Info, error) {
	info, err := p.backend.Stat(ctx, ref)
	if err == nil && info.Size < 0 {
		err = fmt.Errorf("registryproxy: backend gave no size for %s", ref.Digest)
	}
	return info, err
}

// serveManifest answers a request for a manifest or index, by tag or digest.
//
// A tag is resolved to a digest first, and what is then opened is that digest:
// a response by tag is as verified as one by digest, whatever happens to the
// tag meanwhile. Ranges of manifests are ignored (RFC 9110, section 14.2, allows
// it): they are small, and proven whole before their headers go out.
func (p *Proxy) serveManifest(ctx context.Context, w *response, r *http.Request, rt route) error {
	ref := Ref{Origin: rt.origin, Repository: rt.repository, Digest: rt.digest, Manifest: true}
	var known Info
	if rt.tag != "" {
		answer, err := p.backend.Resolve(ctx, Query{
			Kind:       KindTag,
			Origin:     rt.origin,
			Repository: rt.repository,
			Reference:  rt.tag,
			Accept:     acceptElements(r.Header),
		})
		if err != nil {
			return err
		}
		if _, err := parseDigest(string(answer.Digest)); err != nil {
			return fmt.Errorf("registryproxy: backend resolved a tag to %q: %w", answer.Digest, err)
		}
		ref.Digest = answer.Digest
		known = Info{Size: answer.Size, MediaType: specificMediaType(answer.MediaType)}
		p.setAge(w, answer)
	}

	unchanged := notModified(r.Header, ref.Digest)
	if unchanged || r.Method == http.MethodHead {
		// A tag's answer mostly has it all. A size of 0 is no manifest's.
		if known.Size <= 0 || known.MediaType == "" {
			info, err := p.stat(ctx, ref)
			if err != nil {
				return err
			}
			known = Info{Size: info.Size, MediaType: either(specificMediaType(info.MediaType), known.MediaType)}
		}
		if unchanged {
			w.describe(ref.Digest)
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
		if known.MediaType != "" {
			w.describe(ref.Digest)
			w.Header().Set("Content-Type", known.MediaType)
			w.setLength(known.Size)
			w.WriteHeader(http.StatusOK)
			return nil
		}
		// Only the manifest itself can tell its type.
	}

	content, err := p.backend.Open(ctx, ref, nil)
	if err != nil {
		return err
	}
	defer content.Close()
	_, n, err := checkRange(content, nil)
	if err != nil {
		return err
	}
	mediaType := either(specificMediaType(content.MediaType()), known.MediaType)
	w.describe(ref.Digest)
	if mediaType != "" {
		w.Header().Set("Content-Type", mediaType)
		return w.sendContent(content, http.StatusOK, n)
	}
	if n > maxManifest {
		return refuse(http.StatusBadGateway, codeUnavailable, "manifest of unknown type is longer than %d bytes", maxManifest)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(content, body); err != nil {
		return fmt.Errorf("registryproxy: read manifest: %w", err)
	}
	w.Header().Set("Content-Type", either(DetectMediaType(body), octetStream))
	return w.sendBytes(r, http.StatusOK, body)
}

func either(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// setAge tells the client how old an answer is: Age is RFC 9111's, section 5.1;
// Peercache-Stale has the age of a stale answer in whole seconds, at least 1;
// Warning is for the user's eyes, in the form of the distribution
// specification, section "Warnings".
func (p *Proxy) setAge(w *response, answer Answer) {
	seconds := max(int64(answer.Age/time.Second), 0)
	if seconds > 0 {
		w.Header().Set("Age", strconv.FormatInt(seconds, 10))
	}
	if answer.Stale {
		seconds = max(seconds, 1)
		w.Header().Set("Peercache-Stale", strconv.FormatInt(seconds, 10))
		w.Header().Set("Warning", fmt.Sprintf(`299 - "stale: Peercache cannot reach the origin, whose answer this was %d s ago"`, seconds))
		p.metrics.stale.Inc()
	}
}
