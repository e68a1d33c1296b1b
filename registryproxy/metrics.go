package registryproxy

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the proxy's. Who delivered the bytes is counted where that is
// known, in the fetcher.
type metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	firstByte *prometheus.HistogramVec
	aborted   *prometheus.CounterVec
	inFlight  prometheus.Gauge
	stale     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "peercache_proxy_requests_total",
			Help: "Requests of clients, by kind and status code; 499: the client went away before its response began.",
		}, []string{"kind", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "peercache_proxy_request_seconds",
			Help:    "Time from a request's headers to the end of its response.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 10), // to 262 s
		}, []string{"kind"}),
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "peercache_proxy_first_byte_seconds",
			Help:    "Time from a request's headers to the first byte of its response.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 17), // to 33 s
		}, []string{"kind"}),
		aborted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "peercache_proxy_aborted_total",
			Help: "Connections broken off in mid-response, by whose fault: client (gone, or took nothing), proxy (no bytes to send on).",
		}, []string{"by"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "peercache_proxy_in_flight_requests",
			Help: "Requests being served.",
		}),
		stale: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "peercache_proxy_stale_answers_total",
			Help: "Tags and lists answered past their lifetime, because the origin could not be asked.",
		}),
	}
	for _, ep := range endpoints {
		m.seconds.WithLabelValues(string(ep))
		m.firstByte.WithLabelValues(string(ep))
	}
	for _, by := range []string{"client", "proxy"} {
		m.aborted.WithLabelValues(by)
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.firstByte, m.aborted, m.inFlight, m.stale} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) request(ep endpoint, out outcome, took time.Duration) {
	m.requests.WithLabelValues(string(ep), strconv.Itoa(out.status)).Inc()
	m.seconds.WithLabelValues(string(ep)).Observe(took.Seconds())
	if out.abort {
		by := "client"
		if out.byUs {
			by = "proxy"
		}
		m.aborted.WithLabelValues(by).Inc()
	}
}
