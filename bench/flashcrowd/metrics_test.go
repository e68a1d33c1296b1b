package main

import (
	"maps"
	"testing"
)

func TestParseMetrics(t *testing.T) {
	s := parseMetrics([]byte(`# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code="200",kind="blob"} 12
requests_total{code="200",kind="manifest"} 3
requests_total{code="401",kind="manifest"} 2 1700000000000
requests_totals{kind="manifest"} 100
odd{text="a } and a space"} 4
bytes_total 1.5e+06
seconds{quantile="0.5"} NaN

rubbish
`))
	for _, c := range []struct {
		metric string
		labels []string
		want   float64
	}{
		{"requests_total", nil, 17},
		{"requests_total", []string{`kind="manifest"`}, 5},
		{"requests_total", []string{`code="200"`}, 15},
		{"requests_total", []string{`kind="manifest"`, `code="200"`}, 3},
		{"requests_total", []string{`ind="manifest"`}, 0},
		{"odd", nil, 4},
		{"bytes_total", nil, 1.5e6},
		{"absent", nil, 0},
	} {
		if got := s.sum(c.metric, c.labels...); got != c.want {
			t.Errorf("%s %v: %v, want %v", c.metric, c.labels, got, c.want)
		}
	}
	if got := s.byLabel("requests_totals"); !maps.Equal(got, map[string]float64{"manifest": 100}) {
		t.Errorf("by label: %v", got)
	}
	later := parseMetrics([]byte("bytes_total 1.6e+06\nnew_total 1\n")).since(s)
	if later["bytes_total"] != 1e5 || later["new_total"] != 1 {
		t.Errorf("since: %v", later)
	}
}
