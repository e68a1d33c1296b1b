package simulation

// oneFetch: in a component, no two nodes have the origin send them the same chunk at
// once, nor one node twice. It is checked when a read is begun, and counts when the
// origin has answered both.
//
// Not counted are
//
//   - reads that the core counts itself: hedges, strict reads, probes;
//   - those of nodes to which the blob was refuted, who look for the liar each for itself
//     (egress bounds what that costs);
//   - those of a node whose word is not good;
//   - those of two that may not have heard of one another yet (see reach.counts);
//   - what was granted by somebody whom something just befell (see egress).
//
// Where views differ, as many reads at once are allowed as nodes grant stripes of the
// blob, and one more for each epoch of one that was refuted.
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
	if a.excused || a.epoch > 0 {
		return
	}
	for _, o := range open {
		first := max(o.next, a.first)
		if o.blob != a.blob || o.excused || o.ending || o.epoch > 0 || first >= min(o.end, a.end) {
			continue
		}
		m := v.c.nodes[o.node]
		if m.life == o.life && (m == n || v.reach.counts(n, m)) && v.rules.isKnown(blobChunk{a.blob, first}) {
			a.rivals, o.rivals = append(a.rivals, o), append(o.rivals, a)
		}
	}
}

// answered is called when the origin has answered a read.
func (v *oneFetch) answered(a *asked) {
	a.answered = true
	if len(a.rivals) == 0 {
		return
	}
	at, other := int64(0), (*asked)(nil)
	for i := a.next; i < a.end; i++ {
		n := int64(0)
		for _, o := range a.rivals {
			if o.answered && !o.over && !o.ending && o.next <= i && i < o.end {
				n++
				other = o
			}
		}
		at = max(at, n)
	}
	if at <= v.rules.extra(a.blob) {
		return
	}
	v.broken(v.c.nodes[a.node], a.blob, "the origin sends it chunks %d to %d while it sends node %d chunks %d to %d", a.next, a.end-1, other.node, other.next, other.end-1)
}
