package registryproxy

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// ByteRange is one range of a Range header, before the size is known.
//
//	Start  End
//	a      b    bytes a to b, both included (0 <= a <= b)
//	a      -1   from a to the end
//	-1     n    the last n bytes (0 <= n)
//
// No number is above the largest int64; larger ones of the client are lowered
// to it, which means the same, since no content is as long.
type ByteRange struct {
	Start, End int64
}

// Resolve returns the range's offset and length within content of size bytes.
// It returns false for a range that the content does not have (RFC 9110,
// section 14.1.2); empty content has none, since no Content-Range could name it.
func (r ByteRange) Resolve(size int64) (off, n int64, ok bool) {
	switch {
	case r.Start < 0:
		if r.End <= 0 || size <= 0 {
			return 0, 0, false
		}
		n = min(r.End, size)
		return size - n, n, true
	case r.Start >= size:
		return 0, 0, false
	case r.End < 0 || r.End >= size:
		return r.Start, size - r.Start, true
	default:
		return r.Start, r.End - r.Start + 1, true
	}
}

// String returns the range as it stands in a Range header.
func (r ByteRange) String() string {
	switch {
	case r.Start < 0:
		return fmt.Sprintf("bytes=-%d", r.End)
	case r.End < 0:
		return fmt.Sprintf("bytes=%d-", r.Start)
	default:
		return fmt.Sprintf("bytes=%d-%d", r.Start, r.End)
	}
}

var errMalformedRange = errors.New("malformed range")

// parseRange reads the values of the Range headers of a request. It returns nil
// where RFC 9110, section 14.2, has the header ignored, and the whole content
// sent: no header, an unknown unit (must be ignored), or several ranges (may be:
// a multipart body is no runtime's wish, and a client that asks for several
// ranges has to understand a 200). A bytes range that no grammar allows is an
// error and not ignored (may be either): a client that is so wrong about what
// it wants is better told than sent ten gigabytes.
func parseRange(values []string) (*ByteRange, error) {
	if len(values) == 0 {
		return nil, nil
	}
	if len(values) > 1 {
		return nil, nil // several header lines are several ranges, or nonsense
	}
	unit, set, ok := strings.Cut(values[0], "=")
	if !ok {
		return nil, errMalformedRange
	}
	if !strings.EqualFold(unit, "bytes") {
		if !isToken(unit) {
			return nil, errMalformedRange
		}
		return nil, nil
	}
	var found *ByteRange
	several := false
	for spec := range strings.SplitSeq(set, ",") {
		if spec = strings.Trim(spec, " \t"); spec == "" {
			continue // an empty list element (RFC 9110, section 5.6.1.2)
		}
		r, ok := parseRangeSpec(spec)
		if !ok {
			return nil, errMalformedRange
		}
		several = found != nil || several
		found = &r
	}
	if found == nil {
		return nil, errMalformedRange
	}
	if several {
		return nil, nil
	}
	return found, nil
}

func parseRangeSpec(spec string) (ByteRange, bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok || first == "" && last == "" {
		return ByteRange{}, false
	}
	if first == "" {
		n, ok := parseCount(last)
		return ByteRange{Start: -1, End: n}, ok
	}
	start, ok := parseCount(first)
	if !ok {
		return ByteRange{}, false
	}
	if last == "" {
		return ByteRange{Start: start, End: -1}, true
	}
	end, ok := parseCount(last)
	return ByteRange{Start: start, End: end}, ok && start <= end
}

// parseCount reads decimal digits; a number that does not fit is the largest.
func parseCount(s string) (int64, bool) {
	if s == "" {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-int64(c-'0'))/10 {
			n = math.MaxInt64 // and stays there, whatever follows
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
