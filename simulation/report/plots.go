package report

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/peercache/peercache/simulation"
)

// maxSteps is how many points a line has at most, so that the page stays small.
const maxSteps = 400

const sinceStart = "time since the start"

// figures draws all plots of a run that have something to show.
func (r *Report) figures() ([]Figure, error) {
	end := r.end()
	var charts []*chart
	for _, make := range []func(float64) *chart{r.completionChart, r.sourceChart, r.egressChart, r.linkChart, r.waitChart, r.messageChart} {
		if c := make(end); c != nil {
			charts = append(charts, c)
		}
	}
	var all []Figure
	for _, c := range charts {
		f, err := c.render()
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// end is where axes of time end.
func (r *Report) end() float64 {
	end := r.Makespan
	for i := range r.res.Pulls {
		end = max(end, r.res.Pulls[i].Done.Seconds())
	}
	if end == 0 || r.Pulls.Complete < r.Pulls.Total {
		end = max(end, r.Virtual)
	}
	return end
}

// faultSpans are when something was wrong.
func (r *Report) faultSpans() [][2]float64 {
	var spans [][2]float64
	for _, f := range r.Faults {
		until := math.Inf(1)
		if f.ever {
			until = f.until.Seconds()
		} else if f.Kind == "crash" || f.Kind == "drain" {
			until = f.At // those that stay dead are a moment in the run's course
		}
		spans = append(spans, [2]float64{f.At, until})
	}
	return spans
}

// steps is how many of values, ascending in seconds, lie below each place, as parts
// of total.
func steps(values []float64, total int, end float64) plotter.XYs {
	if len(values) == 0 || total == 0 {
		return nil
	}
	slices.Sort(values)
	points := plotter.XYs{{X: 0, Y: 0}}
	add := func(i int) {
		points = append(points, plotter.XY{X: values[i], Y: float64(i+1) / float64(total)})
	}
	stride := max(1, len(values)/maxSteps)
	for i := 0; i < len(values)-1; i += stride {
		add(i)
	}
	add(len(values) - 1)
	if last := points[len(points)-1]; last.X < end {
		points = append(points, plotter.XY{X: end, Y: last.Y})
	}
	return points
}

// completionCurve is the part of all pulls that was complete over time.
func (r *Report) completionCurve() plotter.XYs {
	var done []float64
	for i := range r.res.Pulls {
		if d := r.res.Pulls[i].Done; d > 0 {
			done = append(done, d.Seconds())
		}
	}
	return steps(done, len(r.res.Pulls), 0)
}

// completionChart shows which part of the pulls had begun, and was complete.
func (r *Report) completionChart(end float64) *chart {
	var begun, done []float64
	for i := range r.res.Pulls {
		p := &r.res.Pulls[i]
		if p.Begun > 0 || p.Done > 0 || r.due(i) == 0 && r.run.Pulls[i].After == 0 {
			begun = append(begun, p.Begun.Seconds())
		}
		if p.Done > 0 {
			done = append(done, p.Done.Seconds())
		}
	}
	if len(begun) == 0 {
		return nil
	}
	c := newChart("Completion", "The part of all pulls that had begun, and that were complete.", timeAxis(sinceStart, end), shareAxis("pulls", 1.02))
	c.shade("a fault", r.faultSpans())
	total := len(r.res.Pulls)
	if len(done) == 0 || slices.Max(begun) > end/100 {
		c.line("begun", steps(begun, total, end), inkOrange, dashed, true)
	}
	if t := r.optimumAt(); t > 0 && t <= end {
		c.line("optimum T*", plotter.XYs{{X: t, Y: 0}, {X: t, Y: 1.02}}, inkText, dotted, false)
	}
	complete := steps(done, total, end)
	if len(done) == 0 {
		complete = plotter.XYs{{X: 0, Y: 0}, {X: end, Y: 0}}
	}
	c.line("complete", complete, inkBlue, solid, true)
	return c
}

// optimumAt is when everybody would be done with the best schedule; 0 where the page does not
// speak of one.
func (r *Report) optimumAt() float64 {
	if r.Optimum == 0 || r.MakespanRatio == nil && !r.Partial || len(r.run.Pulls) == 0 {
		return 0
	}
	return r.run.Pulls[0].At.Seconds() + r.Optimum
}

// sourceChart shows where nodes' bytes came from.
func (r *Report) sourceChart(end float64) *chart {
	var base, origin, peers, store plotter.XYs
	var most float64
	for i := range r.res.Series {
		p := &r.res.Series[i]
		x, sum := p.At.Seconds(), 0.0
		for _, layer := range []struct {
			to    *plotter.XYs
			bytes int64
		}{{&base, 0}, {&origin, p.FromOrigin}, {&peers, p.FromPeers}, {&store, p.FromStore}} {
			sum += float64(layer.bytes)
			*layer.to = append(*layer.to, plotter.XY{X: x, Y: sum})
		}
		most = max(most, sum)
	}
	if most == 0 {
		return nil
	}
	c := newChart("Bytes by source", "All that nodes and their clients had got by then, by where it came from.", timeAxis(sinceStart, end), byteAxis("received", most*1.04))
	c.area("registry", base, origin, inkRed)
	c.area("peers", origin, peers, inkBlue)
	if store[len(store)-1].Y > peers[len(peers)-1].Y {
		c.area("own store", peers, store, inkOrange)
	}
	return c
}

// egressChart shows what the origin sent beside what it had to send.
func (r *Report) egressChart(end float64) *chart {
	var sent plotter.XYs
	for i := range r.res.Series {
		p := &r.res.Series[i]
		sent = append(sent, plotter.XY{X: p.At.Seconds(), Y: float64(p.Egress)})
	}
	wanted := r.wanted(end)
	if len(sent) == 0 || len(wanted) == 0 {
		return nil
	}
	limit := float64(r.run.Limits.Egress) / 1e6
	most := max(sent[len(sent)-1].Y, wanted[len(wanted)-1].Y)
	if limit > 0 && limit*wanted[len(wanted)-1].Y < 3*most {
		most = max(most, limit*wanted[len(wanted)-1].Y)
	}
	c := newChart("Registry egress", "What the registry sent, aborted and repeated bytes included, beside one copy of what had been asked for.",
		timeAxis(sinceStart, end), byteAxis("sent", most*1.06))
	c.shade("a fault", r.faultSpans())
	c.line("one copy of what was wanted", wanted, inkText, dotted, true)
	if limit > 0 {
		allowed := slices.Clone(wanted)
		for i := range allowed {
			allowed[i].Y *= limit
		}
		c.line("the scenario's limit", allowed, inkOrange, dashed, true)
	}
	c.line("sent", sent, inkRed, solid, false)
	return c
}

// wanted is the size of what pulls had asked for by each time, each blob once.
func (r *Report) wanted(end float64) plotter.XYs {
	seen := make([]bool, len(r.run.Blobs))
	var points plotter.XYs
	var sum float64
	order := make([]int, len(r.run.Pulls))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(r.due(a), r.due(b)) })
	for _, i := range order {
		image := &r.run.Images[r.run.Pulls[i].Image]
		before := sum
		for _, b := range append([]int{image.Manifest}, image.Layers...) {
			if !seen[b] {
				seen[b] = true
				sum += float64(r.run.Blobs[b].Size)
			}
		}
		if sum > before {
			points = append(points, plotter.XY{X: min(r.due(i).Seconds(), end), Y: sum})
		}
	}
	if len(points) > 0 {
		points = append(points, plotter.XY{X: end, Y: sum})
	}
	return points
}

