package fetcher

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peercache/peercache/fetcher/policy"
)

var fromNames = [...]string{fromStore: "store", fromPeer: "peer", fromOrigin: "origin"}

// metrics counts in plain atomics, which Status reads too, and shows them to
// Prometheus when it asks.
type metrics struct {
	receivedBytes, wastedBytes, servedBytes [fromOrigin + 1]atomic.Int64
	events                                  [policy.MetricCount]atomic.Int64
	stale                                   atomic.Int64
	fetcher                                 *Fetcher
}

func newMetrics() *metrics { return &metrics{} }

func (m *metrics) received(f from, n int64) { m.receivedBytes[f].Add(n) }
func (m *metrics) wasted(f from, n int64)   { m.wastedBytes[f].Add(n) }
func (m *metrics) served(f from, n int64)   { m.servedBytes[f].Add(n) }
func (m *metrics) policy(e policy.Metric, n int64) {
	if e < policy.MetricCount {
		m.events[e].Add(n)
	}
}

var (
	receivedDesc = prometheus.NewDesc("peercache_fetcher_received_bytes_total",
		"Content bytes received from the network, those of no use included.", []string{"source"}, nil)
	wastedDesc = prometheus.NewDesc("peercache_fetcher_wasted_bytes_total",
		"Content bytes received from the network that were of no use.", []string{"source"}, nil)
	servedDesc = prometheus.NewDesc("peercache_proxy_served_bytes_total",
		"Body bytes handed to clients, by where the request found them first.", []string{"source"}, nil)
	policyDesc = prometheus.NewDesc("peercache_fetcher_policy_total",
		"Decisions of the policy core, by kind; wasted_bytes counts bytes.", []string{"event"}, nil)
	staleDesc = prometheus.NewDesc("peercache_fetcher_stale_answers_total",
		"Answers about tags, lists and referrers given while the origin could not be asked.", nil, nil)
	blobsDesc = prometheus.NewDesc("peercache_fetcher_active_blobs",
		"Blobs that are being read or fetched.", nil, nil)
	readersDesc = prometheus.NewDesc("peercache_fetcher_readers",
		"Client requests that are being served.", nil, nil)
	memoryDesc = prometheus.NewDesc("peercache_fetcher_held_chunks",
		"Chunks in memory that wait to be stored.", nil, nil)
)

func (m *metrics) register(r prometheus.Registerer, f *Fetcher) {
	m.fetcher = f
	if r == nil {
		return
	}
	if err := r.Register(m); err != nil {
		f.log.Error("registering metrics", "err", err)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{receivedDesc, wastedDesc, servedDesc, policyDesc, staleDesc, blobsDesc, readersDesc, memoryDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v *atomic.Int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	for f := fromStore; f <= fromOrigin; f++ {
		if f != fromStore {
			counter(receivedDesc, &m.receivedBytes[f], fromNames[f])
			counter(wastedDesc, &m.wastedBytes[f], fromNames[f])
		}
		counter(servedDesc, &m.servedBytes[f], fromNames[f])
	}
	for e := policy.Metric(1); e < policy.MetricCount; e++ {
		counter(policyDesc, &m.events[e], e.String())
	}
	counter(staleDesc, &m.stale)
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	f := m.fetcher
	f.mu.RLock()
	blobs := len(f.blobs)
	f.mu.RUnlock()
	gauge(blobsDesc, blobs)
	gauge(readersDesc, int(f.readerCount.Load()))
	f.mem.mu.Lock()
	chunks := len(f.mem.held)
	f.mem.mu.Unlock()
	gauge(memoryDesc, chunks)
}
