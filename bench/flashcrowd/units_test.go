package main

import "testing"

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want size
	}{
		{"1", 1}, {"17B", 17}, {"3kB", 3000}, {"2MB", 2_000_000}, {"1GB", 1_000_000_000},
		{"4KiB", 4 << 10}, {"256MiB", 256 << 20}, {"1.5GiB", 3 << 29},
		{"", -1}, {"0", -1}, {"MiB", -1}, {"-1MiB", -1}, {"1mib", -1}, {"1TiB", -1}, {"NaN", -1}, {"1e30", -1},
	} {
		var got size
		err := got.Set(c.text)
		switch {
		case c.want < 0 && err == nil:
			t.Errorf("%q: %d, want an error", c.text, got)
		case c.want >= 0 && (err != nil || got != c.want):
			t.Errorf("%q: %d, %v; want %d", c.text, got, err, c.want)
		}
	}
	for v, want := range map[size]string{512: "512B", 4 << 10: "4KiB", 256 << 20: "256MiB", 3 << 29: "1.5GiB"} {
		if got := v.String(); got != want {
			t.Errorf("%d: %s, want %s", int64(v), got, want)
		}
	}
}

func TestRate(t *testing.T) {
	for _, c := range []struct {
		text string
		want rate
		back string
	}{
		{"0", 0, "0"}, {"100mbit", 100e6, "100mbit"}, {"1gbit", 1e9, "1gbit"}, {"12.5mbit", 12_500_000, "12.5mbit"},
		{"800kbit", 800e3, "800kbit"}, {"9000bit", 9000, "9kbit"},
		{"", -1, ""}, {"100", -1, ""}, {"mbit", -1, ""}, {"-1mbit", -1, ""}, {"1bit", -1, ""}, {"0mbit", -1, ""}, {"100Mbit", -1, ""},
	} {
		var got rate
		err := got.Set(c.text)
		switch {
		case c.want < 0 && err == nil:
			t.Errorf("%q: %d, want an error", c.text, got)
		case c.want >= 0 && (err != nil || got != c.want || got.String() != c.back):
			t.Errorf("%q: %d, written %s, %v; want %d, %s", c.text, int64(got), got, err, int64(c.want), c.back)
		}
	}
}

func TestShare(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want int
	}{
		{"0", 16, 0}, {"3", 16, 3}, {"10%", 16, 2}, {"10%", 20, 2}, {"10%", 4, 1}, {"0.1%", 16, 1}, {"0%", 16, 0}, {"100%", 5, 5},
		{"", 16, -1}, {"%", 16, -1}, {"-1", 16, -1}, {"101%", 16, -1}, {"1.5", 16, -1}, {"NaN%", 16, -1},
	} {
		var s share
		err := s.Set(c.text)
		switch {
		case c.want < 0 && err == nil:
			t.Errorf("%q: %v, want an error", c.text, s)
		case c.want >= 0 && (err != nil || s.of(c.n) != c.want):
			t.Errorf("%q of %d: %d, %v; want %d", c.text, c.n, s.of(c.n), err, c.want)
		}
	}
}
