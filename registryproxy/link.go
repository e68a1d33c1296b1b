package registryproxy

import (
	"net/url"
	"strings"
)

// rewriteLink turns an origin's Link header into one that leads through the
// proxy: the path of the client's own request, with the query of the origin's
// link of relation "next", and the client's ns. The origin's host and path are
// of no use to the client, and may not be followed by the proxy either; what
// matters, the position in the list, is in the query, whatever that registry
// calls it (last, next_page, ...).
//
// It returns "" if there is no such link, or if it could not be followed: no
// query, or one that parseRoute would refuse.
func rewriteLink(link string, rt route) string {
	target, ok := nextLink(link)
	if !ok {
		return ""
	}
	u, err := url.Parse(target)
	if err != nil {
		return ""
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return ""
	}
	delete(query, "ns")
	check := route{endpoint: rt.endpoint}
	if len(query) == 0 || check.setParams(query) != nil {
		return ""
	}
	// The client's, as the origin knows nothing of it.
	if rt.ns != "" {
		query.Set("ns", rt.ns)
	}
	through := url.URL{Path: rt.path, RawQuery: query.Encode()}
	return "<" + through.String() + `>; rel="next"`
}

// maxLink bounds, in bytes, a Link header that is looked into.
const maxLink = 16 << 10

// nextLink finds the target of the relation "next" in a Link header (RFC 8288).
func nextLink(header string) (target string, ok bool) {
	if len(header) > maxLink {
		return "", false
	}
	for rest := header; ; {
		begin := strings.IndexByte(rest, '<')
		if begin < 0 {
			return "", false
		}
		end := strings.IndexByte(rest[begin:], '>')
		if end < 0 {
			return "", false
		}
		target = rest[begin+1 : begin+end]
		rest = rest[begin+end+1:]
		params := splitQuoted(rest, ',')[0]
		rest = rest[len(params):]
		for _, param := range splitQuoted(params, ';') {
			name, value, _ := strings.Cut(param, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "rel") {
				continue
			}
			value = strings.Trim(strings.TrimSpace(value), `"`)
			for relation := range strings.FieldsSeq(value) {
				if strings.EqualFold(relation, "next") {
					return target, true
				}
			}
			break // only the first rel counts (RFC 8288, section 3.3)
		}
	}
}

// splitQuoted splits a header value at a separator that is not within a quoted
// string. It returns at least one element.
func splitQuoted(s string, separator byte) []string {
	var parts []string
	quoted, begin := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			parts = append(parts, s[begin:i])
			begin = i + 1
		}
	}
	return append(parts, s[begin:])
}