// linkChart shows how busy the links of each class were.
func (r *Report) linkChart(end float64) *chart {
	styles := [simulation.LinkClasses]struct {
		name   string
		colour ink
		dash   []vg.Length
	}{
		simulation.Access:     {"nodes' links", inkBlue, solid},
		simulation.RackUplink: {"rack uplinks", inkGreen, dashed},
		simulation.ZoneUplink: {"zone links", inkOrange, dotted},
		simulation.PaidUplink: {"paid zone links", inkPurple, broken},
		simulation.OriginLink: {"registry's link", inkRed, long},
	}
	most := 0.0
	var lines [simulation.LinkClasses]plotter.XYs
	for class := range simulation.LinkClasses {
		capacity := float64(r.res.Capacity[class])
		if capacity <= 0 || r.res.Links[class] == 0 {
			continue
		}
		if class == simulation.ZoneUplink && r.res.Capacity[simulation.PaidUplink] == r.res.Capacity[class] {
			continue // all are paid: it would be the same line
		}
		r.windows(func(from, to *simulation.Point) {
			share := float64(to.Links[class]-from.Links[class]) / capacity / (to.At - from.At).Seconds()
			lines[class] = append(lines[class], plotter.XY{X: from.At.Seconds(), Y: share})
			most = max(most, share)
		})
		if n := len(lines[class]); n > 0 {
			lines[class] = append(lines[class], plotter.XY{X: end, Y: lines[class][n-1].Y})
		}
	}
	if most == 0 {
		return nil
	}
	c := newChart("Use of links", "What went over all links of a class as a part of what they could carry.", timeAxis(sinceStart, end), shareAxis("of capacity", max(most*1.04, 0.01)))
	c.shade("a fault", r.faultSpans())
	for class, points := range lines {
		s := styles[class]
		c.line(s.name, points, s.colour, s.dash, true)
	}
	return c
}

