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
	for _, check := range []func() error{r.validTopology, r.validCosts, r.validImages, r.validPulls, r.validFaults} {
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
		case p.Parallel < 0 || p.Retries < 0:
			return fmt.Errorf("pull %d: %d at a time, %d retries", i, p.Parallel, p.Retries)
		}
	}
	return nil
}

func (r *Run) validFaults() error {
	for i := range r.Faults {
		f := &r.Faults[i]
		kind := kindOf(string(f.Kind))
		if kind == nil {
			return fmt.Errorf("fault %d is of no kind: %q", i, f.Kind)
		}
		ofNodes, _ := kind.takes("nodes")
		ofRole, _ := kind.takes("role")
		switch {
		case i > 0 && f.At < r.Faults[i-1].At:
			return fmt.Errorf("fault %d is before the one before it", i)
		case f.At < 0 || f.For < 0 || f.Restart < 0 || f.Notice < 0 || f.Rate < 0:
			return fmt.Errorf("fault %d, %s, has a negative time or rate", i, f.Kind)
		case f.Delay < 0 && f.Kind != ClockSkew || f.Part < 0 && f.Kind != ClockSkew || f.Part > whole || f.Part < -whole:
			return fmt.Errorf("fault %d, %s: delay %v, part %d", i, f.Kind, f.Delay, f.Part)
		case f.Role != "" && (!ofRole || f.Role != Coordinator && f.Role != Fetcher):
			return fmt.Errorf("fault %d, %s, is of role %q", i, f.Kind, f.Role)
		case len(f.Nodes) > 0 && (!ofNodes || f.Role != ""):
			return fmt.Errorf("fault %d, %s, is not one of nodes, or of a role", i, f.Kind)
		case ofRole && f.Role == "" && len(f.Nodes) == 0:
			return fmt.Errorf("fault %d, %s, befalls nobody", i, f.Kind)
		case (f.Kind == SlowNIC || f.Kind == SlowDisk) && f.Rate == 0:
			return fmt.Errorf("fault %d, %s, has no rate", i, f.Kind)
		case f.Kind == OriginError && (f.Status < 400 || f.Status > 599):
			return fmt.Errorf("fault %d: status %d is no error", i, f.Status)
		}
		for k, n := range f.Nodes {
			if n < 0 || n >= len(r.Nodes) || k > 0 && n <= f.Nodes[k-1] {
				return fmt.Errorf("fault %d, %s: its nodes must ascend and exist, and %d does not", i, f.Kind, n)
			}
		}
	}
	return nil
}
