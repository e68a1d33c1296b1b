package store

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the store's figures. Gauges are read when they are asked for.
type metrics struct {
	registerer prometheus.Registerer
	registered []prometheus.Collector

	evictions, corrupt, corruptChunks, proofs prometheus.Counter
}

// newMetrics registers the metrics, or fails if others have their names.
func newMetrics(s *Store, r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "peercache", Subsystem: "store", Name: name, Help: help,
		})
	}
	gauge := func(name, help string, value func(Usage) float64) prometheus.Collector {
		opts := prometheus.GaugeOpts{Namespace: "peercache", Subsystem: "store", Name: name, Help: help}
		return prometheus.NewGaugeFunc(opts, func() float64 { return value(s.Usage()) })
	}
	m := &metrics{
		registerer:    r,
		evictions:     counter("evictions_total", "Blobs and partial blobs evicted."),
		corrupt:       counter("corrupt_total", "Blobs that the disk no longer had right, removed."),
		corruptChunks: counter("corrupt_chunks_total", "Chunks of partial blobs that did not survive an unclean stop."),
		proofs:        counter("proofs_total", "Times that a stored blob was read and hashed as a whole."),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.evictions, m.corrupt, m.corruptChunks, m.proofs,
		gauge("bytes", "Bytes of blobs and of the chunks of partial ones.", func(u Usage) float64 { return float64(u.Bytes) }),
		gauge("max_bytes", "The byte budget.", func(u Usage) float64 { return float64(u.MaxBytes) }),
		gauge("free_bytes", "Bytes that the file system has left.", func(u Usage) float64 { return float64(u.FreeBytes) }),
		gauge("blobs", "Complete blobs.", func(u Usage) float64 { return float64(u.Blobs) }),
		gauge("partials", "Partial blobs.", func(u Usage) float64 { return float64(u.Partials) }),
	} {
		if err := r.Register(c); err != nil {
			m.unregister()
			return nil, errors.Join(errors.New("registering metrics"), err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

// unregister takes back what this store registered, so that another store can be
// opened in the same process.
func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
	m.registered = nil
}
