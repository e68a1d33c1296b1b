package registryproxy

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
)

// endpoint is one of the specification's groups of requests. Its value is the
// label kind in metrics.
type endpoint string

const (
	endpointBase      endpoint = "base" // /v2/
	endpointManifest  endpoint = "manifest"
	endpointBlob      endpoint = "blob"
	endpointTags      endpoint = "tags"
	endpointReferrers endpoint = "referrers"
	endpointPush      endpoint = "push"  // any method that would change something
	endpointOther     endpoint = "other" // no route
)

var endpoints = []endpoint{
	endpointBase, endpointManifest, endpointBlob, endpointTags, endpointReferrers, endpointPush, endpointOther,
}

// unknownCode is the error code for something of this kind that does not exist.
func (ep endpoint) unknownCode() string {
	switch ep {
	case endpointManifest, endpointReferrers:
		return codeManifestUnknown
	case endpointBlob:
		return codeBlobUnknown
	default:
		return codeNameUnknown
	}
}

// thing is the word for it in a message.
func (ep endpoint) thing() string {
	switch ep {
	case endpointManifest, endpointBlob:
		return string(ep)
	case endpointReferrers:
		return "manifest"
	default:
		return "repository"
	}
}

// route is what a request's path and query mean.
type route struct {
	endpoint   endpoint
	origin     string
	repository string
	tag        string        // of a manifest, if it was asked for by tag
	digest     digest.Digest // of a manifest, blob, or the subject of referrers
	params     url.Values    // the query without ns, for lists

	// How the client wrote it, so that links lead through the proxy again.
	path string // decoded
	ns   string // the value of ns, empty if there was none
}

// Limits of what a list's query may hold: more than any registry's links do,
// and a bound for what a Backend may have to keep as a key.
const (
	maxParams     = 16
	maxParamBytes = 4 << 10
)

// parseRoute reads a URL. It returns the endpoint also with a failure, as far
// as it can be told.
//
// The path is parsed from its end, because a repository may have components
// named manifests, blobs or tags. It is decoded first, and everything that then
// is not in the grammar is refused; an encoded slash is refused before that,
// since there is no telling what it was meant to be.
func parseRoute(u *url.URL, defaultOrigin string) (route, *failure) {
	rt := route{endpoint: endpointOther, path: u.Path}
	rest, ok := strings.CutPrefix(u.Path, "/v2/")
	if u.Path == "/v2" || ok && rest == "" {
		rt.endpoint = endpointBase
		return rt, nil
	}
	if !ok {
		return rt, refuse(http.StatusNotFound, codeUnsupported, "no such endpoint: everything is under /v2/")
	}
	if u.RawPath != "" && strings.Contains(strings.ToLower(u.RawPath), "%2f") {
		return rt, refuse(http.StatusBadRequest, codeNameInvalid, "encoded slash in the path")
	}

	// name "/" what "/" reference
	end := strings.LastIndexByte(rest, '/')
	if end < 0 {
		return rt, refuse(http.StatusNotFound, codeUnsupported, "no such endpoint")
	}
	reference := rest[end+1:]
	begin := strings.LastIndexByte(rest[:end], '/')
	what := rest[begin+1 : end]
	name := rest[:max(begin, 0)]
	switch {
	case what == "manifests":
		rt.endpoint = endpointManifest
	case what == "blobs":
		rt.endpoint = endpointBlob
	case what == "referrers":
		rt.endpoint = endpointReferrers
	case what == "tags" && reference == "list":
		rt.endpoint = endpointTags
	default:
		return rt, refuse(http.StatusNotFound, codeUnsupported, "no such endpoint")
	}

	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return rt, refuse(http.StatusBadRequest, codeNameInvalid, "malformed query")
	}
	if f := rt.setOrigin(name, query["ns"], defaultOrigin); f != nil {
		return rt, f
	}
	if f := rt.setReference(reference); f != nil {
		return rt, f
	}
	if rt.endpoint == endpointTags || rt.endpoint == endpointReferrers {
		delete(query, "ns")
		return rt, rt.setParams(query)
	}
	return rt, nil
}

// setOrigin finds the origin and the repository. An explicit ns wins: the whole
// name then is the repository, even if it begins like a host.
func (rt *route) setOrigin(name string, ns []string, defaultOrigin string) *failure {
	rt.origin, rt.repository = defaultOrigin, name
	first, rest, several := strings.Cut(name, "/")
	var err error
	switch {
	case len(ns) > 1:
		return refuse(http.StatusBadRequest, codeNameInvalid, "more than one ns in the query")
	case len(ns) == 1:
		// Empty is an error too: a client whose configuration lost its value
		// must not have its private names asked for at the default origin.
		rt.ns = ns[0]
		rt.origin, err = CanonicalOrigin(rt.ns)
	case several && looksLikeHost(first):
		rt.origin, err = CanonicalOrigin(first)
		rt.repository = rest
	}
	if err != nil {
		return refuse(http.StatusBadRequest, codeNameInvalid, "origin: %v", err)
	}
	if !validName(rt.repository) {
		return refuse(http.StatusBadRequest, codeNameInvalid, "invalid repository name %.64q", rt.repository)
	}
	return nil
}

// setReference reads the last component of the path. A tag that the grammar
// does not allow is one that does not exist, as registries answer it and the
// conformance tests want; a malformed digest has a code of its own.
func (rt *route) setReference(reference string) *failure {
	switch {
	case rt.endpoint == endpointTags:
		return nil
	case rt.endpoint == endpointManifest && !strings.Contains(reference, ":"):
		if !validTag(reference) {
			return refuse(http.StatusNotFound, codeManifestUnknown, "invalid tag %.64q", reference)
		}
		rt.tag = reference
		return nil
	}
	d, err := parseDigest(reference)
	if err != nil {
		return refuse(http.StatusBadRequest, codeDigestInvalid, "invalid digest: %v", err)
	}
	rt.digest = d
	return nil
}

func (rt *route) setParams(query url.Values) *failure {
	values, bytes := 0, 0
	for key, list := range query {
		for _, value := range list {
			values++
			bytes += len(key) + len(value)
		}
	}
	if values > maxParams || bytes > maxParamBytes {
		return refuse(http.StatusBadRequest, codeUnsupported, "query too long")
	}
	if rt.endpoint == endpointTags {
		for _, n := range query["n"] {
			if _, ok := parseCount(n); !ok {
				return refuse(http.StatusBadRequest, codePaginationInvalid, "n is not a number: %.32q", n)
			}
		}
	}
	rt.params = query
	return nil
}
