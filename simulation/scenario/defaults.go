package scenario

import "time"

// The defaults of what is measured on real nodes: latencies as within a data centre,
// costs as of the product's own nodes on hardware of today.
const (
	defaultLatencyRack   = "100us"
	defaultLatencyZone   = "250us"
	defaultLatencyFar    = "1ms"
	defaultLatencyOrigin = "5ms"
	defaultLatencyQueue  = "0s"

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

// lookupLatencies are how many times the latency between two nodes a look-up takes, in tenths: quantiles
// at 0, 5, 10 and so on to 100 %, of 400 look-ups of 50 real nodes at once.
var lookupLatencies = []int64{86, 103, 104, 105, 105, 106, 106, 107, 107, 108, 108, 109, 109, 109, 110, 110, 110, 111, 111, 113, 129}

// Defaults are the latencies, look-ups and costs of a scenario that does not give them.
func Defaults() (Latency, DHT, Costs) {
	s := &Scenario{}
	r := &reader{at: map[string]place{}}
	r.defaults(s)
	return s.Latency.run(), s.DHT.run(s.Latency.Rack), s.Costs.run()
}

func (l *latency) run() Latency {
	return Latency{Rack: time.Duration(l.Rack), Zone: time.Duration(l.Zone), Far: time.Duration(l.Far),
		Origin: time.Duration(l.Origin), Queue: time.Duration(l.Queue)}
}

// run is the same for nodes that are as far from each other as that.
func (d *dht) run(far duration) DHT {
	run := DHT{Misses: int(d.Misses), Publish: time.Duration(d.Publish)}
	for _, delay := range d.Delays {
		run.Delays = append(run.Delays, time.Duration(delay))
	}
	if len(d.Delays) == 0 {
		for _, tenths := range lookupLatencies {
			run.Delays = append(run.Delays, time.Duration(int64(far)*tenths/10))
		}
	}
	return run
}

func (c *costs) run() Costs {
	return Costs{Message: time.Duration(c.Message), Open: time.Duration(c.Open), Store: time.Duration(c.Store), Hash: time.Duration(c.Hash),
		Publish: time.Duration(c.Publish), Overhead: int(c.Overhead), Request: time.Duration(c.Request), Buffer: int64(c.Buffer)}
}
