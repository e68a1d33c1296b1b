package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/peercache/peercache/bench/internal/rig"
)

// result is what a run of the program found out.
type result struct {
	Options   map[string]string `json:"options"`
	Image     *image            `json:"image"`
	Quantiles string            `json:"quantiles"`
	Runs      []runResult       `json:"runs"`
}

// runResult is one crowd. Bytes, seconds, bytes a second. Sums over nodes include
// those to which something was done, as they stood last.
type runResult struct {
	Link       float64 `json:"link_goodput"`
	OriginLink float64 `json:"origin_goodput"`

	Origin      counts  `json:"origin"`
	OriginRatio float64 `json:"origin_over_unique"`
	// OriginRatioAtEnd is the same when the last counted client was done; what
	// nodes read for their own stores afterwards is left out.
	OriginRatioAtEnd float64 `json:"origin_over_unique_at_end"`
	// NodesSay is the same as the nodes' own metrics have it.
	NodesSay struct {
		Bytes     float64            `json:"bytes"`
		Manifests float64            `json:"manifest_requests"`
		Blobs     float64            `json:"blob_requests"`
		ByCode    map[string]float64 `json:"requests"`
		// Difference is theirs over the origin's, less 1.
		Difference float64 `json:"bytes_difference"`
	} `json:"nodes_say"`

	Makespan      float64 `json:"makespan"` // from the first client's start to the last counted one's end
	Optimum       float64 `json:"optimum"`  // T*
	OriginBound   bool    `json:"origin_bound"`
	MakespanRatio float64 `json:"makespan_over_optimum"`
	OneCopy       float64 `json:"one_copy"` // size / min(link, origin)
	OneCopyRatio  float64 `json:"makespan_over_one_copy"`

	Times           spread  `json:"times"` // of counted clients, each from its own start
	P99OverP50      float64 `json:"p99_over_p50"`
	FirstByte       spread  `json:"first_byte"`
	FromStart       spread  `json:"first_byte_from_start"`
	DirectFirstByte spread  `json:"first_byte_direct"`
	// FirstByteChunks is how much later than directly the p99 of first bytes is,
	// in times of 1 MiB on a link.
	FirstByteChunks float64 `json:"first_byte_more_chunk_times"`

	CPU       float64 `json:"cpu_seconds"`
	CPUPerGiB float64 `json:"cpu_seconds_per_gib"` // that counted clients received
	BenchCPU  float64 `json:"bench_cpu_seconds"`

	VmHWM   spread `json:"vm_hwm"`   // over nodes
	RssAnon spread `json:"rss_anon"` // over nodes, each one's largest sample

	ControlMessages spread `json:"control_messages"` // sent by a node
	ControlBytes    spread `json:"control_bytes"`
	// Duplicates is what counted nodes received beyond one copy each, as a part
	// of those copies; below 0 by what they got along with records of tags.
	Duplicates float64            `json:"duplicates"`
	Wasted     map[string]float64 `json:"wasted_bytes"`
	Policy     map[string]float64 `json:"policy"`

	Clients struct {
		Completed  int      `json:"completed"`
		Failed     int      `json:"failed"`
		NotCounted int      `json:"not_counted"` // something was done to their nodes
		Resumes    int      `json:"resumes"`
		WrongBytes int      `json:"wrong_bytes"`
		Errors     []string `json:"errors,omitempty"`
	} `json:"clients"`
	Private *privateResult `json:"private,omitempty"`
	Fault   *faultResult   `json:"fault,omitempty"`
	Nodes   []nodeResult   `json:"nodes"`
}

// privateResult is about the nodes without the password.
type privateResult struct {
	Refused int      `json:"refused"` // their clients got 401 or 403
	Other   []string `json:"other,omitempty"`
	Holding []string `json:"holding,omitempty"` // what of the image is in their stores
}

