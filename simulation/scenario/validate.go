package scenario

import (
	"fmt"
	"slices"
)

// Validate says what is wrong with a Run, nil if nothing is: indices that do not
// exist, amounts that are negative or 0 where that makes no sense, lists that
// do not ascend. What [Scenario.Expand] makes is valid; who makes a Run otherwise, or
// changes one, may ask.
func (r *Run) Validate() error {
	for _, check := range []func() error{r.validTopology, r.validCosts, r.validImages, r.validPulls, r.ValidateFaults} {
		if err := check(); err != nil {
			return fmt.Errorf("scenario %s: %w", r.Name, err)
		}
	}
	return nil
}

func (r *Run) validTopology() error {
	if len(r.Nodes) == 0 || len(r.Racks) == 0 || len(r.Zones) == 0 {
		return fmt.Errorf("%d nodes, %d racks and %d zones: there must be one of each", len(r.Nodes), len(r.Racks), len(r.Zones))
	}
	start := false
	for i, n := range r.Nodes {
		switch {
		case n.Rack < 0 || n.Rack >= len(r.Racks):
			return fmt.Errorf("node %d is in rack %d of %d", i, n.Rack, len(r.Racks))
		case n.Zone != r.Racks[n.Rack].Zone:
			return fmt.Errorf("node %d is in zone %d, and its rack in zone %d", i, n.Zone, r.Racks[n.Rack].Zone)
		case n.Up < 0 || n.Down < 0 || n.Disk < 0 || n.Space < 0 || n.Joins < 0:
			return fmt.Errorf("node %d has a negative rate, space or time", i)
		case n.Joins >= r.Limits.Time:
			return fmt.Errorf("node %d joins at %v, when the run is over", i, n.Joins)
		}
		start = start || n.Joins == 0
	}
	if !start {
		return fmt.Errorf("no node is there from the start")
	}
	for i, k := range r.Racks {
		if k.Zone < 0 || k.Zone >= len(r.Zones) || k.Up < 0 || k.Down < 0 {
			return fmt.Errorf("rack %d: zone %d of %d, rates %d and %d", i, k.Zone, len(r.Zones), k.Up, k.Down)
		}
	}
	for i, z := range r.Zones {
		if z.Up < 0 || z.Down < 0 {
			return fmt.Errorf("zone %d has a negative rate", i)
		}
	}
	return nil
}

func (r *Run) validCosts() error {
	l, c, d, o := &r.Latency, &r.Costs, &r.DHT, &r.Origin
	switch {
	case min(l.Rack, l.Zone, l.Far, l.Origin, l.Queue) < 0:
		return fmt.Errorf("a negative latency")
	case min(c.Message, c.Open, c.Store, c.Hash, c.Publish, c.Request) < 0 || c.Overhead < 0 || c.Buffer < 0 || c.Overhead > whole:
		return fmt.Errorf("a negative cost, or an overhead above 100%%")
	case len(d.Delays) == 0 || d.Delays[0] < 0 || !slices.IsSorted(d.Delays):
		return fmt.Errorf("the delays of look-ups must ascend from 0 or more, and be at least one")
	case d.Misses < 0 || d.Misses >= whole || d.Publish < 0:
		return fmt.Errorf("look-ups: a part of %d in a million is missed, published after %v", d.Misses, d.Publish)
	case o.Link < 0 || o.Connection < 0 || o.Connections < 0 || o.Delay < 0 || o.Readers < 0:
		return fmt.Errorf("the origin has a negative rate, number or delay")
	case r.Limits.Time <= 0 || r.Limits.Deadline < 0 || r.Limits.Egress < 0 || r.Limits.NodeMemory < 0 || r.Limits.HonestBans < 0:
		return fmt.Errorf("a limit is negative, or the time is 0")
	case r.Verify != "member" && r.Verify != "strict":
		return fmt.Errorf("verify is %q, not member or strict", r.Verify)
	}
	for i, q := range o.Limits {
		if q.Requests < 1 || q.Window <= 0 {
			return fmt.Errorf("rate limit %d: %d requests in %v", i, q.Requests, q.Window)
		}
	}
	return nil
}

