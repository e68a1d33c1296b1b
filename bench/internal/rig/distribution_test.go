package rig

import "testing"

func TestDistribution(t *testing.T) {
	if got := DistributionOf(nil); got != (Distribution{}) {
		t.Errorf("of nothing: %v", got)
	}
	if got, want := DistributionOf([]float64{3}), (Distribution{1, 3, 3, 3, 3, 3}); got != want {
		t.Errorf("of one: %+v, want %+v", got, want)
	}
	var values []float64
	for i := range 16 {
		values = append(values, float64(16-i)) // 16 to 1
	}
	if got, want := DistributionOf(values), (Distribution{16, 8.5, 8, 15, 16, 16}); got != want {
		t.Errorf("of 1 to 16: %+v, want %+v", got, want)
	}
}