// nodeResult is one node and its client.
type nodeResult struct {
	Fate        string  `json:"fate,omitempty"`
	Coordinator bool    `json:"coordinator,omitempty"` // ranks first for the first layer
	Client      *pulled `json:"client"`
	CPU         float64 `json:"cpu_seconds"`
	VmHWM       int64   `json:"vm_hwm"`
	RssAnon     int64   `json:"rss_anon"`
	FromOrigin  float64 `json:"received_origin"`
	FromPeers   float64 `json:"received_peer"`
	Sent        float64 `json:"control_messages_sent"`
	SentBytes   float64 `json:"control_bytes_sent"`
}

// collect reads all counters.
func (c *crowd) collect(ctx context.Context, res *runResult) error {
	res.Origin, _ = c.o.snapshot()
	res.OriginRatio = ratio(float64(res.Origin.Bytes), float64(c.img.Unique))
	res.MakespanRatio = ratio(res.Makespan, res.Optimum)
	res.OneCopyRatio = ratio(res.Makespan, res.OneCopy)
	res.Wasted, res.Policy, res.NodesSay.ByCode = map[string]float64{}, map[string]float64{}, map[string]float64{}
	if opts.private > 0 {
		res.Private = &privateResult{}
	}
	coordinator := c.coordinator()
	var received, delivered float64
	for i, m := range c.members {
		n := nodeResult{Fate: m.suffered(), Coordinator: i == coordinator, Client: m.pull, CPU: (m.lastCPU - m.cpu).Seconds()}
		now := m.last
		if n.Fate != killed {
			var err error
			if now, err = scrape(ctx, m.Node); err != nil {
				return fmt.Errorf("%w\n%s", err, m.Tail())
			}
		}
		memory, err := m.sampler.Stop()
		m.sampler = nil
		if err != nil && n.Fate != killed {
			return err
		}
		for _, s := range memory {
			n.VmHWM, n.RssAnon = max(n.VmHWM, s.Peak), max(n.RssAnon, s.Anon)
		}
		d := now.since(m.before)
		n.FromOrigin = d.sum("peercache_fetcher_received_bytes_total", `source="origin"`)
		n.FromPeers = d.sum("peercache_fetcher_received_bytes_total", `source="peer"`)
		n.Sent = d.sum("peercache_p2p_frames_total", `direction="out"`)
		n.SentBytes = d.sum("peercache_p2p_frame_bytes_total", `direction="out"`)
		res.NodesSay.Bytes += d.sum("peercache_origin_received_bytes_total")
		res.NodesSay.Manifests += d.sum("peercache_origin_requests_total", `kind="manifest"`)
		res.NodesSay.Blobs += d.sum("peercache_origin_requests_total", `kind="blob"`)
		for name, v := range d {
			if labels, ok := strings.CutPrefix(name, "peercache_origin_requests_total"); ok && v > 0 {
				res.NodesSay.ByCode[labels] += v
			}
		}
		for source, v := range d.byLabel("peercache_fetcher_wasted_bytes_total") {
			res.Wasted[source] += v
		}
		for event, v := range d.byLabel("peercache_fetcher_policy_total") {
			res.Policy[event] += v
		}
		res.CPU += n.CPU
		res.Nodes = append(res.Nodes, n)
		if m.counted() && m.pull.Error == "" {
			received += n.FromOrigin + n.FromPeers
			delivered += float64(m.pull.Bytes)
		}
		if err := c.judge(m, i, res); err != nil {
			return err
		}
	}
	res.NodesSay.Difference = ratio(res.NodesSay.Bytes, float64(res.Origin.Bytes)) - 1
	res.CPUPerGiB = ratio(res.CPU, delivered/(1<<30))
	res.Duplicates = ratio(received, float64(c.img.Unique)*float64(res.Clients.Completed)) - 1

	good := slices.DeleteFunc(slices.Clone(c.members), func(m *member) bool { return !m.counted() || m.pull.Error != "" })
	times := func(f func(*pulled) float64) spread {
		return spreadOf(rig.Column(good, func(m *member) float64 { return f(m.pull) }))
	}
	res.Times = times(func(p *pulled) float64 { return p.Seconds })
	res.FirstByte = times(func(p *pulled) float64 { return p.FirstByte })
	res.FromStart = times(func(p *pulled) float64 { return p.FromStart })
	res.P99OverP50 = ratio(res.Times.P99, res.Times.P50)
	res.FirstByteChunks = ratio(res.FirstByte.P99-res.DirectFirstByte.P50, mib/res.Link)
	nodes := func(f func(nodeResult) float64) spread { return spreadOf(rig.Column(res.Nodes, f)) }
	res.VmHWM = nodes(func(n nodeResult) float64 { return float64(n.VmHWM) })
	res.RssAnon = nodes(func(n nodeResult) float64 { return float64(n.RssAnon) })
	res.ControlMessages = nodes(func(n nodeResult) float64 { return n.Sent })
	res.ControlBytes = nodes(func(n nodeResult) float64 { return n.SentBytes })
	return nil
}

