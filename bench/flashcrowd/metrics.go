package main

import (
	"bytes"
	"context"
	"strconv"
	"strings"

	"github.com/peercache/peercache/bench/internal/rig"
)

// samples are a node's metrics by name and labels, as they are printed.
type samples map[string]float64

// scrape reads a node's metrics.
func scrape(ctx context.Context, n *rig.Node) (samples, error) {
	body, err := n.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	return parseMetrics(body), nil
}

// parseMetrics reads Prometheus's text format. Comments, time stamps and what is
// no number are passed over.
func parseMetrics(text []byte) samples {
	s := samples{}
	for line := range bytes.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(string(line)), " ")
		if end := strings.LastIndexByte(string(line), '}'); end >= 0 {
			name, value, ok = string(line[:end+1]), strings.TrimSpace(string(line[end+1:])), true
		}
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		value, _, _ = strings.Cut(value, " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			s[name] = v
		}
	}
	return s
}

// since returns how much each sample has grown.
func (s samples) since(before samples) samples {
	d := samples{}
	for name, v := range s {
		d[name] = v - before[name]
	}
	return d
}

// sum adds the samples of a metric that have all these labels, each NAME="value".
func (s samples) sum(metric string, labels ...string) (total float64) {
next:
	for name, v := range s {
		base, rest, _ := strings.Cut(name, "{")
		if base != metric {
			continue
		}
		for _, l := range labels {
			if !strings.Contains("{"+rest, "{"+l) && !strings.Contains(rest, ","+l) {
				continue next
			}
		}
		total += v
	}
	return total
}

// byLabel splits a metric by its one label.
func (s samples) byLabel(metric string) map[string]float64 {
	m := map[string]float64{}
	for name, v := range s {
		if rest, ok := strings.CutPrefix(name, metric+"{"); ok {
			_, value, _ := strings.Cut(rest, `="`)
			value, _, _ = strings.Cut(value, `"`)
			m[value] += v
		}
	}
	return m
}
