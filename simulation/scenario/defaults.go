package scenario

import "time"

// The defaults of what is measured on real nodes: latencies as within a data centre,
// look-ups and costs as of the product's own nodes on hardware of today.
const (
	defaultLatencyRack   = "100us"
	defaultLatencyZone   = "250us"
	defaultLatencyFar    = "1ms"
	defaultLatencyOrigin = "5ms"
	defaultLatencyQueue  = "0s"

	defaultDHTDelays  = "2ms"
	defaultDHTPublish = "0s"

	defaultCostMessage  = "20us"
	defaultCostOpen     = "500us"
	defaultCostStore    = "1ms"
	defaultCostHash     = "1ms"
	defaultCostPublish  = "2ms"
	defaultCostOverhead = "5%"
	defaultCostRequest  = "0s"
	defaultCostBuffer   = "none"
)

// Defaults are the latencies, look-ups and costs of a scenario that does not give them.
func Defaults() (Latency, DHT, Costs) {
	s := &Scenario{}
	r := &reader{at: map[string]place{}}
	r.defaults(s)
	return s.Latency.run(), s.DHT.run(), s.Costs.run()
}

func (l *latency) run() Latency {
	return Latency{Rack: time.Duration(l.Rack), Zone: time.Duration(l.Zone), Far: time.Duration(l.Far),
		Origin: time.Duration(l.Origin), Queue: time.Duration(l.Queue)}
}

func (d *dht) run() DHT {
	run := DHT{Misses: int(d.Misses), Publish: time.Duration(d.Publish)}
	for _, delay := range d.Delays {
		run.Delays = append(run.Delays, time.Duration(delay))
	}
	return run
}

func (c *costs) run() Costs {
	return Costs{Message: time.Duration(c.Message), Open: time.Duration(c.Open), Store: time.Duration(c.Store), Hash: time.Duration(c.Hash),
		Publish: time.Duration(c.Publish), Overhead: int(c.Overhead), Request: time.Duration(c.Request), Buffer: int64(c.Buffer)}
}