// messageChart shows how much nodes talked.
func (r *Report) messageChart(end float64) *chart {
	var points plotter.XYs
	most := 0.0
	r.windows(func(from, to *simulation.Point) {
		each := float64(to.Messages-from.Messages) / (to.At - from.At).Seconds() / float64(r.Nodes)
		points = append(points, plotter.XY{X: from.At.Seconds(), Y: each})
		most = max(most, each)
	})
	if most == 0 {
		return nil
	}
	points = append(points, plotter.XY{X: end, Y: points[len(points)-1].Y})
	c := newChart("Messages", "Control messages that a node sent in a second, the mean of all nodes.", timeAxis(sinceStart, end), axis{label: "messages a second", max: most * 1.04, unit: 1, bases: tens})
	c.shade("a fault", r.faultSpans())
	c.line("messages", points, inkPurple, solid, true)
	return c
}

// windows calls f for the spans of time that rates are shown for: some, or the lines
// would be noise.
func (r *Report) windows(f func(from, to *simulation.Point)) {
	const most = 60
	every := max(1, len(r.res.Series)/most)
	var from simulation.Point
	for i := every - 1; i < len(r.res.Series); i += every {
		if to := &r.res.Series[i]; to.At > from.At {
			f(&from, to)
			from = *to
		}
	}
}

// waitChart shows how long clients waited: for the first byte, and for all.
func (r *Report) waitChart(float64) *chart {
	var first, all []float64
	for _, d := range firstBytes(r.res) {
		first = append(first, d.Seconds())
	}
	for _, d := range r.res.Completion {
		all = append(all, d.Seconds())
	}
	if len(first) == 0 && len(all) == 0 {
		return nil
	}
	most := slices.Max(append(slices.Clone(first), all...))
	x := timeAxis("time since the client's start", most*1.02)
	if least := leastAbove(first); least > 0 && most/least > 30 {
		x = logTimeAxis("time since the client's start", least*0.9, most*1.1)
	}
	c := newChart("Waiting", "Of the clients that got so far, the part that had the first byte of a layer, and everything, within a time.", x, shareAxis("clients", 1.02))
	for _, l := range []struct {
		name   string
		values []float64
		colour ink
		dash   []vg.Length
	}{{"first byte", first, inkGreen, dashed}, {"everything", all, inkBlue, solid}} {
		points := steps(l.values, len(l.values), x.max)
		for i := range points {
			points[i].X = max(points[i].X, x.min)
		}
		c.line(l.name, points, l.colour, l.dash, true)
	}
	return c
}

// leastAbove is the least value above a microsecond.
func leastAbove(values []float64) float64 {
	least := 0.0
	for _, v := range values {
		if v > 1e-6 && (least == 0 || v < least) {
			least = v
		}
	}
	return least
}
