package origin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests  *prometheus.CounterVec
	received  prometheus.Counter
	discarded prometheus.Counter
	retries   prometheus.Counter
	resumes   prometheus.Counter
	refused   prometheus.Counter
	failfast  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Client) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "peercache", Subsystem: "origin", Name: name, Help: help})
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "peercache", Subsystem: "origin", Name: "requests_total",
			Help: "HTTP exchanges with origins, token servers and hosts that they redirect to, " +
				"by what was asked for and status (or error, timeout, denied, canceled where there was none).",
		}, []string{"kind", "code"}),
		received:  counter("received_bytes_total", "Body bytes of blobs, manifests and lists received from origins, repeated and unused ones included."),
		discarded: counter("discarded_bytes_total", "Body bytes received a second time because an origin ignored Range when an interrupted blob was resumed."),
		retries:   counter("retries_total", "Requests that were repeated after a failure."),
		resumes:   counter("resumes_total", "Interrupted blob bodies that were continued by another request."),
		refused:   counter("refused_total", "Times that policy forbade to contact an origin or a host to which it led."),
		failfast:  counter("unasked_total", "Requests that failed without being sent: circuit breaker open, cooldown, or no free slot."),
	}
	if reg == nil {
		return m, nil
	}
	for _, x := range []prometheus.Collector{m.requests, m.received, m.discarded, m.retries, m.resumes, m.refused, m.failfast, stateCollector{c}} {
		if err := reg.Register(x); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// stateCollector shows breakers: one by one for configured origins, whose
// number the operator decides, and as a number for the others.
type stateCollector struct{ c *Client }

var (
	stateDesc = prometheus.NewDesc("peercache_origin_state",
		"How a configured origin answers: 0 ok, 1 suspect, 2 circuit breaker open (of its endpoints the best).", []string{"origin"}, nil)
	openDesc = prometheus.NewDesc("peercache_origin_open_breakers",
		"Hosts whose circuit breaker is open.", nil, nil)
)

func (s stateCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- stateDesc
	ch <- openDesc
}

func (s stateCollector) Collect(ch chan<- prometheus.Metric) {
	rank := map[State]float64{OK: 0, Suspect: 1, Open: 2}
	now := time.Now()
	open := 0.0
	for _, hl := range s.c.Health() {
		if hl.State == Open {
			open++
		}
	}
	for name, t := range s.c.configured {
		best := rank[Open]
		for _, e := range t.endpoints {
			hl, _ := s.c.host(t, e.base).health(now)
			best = min(best, rank[hl.State])
		}
		ch <- prometheus.MustNewConstMetric(stateDesc, prometheus.GaugeValue, best, name)
	}
	ch <- prometheus.MustNewConstMetric(openDesc, prometheus.GaugeValue, open)
}
