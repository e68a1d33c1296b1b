package scenario

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// What a plan saves is for people to go on with: 1gbit is read at once, 125000000B/s is not. And
// it is the same number.
func TestTexts(t *testing.T) {
	for n, want := range map[int64]string{1 << 30: "1GiB", 10e9: "10GB", 640 << 20: "640MiB", 1000: "1kB", 1 << 50: "1024TiB", 7: "7B", 3 << 10: "3KiB", 1537: "1537B"} {
		if got := SizeText(n); got != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{125e6: "1gbit", 312_500_000: "2500mbit", 125e9: "1tbit", 1000: "8kbit", 52_428_800: "50MiB/s", 1_234_567: "1234567B/s"} {
		if got := RateText(n); got != want {
			t.Errorf("%d bytes a second: %s, want %s", n, got, want)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		n := rng.Int64N(maxRate-minRate) + minRate
		n -= n % []int64{1, 125, 1024, 125e3, 1 << 20, 125e6}[rng.IntN(6)]
		var asSize size
		var asRate rate
		if err := asSize.set(SizeText(n)); err != nil || int64(asSize) != n {
			t.Errorf("%d bytes are %s, which is read as %d, %v", n, SizeText(n), asSize, err)
		}
		if err := asRate.set(RateText(max(n, minRate))); err != nil || int64(asRate) != max(n, minRate) {
			t.Errorf("%d bytes a second are %s, which is read as %d, %v", n, RateText(n), asRate, err)
		}
	}
}

func TestUnits(t *testing.T) {
	read := func(s setter, text string) string {
		if err := s.set(text); err != nil {
			return "error"
		}
		return fmt.Sprintf("%+v", s)
	}
	for _, test := range []struct {
		of   func() setter
		text string
		want int64 // -1: refused
	}{
		{func() setter { return new(size) }, "640MiB", 640 << 20},
		{func() setter { return new(size) }, "10GB", 10e9},
		{func() setter { return new(size) }, "1.5 GiB", 3 << 29},
		{func() setter { return new(size) }, "0.1kB", 100},
		{func() setter { return new(size) }, "1.23456789kB", 1234},
		{func() setter { return new(size) }, "1024TiB", 1 << 50},
		{func() setter { return new(size) }, "1125899906842624B", 1 << 50},
		{func() setter { return new(size) }, "1125899906842625B", -1},
		{func() setter { return new(size) }, "1025TiB", -1},
		{func() setter { return new(size) }, "99999999999999TiB", -1},
		{func() setter { return new(size) }, "17", -1},
		{func() setter { return new(size) }, "1e3B", -1},
		{func() setter { return new(size) }, "0x10B", -1},
		{func() setter { return new(size) }, "+1B", -1},
		{func() setter { return new(size) }, ".5GB", -1},
		{func() setter { return new(size) }, "5.GB", -1},
		{func() setter { return new(size) }, "GB", -1},
		{func() setter { return new(size) }, "-1GB", -1},
		{func() setter { return new(rate) }, "1gbit", 125e6},
		{func() setter { return new(rate) }, "2.5Gbit/s", 312_500_000},
		{func() setter { return new(rate) }, "50mbit", 6_250_000},
		{func() setter { return new(rate) }, "200MB/s", 200e6},
		{func() setter { return new(rate) }, "16MiB", 16 << 20},
		{func() setter { return new(rate) }, "unlimited", 0},
		{func() setter { return new(rate) }, "1tbit", 125e9},
		{func() setter { return new(rate) }, "50000000000B/s", 50e9},
		{func() setter { return new(rate) }, "2tbit", -1},
		{func() setter { return new(rate) }, "0", -1},
		{func() setter { return new(rate) }, "0gbit", -1},
		{func() setter { return new(rate) }, "1kbit", -1},
		{func() setter { return new(rate) }, "-1gbit", -1},
		{func() setter { return new(rate) }, "1gbit/h", -1},
		{func() setter { return new(part) }, "30%", 300_000},
		{func() setter { return new(part) }, "0.1%", 1000},
		{func() setter { return new(part) }, "1/50", 20_000},
		{func() setter { return new(part) }, "1/3", 333_333},
		{func() setter { return new(part) }, "0.25", 250_000},
		{func() setter { return new(part) }, "0%", 0},
		{func() setter { return new(part) }, "100%", 1_000_000},
		{func() setter { return new(part) }, "101%", -1},
		{func() setter { return new(part) }, "2/1", -1},
		{func() setter { return new(part) }, "1/0", -1},
		{func() setter { return new(part) }, "0.00001%", -1},
		{func() setter { return new(ratio) }, "1.02", 1_020_000},
		{func() setter { return new(ratio) }, "102%", 1_020_000},
		{func() setter { return new(ratio) }, "-1", -1},
		{func() setter { return new(exponent) }, "1.1", 1_100_000},
		{func() setter { return new(exponent) }, "11", -1},
		{func() setter { return new(duration) }, "1m30s", int64(90 * time.Second)},
		{func() setter { return new(duration) }, "100us", int64(100 * time.Microsecond)},
		{func() setter { return new(duration) }, "721h", -1},
		{func() setter { return new(duration) }, "5", -1},
		{func() setter { return new(count) }, "100", 100},
		{func() setter { return new(count) }, "1_000", -1},
		{func() setter { return new(count) }, "99999999999999999999", -1},
	} {
		v := test.of()
		got := int64(-1)
		if err := v.set(test.text); err == nil {
			switch v := v.(type) {
			case *size:
				got = int64(*v)
			case *rate:
				got = int64(*v)
			case *part:
				got = int64(*v)
			case *ratio:
				got = int64(*v)
			case *exponent:
				got = int64(*v)
			case *duration:
				got = int64(*v)
			case *count:
				got = int64(*v)
			}
		}
		if got != test.want {
			t.Errorf("%T %q is %d, want %d", v, test.text, got, test.want)
		}
	}
	if a := read(new(amount), "0"); a != "error" {
		t.Errorf("an amount of 0: %s", a)
	}
	if a := read(new(amount), "all"); a != "&{n:0 part:false}" {
		t.Errorf("an amount of all: %s", a)
	}
	for _, bad := range []string{"", "x", "3-1", "-1", "30 %x", "0 random", "random", "0%", "zone", "zone ", "rack a", "rack /0", "3 of", "all of a", "1,,2", "1-2-3"} {
		if s := read(new(selector), bad); s != "error" {
			t.Errorf("nodes %q: %s", bad, s)
		}
	}
}

// The fixed-point functions are near those of floats.
func TestFixedPoint(t *testing.T) {
	for _, v := range []uint64{1, 2, 3, 7, 1000, 65_535, 1<<32 - 1, 1 << 32, 1<<40 + 12345, math.MaxUint64} {
		got, want := float64(log2(v))/(1<<point), math.Log2(float64(v))
		if math.Abs(got-want) > 1e-8 {
			t.Errorf("log2(%d) = %.10f, want %.10f", v, got, want)
		}
	}
	for _, x := range []float64{0, 0.5, 1, 1.25, 3.7, 10.01, 31.999, 61.5, 70} {
		got, want := float64(exp2(int64(x*(1<<point))))/(1<<62), math.Exp2(-x)
		if math.Abs(got-want) > 1e-9 {
			t.Errorf("exp2(-%v) = %.12f, want %.12f", x, got, want)
		}
	}
}

// Draws have the distributions that they are to have: means, quantiles and counts within
// four standard deviations of a fixed seed's.
func TestDistributions(t *testing.T) {
	const n = 100_000
	rng := rand.New(rand.NewPCG(1, 2))
	var sum float64
	below := 0 // the median
	for range n {
		d := exponential(rng, time.Second)
		sum += d.Seconds()
		if d.Seconds() < math.Ln2 {
			below++
		}
	}
	if mean := sum / n; math.Abs(mean-1) > 4/math.Sqrt(n) {
		t.Errorf("the mean of exponential times is %.4f s", mean)
	}
	if math.Abs(float64(below)-n/2) > 2*math.Sqrt(n) {
		t.Errorf("%d of %d are below the median", below, n)
	}
	for _, s := range []exponent{0, 500_000, 1_000_000, 1_100_000, 10 * whole} {
		z := newZipf(60, s)
		var counts [60]float64
		for range n {
			counts[z.draw(rng)]++
		}
		norm := 0.0
		for k := range 60 {
			norm += math.Pow(float64(k+1), -float64(s)/whole)
		}
		for k, got := range counts {
			p := math.Pow(float64(k+1), -float64(s)/whole) / norm
			if math.Abs(got-n*p) > 4*math.Sqrt(n*p)+1 {
				t.Errorf("exponent %d: %v draws of %d, want %.0f", s, got, k, n*p)
			}
		}
	}
}

func TestApportion(t *testing.T) {
	for _, test := range []struct {
		n       int
		weights []int64
		want    string
	}{
		{10, []int64{1, 1}, "[5 5]"},
		{10, []int64{1, 1, 1}, "[4 3 3]"},
		{100, []int64{600_000, 300_000, 100_000}, "[60 30 10]"},
		{3, []int64{980_000, 10_000, 10_000}, "[1 1 1]"},
		{2, []int64{980_000, 10_000, 10_000}, "[2 0 0]"},
		{1, []int64{1, 1}, "[1 0]"},
		{0, []int64{1, 1}, "[0 0]"},
	} {
		if got := fmt.Sprint(apportion(test.n, test.weights)); got != test.want {
			t.Errorf("apportion(%d, %v) = %s, want %s", test.n, test.weights, got, test.want)
		}
	}
}
