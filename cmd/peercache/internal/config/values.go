package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40},
	{"B", 1}, {"", 1},
}

// ParseSize reads a number of bytes: "50GiB", "1.5 GB", "64Mi", "1048576".
func ParseSize(s string) (int64, error) {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(strings.TrimSpace(s), u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(v) || v < 0 || v*u.bytes >= math.MaxInt64 {
			break
		}
		return int64(v * u.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size, such as 50GiB or 800MB", s)
}

// bitUnits are those that rates of networks are given in, as tc(8) has them.
var bitUnits = []struct {
	suffix string
	bits   float64
}{
	{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1},
}

// ParseRate reads a number of bytes a second: "50MiB", "50MiB/s", or in bits:
// "400mbit". An empty rate is 0.
func ParseRate(s string) (int64, error) {
	fail := func() (int64, error) {
		return 0, fmt.Errorf("%q is not a rate, such as 50MiB or 400mbit", s)
	}
	amount := strings.TrimSuffix(strings.TrimSpace(s), "/s")
	if strings.TrimSpace(s) == "" {
		return 0, nil
	}
	for _, u := range bitUnits {
		number, ok := strings.CutSuffix(strings.ToLower(amount), u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || math.IsNaN(v) || v < 0 || v*u.bits/8 >= math.MaxInt64 {
			return fail()
		}
		return int64(v * u.bits / 8), nil
	}
	n, err := ParseSize(amount)
	if err != nil {
		return fail()
	}
	return n, nil
}

// FormatSize writes a number of bytes for people, in binary units.
func FormatSize(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v /= 1 << 10; v < 1000 {
			break
		}
	}
	return fmt.Sprintf("%.*f %s", max(0, 2-int(math.Log10(v))), v, unit)
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration, such as 90s, 15m or 24h", s)
	}
	return d, nil
}

// parsePercent reads "20%" or "20" as 0.2.
func parsePercent(s string) (float64, error) {
	v, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "%")), 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > 99 {
		return 0, fmt.Errorf("%q is not a percentage from 0%% to 99%%", s)
	}
	return v / 100, nil
}

func parseBool(s string) (bool, error) {
	v, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%q is neither true nor false", s)
	}
	return v, nil
}

// duration prints without the zero units that time.Duration has: 1m, not 1m0s.
type duration time.Duration

func (d duration) String() string {
	s := time.Duration(d).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

func parseDurationValue(s string) (duration, error) {
	d, err := parseDuration(s)
	return duration(d), err
}

// rate is bytes a second; none prints as nothing.
type rate int64

func (r rate) String() string {
	if r == 0 {
		return ""
	}
	return FormatSize(int64(r)) + "/s"
}

func parseRateValue(s string) (rate, error) {
	n, err := ParseRate(s)
	return rate(n), err
}
