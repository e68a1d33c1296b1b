package simulation

import "github.com/peercache/peercache/simulation/scenario"

// classes is how often a byte goes over links of each class.
type classes [LinkClasses]uint8

// path is the links that a flow goes over, in order. Those that have no bound are
// not among the links, but count in the classes.
type path struct {
	links   [maxHops]int32
	n       uint8
	classes classes
}

func (p *path) add(l int32) {
	if l >= 0 {
		p.links[p.n] = l
		p.n++
	}
}

// pathOf is a path over some links that belong to no class.
func pathOf(links ...int32) path {
	var p path
	for _, l := range links {
		p.add(l)
	}
	return p
}

// topology is the links of a cluster: two of each node, rack and zone, and the
// origin's.
type topology struct {
	nodes        []scenario.Node
	racks, zones []uplink
	up, down     []int32 // by node
	origin       int32
	originRate   int64
}

// uplink is the links of a rack, or of a zone, to the rest: -1 where one has no bound.
type uplink struct {
	up, down         int32
	upRate, downRate int64
	paid             bool
}

func newTopology(w *network, run *scenario.Run) *topology {
	bounded := func(rate int64) int32 {
		if rate == 0 {
			return -1
		}
		return w.addLink(rate)
	}
	access := func(rate int64) int32 {
		if rate == 0 {
			rate = unbounded
		}
		return w.addLink(rate)
	}
	t := &topology{nodes: run.Nodes, origin: access(run.Origin.Link), originRate: run.Origin.Link}
	for _, r := range run.Racks {
		t.racks = append(t.racks, uplink{up: bounded(r.Up), down: bounded(r.Down), upRate: r.Up, downRate: r.Down})
	}
	for _, z := range run.Zones {
		t.zones = append(t.zones, uplink{up: bounded(z.Up), down: bounded(z.Down), upRate: z.Up, downRate: z.Down, paid: z.Paid})
	}
	for _, n := range run.Nodes {
		t.up = append(t.up, access(n.Up))
		t.down = append(t.down, access(n.Down))
	}
	return t
}

// between is the path from a node to another.
func (t *topology) between(from, to int32) path {
	var p path
	a, b := &t.nodes[from], &t.nodes[to]
	p.add(t.up[from])
	if a.Rack != b.Rack {
		p.add(t.racks[a.Rack].up)
		p.classes[RackUplink] += 2
	}
	if a.Zone != b.Zone {
		p.add(t.zones[a.Zone].up)
		t.zones[a.Zone].count(&p)
		p.add(t.zones[b.Zone].down)
		t.zones[b.Zone].count(&p)
	}
	if a.Rack != b.Rack {
		p.add(t.racks[b.Rack].down)
	}
	p.add(t.down[to])
	p.classes[Access]++
	return p
}

// fromOrigin is the path from the origin to a node.
func (t *topology) fromOrigin(to int32) path {
	var p path
	b := &t.nodes[to]
	p.add(t.origin)
	p.add(t.zones[b.Zone].down)
	t.zones[b.Zone].count(&p)
	p.add(t.racks[b.Rack].down)
	p.add(t.down[to])
	p.classes[OriginLink]++
	p.classes[RackUplink]++
	p.classes[Access]++
	return p
}

func (z *uplink) count(p *path) {
	p.classes[ZoneUplink]++
	if z.paid {
		p.classes[PaidUplink]++
	}
}

// capacity is what the links of each class carry a second, all together: 0 where one
// of them has no bound.
func (t *topology) capacity() [LinkClasses]int64 {
	var sum [LinkClasses]int64
	var open [LinkClasses]bool
	add := func(class LinkClass, rate int64) {
		sum[class] += rate
		open[class] = open[class] || rate == 0
	}
	add(OriginLink, t.originRate)
	for k := range t.nodes {
		add(Access, t.nodes[k].Down)
	}
	for _, r := range t.racks {
		add(RackUplink, r.upRate)
		add(RackUplink, r.downRate)
	}
	for _, z := range t.zones {
		add(ZoneUplink, z.upRate)
		add(ZoneUplink, z.downRate)
		if z.paid {
			add(PaidUplink, z.upRate)
			add(PaidUplink, z.downRate)
		}
	}
	for class := range sum {
		if open[class] {
			sum[class] = 0
		}
	}
	return sum
}
