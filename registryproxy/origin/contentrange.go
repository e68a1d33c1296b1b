package origin

import (
	"strconv"
	"strings"
)

// contentRange is a parsed Content-Range: bytes first to last, both inclusive,
// of total, which is -1 where it is unknown. For an unsatisfied range ("*/N")
// first and last are -1.
type contentRange struct{ first, last, total int64 }

// parseContentRange parses RFC 9110 section 14.4, for the unit bytes.
func parseContentRange(s string) (r contentRange, ok bool) {
	unit, s, _ := strings.Cut(strings.TrimSpace(s), " ")
	span, total, found := strings.Cut(strings.TrimSpace(s), "/")
	if !strings.EqualFold(unit, "bytes") || !found {
		return r, false
	}
	r.total = -1
	if total != "*" {
		if r.total, ok = parseSize(total); !ok {
			return r, false
		}
	}
	if span == "*" {
		r.first, r.last = -1, -1
		return r, r.total >= 0
	}
	first, last, _ := strings.Cut(span, "-")
	var ok1, ok2 bool
	r.first, ok1 = parseSize(first)
	r.last, ok2 = parseSize(last)
	return r, ok1 && ok2 && r.first <= r.last && (r.total < 0 || r.last < r.total)
}

// parseSize parses digits and nothing else.
func parseSize(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
