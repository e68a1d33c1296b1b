package scenario

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"
)

// workKind is what a kind of workload takes beyond what all have: keys, those with an exclamation
// mark needed.
type workKind struct {
	kind    string
	keys    []string
	meaning string
}

// workKinds are all kinds, in the order of the documentation.
var workKinds = []workKind{
	{"flash-crowd", []string{"jitter"}, "All nodes pull at once."},
	{"staggered", []string{"over!", "order"}, "Nodes pull one after the other, evenly."},
	{"rolling", []string{"batch", "interval!", "wait", "jitter", "order"}, "Nodes pull in waves, as in a rolling update."},
	{"poisson", []string{"every!", "pulls"}, "Pulls come at random, independent of each other: the times between them are distributed exponentially."},
	{"autoscale", []string{"over!", "delay", "order", "nodes!"}, "Nodes join the cluster, one after the other, and pull. Until then they are not there."},
}

func workKindOf(name string) *workKind {
	for i := range workKinds {
		if workKinds[i].kind == name {
			return &workKinds[i]
		}
	}
	return nil
}

func (c *checker) checkWorkload() {
	if c.given("workload") && len(c.Workload) == 0 && c.sound("workload") {
		c.fail("workload", "is empty: nobody pulls; leave it out for a flash crowd")
	}
	if len(c.Workload) > 1000 {
		c.fail("workload", "more than 1000 entries")
		return
	}
	var images map[string][]int
	if c.sound("images") {
		_, images = c.imageNames()
	}
	for i := range c.Workload {
		w := &c.Workload[i]
		path := fmt.Sprintf("workload[%d]", i)
		if !c.sound(path) {
			continue
		}
		kind := workKindOf(w.Kind)
		var extra, names []string
		for _, k := range workKinds {
			names = append(names, k.kind)
			for _, key := range k.keys {
				if key = strings.TrimSuffix(key, "!"); key != "nodes" && !slices.Contains(extra, key) {
					extra = append(extra, key)
				}
			}
		}
		if kind == nil {
			c.oneOf(path+".kind", w.Kind, names...)
			continue
		}
		for _, key := range extra {
			if c.given(path+"."+key) && !slices.Contains(kind.keys, key) && !slices.Contains(kind.keys, key+"!") {
				c.fail(path+"."+key, "has no meaning for %s, which has %s", w.Kind, strings.ReplaceAll(strings.Join(kind.keys, ", "), "!", ""))
			}
		}
		for _, key := range kind.keys {
			if key, need := strings.CutSuffix(key, "!"); need && !c.given(path+"."+key) && !(key == "interval" && w.Wait) {
				c.fail(path+"."+key, "is missing; %s needs it", w.Kind)
			}
		}
		for j, name := range w.Image {
			p := fmt.Sprintf("%s.image[%d]", path, j)
			if images != nil && len(images[name]) == 0 {
				c.fail(p, "%q is no image; there are %s", name, c.someImages())
			}
			if slices.Index(w.Image, name) < j {
				c.fail(p, "%q is given twice", name)
			}
		}
		if w.Order != "number" && w.Order != "random" {
			c.oneOf(path+".order", w.Order, "number", "random")
		}
		if w.Parallel > maxLayers {
			c.fail(path+".parallel", "is more than %d", maxLayers)
		}
		if w.Retries > maxCount/100 {
			c.fail(path+".retries", "is more than %d", maxCount/100)
		}
		if w.Pulls > maxPulls {
			c.fail(path+".pulls", "is more than %d", maxPulls)
		}
		if c.given(path+".pulls") && w.Pulls == 0 {
			c.fail(path+".pulls", "must be at least 1")
		}
		c.checkSelector(path+".nodes", &w.Nodes)
		c.checkWorkTimes(path, w)
	}
}

// someImages names some of the images.
func (c *checker) someImages() string {
	var names []string
	for i := range c.Images {
		if i == 10 {
			return strings.Join(names, ", ") + " and others"
		}
		names = append(names, c.Images[i].Name)
	}
	return strings.Join(names, ", ")
}

