package registryproxy

import (
	"context"
	"net/http"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveList answers a request for a repository's tags or a digest's referrers:
// the origin's own answer, but for the Link to the next page.
func (p *Proxy) serveList(ctx context.Context, w *response, r *http.Request, rt route) error {
	query := Query{
		Kind:       KindTags,
		Origin:     rt.origin,
		Repository: rt.repository,
		Params:     rt.params,
		Accept:     acceptElements(r.Header),
	}
	mediaType := "application/json"
	if rt.endpoint == endpointReferrers {
		query.Kind = KindReferrers
		query.Reference = string(rt.digest)
		mediaType = imagespec.MediaTypeImageIndex
	}
	answer, err := p.backend.Resolve(ctx, query)
	if err != nil {
		return err
	}
	h := w.Header()
	// Generic or foreign types say less than what was asked for.
	h.Set("Content-Type", either(specificMediaType(answer.MediaType), mediaType))
	if rt.endpoint == endpointReferrers && answer.FiltersApplied != "" {
		h.Set("OCI-Filters-Applied", answer.FiltersApplied)
	}
	if answer.Link != "" {
		if link := rewriteLink(answer.Link, rt); link != "" {
			h.Set("Link", link)
		} else {
			p.log.Warn("link of an origin dropped", "origin", rt.origin, "link", answer.Link)
		}
	}
	p.setAge(w, answer)
	return w.sendBytes(r, http.StatusOK, answer.Body)
}
