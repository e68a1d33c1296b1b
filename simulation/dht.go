package simulation

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
)

// replication is how many nodes the DHT names as the closest, and at most as
// providers.
const replication = 20

// question is what a node asks the DHT.
type question struct {
	blob     int32
	chunk, n int
}

// nearest lists the nodes by their distance from a blob as a DHT measures it.
func (c *cluster) nearest(b *content) []int32 {
	key := sha256.Sum256([]byte(b.id))
	near := make([]int32, len(c.nodes))
	for i := range near {
		near[i] = int32(i)
	}
	slices.SortFunc(near, func(x, y int32) int {
		p, q := &c.nodes[x].id, &c.nodes[y].id
		for k := range key {
			if a, b := p[k]^key[k], q[k]^key[k]; a != b {
				return int(a) - int(b)
			}
		}
		return 0
	})
	return near
}

// misses says whether a node's view lacks another, which it does for the whole
// run: a hash of the pair decides.
func (c *cluster) misses(n, o *node) bool {
	if c.run.DHT.Misses == 0 || n == o {
		return false
	}
	t := trace(c.run.Seed)
	t.mix(uint64(n.index)+1, uint64(o.index)+1)
	return uint64(t)>>32*1_000_000>>32 < uint64(c.run.DHT.Misses)
}

// lookupTime draws how long a look-up takes.
func (c *cluster) lookupTime() int64 {
	d := c.run.DHT.Delays
	switch len(d) {
	case 0:
		return 0
	case 1:
		return int64(d[0])
	}
	const steps = 1 << 16
	at := c.rng.Int64N(int64(len(d)-1) * steps)
	low, high := d[at/steps], d[at/steps+1]
	return int64(low + (high-low)*time.Duration(at%steps)/steps)
}

func (c *cluster) lookUp(n *node, e *policy.Effect) {
	c.res.Lookups++
	s := c.questions.put(question{c.blobOf(e.Blob), e.Chunk, int(e.N)})
	c.q.push(c.now+c.lookupTime(), evLooked, n.index, n.life, uint64(s))
}

// wasUp says whether a node was up at a time.
func (c *cluster) wasUp(n *node, at int64) bool {
	up := c.run.Nodes[n.index].Joins == 0
	for _, t := range n.changes {
		if t > at {
			break
		}
		up = !up
	}
	return up
}

// looked answers a question to the DHT.
func (c *cluster) looked(n *node, q question) {
	b := c.blobs[q.blob]
	ev := policy.Event{Kind: policy.EvLooked, Blob: b.id, Chunk: q.chunk, N: int64(q.n)}
	asOf := c.now
	if n.stale > 0 {
		asOf = n.stale
	}
	for _, i := range b.near {
		if o := c.nodes[i]; c.wasUp(o, asOf) && (n.stale > 0 || !parted(n, o)) && !c.misses(n, o) {
			if ev.Closest = append(ev.Closest, o.id); len(ev.Closest) == replication {
				break
			}
		}
	}
	all := b.providersOf(q.chunk, q.n)
	if len(all) > 0 {
		first := c.rng.IntN(len(all))
		for k := range all {
			p := &all[(first+k)%len(all)]
			if o := c.nodes[p.node]; p.on(asOf, int64(c.run.DHT.Publish)) && o != n && !c.misses(n, o) && len(ev.Providers) < replication {
				ev.Providers = append(ev.Providers, o.id)
			}
		}
	}
	c.step(n, ev)
}
