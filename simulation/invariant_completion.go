package simulation

import (
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// completion: every pull is done within Limits.Deadline of its start, or of the end
// of what went wrong, whichever is later (by the end of the run where there is no
// deadline), and no client is told that it cannot have a blob while its node could
// have it: from an origin that answers, or from peers that hold all that it lacks. An
// origin that was away answers again once breakers have had the time to close and
// back-off is over (see reach.hasOrigin).
//
// Excused are pulls of nodes that are dead; those that can reach neither the
// origin nor a copy, nor ever will; and those of nodes whose links, disks or
// CPUs stay slow; and those of nodes that the origin refuses, if there are liars: nobody
// can tell them who lies. A client that was rightly told to go elsewhere has no deadline.
// Rightly told are clients of a blob that liars spoiled: what was given to them
// cannot be taken back, so that the response is broken off, and a node to which a blob was
// refuted again and again does not go on for ever.
type completion struct {
	tally
	reach *reach
	slow  []int // faults under way that make a node slow
	mends int64 // when what went wrong was last mended
}

func (v *completion) init(w *reach) {
	v.Name = "completion"
	v.Rule = "every client is served by its deadline once faults heal, and none is refused while a copy or the origin is reachable to it"
	v.reach = w
	v.slow = make([]int, len(v.c.nodes))
}

func (v *completion) befell(f *scenario.Fault, nodes []int32, d int) {
	if d < 0 {
		v.mends = v.c.now
	}
	switch f.Kind {
	case scenario.Loss, scenario.SlowNIC, scenario.SlowDisk, scenario.SlowNode:
		for _, i := range nodes {
			v.slow[i] += d
		}
	}
}

// refused judges that a client was told to go elsewhere.
func (v *completion) refused(n *node, cl *client, e *policy.Effect) {
	if e.Kind == policy.EfBypass {
		return
	}
	v.Checks++
	switch {
	case v.reach.liars && (e.Reason == policy.ReasonCorrupt || !v.mayRead(n)):
	case v.slow[n.index] > 0 || v.c.now < v.reach.nodes[n.index].since+knownAfter:
	case v.hasOrigin(n):
		v.broken(n, cl.blob, "a client is told %d (%s), but the origin answers", e.Status, e.Reason)
	case v.hasCopy(n, cl.blob):
		v.broken(n, cl.blob, "a client is told %d (%s), but the node's peers hold all of it", e.Status, e.Reason)
	}
}

// hasOrigin reports whether the origin would serve a node now, by all that the node
// can know.
func (v *completion) hasOrigin(n *node) bool {
	o := &v.c.run.Origin
	return v.reach.hasOrigin(n) && v.mayRead(n) && len(o.Limits) == 0 && o.Connections == 0
}

// mayRead reports whether the origin accepts a node's credentials.
func (v *completion) mayRead(n *node) bool {
	return v.c.run.Origin.Readers == 0 || int(n.index) < v.c.run.Origin.Readers
}

// hasCopy reports whether a node and those that count for it together hold a blob.
func (v *completion) hasCopy(n *node, blob int32) bool {
	for i := range v.c.blobs[blob].n {
		some := holds(n, blob, i)
		for k := 0; k < len(v.c.nodes) && !some; k++ {
			o := v.c.nodes[k]
			some = o != n && holds(o, blob, i) && v.reach.counts(n, o)
		}
		if !some {
			return false
		}
	}
	return true
}

// over judges the pulls.
func (v *completion) over() {
	if v.c.res.Partial {
		return
	}
	limits := &v.c.run.Limits
	for k := range v.c.run.Pulls {
		p, res := &v.c.run.Pulls[k], &v.c.res.Pulls[k]
		v.Checks++
		if res.Status != 0 || res.Excused {
			continue
		}
		start := v.c.pulls[k].due
		if start == 0 {
			continue // those for which it waits are judged
		}
		due := startTime + int64(limits.Time)
		if limits.Deadline > 0 {
			due = min(due, max(start, v.mends)+int64(limits.Deadline))
		}
		n := v.c.nodes[p.Node]
		switch {
		case res.Done > 0 && startTime+int64(res.Done) <= due:
		case res.Done > 0:
			if v.slow[p.Node] == 0 && (!v.reach.liars || v.mayRead(n)) {
				v.broken(n, -1, "its pull of image %d is done after %v, %v after its start: too late by %v", p.Image,
					res.Done, time.Duration(startTime+int64(res.Done)-start), time.Duration(startTime+int64(res.Done)-due))
			}
		case v.c.now < due || n.down || v.slow[p.Node] > 0 || v.reach.liars && !v.mayRead(n):
		case v.hasOrigin(n) || v.hasImage(n, p.Image):
			v.broken(n, -1, "its pull of image %d, begun %v ago, is not done", p.Image, time.Duration(v.c.now-start))
		}
	}
}

func (v *completion) hasImage(n *node, image int) bool {
	m := &v.c.run.Images[image]
	if m.Manifest >= 0 && !v.hasCopy(n, int32(m.Manifest)) {
		return false
	}
	for _, k := range m.Layers {
		if !v.hasCopy(n, int32(k)) {
			return false
		}
	}
	return true
}
