package main

import (
	"fmt"
	"math"
	"time"
)

// params are what cannot be looked up.
type params struct {
	Overhead float64       // of what the wire takes beyond the payload, in percent
	Queue    time.Duration // what a full link adds
	Buffer   string        // what waits in a connection's buffers
	Request  time.Duration
	Message  time.Duration
	DHT      time.Duration // what a look-up takes
}

// start is where the fit begins.
var start = params{Overhead: 6, Queue: 20 * time.Millisecond, Buffer: "512KiB", Request: 0, Message: 20 * time.Microsecond, DHT: 100 * time.Millisecond}

func (p params) String() string {
	return fmt.Sprintf("costs.overhead %g%%, latency.queue %s, costs.buffer %s, costs.request %s, costs.message %s, dht.delays %s",
		p.Overhead, p.Queue, p.Buffer, p.Request, p.Message, p.DHT)
}

// grid holds for each parameter the values that make physical sense: headers of
// Ethernet, IP and TCP alone are 4.6 % of the payload, and the acknowledgements of the other
// direction and TLS come on top; no more than 50 ms fits into the queues of the links; a
// request costs no more than what a slow start does. A look-up takes 0.1 s where the nodes that
// all begin at once share two CPUs.
var grid = []func(p params) []params{
	vary([]float64{5, 5.5, 6, 6.5, 7, 7.5, 8}, func(p *params, v float64) { p.Overhead = v }),
	vary(millis(0, 5, 10, 15, 20, 30, 40, 50), func(p *params, v time.Duration) { p.Queue = v }),
	vary([]string{"none", "128KiB", "256KiB", "512KiB", "1MiB"}, func(p *params, v string) { p.Buffer = v }),
	vary(millis(0, 5, 10, 20, 30, 40, 60), func(p *params, v time.Duration) { p.Request = v }),
	vary(millis(2, 10, 25, 50, 100, 150), func(p *params, v time.Duration) { p.DHT = v }),
	vary([]time.Duration{20 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 200 * time.Microsecond},
		func(p *params, v time.Duration) { p.Message = v }),
}

func millis(list ...int) (out []time.Duration) {
	for _, v := range list {
		out = append(out, time.Duration(v)*time.Millisecond)
	}
	return out
}

// vary returns all variants of params in which one of them differs.
func vary[T any](values []T, set func(*params, T)) func(params) []params {
	return func(p params) (list []params) {
		for _, v := range values {
			q := p
			set(&q, v)
			list = append(list, q)
		}
		return list
	}
}

// descend looks for the params with the least cost, one of them at a time, until no change
// of a single one is better. The cost of one and the same params is the same; where two are
// equally good the first stays.
func descend(from params, cost func(params) (float64, error)) (best params, least float64, err error) {
	best = from
	if least, err = cost(from); err != nil {
		return best, least, err
	}
	for improved := true; improved; {
		improved = false
		for _, variants := range grid {
			for _, p := range variants(best) {
				if p == best {
					continue
				}
				c, err := cost(p)
				if err != nil {
					return best, least, err
				}
				if c < least {
					best, least, improved = p, c, true
				}
			}
		}
	}
	return best, least, nil
}

// off is how far a prediction is off, as a part of what was measured.
func off(predicted, measured float64) float64 {
	if measured == 0 {
		return math.Inf(1)
	}
	return predicted/measured - 1
}

// squares is what the fit makes small: the squares of how far makespan, the median
// completion and the median first byte are off, all as parts of the makespan.
func squares(predicted, measured figures) float64 {
	whole := max(measured.Makespan, 1e-9)
	a := (predicted.Makespan - measured.Makespan) / whole
	b := (predicted.P50 - measured.P50) / whole
	c := (predicted.FirstByte - measured.FirstByte) / whole
	return a*a + b*b + c*c
}
