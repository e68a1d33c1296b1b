package scenario

import "fmt"

// layout is where nodes stand: it depends on how many there are, and on no seed.
type layout struct {
	zone, rack []int // by node; racks are numbered over all zones
	zones      []zoneLayout
	byName     map[string]int
	racks      []Rack
}

// zoneLayout is the range of nodes, and that of racks, of a zone.
type zoneLayout struct{ node, nodes, rack, racks int }

// place puts n nodes into zones in proportion, and in racks of those one after
// the other. No zone stays empty while there are nodes enough.
func (s *Scenario) place(n int) *layout {
	t := &s.Topology
	weights := make([]int64, len(t.Zones))
	for i, z := range t.Zones {
		switch {
		case z.Nodes > 0:
			weights[i] = int64(z.Nodes)
		case z.Share > 0:
			weights[i] = int64(z.Share)
		default:
			weights[i] = 1
		}
	}
	counts := apportion(n, weights)
	l := &layout{zone: make([]int, n), rack: make([]int, n), zones: make([]zoneLayout, len(counts)), byName: map[string]int{}}
	node := 0
	for i, count := range counts {
		z := &t.Zones[i]
		l.byName[z.Name] = i
		l.zones[i] = zoneLayout{node: node, nodes: count, rack: len(l.racks)}
		path := fmt.Sprintf("topology.zones[%d]", i)
		perRack := int(or(s, path+".rack_size", z.RackSize, t.RackSize))
		if perRack == 0 {
			perRack = count
		}
		uplink := int64(or(s, path+".rack_uplink", z.RackUplink, t.RackUplink))
		for k := range count {
			if k%perRack == 0 {
				l.racks = append(l.racks, Rack{Zone: i, Up: uplink, Down: uplink})
			}
			l.zone[node], l.rack[node] = i, len(l.racks)-1
			node++
		}
		if count == 0 {
			l.racks = append(l.racks, Rack{Zone: i, Up: uplink, Down: uplink})
		}
		l.zones[i].racks = len(l.racks) - l.zones[i].rack
	}
	return l
}

// members are the nodes of a term's zone and rack, appended to nodes.
func (l *layout) members(t *term, nodes []int) []int {
	lo, n := 0, len(l.zone)
	rack := -1
	if t.zone != "" {
		z := l.zones[l.byName[t.zone]]
		lo, n = z.node, z.nodes
		if t.rack >= 0 {
			rack = z.rack + int(t.rack)
			if int(t.rack) >= z.racks {
				return nodes
			}
		}
	}
	for k := lo; k < lo+n; k++ {
		if rack < 0 || l.rack[k] == rack {
			nodes = append(nodes, k)
		}
	}
	return nodes
}

// apportion parts n in proportion to weights, by largest remainders (Hare and
// Niemeyer), the first of equal ones. Where n is enough for all, none gets 0.
func apportion(n int, weights []int64) []int {
	sum := int64(0)
	for _, w := range weights {
		sum += w
	}
	counts, left := make([]int, len(weights)), n
	remainders := make([]int64, len(weights))
	for i, w := range weights {
		counts[i] = int(int64(n) * w / sum)
		remainders[i] = int64(n) * w % sum
		left -= counts[i]
	}
	for ; left > 0; left-- {
		best := 0
		for i, r := range remainders {
			if r > remainders[best] {
				best = i
			}
		}
		counts[best]++
		remainders[best] = -1
	}
	if n < len(weights) {
		return counts
	}
	for i := range counts {
		if counts[i] > 0 {
			continue
		}
		most := 0
		for k, c := range counts {
			if c > counts[most] {
				most = k
			}
		}
		counts[most]--
		counts[i]++
	}
	return counts
}
