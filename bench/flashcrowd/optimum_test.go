package main

import (
	"math"
	"testing"
)

func TestOptimum(t *testing.T) {
	const link = 10 * mib // a chunk takes 0.1 s
	for _, c := range []struct {
		name   string
		n      int
		bytes  int64
		origin float64
		want   float64
		bound  bool
	}{
		// One node: as many chunks as there are, and none to pass on.
		{"alone", 1, 8 * mib, link, 0.8, false},
		{"alone, a part of a chunk counts as one", 1, 8*mib + 1, link, 0.9, false},
		{"two: the last chunk goes on once", 2, 8 * mib, link, 0.9, false},
		{"three: the origin sends it too", 3, 8 * mib, link, 0.9, false},
		{"four", 4, 8 * mib, link, 1.0, false},
		{"sixteen: ceil(log2 17) = 5", 16, 256 * mib, link, 26.0, false},
		{"a faster origin is not reckoned with", 16, 256 * mib, 10 * link, 26.0, false},
		{"a slower one binds", 16, 256 * mib, link / 2, 51.2 + 0.4, true},
		{"and alone", 1, 256 * mib, link / 2, 51.2, true},
	} {
		got, bound := optimum(c.n, c.bytes, link, c.origin)
		if math.Abs(got-c.want) > 1e-9 || bound != c.bound {
			t.Errorf("%s: %.4f s, origin bound %v; want %.4f, %v", c.name, got, bound, c.want, c.bound)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct{ a, b, want float64 }{{1, 4, 0.25}, {1, 0, 0}, {0, 0, 0}} {
		if got := ratio(c.a, c.b); got != c.want {
			t.Errorf("%v / %v: %v, want %v", c.a, c.b, got, c.want)
		}
	}
}
