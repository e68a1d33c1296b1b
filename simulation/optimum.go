package simulation

import (
	"math/bits"
	"slices"
	"time"
)

// optimum is T* for the run, and t: see [Result].
func (c *cluster) optimum() (whole, chunk time.Duration) {
	everybody := newBehind(c, c.run.Origin.Link)
	zones, racks := make([]*behind, len(c.run.Zones)), make([]*behind, len(c.run.Racks))
	for i, z := range c.run.Zones {
		zones[i] = newBehind(c, z.Down)
	}
	for i, r := range c.run.Racks {
		racks[i] = newBehind(c, r.Down)
	}
	var most int64 // bytes that a node wants
	rate := unbounded
	for i, n := range c.nodes {
		want := c.wantedBy(n)
		var bytes int64
		for k, w := range want {
			if w {
				bytes += c.blobs[k].size
			}
		}
		if bytes == 0 {
			continue
		}
		s := &c.run.Nodes[i]
		most = max(most, bytes)
		rate = min(rate, bound(s.Down))
		for _, b := range []*behind{everybody, zones[s.Zone], racks[s.Rack]} {
			b.add(want, c.run.Pulls[c.byNode[i][0]].At-c.run.Pulls[0].At)
		}
	}
	rate = c.net.payload(rate)
	t := int64(1<<20) * nanos / rate
	m := (most + 1<<20 - 1) >> 20
	best := t * (m - 1 + doublings(everybody.nodes))
	for _, b := range slices.Concat(zones, racks, []*behind{everybody}) {
		if link := c.net.payload(b.rate); b.nodes > 0 && link < rate {
			best = max(best, int64(b.first)+mulDiv(b.bytes(c), nanos, link)+t*(doublings(b.nodes)-1))
		}
	}
	return time.Duration(max(best, c.lastStart())), time.Duration(t)
}

// doublings is how many times a chunk's holders double until n nodes and the origin have it:
// ceil(log2(n+1)).
func doublings(n int) int64 { return int64(bits.Len(uint(n))) }

// lastStart is the least that any client which was served needs from the first one's start
// on: until its own start, and for what its node did not want before. What it did want
// before may be in its store by then, so it counts for nothing.
func (c *cluster) lastStart() int64 {
	var least int64
	for _, n := range c.nodes {
		seen := make([]bool, len(c.blobs))
		for _, p := range c.byNode[n.index] {
			var fresh int64
			for k := 0; ; k++ {
				b, ok := c.wanted(p, k)
				if !ok {
					break
				}
				if b >= 0 && !seen[b] {
					seen[b] = true
					fresh += c.blobs[b].size
				}
			}
			if c.res.Pulls[p].Done > 0 {
				down := c.net.payload(bound(c.run.Nodes[n.index].Down))
				least = max(least, int64(c.res.Pulls[p].At-c.run.Pulls[0].At)+mulDiv(fresh, nanos, down))
			}
		}
	}
	return least
}

// behind is what lies behind a link that nodes share: how many of them want anything, and
// what they want, of which one copy at least has to come over it, and not before the first of them
// wants it.
type behind struct {
	rate  int64
	nodes int
	first time.Duration
	want  []bool
}

func newBehind(c *cluster, rate int64) *behind {
	return &behind{rate: bound(rate), want: make([]bool, len(c.blobs))}
}

func (b *behind) add(want []bool, first time.Duration) {
	if b.nodes == 0 || first < b.first {
		b.first = first
	}
	b.nodes++
	for k, w := range want {
		b.want[k] = b.want[k] || w
	}
}

func (b *behind) bytes(c *cluster) int64 {
	var sum int64
	for k, w := range b.want {
		if w {
			sum += c.blobs[k].size
		}
	}
	return sum
}