func (c *checker) checkWorkTimes(path string, w *work) {
	for _, v := range []struct {
		key string
		d   duration
	}{{"jitter", w.Jitter}, {"over", w.Over}, {"delay", w.Delay}} {
		c.notNegative(path+"."+v.key, v.d)
	}
	for _, v := range []struct {
		key string
		d   duration
	}{{"every", w.Every}, {"interval", w.Interval}} {
		if c.given(path+"."+v.key) && v.d <= 0 {
			c.fail(path+"."+v.key, "must be more than 0")
		}
	}
	c.inTime(path+".at", w.At)
}

// checkSelector checks that the zones, racks and nodes of a selector exist.
func (c *checker) checkSelector(path string, s *selector) {
	if c.layout == nil {
		return
	}
	n := len(c.layout.zone)
	for _, t := range s.terms {
		if t.zone != "" {
			z, ok := c.layout.byName[t.zone]
			if !ok {
				var names []string
				for _, z := range c.Topology.Zones[:min(len(c.Topology.Zones), 10)] {
					names = append(names, z.Name)
				}
				c.fail(path, "zone %q does not exist; there are %s", t.zone, strings.Join(names, ", "))
			} else if racks := c.layout.zones[z].racks; t.rack >= int64(racks) {
				c.fail(path, "rack %s/%d does not exist; the zone has %d, from 0 on", t.zone, t.rack, racks)
			}
		}
		if t.kind == termNumbers && t.hi >= int64(n) {
			c.fail(path, "node %d does not exist; there are %d, from 0 on", t.hi, n)
		}
		if t.kind == termSome && t.lo > int64(n) {
			c.fail(path, "%d random of %d nodes", t.lo, n)
		}
	}
}

// works spells out who joins when, and who pulls what when.
func (e *expander) works() {
	s := e.s
	list := s.Workload
	if len(list) == 0 {
		var w work
		r := &reader{at: map[string]place{}}
		r.read("workload[]", nil, reflect.ValueOf(&w).Elem())
		list = []work{w}
	}
	rngs := make([]*rand.Rand, len(list))
	seen := map[string]int{}
	for i := range list {
		kind := list[i].Kind
		rngs[i] = stream(e.seed, fmt.Sprintf("workload %s %d", kind, seen[kind]))
		seen[kind]++
	}
	joining := make([]bool, len(e.run.Nodes))
	for i := range list { // who joins decides who is there for the others
		if w := &list[i]; w.Kind == "autoscale" {
			e.autoscale(fmt.Sprintf("workload[%d]", i), w, rngs[i], joining)
		}
	}
	for i := range list {
		if w := &list[i]; w.Kind != "autoscale" {
			e.work(fmt.Sprintf("workload[%d]", i), w, rngs[i])
		}
	}
	slices.SortStableFunc(e.run.Pulls, func(a, b Pull) int {
		return cmp.Or(cmp.Compare(a.At, b.At), a.Node-b.Node, a.Image-b.Image)
	})
}

func (e *expander) autoscale(path string, w *work, rng *rand.Rand, joining []bool) {
	nodes := w.Nodes.pick(e.layout, rng, func(int) bool { return true }, func(n int) bool { return !joining[n] })
	nodes = slices.DeleteFunc(nodes, func(n int) bool {
		if joining[n] {
			e.remark(path+".nodes", "node %d joins twice", n)
		}
		return joining[n]
	})
	for _, n := range nodes {
		joining[n] = true
	}
	if first := slices.Index(joining, false); first < 0 {
		e.remark(path+".nodes", "leaves no node that is there from the start")
		nodes = slices.DeleteFunc(nodes, func(n int) bool { return n == 0 })
		joining[0], e.run.Nodes[0].Joins = false, 0
	}
	w.sort(nodes, rng)
	p := e.puller(w, rng)
	for i, n := range nodes {
		joins := later(time.Duration(w.At), portion(w.Over, i, len(nodes)))
		if joins >= e.run.Limits.Time {
			e.remark(path+".over", "node %d would join when the run is over", n)
			joins = e.run.Limits.Time - 1
		}
		e.run.Nodes[n].Joins = joins
		p.pull(path+".delay", later(joins, time.Duration(w.Delay)), n)
	}
}

