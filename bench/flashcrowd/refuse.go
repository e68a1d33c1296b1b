package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

const (
	maxNodes = 1000
	// mostLatency is what packets between namespaces take at most without being
	// delayed on purpose, which the kernels that this is meant for often cannot do.
	mostLatency = time.Millisecond
)

// unable says for each kind of fault why real processes cannot have it; those
// that are not in it they can.
var unable = map[scenario.FaultKind]string{
	scenario.Loss:      "the links here lose no packets on purpose",
	scenario.SlowDisk:  "the nodes share a disk",
	scenario.SlowNode:  "the nodes share the CPUs",
	scenario.FullDisk:  "the nodes share a disk",
	scenario.Forge:     "a real node signs what is right",
	scenario.Lie:       "a real node does not lie",
	scenario.Mute:      "a real node answers, or it is stopped: stall",
	scenario.ClockSkew: "the nodes share a clock",
	scenario.StaleDHT:  "the DHT is what it is",
}

// refuse says what of a run real processes cannot do, all of it at once and
// before anything is made.
func refuse(e *experiment) error {
	run := e.run
	where := e.file
	if where == "" {
		where = "flags"
	}
	var errs []error
	no := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{where}, args...)...))
	}
	if len(run.Nodes) > maxNodes {
		no("%d nodes: here, at most %d", len(run.Nodes), maxNodes)
	}
	for what, latency := range map[string]time.Duration{"rack": run.Latency.Rack, "zone": run.Latency.Zone, "far": run.Latency.Far} {
		if latency > mostLatency {
			no("latency.%s of %s: between namespaces it is below %s and cannot be made longer", what, latency, mostLatency)
		}
	}
	for i, n := range run.Nodes {
		if n.Disk > 0 {
			no("node %d has a disk of %s/s: the nodes share a disk", i, size(n.Disk))
			break // those of its kind have the same
		}
	}
	for i, r := range run.Racks {
		if r.Up > 0 || r.Down > 0 {
			no("rack %d has an uplink with a rate: all nodes are at one switch", i)
			break
		}
	}
	for _, z := range run.Zones {
		if z.Up > 0 || z.Down > 0 {
			no("zone %q has an uplink with a rate: all nodes are at one switch", z.Name)
		}
	}
	if run.DHT.Misses > 0 {
		no("dht.misses: a real view misses what it misses")
	}
	for _, d := range e.deeds {
		if why, found := unable[d.Kind]; found {
			errs = append(errs, fmt.Errorf("%s: fault %s: real processes cannot have it: %s", at(where, d.Line), d.Kind, why))
		} else if !known(d.Kind) {
			errs = append(errs, fmt.Errorf("%s: fault %s: unknown here", at(where, d.Line), d.Kind))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("real processes cannot do this; `peercache simulate` can:\n%w", errors.Join(errs...))
	}
	return nil
}

func at(file string, line int) string {
	if line == 0 {
		return file
	}
	return fmt.Sprintf("%s:%d", file, line)
}

// known lists the faults that are carried out.
func known(k scenario.FaultKind) bool {
	switch k {
	case scenario.Crash, scenario.Drain, scenario.Stall, scenario.Corrupt, scenario.Rot, scenario.Partition, scenario.Offline, scenario.SlowNIC:
		return true
	}
	return ofOrigin(k)
}

func ofOrigin(k scenario.FaultKind) bool {
	switch k {
	case scenario.OriginThrottle, scenario.OriginError, scenario.OriginReset, scenario.OriginStall, scenario.OriginOutage, scenario.ExpiredToken:
		return true
	}
	return false
}