// judge counts what became of a client.
func (c *crowd) judge(m *member, i int, res *runResult) error {
	p := m.pull
	if strings.Contains(p.Error, "WRONG BYTES") {
		res.Clients.WrongBytes++
		res.Clients.Errors = append(res.Clients.Errors, fmt.Sprintf("node %d: %s", i+1, p.Error))
	}
	switch {
	case !m.password:
		if p.Status == 401 || p.Status == 403 {
			res.Private.Refused++
		} else {
			res.Private.Other = append(res.Private.Other, fmt.Sprintf("node %d: status %d %s", i+1, p.Status, p.Error))
		}
		held, err := c.holds(m)
		if err != nil {
			return err
		}
		for _, h := range held {
			res.Private.Holding = append(res.Private.Holding, fmt.Sprintf("node %d: %s", i+1, h))
		}
	case m.suffered() != untouched:
		res.Clients.NotCounted++
	case p.Error == "":
		res.Clients.Completed++
		res.Clients.Resumes += p.Resumes
	default:
		res.Clients.Failed++
		res.Clients.Errors = append(res.Clients.Errors, fmt.Sprintf("node %d after %.1f s: %s", i+1, p.Seconds, p.Error))
	}
	return nil
}

// The goals that every crowd has; kills allow for what they lose.
const (
	originGoal      = 1.02
	originGoalKill  = 1.08
	makespanGoal    = 1.25
	evennessGoal    = 1.15
	firstByteGoal   = 4
	memoryGoal      = 150 * mib
	agreementGoal   = 0.01
	resumeGoal      = 1.0
	headTagGoal     = 1
	getManifestGoal = 1
)

// row is a line of the table: how a run's cell reads, and, where there is a
// goal, its value and the most that it should be.
type row struct {
	name  string
	cell  func(*runResult) string
	value func(*runResult) float64
	goal  float64
}

func (res *result) table() *rig.Table {
	options := ""
	for _, name := range slices.Sorted(maps.Keys(res.Options)) {
		options += fmt.Sprintf(" -%s %s", name, res.Options[name])
	}
	columns := []string{""}
	for i := range res.Runs {
		columns = append(columns, fmt.Sprintf("run %d", i+1))
	}
	t := rig.NewTable("flashcrowd"+options, append(columns, "median", "goal, of all runs")...)
	for _, r := range res.rows() {
		cells := []any{r.name}
		var values []float64
		for i := range res.Runs {
			run := &res.Runs[i]
			if r.value != nil {
				values = append(values, r.value(run))
			}
			if r.cell != nil {
				cells = append(cells, r.cell(run))
			} else {
				cells = append(cells, fmt.Sprintf("%.4g", r.value(run)))
			}
		}
		median, verdict := "", ""
		if len(values) > 1 {
			median = fmt.Sprintf("%.4g", rig.Median(values))
		}
		if r.goal != 0 {
			verdict = fmt.Sprintf("<= %.4g: %s", r.goal, rig.Verdict(slices.Max(values) <= r.goal))
		}
		t.Row(append(cells, median, verdict)...)
	}
	t.Note("T* = t (M - 1 + ceil(log2(N+1))), t = 1 MiB / link, M = chunks of 1 MiB; size/origin + t (ceil(log2(N+1)) - 1) where the origin is slower")
	t.Note("quantiles: %s", res.Quantiles)
	for i := range res.Runs {
		run := &res.Runs[i]
		t.Note("run %d: policy %s", i+1, nonZero(run.Policy))
		if f := run.Fault; f != nil {
			t.Note("run %d: faults %s", i+1, inline(f))
		}
		if p := run.Private; p != nil {
			t.Note("run %d: without password %s", i+1, inline(p))
		}
		for _, e := range run.Clients.Errors {
			t.Note("run %d: %s", i+1, e)
		}
	}
	return t
}