func (e *expander) work(path string, w *work, rng *rand.Rand) {
	at := time.Duration(w.At)
	there := func(n int) bool { return e.run.Nodes[n].Joins <= at }
	nodes := w.Nodes.pick(e.layout, rng, there, there)
	if len(nodes) == 0 {
		e.note(path+".nodes", "nobody is meant, or there at %v", at)
		return
	}
	p := e.puller(w, rng)
	jitter := func() time.Duration {
		if w.Jitter == 0 {
			return 0
		}
		return time.Duration(rng.Int64N(int64(w.Jitter) + 1))
	}
	switch w.Kind {
	case "flash-crowd":
		for _, n := range nodes {
			p.pull(path+".jitter", later(at, jitter()), n)
		}
	case "staggered":
		w.sort(nodes, rng)
		for i, n := range nodes {
			p.pull(path+".over", later(at, portion(w.Over, i, len(nodes))), n)
		}
	case "rolling":
		w.sort(nodes, rng)
		batch := w.Batch.of(len(nodes))
		for i, n := range nodes {
			if i > 0 && i%batch == 0 {
				at = later(at, time.Duration(w.Interval))
			}
			p.nextWave = p.nextWave || w.Wait && i%batch == 0
			p.pull(path+".interval", later(at, jitter()), n)
		}
	case "poisson":
		turn := slices.Clone(nodes)
		pulls := int(w.Pulls)
		if pulls == 0 {
			pulls = len(turn)
		}
		if !e.scaled && mulExceeds(int64(w.Every), int64(pulls), int64(e.run.Limits.Time)) {
			e.remark(path+".every", "%d pulls take longer than limits.time, %v", pulls, e.run.Limits.Time)
		}
		for i := range pulls {
			if i%len(turn) == 0 {
				rng.Shuffle(len(turn), func(a, b int) { turn[a], turn[b] = turn[b], turn[a] })
			}
			if at >= e.run.Limits.Time {
				e.note(path+".every", "%d pulls would begin when the run is over; they are left out", pulls-i)
				break
			}
			p.pull(path+".every", at, turn[i%len(turn)])
			at = later(at, exponential(rng, time.Duration(w.Every)))
		}
	}
}

// sort puts nodes, which ascend, into the order of the workload.
func (w *work) sort(nodes []int, rng *rand.Rand) {
	if w.Order == "random" {
		rng.Shuffle(len(nodes), func(a, b int) { nodes[a], nodes[b] = nodes[b], nodes[a] })
	}
}

// puller adds the pulls of one workload.
type puller struct {
	e      *expander
	w      *work
	rng    *rand.Rand
	images []int
	mix    *zipf
	// wave and after are what pulls say of themselves; nextWave: the next one begins a new wave.
	wave, after int
	nextWave    bool
}

func (e *expander) puller(w *work, rng *rand.Rand) *puller {
	p := &puller{e: e, w: w, rng: rng}
	for _, name := range w.Image {
		for _, i := range e.names[name] {
			if !slices.Contains(p.images, i) {
				p.images = append(p.images, i)
			}
		}
	}
	if len(p.images) == 0 {
		p.images = []int{0}
	}
	p.mix = newZipf(len(p.images), w.Zipf)
	return p
}

func (p *puller) pull(path string, at time.Duration, node int) {
	e := p.e
	image := p.images[p.mix.draw(p.rng)]
	switch {
	case at >= e.run.Limits.Time:
		e.remark(path, "the pull of node %d would begin when the run is over, limits.time %v; it is left out", node, e.run.Limits.Time)
	case len(e.run.Pulls) >= maxPulls:
		e.remark(path, "more than %d pulls", maxPulls)
	default:
		if p.nextWave {
			e.waves++
			p.wave, p.after, p.nextWave = e.waves, p.wave, false
		}
		e.run.Pulls = append(e.run.Pulls, Pull{At: at, Node: node, Image: image, Parallel: int(p.w.Parallel), Retries: int(p.w.Retries),
			Wave: p.wave, After: p.after})
	}
}

// portion is when the i-th of n is due, the first at 0 and the last after d.
func portion(d duration, i, n int) time.Duration {
	if n < 2 {
		return 0
	}
	return time.Duration(mulDiv(int64(d), int64(i), int64(n-1)))
}

// later is t and d, and not more than what is later than any run.
func later(t, d time.Duration) time.Duration { return min(t+d, 2*maxDuration) }
