package origin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
)

// List fetches a page of a list: the tags of a repository (reference is not
// used), or the referrers of the manifest whose digest is reference. params are
// the query's (n and last; artifactType).
//
// A registry without a referrers API answers 404, which is fs.ErrNotExist;
// other errors are those of Client.Blob.
func (c *Client) List(ctx context.Context, src Source, lk ListKind, reference string, params url.Values) (*List, error) {
	q := &call{method: http.MethodGet, src: src, query: params, header: make(http.Header)}
	var t *target
	var err error
	switch lk {
	case Tags:
		t, err = c.source(src)
		q.kind, q.path = kindTags, "/v2/"+src.Repository+"/tags/list"
		q.header.Set("Accept", "application/json")
	case Referrers:
		t, err = c.check(src, digest.Digest(reference))
		q.kind, q.path = kindReferrers, "/v2/"+src.Repository+"/referrers/"+reference
		q.header.Set("Accept", "application/vnd.oci.image.index.v1+json")
	default:
		return nil, &Error{Status: http.StatusBadRequest, Code: CodeUnsupported, Message: fmt.Sprintf("there is no list of %.40q", lk)}
	}
	if err != nil {
		return nil, err
	}
	resp, body, err := c.document(ctx, t, q) //nolint:bodyclose // document has read and closed it
	if err != nil {
		return nil, err
	}
	return &List{
		Body: body, MediaType: resp.Header.Get("Content-Type"),
		Link:           nextPage(t, resp),
		FiltersApplied: resp.Header.Get("OCI-Filters-Applied"),
	}, nil
}

// nextPage returns where the Link header of a response leads, as a path and
// query of the registry's API, or "". A link to another host than the one that
// was asked leads nowhere.
func nextPage(t *target, resp *http.Response) string {
	raw := nextLink(resp.Header)
	if raw == "" {
		return ""
	}
	u, err := resp.Request.URL.Parse(raw)
	if err != nil {
		return ""
	}
	for _, e := range t.endpoints {
		// Behind a TLS terminator registries often write http.
		same := strings.EqualFold(u.Hostname(), e.base.Hostname()) && (u.Port() == e.base.Port() || u.Scheme != e.base.Scheme)
		if path, ok := strings.CutPrefix(u.EscapedPath(), e.base.EscapedPath()); ok && same && strings.HasPrefix(path, "/v2/") {
			if u.RawQuery != "" {
				path += "?" + u.RawQuery
			}
			return path
		}
	}
	return ""
}

// nextLink finds the target of the link with relation "next" (RFC 8288), or
// "".
func nextLink(h http.Header) string {
	for _, line := range h.Values("Link") {
		for {
			_, rest, ok := strings.Cut(line, "<")
			if !ok {
				break
			}
			uri, rest, ok := strings.Cut(rest, ">")
			if !ok {
				break
			}
			params, rest := linkParams(rest)
			for _, rel := range strings.Fields(params["rel"]) {
				if strings.EqualFold(rel, "next") {
					return strings.TrimSpace(uri)
				}
			}
			line = rest
		}
	}
	return ""
}

// linkParams parses the parameters of a link, up to the comma before the next
// link. Names are in lower case; of a name given twice the first counts.
func linkParams(s string) (params map[string]string, rest string) {
	params = make(map[string]string)
	for {
		s = strings.TrimLeft(s, " \t")
		switch {
		case s == "":
			return params, ""
		case s[0] == ',':
			return params, s[1:]
		case s[0] != ';':
			return params, s
		}
		name, after := cutToken(strings.TrimLeft(s[1:], " \t"))
		s = strings.TrimLeft(after, " \t")
		value := ""
		if v, ok := strings.CutPrefix(s, "="); ok {
			v = strings.TrimLeft(v, " \t")
			if strings.HasPrefix(v, `"`) {
				if value, s, ok = cutValue(v); !ok {
					return params, ""
				}
			} else {
				i := strings.IndexAny(v, ",; \t")
				if i < 0 {
					i = len(v)
				}
				value, s = v[:i], v[i:]
			}
		}
		if name = strings.ToLower(name); name != "" {
			if _, twice := params[name]; !twice {
				params[name] = value
			}
		}
	}
}