func (res *result) rows() []row {
	spreadCell := func(f func(*runResult) spread, scale float64) func(*runResult) string {
		return func(r *runResult) string {
			s := f(r)
			return fmt.Sprintf("%.4g / %.4g / %.4g", s.P50/scale, s.P99/scale, s.Max/scale)
		}
	}
	requests := func(kind string) func(*runResult) string {
		return func(r *runResult) string {
			t := r.Origin.Requests[kind]
			return fmt.Sprintf("%d ok, %d refused, %d other", t.OK, t.Refused, t.Other)
		}
	}
	succeeded := func(kind string) func(*runResult) float64 {
		return func(r *runResult) float64 { return float64(r.Origin.Requests[kind].OK) }
	}
	goal := originGoal
	if slices.ContainsFunc(res.Runs, func(r runResult) bool { return r.Fault != nil && len(r.Fault.Killed) > 0 }) {
		goal = originGoalKill
	}
	// Where no link limits anything T* says nothing about nodes.
	slowGoal, waitGoal := makespanGoal, float64(firstByteGoal)
	if opts.rate == 0 {
		slowGoal, waitGoal = 0, 0
	}
	rows := []row{
		{name: "goodput of a link, MB/s", value: func(r *runResult) float64 { return r.Link / 1e6 }},
		{name: "goodput of the origin's, MB/s", value: func(r *runResult) float64 { return r.OriginLink / 1e6 }},
		{name: "origin bytes / unique", value: func(r *runResult) float64 { return r.OriginRatio }, goal: goal},
		{name: "  when the last client was done", value: func(r *runResult) float64 { return r.OriginRatioAtEnd }},
		{name: "  MiB, as the origin and as nodes count", cell: func(r *runResult) string {
			return fmt.Sprintf("%.2f, %.2f (%+.2f %%)", float64(r.Origin.Bytes)/mib, r.NodesSay.Bytes/mib, 100*r.NodesSay.Difference)
		}, value: func(r *runResult) float64 { return max(r.NodesSay.Difference, -r.NodesSay.Difference) }, goal: agreementGoal},
		{name: headTag, cell: requests(headTag), value: succeeded(headTag), goal: headTagGoal},
		{name: getTag, cell: requests(getTag), value: succeeded(getTag)},
		{name: headManifest, cell: requests(headManifest), value: succeeded(headManifest)},
		{name: getManifest, cell: requests(getManifest), value: succeeded(getManifest), goal: getManifestGoal},
		{name: "manifest requests, as origin and nodes count", cell: func(r *runResult) string {
			return fmt.Sprintf("%d, %.0f", r.Origin.manifests(), r.NodesSay.Manifests)
		}},
		{name: headBlob, cell: requests(headBlob)},
		{name: getBlob, cell: requests(getBlob)},
		{name: "makespan, s", value: func(r *runResult) float64 { return r.Makespan }},
		{name: "T*, s", cell: func(r *runResult) string {
			if r.OriginBound {
				return fmt.Sprintf("%.4g (the origin binds)", r.Optimum)
			}
			return fmt.Sprintf("%.4g", r.Optimum)
		}},
		{name: "makespan / T*", value: func(r *runResult) float64 { return r.MakespanRatio }, goal: slowGoal},
		{name: "makespan / (size / min(link, origin))", value: func(r *runResult) float64 { return r.OneCopyRatio }},
		{name: "a node's time, s: p50 / p99 / max", cell: spreadCell(func(r *runResult) spread { return r.Times }, 1)},
		{name: "p99 / p50", value: func(r *runResult) float64 { return r.P99OverP50 }, goal: evennessGoal},
		{name: "first byte of a layer, s: p50 / p99 / max", cell: spreadCell(func(r *runResult) spread { return r.FirstByte }, 1)},
		{name: "  the same from the pull's start", cell: spreadCell(func(r *runResult) spread { return r.FromStart }, 1)},
		{name: "  directly from the idle origin", cell: spreadCell(func(r *runResult) spread { return r.DirectFirstByte }, 1)},
		{name: "  p99 over directly, chunk times t", value: func(r *runResult) float64 { return r.FirstByteChunks }, goal: waitGoal},
		{name: "CPU-s of all nodes per GiB delivered", value: func(r *runResult) float64 { return r.CPUPerGiB }},
		{name: "CPU-s: all nodes, this program", cell: func(r *runResult) string { return fmt.Sprintf("%.4g, %.4g", r.CPU, r.BenchCPU) }},
		{name: "VmHWM of a node, MiB: p50 / p99 / max", cell: spreadCell(func(r *runResult) spread { return r.VmHWM }, mib),
			value: func(r *runResult) float64 { return r.VmHWM.Max / mib }, goal: memoryGoal / mib},
		{name: "RssAnon of a node, MiB: p50 / p99 / max", cell: spreadCell(func(r *runResult) spread { return r.RssAnon }, mib),
			value: func(r *runResult) float64 { return r.RssAnon.Max / mib }, goal: memoryGoal / mib},
		{name: "control messages sent by a node", cell: spreadCell(func(r *runResult) spread { return r.ControlMessages }, 1)},
		{name: "  their KiB", cell: spreadCell(func(r *runResult) spread { return r.ControlBytes }, 1024)},
		{name: "received twice / one copy each", value: func(r *runResult) float64 { return r.Duplicates }},
		{name: "wasted MiB: from origin, from peers", cell: func(r *runResult) string {
			return fmt.Sprintf("%.2f, %.2f", r.Wasted["origin"]/mib, r.Wasted["peer"]/mib)
		}},
		{name: "clients: completed, failed, not counted", cell: func(r *runResult) string {
			return fmt.Sprintf("%d, %d, %d", r.Clients.Completed, r.Clients.Failed, r.Clients.NotCounted)
		}},
		{name: "  resumes, wrong bytes", cell: func(r *runResult) string {
			return fmt.Sprintf("%d, %d", r.Clients.Resumes, r.Clients.WrongBytes)
		}},
	}
	if goal == originGoalKill {
		rows = append(rows,
			row{name: "after the kill: its reads go on elsewhere, s", cell: func(r *runResult) string {
				if len(r.Fault.Resumed)+r.Fault.NeverResumed == 0 {
					return "none was open"
				}
				return fmt.Sprintf("%.3g", resumed(r))
			}, value: resumed, goal: resumeGoal},
			row{name: "  longest silence of the origin, s", value: func(r *runResult) float64 { return r.Fault.Silence }, goal: resumeGoal})
	}
	return rows
}

// resumed is when the last of the reads that a kill cut off went on.
func resumed(r *runResult) float64 { return slices.Max(append([]float64{0}, r.Fault.Resumed...)) }

// inline writes what has a name for each figure as one line.
func inline(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error() // cannot be: plain structs
	}
	return strings.NewReplacer(`"`, "", ",", ", ", ":", " ").Replace(string(data))
}

func nonZero(m map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if m[name] != 0 {
			parts = append(parts, fmt.Sprintf("%s %.0f", name, m[name]))
		}
	}
	return strings.Join(parts, ", ")
}
