package p2p

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	dials      *prometheus.CounterVec // result
	bootstraps *prometheus.CounterVec // kind, of failures to read a source
	frames     *prometheus.CounterVec // direction
	frameBytes *prometheus.CounterVec // direction
	sessions   *prometheus.CounterVec // end
	violations *prometheus.CounterVec // protocol
	ranges     *prometheus.CounterVec // direction, status
	rangeBytes *prometheus.CounterVec // direction
	calls      *prometheus.CounterVec // direction, status
	lookups    *prometheus.HistogramVec
	provides   *prometheus.CounterVec // operation
	rangeSent  prometheus.Counter
	rangeRecv  prometheus.Counter
	framesSent prometheus.Counter
	framesRecv prometheus.Counter
	frameBSent prometheus.Counter
	frameBRecv prometheus.Counter
	collectors []prometheus.Collector
}

func newMetrics(peers, connections, table func() float64) *metrics {
	m := &metrics{}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "peercache_p2p_" + name, Help: help}, labels)
		m.collectors = append(m.collectors, c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		m.collectors = append(m.collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "peercache_p2p_" + name, Help: help}, f))
	}
	gauge("peers", "Peers that are connected and speak the control protocol.", peers)
	gauge("connections", "Peers with at least one connection.", connections)
	gauge("routing_table_peers", "Peers in the DHT's routing table.", table)
	m.dials = vec("dials_total", "Attempts of the bootstrap loop to connect to a peer.", "result")
	m.bootstraps = vec("bootstrap_errors_total", "Bootstrap sources that could not be read.", "kind")
	m.frames = vec("frames_total", "Control frames.", "direction")
	m.frameBytes = vec("frame_bytes_total", "Bytes of control frames.", "direction")
	m.sessions = vec("sessions_ended_total", "Control sessions that ended, by reason.", "reason")
	m.violations = vec("violations_total", "Streams reset because the peer broke the protocol.", "protocol")
	m.ranges = vec("range_requests_total", "Range requests, in: served, out: asked.", "direction", "status")
	m.rangeBytes = vec("range_bytes_total", "Body bytes of ranges.", "direction")
	m.calls = vec("calls_total", "Calls, in: answered, out: asked.", "direction", "status")
	m.provides = vec("provides_total", "Digests handed to the reprovider or taken from it.", "operation")
	m.lookups = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "peercache_p2p_lookup_seconds", Help: "Duration of DHT lookups.",
		Buckets: []float64{.001, .003, .01, .03, .1, .3, 1, 3},
	}, []string{"kind"})
	m.collectors = append(m.collectors, m.lookups)

	m.rangeSent, m.rangeRecv = m.rangeBytes.WithLabelValues("out"), m.rangeBytes.WithLabelValues("in")
	m.framesSent, m.framesRecv = m.frames.WithLabelValues("out"), m.frames.WithLabelValues("in")
	m.frameBSent, m.frameBRecv = m.frameBytes.WithLabelValues("out"), m.frameBytes.WithLabelValues("in")
	return m
}

func (m *metrics) register(r prometheus.Registerer) error {
	for i, c := range m.collectors {
		if err := r.Register(c); err != nil {
			for _, done := range m.collectors[:i] {
				r.Unregister(done)
			}
			return err
		}
	}
	return nil
}

func (m *metrics) unregister(r prometheus.Registerer) {
	for _, c := range m.collectors {
		r.Unregister(c)
	}
}
