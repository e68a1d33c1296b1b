package scenario

import "fmt"

// checkConnected expands the scenario once, so that what only shows then is told with its
// line too, and looks for nodes that pull and are cut off for ever, from the start, from the
// origin and from all that could have what it sends.
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
	side := make([]int, n) // nodes of one side reach each other
	reads := make([]bool, n)
	dead := make([]bool, n)
	for i := range reads {
		reads[i] = run.Origin.Readers == 0 || i < run.Origin.Readers
	}
	var path string
	for i := range e.order {
		f, from := e.order[i].fault, e.order[i].path
		if _, heals := f.Heals(); heals || f.At > run.Pulls[0].At || f.Role != "" {
			continue
		}
		switch f.Kind {
		case Partition:
			next := map[int]int{}
			for _, k := range f.Nodes {
				if _, ok := next[side[k]]; !ok {
					next[side[k]] = n*(i+1) + k
				}
				side[k] = next[side[k]]
			}
		case Crash, Drain:
			for _, k := range f.Nodes {
				dead[k] = true
			}
			continue
		case Offline, OriginStall, OriginOutage, OriginError, ExpiredToken, OriginThrottle:
			if len(f.Nodes) == 0 {
				clear(reads)
			}
			for _, k := range f.Nodes {
				reads[k] = false
			}
		default:
			continue
		}
		path = from
	}
	if path == "" {
		return
	}
	source := map[int]bool{}
	for i, yes := range reads {
		if yes && !dead[i] {
			source[side[i]] = true
		}
	}
	cut, one := 0, 0
	seen := make([]bool, n)
	for _, p := range run.Pulls {
		if !seen[p.Node] && !dead[p.Node] && !source[side[p.Node]] {
			seen[p.Node] = true
			one = p.Node
			cut++
		}
	}
	if cut > 0 {
		c.fail(path, "%s can reach neither the origin nor anybody who can, from the start and for ever: no pull there can be complete; say for how long",
			nodesOf(cut, one))
	}
}

func nodesOf(n, one int) string {
	if n == 1 {
		return fmt.Sprintf("node %d", one)
	}
	return fmt.Sprintf("node %d and %d others", one, n-1)
}
