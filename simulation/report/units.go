package report

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// size writes a number of bytes for people, in binary units and three digits.
func size(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if v /= 1 << 10; v < 1000 {
			break
		}
	}
	return digits(v) + " " + unit
}

// rate writes bytes a second as networks are spoken of, in bits.
func rate(n int64) string {
	v, unit := 8*float64(n), "bit/s"
	for _, u := range []string{"kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"} {
		if v < 1000 {
			break
		}
		v, unit = v/1000, u
	}
	return trim(digits(v)) + " " + unit
}

// trim cuts the zeros off the end of a fraction.
func trim(number string) string {
	if !strings.Contains(number, ".") {
		return number
	}
	return strings.TrimSuffix(strings.TrimRight(number, "0"), ".")
}

// digits writes a number from 0 to 1000 with three digits.
func digits(v float64) string {
	switch {
	case v >= 99.95:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// duration writes a time for people: 3.2 ms, 41.3 s, 12 min 5 s, 3 h 20 min.
func duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + duration(-d)
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return digits(float64(d)/1e3) + " µs"
	case d < time.Second:
		return digits(float64(d)/1e6) + " ms"
	case d < 100*time.Second:
		return digits(d.Seconds()) + " s"
	case d < 2*time.Hour:
		return two(d, time.Minute, "min", time.Second, "s")
	case d < 48*time.Hour:
		return two(d, time.Hour, "h", time.Minute, "min")
	}
	return two(d, 24*time.Hour, "d", time.Hour, "h")
}

// two writes a time in two units, the lesser one rounded.
func two(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	d = d.Round(small)
	text := fmt.Sprintf("%d %s", d/big, bigName)
	if rest := d % big / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}

// count writes a number with commas between the thousands.
func count[T ~int | ~int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// few writes a number of which only the size matters: 950, 12,300, 1.23 M.
func few(v float64) string {
	switch {
	case v >= 999.5e6:
		return digits(v/1e9) + " G"
	case v >= 999.5e3:
		return digits(v/1e6) + " M"
	case v >= 1000:
		return count(int64(math.Round(v/100) * 100))
	case v >= 100 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return digits(v)
}

// percent writes parts in a million.
func percent(millionths int64) string {
	return trim(strconv.FormatFloat(float64(millionths)/1e4, 'f', 4, 64)) + " %"
}

// plural is the word for n things.
func plural[T ~int | ~int64](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + many
}

// together keeps numbers and their units in one line of a page.
func together(text string) string { return betweenUnits.ReplaceAllString(text, "$1\u00a0$2") }

var betweenUnits = regexp.MustCompile(`([0-9]) ((?:s|ms|µs|min|h|d|B|[KMGTP]iB)\b|%)`)

// seconds is a duration as JSON has it, to the microsecond.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e6 }

// ratio is a to b in four decimals; nil where that says nothing.
func ratio(a, b int64) *float64 {
	if b <= 0 {
		return nil
	}
	v := math.Round(float64(a)/float64(b)*1e4) / 1e4
	return &v
}

// Size is a number of bytes as reports have it.
func Size(n int64) string { return size(n) }

// Duration is a time as reports have it.
func Duration(d time.Duration) string { return duration(d) }

// Count is a number as reports have it.
func Count(n int) string { return count(n) }

// Few is a number of which only the size matters.
func Few(v float64) string { return few(v) }
