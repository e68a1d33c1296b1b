package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// size is a flag: a number of bytes.
type size int64

var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}, {"", 1},
}

// Set implements flag.Value.
func (s *size) Set(text string) error {
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			v, err := quantity(number, u.bytes)
			if err == nil && v == 0 {
				err = fmt.Errorf("%q is nothing", text)
			}
			*s = size(v)
			return err
		}
	}
	return nil // not reached: every text ends in ""
}

func (s size) String() string {
	for _, u := range sizeUnits[:3] {
		if v := float64(s) / u.bytes; v >= 1 {
			return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) + u.name
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// rate is a flag: bits a second, as tc has them; 0 for no limit.
type rate int64

var rateUnits = []struct {
	name string
	bits float64
}{
	{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}, {"bit", 1},
}

// Set implements flag.Value.
func (r *rate) Set(text string) error {
	if text == "0" {
		*r = 0
		return nil
	}
	for _, u := range rateUnits {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			v, err := quantity(number, u.bits)
			if err == nil && v < 8000 {
				err = fmt.Errorf("%q is less than 8kbit; 0 is no limit", text)
			}
			*r = rate(v)
			return err
		}
	}
	return fmt.Errorf("%q has none of the units kbit, mbit, gbit", text)
}

func (r rate) String() string {
	if r <= 0 {
		return "0"
	}
	for _, u := range rateUnits {
		if float64(r) >= u.bits {
			return strconv.FormatFloat(float64(r)/u.bits, 'f', -1, 64) + u.name
		}
	}
	return "0"
}

// quantity parses a decimal number of units.
func quantity(number string, unit float64) (int64, error) {
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(v) || v < 0 || v*unit >= 1<<62 {
		return 0, fmt.Errorf("%q is no number", number)
	}
	return int64(math.Round(v * unit)), nil
}

// share is a flag: a number of nodes, or a part of all in percent.
type share struct {
	number  int
	percent float64
}

// Set implements flag.Value.
func (s *share) Set(text string) error {
	number, isPercent := strings.CutSuffix(text, "%")
	if isPercent {
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !(v >= 0 && v <= 100) {
			return fmt.Errorf("%q is no part of a whole", text)
		}
		*s = share{percent: v}
		return nil
	}
	v, err := strconv.Atoi(number)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is neither a number nor a part in percent", text)
	}
	*s = share{number: v}
	return nil
}

func (s share) String() string {
	if s.percent > 0 {
		return strconv.FormatFloat(s.percent, 'f', -1, 64) + "%"
	}
	return strconv.Itoa(s.number)
}

// of returns how many of n nodes are meant: the nearest number, and at least one
// where any part is asked for.
func (s share) of(n int) int {
	if s.percent > 0 {
		return max(1, int(math.Round(s.percent*float64(n)/100)))
	}
	return s.number
}
