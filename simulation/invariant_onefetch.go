package simulation

// oneFetch: in a component, no two nodes read the same chunk from the origin at once,
// nor one node twice.
//
// Not counted are reads that the core counts itself (hedges, strict reads, probes),
// those after a refutation of nodes that see another epoch, those of a node
// whose word is not good, and those of two that may not have heard of one another yet
// (see reach.counts). Where views err, as many reads at once are allowed as members
// of the committee see none that ranks before them: each of them grants.
type oneFetch struct {
	tally
	reach *reach
	rules *egress
}

func (v *oneFetch) init(w *reach) {
	v.Name = "one-fetch"
	v.Rule = "in each component one node at a time reads a stripe from the origin, hedges counted"
	v.reach = w
}

// asked checks a read that begins against those that are under way.
func (v *oneFetch) asked(n *node, a *asked, open []*asked) {
	v.Checks++
	if a.excused {
		return
	}
	at, other := 0, (*asked)(nil)
	for _, o := range open {
		if o.blob != a.blob || o.excused || o.ending || o.epoch != a.epoch || max(o.next, a.first) >= min(o.end, a.end) {
			continue
		}
		m := v.c.nodes[o.node]
		if m.life != o.life || m != n && !v.reach.counts(n, m) {
			continue
		}
		at++
		other = o
	}
	if at == 0 {
		return
	}
	if v.c.run.DHT.Misses > 0 && int64(at) <= v.rules.allowance(a.blob)/max(v.c.blobs[a.blob].size, 1) {
		return
	}
	v.broken(n, a.blob, "it reads chunks %d to %d from the origin while node %d reads %d to %d", a.first, a.end-1, other.node, other.next, other.end-1)
}