func (r *Run) validImages() error {
	names := map[string]bool{}
	for i, b := range r.Blobs {
		if b.Size < 1 || b.Size > maxLayer || names[b.Name] {
			return fmt.Errorf("blob %d, %s: its size is %d, or its name is another's too", i, b.Name, b.Size)
		}
		names[b.Name] = true
	}
	if len(r.Images) == 0 {
		return fmt.Errorf("no image")
	}
	for i, img := range r.Images {
		if img.Manifest < 0 || img.Manifest >= len(r.Blobs) || !r.Blobs[img.Manifest].Manifest {
			return fmt.Errorf("image %d: blob %d is no manifest", i, img.Manifest)
		}
		if len(img.Layers) == 0 {
			return fmt.Errorf("image %d is empty", i)
		}
		for _, k := range img.Layers {
			if k < 0 || k >= len(r.Blobs) || r.Blobs[k].Manifest {
				return fmt.Errorf("image %d: blob %d is no layer", i, k)
			}
		}
	}
	return nil
}

func (r *Run) validPulls() error {
	for i, p := range r.Pulls {
		switch {
		case p.Node < 0 || p.Node >= len(r.Nodes) || p.Image < 0 || p.Image >= len(r.Images):
			return fmt.Errorf("pull %d: node %d of %d, image %d of %d", i, p.Node, len(r.Nodes), p.Image, len(r.Images))
		case p.At < 0 || p.At < r.Nodes[p.Node].Joins || p.At >= r.Limits.Time:
			return fmt.Errorf("pull %d is at %v, before node %d joins at %v, or when the run is over", i, p.At, p.Node, r.Nodes[p.Node].Joins)
		case i > 0 && p.At < r.Pulls[i-1].At:
			return fmt.Errorf("pull %d is before the one before it", i)
		case p.Wave < 0 || p.After < 0 || p.After > 0 && p.After >= p.Wave || p.Wave > len(r.Pulls):
			return fmt.Errorf("pull %d of wave %d waits for wave %d: waves wait for earlier ones, and there are no more of them than pulls", i, p.Wave, p.After)
		case p.Parallel < 0 || p.Retries < 0:
			return fmt.Errorf("pull %d: %d at a time, %d retries", i, p.Parallel, p.Retries)
		}
	}
	return nil
}

// ValidateFaults says what is wrong with the Faults of a Run, with the index and the key; nil if
// nothing is. Beyond what the format can say, nodes may be named for [StaleDHT].
func (r *Run) ValidateFaults() error {
	for i := range r.Faults {
		if key, err := r.validFault(i); err != nil {
			return fmt.Errorf("faults[%d].%s: %w", i, key, err)
		}
	}
	return nil
}

// validFault says what is wrong with a fault, and with which key of it.
func (r *Run) validFault(i int) (key string, err error) {
	f := &r.Faults[i]
	fail := func(key, format string, args ...any) (string, error) { return key, fmt.Errorf(format, args...) }
	kind := kindOf(string(f.Kind))
	if kind == nil {
		return fail("kind", "%q is no fault", f.Kind)
	}
	ofNodes, _ := kind.takes("nodes")
	ofRole, _ := kind.takes("role")
	skew := f.Kind == ClockSkew
	switch {
	case i > 0 && f.At < r.Faults[i-1].At:
		return fail("at", "faults are not ascending by time")
	case f.At < 0 || f.For < 0 || f.Restart < 0 || f.Notice < 0:
		return fail("at", "times must not be negative")
	case f.Delay < 0 && !skew:
		return fail("delay", "%v must not be negative", f.Delay)
	case f.Part < 0 && !skew || f.Part > whole || f.Part < -whole/2:
		return fail("part", "%d in a million makes no sense for %s", f.Part, f.Kind)
	case f.Rate < 0 || (f.Kind == SlowNIC || f.Kind == SlowDisk) && f.Rate == 0:
		return fail("rate", "%d is none for %s", f.Rate, f.Kind)
	case f.Kind == OriginError && (f.Status < 400 || f.Status > 599):
		return fail("status", "%d is not an error, from 400 to 599", f.Status)
	case f.Role != "" && f.Role != Coordinator && f.Role != Fetcher:
		return fail("role", "%q is neither coordinator nor fetcher", f.Role)
	case f.Role != "" && (!ofRole || len(f.Nodes) > 0):
		return fail("role", "%s is of nodes, or of none", f.Kind)
	case len(f.Nodes) > 0 && !ofNodes && f.Kind != StaleDHT:
		return fail("nodes", "%s is not one of nodes", f.Kind)
	case ofRole && f.Role == "" && len(f.Nodes) == 0:
		return fail("nodes", "nobody is named")
	}
	for k, n := range f.Nodes {
		switch {
		case n < 0 || n >= len(r.Nodes):
			return fail("nodes", "there is no node %d: the run has %d", n, len(r.Nodes))
		case k > 0 && n <= f.Nodes[k-1]:
			return fail("nodes", "not ascending: node %d comes after node %d", n, f.Nodes[k-1])
		}
	}
	return "", nil
}
