package report

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"gonum.org/v1/plot"
)

// axis is a direction of a plot: what its values are called, where it ends, and where
// its marks stand. It is a plot.Ticker. Values are seconds, bytes or fractions.
type axis struct {
	label    string
	min, max float64
	unit     float64 // what a 1 on the axis is in values
	bases    []float64
	log      bool
}

// tens and clock are steps that people count in.
var (
	tens  = []float64{1, 2, 5, 10}
	clock = []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600}
)

// timeAxis is one of times from 0 to max seconds.
func timeAxis(what string, most float64) axis {
	a := axis{label: what + " (s)", max: most, unit: 1, bases: tens}
	switch {
	case most > 3*time.Hour.Seconds():
		a.label, a.unit = what+" (h)", time.Hour.Seconds()
	case most > 5*time.Minute.Seconds():
		a.label, a.unit, a.bases = what+" (min)", time.Minute.Seconds(), clock
	case most <= 0:
		a.max = 1
	}
	return a
}

// logTimeAxis is one of times between two that are far apart.
func logTimeAxis(what string, least, most float64) axis {
	return axis{label: what + " (s)", min: least, max: most, unit: 1, log: true}
}

// byteAxis is one of bytes from 0 to max.
func byteAxis(what string, most float64) axis {
	a := axis{label: what + " (B)", max: most, unit: 1, bases: tens}
	for _, unit := range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		if most < 2048*a.unit {
			break
		}
		a.unit *= 1024
		a.label = what + " (" + unit + ")"
	}
	if most <= 0 {
		a.max = 1
	}
	return a
}

// shareAxis is one of fractions, marked in percent.
func shareAxis(what string, most float64) axis {
	return axis{label: what + " (%)", max: most, unit: 0.01, bases: tens}
}

// Ticks marks four to seven places.
func (a axis) Ticks(low, high float64) []plot.Tick {
	if a.log {
		return decades(low, high)
	}
	step := a.step((high - low) / a.unit / 5.5)
	var ticks []plot.Tick
	for i := int(math.Ceil(low/a.unit/step - 1e-9)); float64(i)*step*a.unit <= high*(1+1e-9); i++ {
		v := float64(i) * step
		ticks = append(ticks, plot.Tick{Value: v * a.unit, Label: strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)})
	}
	return ticks
}

// step is the least one that people count in which is not below least.
func (a axis) step(least float64) float64 {
	if len(a.bases) > len(tens) && least >= a.bases[0] {
		for _, b := range a.bases {
			if b >= least {
				return b
			}
		}
	}
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, b := range tens {
		if b*power >= least*(1-1e-9) {
			return b * power
		}
	}
	return 10 * power
}

// decades marks the powers of ten, and between them where there are few.
func decades(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	between := math.Log10(high/low) < 2.5
	for power := math.Floor(math.Log10(low)); power <= math.Ceil(math.Log10(high)); power++ {
		for digit := 1.0; digit < 10; digit++ {
			v := digit * math.Pow(10, power)
			if v < low*(1-1e-9) || v > high*(1+1e-9) {
				continue
			}
			t := plot.Tick{Value: v}
			if digit == 1 || between && (digit == 2 || digit == 5) {
				t.Label = fmt.Sprintf("%.6g", v)
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}
