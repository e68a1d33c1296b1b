package rig

import "slices"

// Distribution is how a number of values lie, with the keys that the reports of `peercache
// simulate` have. Its percentiles are values that there are, by [QuantileRule]: of a handful of
// nodes one between two of them would be nobody's.
type Distribution struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// QuantileRule says in words how the percentiles of a [Distribution] are found.
const QuantileRule = "nearest rank: the least value that as many are not above as the quantile says; p99 of 16 is the largest"

// DistributionOf returns that of some values, zeros of none.
func DistributionOf(values []float64) Distribution {
	if len(values) == 0 {
		return Distribution{}
	}
	s := slices.Sorted(slices.Values(values))
	sum := 0.0
	for _, v := range s {
		sum += v
	}
	at := func(percent int) float64 { return s[(len(s)*percent+99)/100-1] }
	return Distribution{len(s), sum / float64(len(s)), at(50), at(90), at(99), s[len(s)-1]}
}
