package scenario

import "fmt"

// checkConnected expands the scenario once, so that what only shows then is told with its
// line too, and looks for the first fault by which nodes that pull are cut off for ever, from the
// start, from the origin and from all that could have what it sends.
func (c *checker) checkConnected() {
	e := c.expander(0, 0)
	e.wrong = c.fail
	e.expand()
	if len(c.r.errs) > 0 {
		return
	}
	run := e.run
	if len(run.Pulls) == 0 {
		c.fail("workload", "nobody pulls anything")
		return
	}
	n := len(run.Nodes)
	is := islands{side: make([]int, n), reads: make([]bool, n), dead: make([]bool, n), pulls: make([]bool, n)}
	for i := range is.reads {
		is.reads[i] = run.Origin.Readers == 0 || i < run.Origin.Readers
	}
	for _, p := range run.Pulls {
		is.pulls[p.Node] = true
	}
	for i := range e.order {
		f := e.order[i].fault
		if _, heals := f.Heals(); heals || f.At > run.Pulls[0].At || f.Role != "" || !is.strike(f, i) {
			continue
		}
		if cut, one := is.cutOff(); cut > 0 {
			c.fail(e.order[i].path, "%s can reach neither the origin nor anybody who can, from the start and for ever: no pull there can be complete; say for how long",
				nodesOf(cut, one))
			return
		}
	}
}

// islands are what faults for ever make of a cluster, by node.
type islands struct {
	side               []int // nodes of one side reach each other
	reads, dead, pulls []bool
}

// strike has a fault befall the nodes, the k-th of all. It says whether it cuts anybody off from
// anything.
func (is *islands) strike(f *Fault, k int) bool {
	switch f.Kind {
	case Partition:
		next := map[int]int{}
		for _, i := range f.Nodes {
			if _, ok := next[is.side[i]]; !ok {
				next[is.side[i]] = len(is.side)*(k+1) + i
			}
			is.side[i] = next[is.side[i]]
		}
	case Crash, Drain:
		for _, i := range f.Nodes {
			is.dead[i] = true
		}
	case Offline, OriginStall, OriginOutage, OriginError, ExpiredToken, OriginThrottle:
		if len(f.Nodes) == 0 {
			clear(is.reads)
		}
		for _, i := range f.Nodes {
			is.reads[i] = false
		}
	default:
		return false
	}
	return true
}

// cutOff counts the nodes that pull, live, and are on a side on which nobody can read from the
// origin; one is the last of them.
func (is *islands) cutOff() (n, one int) {
	source := map[int]bool{}
	for i, yes := range is.reads {
		if yes && !is.dead[i] {
			source[is.side[i]] = true
		}
	}
	for i, pulls := range is.pulls {
		if pulls && !is.dead[i] && !source[is.side[i]] {
			n, one = n+1, i
		}
	}
	return n, one
}

func nodesOf(n, one int) string {
	if n == 1 {
		return fmt.Sprintf("node %d", one)
	}
	return fmt.Sprintf("node %d and %d others", one, n-1)
}
