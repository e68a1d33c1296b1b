package main

import (
	"math"
	"slices"
)

// distribution is how a number of values lie, as the reports of `peercache simulate` have
// it.
type distribution struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

const quantileRule = "nearest rank: the least value that as many are not above as the quantile says; p99 of 16 is the largest"

func distributionOf(values []float64) distribution {
	if len(values) == 0 {
		return distribution{}
	}
	s := slices.Sorted(slices.Values(values))
	sum := 0.0
	for _, v := range s {
		sum += v
	}
	at := func(percent int) float64 { return s[(len(s)*percent+99)/100-1] }
	return distribution{len(s), sum / float64(len(s)), at(50), at(90), at(99), s[len(s)-1]}
}

// ratio is a/b, 0 where there is nothing to compare with: JSON has no infinity.
func ratio(a, b float64) float64 {
	if r := a / b; !math.IsNaN(r) && !math.IsInf(r, 0) {
		return r
	}
	return 0
}
