package registryproxy

import (
	"math"
	"strings"
	"testing"
)

func TestParseRange(t *testing.T) {
	const ignored, malformed = "ignored", "malformed"
	for header, want := range map[string]string{
		"bytes=0-":                          "bytes=0-",
		"bytes=8388608-":                    "bytes=8388608-",
		"bytes=0-0":                         "bytes=0-0",
		"bytes=5-9":                         "bytes=5-9",
		"bytes=-5":                          "bytes=-5",
		"bytes=-0":                          "bytes=-0",
		"Bytes=1-2":                         "bytes=1-2",
		"bytes= 1-2 ":                       "bytes=1-2",
		"bytes=,1-2,":                       "bytes=1-2",
		"bytes=007-9":                       "bytes=7-9",
		"bytes=0-9223372036854775807":       "bytes=0-9223372036854775807",
		"bytes=0-9223372036854775808":       "bytes=0-9223372036854775807",
		"bytes=99999999999999999999999999-": "bytes=9223372036854775807-",
		"bytes=-18446744073709551617":       "bytes=-9223372036854775807",

		"bytes=0-1,3-4":  ignored,
		"bytes=0-1, -1":  ignored,
		"chunks=1-2":     ignored,
		"seconds=a,b":    ignored,
		"bytes=0-1\n2-3": ignored, // two header lines

		"":              malformed,
		"bytes":         malformed,
		"bytes=":        malformed,
		"bytes=,":       malformed,
		"bytes=-":       malformed,
		"bytes=--1":     malformed,
		"bytes=a-b":     malformed,
		"bytes=5-3":     malformed,
		"bytes=0":       malformed,
		"bytes=+1-2":    malformed,
		"bytes=1 -2":    malformed,
		"bytes=1-2-3":   malformed,
		"bytes=0x1-2":   malformed,
		"bytes=0-1,x":   malformed,
		"bytes =0-1":    malformed,
		"=0-1":          malformed,
		"by tes=0-1":    malformed,
		"bytes=١-٢":     malformed,
		"bytes=1-2;q=1": malformed,
	} {
		r, err := parseRange(strings.Split(header, "\n"))
		got := ignored
		switch {
		case err != nil:
			got = malformed
		case r != nil:
			got = r.String()
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", header, got, want)
		}
	}
	if r, err := parseRange(nil); r != nil || err != nil {
		t.Errorf("no header: got %v, %v", r, err)
	}
}

func TestByteRangeResolve(t *testing.T) {
	for _, c := range []struct {
		r            ByteRange
		size, off, n int64
		ok           bool
	}{
		{ByteRange{0, -1}, 10, 0, 10, true},
		{ByteRange{0, 9}, 10, 0, 10, true},
		{ByteRange{0, math.MaxInt64}, 10, 0, 10, true},
		{ByteRange{9, -1}, 10, 9, 1, true},
		{ByteRange{9, 9}, 10, 9, 1, true},
		{ByteRange{3, 5}, 10, 3, 3, true},
		{ByteRange{10, -1}, 10, 0, 0, false},
		{ByteRange{10, 20}, 10, 0, 0, false},
		{ByteRange{math.MaxInt64, -1}, 10, 0, 0, false},
		{ByteRange{-1, 3}, 10, 7, 3, true},
		{ByteRange{-1, 10}, 10, 0, 10, true},
		{ByteRange{-1, math.MaxInt64}, 10, 0, 10, true},
		{ByteRange{-1, 0}, 10, 0, 0, false},
		{ByteRange{0, -1}, 0, 0, 0, false},
		{ByteRange{-1, 1}, 0, 0, 0, false},
	} {
		off, n, ok := c.r.Resolve(c.size)
		if off != c.off || n != c.n || ok != c.ok {
			t.Errorf("%v of %d: got %d, %d, %v", c.r, c.size, off, n, ok)
		}
	}
}

// What is parsed is within bounds whatever the size, and survives being written
// and read again.
func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=-5", "bytes=5-9", "bytes=1-2,4-5", "bytes=99999999999999999999-", "x=1", "bytes=,,1-"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		r, err := parseRange([]string{header})
		if err != nil || r == nil {
			return
		}
		again, err := parseRange([]string{r.String()})
		if err != nil || again == nil || *again != *r {
			t.Fatalf("%q: %v, read again: %v, %v", header, r, again, err)
		}
		off, n, ok := r.Resolve(size)
		if ok && (off < 0 || n < 1 || off+n > size) {
			t.Fatalf("%v of %d: %d, %d", r, size, off, n)
		}
	})
}
