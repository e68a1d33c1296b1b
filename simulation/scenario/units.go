package scenario

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"
)

// The kinds of values. Each has what it holds in the unit of [Run], and is read exactly:
// a decimal fraction is a fraction of integers, and what is smaller than the unit is cut off.
type (
	// size is bytes: 640MiB, 1.5 GB. "none" is 0.
	size int64
	// rate is bytes a second: 1gbit, 200MB/s. "unlimited" is 0.
	rate int64
	// part is parts in a million: 30%, 0.1%, 1/50.
	part int64
	// ratio is parts in a million that may be more than the whole: 1.02, 102%.
	ratio int64
	// exponent is in millionths: 1.1.
	exponent int64
	// duration is as in Go: 1.5s, 6h, 100us.
	duration time.Duration
	// count is a number.
	count int64
)

// whole is all of something in parts in a million.
const whole = 1_000_000

const (
	maxSize     = int64(1) << 50
	maxRate     = int64(1_000_000_000_000 / 8) // 1 Tbit/s
	minRate     = int64(1000)
	maxDuration = 30 * 24 * time.Hour
	maxCount    = 100_000_000
)

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

var bitUnits = []struct {
	suffix string
	bits   int64
}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"tbit", 1e12}, {"bit", 1}}

// scaled is text, a decimal number, times unit divided by by, rounded down: without a float,
// which would differ between machines. It refuses signs, exponents, and what is above limit.
func scaled(text string, unit, by, limit int64) (int64, bool) {
	whole, fraction, point := strings.Cut(strings.TrimSpace(text), ".")
	if whole == "" || point && fraction == "" || len(fraction) > 9 {
		return 0, false
	}
	var n uint64
	for _, c := range whole + fraction {
		if c < '0' || c > '9' || n > math.MaxUint64/10-1 {
			return 0, false
		}
		n = 10*n + uint64(c-'0')
	}
	div := uint64(by)
	for range fraction {
		div *= 10
	}
	hi, lo := bits.Mul64(n, uint64(unit))
	if hi >= div {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, div)
	return int64(q), q <= uint64(limit) // at most limit where it counts
}

// SizeText is a number of bytes as a file of the format has it, exact and as short as can be.
func SizeText(n int64) string {
	text := ""
	for _, u := range sizeUnits {
		if t := fmt.Sprint(n/u.bytes, u.suffix); n%u.bytes == 0 && (text == "" || len(t) < len(text)) {
			text = t
		}
	}
	return text
}

// RateText is bytes a second as a file of the format has it, exact: in bits, where these are whole
// kbit at least, as the rates of links mostly are.
func RateText(n int64) string {
	text := ""
	for _, u := range bitUnits {
		if u.bits > 1 && n%(u.bits/8) == 0 {
			text = fmt.Sprint(n/(u.bits/8), u.suffix) // of the largest unit in the end
		}
	}
	if text != "" {
		return text
	}
	return SizeText(n) + "/s"
}

// negative says of a value with a minus what is wrong with it.
func negative(text string) error {
	if strings.HasPrefix(strings.TrimSpace(text), "-") {
		return fmt.Errorf("%q must not be negative", text)
	}
	return nil
}

func (v *size) set(text string) error {
	if text == "none" {
		*v = 0
		return nil
	}
	if err := negative(text); err != nil {
		return err
	}
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(text, u.suffix); ok {
			if n, ok := scaled(number, u.bytes, 1, maxSize); ok {
				*v = size(n)
				return nil
			}
			break
		}
	}
	return fmt.Errorf("%q is not a size, such as 640MiB or 10GB, at most 1024TiB", text)
}

func (v *rate) set(text string) error {
	if text == "unlimited" {
		*v = 0
		return nil
	}
	if err := negative(text); err != nil {
		return err
	}
	n, ok := int64(0), false
	amount := strings.TrimSuffix(text, "/s")
	bitRate := false
	for _, u := range bitUnits {
		if number, is := strings.CutSuffix(strings.ToLower(amount), u.suffix); is {
			n, ok = scaled(number, u.bits, 8, maxRate)
			bitRate = true
			break
		}
	}
	for _, u := range sizeUnits {
		if number, is := strings.CutSuffix(amount, u.suffix); is && !bitRate {
			n, ok = scaled(number, u.bytes, 1, maxRate)
			break
		}
	}
	if zero, is := scaled(amount, 1, 1, 0); is && zero == 0 {
		n, ok = 0, true
	}
	switch {
	case !ok:
		return fmt.Errorf("%q is not a rate, such as 1gbit, 50mbit or 200MB/s, at most 1tbit", text)
	case n < minRate:
		return fmt.Errorf("%q carries next to nothing: it must be at least 8kbit; unlimited is no bound", text)
	}
	*v = rate(n)
	return nil
}

func (v *part) set(text string) error {
	sign := int64(1)
	number, minus := strings.CutPrefix(text, "-") // a clock that is too slow; others are checked
	if minus {
		sign = -1
	}
	if n, ok := fraction(number, whole); ok {
		*v = part(sign * n)
		return nil
	}
	return fmt.Errorf("%q is not a part, such as 30%%, 0.1%% or 1/50, from one in a million to 100%%", text)
}

// fraction reads 30%, 1/50, 0 and 1 in parts in a million, at most limit. What is not 0 but below
// one in a million is refused.
func fraction(text string, limit int64) (int64, bool) {
	if number, is := strings.CutSuffix(text, "%"); is {
		n, ok := scaled(number, whole, 100, limit)
		return n, ok && (n > 0 || strings.Trim(number, "0. ") == "")
	}
	if over, under, is := strings.Cut(text, "/"); is {
		a, ok := scaled(over, 1, 1, maxCount)
		b, ok2 := scaled(under, 1, 1, maxCount)
		if !ok || !ok2 || strings.Contains(text, ".") || b == 0 {
			return 0, false
		}
		n := a * whole / b
		return n, n <= limit && (n > 0 || a == 0)
	}
	n, ok := scaled(text, whole, 1, limit)
	return n, ok && (n > 0 || strings.Trim(text, "0. ") == "")
}

func (v *ratio) set(text string) error {
	if n, ok := fraction(text, 1000*whole); ok {
		*v = ratio(n)
		return nil
	}
	return fmt.Errorf("%q is not a ratio, such as 1.02 or 102%%, at most 1000", text)
}

func (v *exponent) set(text string) error {
	if n, ok := scaled(text, whole, 1, 10*whole); ok {
		*v = exponent(n)
		return nil
	}
	return fmt.Errorf("%q is not a number from 0 to 10, such as 1.1", text)
}

func (v *duration) set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration, such as 90s, 15m or 100us", text)
	}
	if d > maxDuration || d < -maxDuration {
		return fmt.Errorf("%q is more than 720h", text)
	}
	*v = duration(d)
	return nil
}

func (v *count) set(text string) error {
	if err := negative(text); err != nil {
		return err
	}
	n, ok := scaled(text, 1, 1, maxCount)
	if !ok || strings.Contains(text, ".") {
		return fmt.Errorf("%q is not a whole number up to %d", text, maxCount)
	}
	*v = count(n)
	return nil
}
