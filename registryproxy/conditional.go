package registryproxy

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The entity tag of all content is its digest in quotes, as docker's registry
// has it. It is a strong one, since a digest is over the bytes that are sent.

func etag(d digest.Digest) string { return `"` + string(d) + `"` }

// notModified evaluates If-None-Match (RFC 9110, section 13.1.2): a list of
// strong or weak tags, compared weakly, or *. A bare digest counts as its tag,
// as docker's registry allows.
func notModified(h http.Header, d digest.Digest) bool {
	for _, line := range h.Values("If-None-Match") {
		for _, tag := range splitQuoted(line, ',') {
			tag = strings.TrimSpace(tag)
			if tag == "*" {
				return true
			}
			tag = strings.TrimPrefix(tag, "W/")
			if tag == etag(d) || tag == string(d) {
				return true
			}
		}
	}
	return false
}

// rangeApplies evaluates If-Range (RFC 9110, section 13.1.5), which compares
// strongly. A date never matches: content has none.
func rangeApplies(h http.Header, d digest.Digest) bool {
	values := h.Values("If-Range")
	return len(values) == 0 || len(values) == 1 && strings.TrimSpace(values[0]) == etag(d)
}

// acceptElements returns all media ranges of all Accept headers, with their
// parameters.
func acceptElements(h http.Header) []string {
	var all []string
	for _, line := range h.Values("Accept") {
		for _, element := range splitQuoted(line, ',') {
			if element = strings.TrimSpace(element); element != "" {
				all = append(all, element)
			}
		}
	}
	return all
}

// isLoop reports whether a request has passed through a Peercache proxy: its
// Via header (RFC 9110, section 7.6.3) names peercache, or peercache-<id>.
//
// Any Peercache counts, not just this one. What a node asks an origin for is
// shared by all of its clients' requests and so carries no client's Via, only
// the node's own: in a ring of two, neither would ever see its own name.
func isLoop(h http.Header) bool {
	for _, line := range h.Values("Via") {
		for _, hop := range splitQuoted(line, ',') {
			fields := strings.Fields(hop) // protocol, received-by, comment
			if len(fields) < 2 {
				continue
			}
			by := strings.ToLower(fields[1])
			if by == "peercache" || strings.HasPrefix(by, "peercache-") {
				return true
			}
		}
	}
	return false
}
