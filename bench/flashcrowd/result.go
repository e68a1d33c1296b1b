package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/peercache/peercache/bench/internal/rig"
)

// result is what a run of the program found out. Keys that `peercache simulate --json`
// has as well mean the same.
type result struct {
	Scenario    string            `json:"scenario"`
	Seed        uint64            `json:"seed"`
	Nodes       int               `json:"nodes"`
	Options     map[string]string `json:"options"`
	Images      []*image          `json:"images"`
	UniqueBytes int64             `json:"unique_bytes"`
	Quantiles   string            `json:"quantiles"`
	Runs        []runResult       `json:"runs"`

	experiment *experiment
}

// runResult is one crowd. Bytes, seconds, bytes a second. Sums over nodes include
// those to which something was done, as they stood last.
type runResult struct {
	Link       float64 `json:"link_goodput"`
	OriginLink float64 `json:"origin_goodput"`

	Origin           counts  `json:"origin"`
	OriginBytes      int64   `json:"origin_bytes"`
	OriginRatio      float64 `json:"origin_egress_ratio"`
	OriginRequests   int     `json:"origin_requests"`
	ManifestRequests int     `json:"origin_manifest_requests"`
	// OriginRatioAtEnd is the same when the last counted client was done; what
	// nodes read for their own stores afterwards is left out.
	OriginRatioAtEnd float64 `json:"origin_egress_ratio_at_end"`
	// NodesSay is the same as the nodes' own metrics have it.
	NodesSay struct {
		Bytes     float64            `json:"bytes"`
		Manifests float64            `json:"manifest_requests"`
		Blobs     float64            `json:"blob_requests"`
		ByCode    map[string]float64 `json:"requests"`
		// Difference is theirs over the origin's, less 1.
		Difference float64 `json:"bytes_difference"`
	} `json:"nodes_say"`

	Makespan      float64 `json:"makespan_seconds"` // from the first client's start to the last counted one's end
	Optimum       float64 `json:"optimum_seconds"`  // T*
	OriginBound   bool    `json:"origin_bound"`
	MakespanRatio float64 `json:"makespan_ratio"`
	OneCopy       float64 `json:"one_copy_seconds"` // size / min(link, origin)
	OneCopyRatio  float64 `json:"makespan_over_one_copy"`

	Completion rig.Distribution `json:"completion_seconds"` // of counted clients, each from its own start
	P99OverP50 float64          `json:"p99_over_p50"`
	FirstByte  rig.Distribution `json:"first_byte_seconds"` // of a layer, from the client's start
	// RequestFirstByte is from the request for the layer, DirectFirstByte the same from
	// the idle origin.
	RequestFirstByte rig.Distribution `json:"request_first_byte_seconds"`
	DirectFirstByte  rig.Distribution `json:"direct_first_byte_seconds"`
	// FirstByteChunks is how much later than directly the p99 of first bytes is,
	// in times of 1 MiB on a link.
	FirstByteChunks float64 `json:"first_byte_more_chunk_times"`

	CPU       float64 `json:"cpu_seconds"`
	CPUPerGiB float64 `json:"cpu_seconds_per_gib"` // that counted clients received
	BenchCPU  float64 `json:"bench_cpu_seconds"`

	VmHWM   rig.Distribution `json:"vm_hwm"`   // over nodes
	RssAnon rig.Distribution `json:"rss_anon"` // over nodes, each one's largest sample

	Messages        int64            `json:"message_count"`
	MessagesPerNode float64          `json:"messages_per_node"`
	ControlMessages rig.Distribution `json:"control_messages"` // sent by a node
	ControlBytes    rig.Distribution `json:"control_bytes"`
	// Duplicates is what counted nodes received beyond one copy each, as a part
	// of those copies; below 0 by what they got along with records of tags.
	Duplicates float64            `json:"duplicates"`
	Wasted     map[string]float64 `json:"wasted_bytes"`
	Policy     map[string]float64 `json:"policy"`

	// Clients counts pulls.
	Clients struct {
		Total      int      `json:"total"`
		Completed  int      `json:"complete"`
		Failed     int      `json:"unserved"`
		NotCounted int      `json:"excused"` // something was done to their nodes
		Resumes    int      `json:"resumes"`
		Retries    int      `json:"failures"`
		WrongBytes int      `json:"wrong_bytes"`
		Errors     []string `json:"errors,omitempty"`
	} `json:"pulls"`
	Private *privateResult `json:"private,omitempty"`
	Fault   *faultResult   `json:"faults,omitempty"`
	Each    []*pulled      `json:"each_pull"`
	Nodes   []nodeResult   `json:"each_node"`
}

// privateResult is about the nodes without the password.
type privateResult struct {
	Refused int      `json:"refused"` // their clients got 401 or 403
	Other   []string `json:"other,omitempty"`
	Holding []string `json:"holding,omitempty"` // what of the image is in their stores
}

// nodeResult is one node.
type nodeResult struct {
	Fate        string  `json:"fate,omitempty"`
	Lives       int     `json:"lives"`
	Coordinator bool    `json:"coordinator,omitempty"` // ranked first for the first layer
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
	res.OriginBytes, res.ManifestRequests = res.Origin.Bytes, res.Origin.manifests()
	for _, t := range res.Origin.Requests {
		res.OriginRequests += t.all()
	}
	res.OriginRatio = ratio(float64(res.Origin.Bytes), float64(c.content.unique))
	res.MakespanRatio = ratio(res.Makespan, res.Optimum)
	res.OneCopyRatio = ratio(res.Makespan, res.OneCopy)
	res.Wasted, res.Policy, res.NodesSay.ByCode = map[string]float64{}, map[string]float64{}, map[string]float64{}
	if c.e.private() {
		res.Private = &privateResult{}
	}
	for i, m := range c.members {
		if err := errors.Join(m.reckon(ctx), m.rest()); err != nil {
			return err
		}
		d := m.past
		n := nodeResult{Fate: m.suffered(), Lives: m.lives, Coordinator: i == c.first, CPU: m.pastCPU.Seconds(), VmHWM: m.memory.Peak, RssAnon: m.memory.Anon}
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
		res.Messages += int64(n.Sent)
		res.Nodes = append(res.Nodes, n)
	}
	for _, p := range c.pulls {
		if err := c.judge(p, res); err != nil {
			return err
		}
	}
	res.Each = c.pulls
	c.reckonPulls(res)
	res.NodesSay.Difference = ratio(res.NodesSay.Bytes, float64(res.Origin.Bytes)) - 1
	res.P99OverP50 = ratio(res.Completion.P99, res.Completion.P50)
	res.FirstByteChunks = ratio(res.RequestFirstByte.P99-res.DirectFirstByte.P50, mib/res.Link)
	nodes := func(f func(nodeResult) float64) rig.Distribution { return rig.DistributionOf(rig.Column(res.Nodes, f)) }
	res.VmHWM = nodes(func(n nodeResult) float64 { return float64(n.VmHWM) })
	res.RssAnon = nodes(func(n nodeResult) float64 { return float64(n.RssAnon) })
	res.ControlMessages = nodes(func(n nodeResult) float64 { return n.Sent })
	res.MessagesPerNode = ratio(float64(res.Messages), float64(len(res.Nodes)))
	res.ControlBytes = nodes(func(n nodeResult) float64 { return n.SentBytes })
	return nil
}

// reckonPulls sums up the pulls that count and were served.
func (c *crowd) reckonPulls(res *runResult) {
	var received, delivered, wanted float64
	var good []*pulled
	seen := make([]bool, len(c.members))
	for _, p := range c.pulls {
		m := c.members[p.Node]
		if !m.counted() || p.Error != "" {
			continue
		}
		good = append(good, p)
		delivered += float64(p.Bytes)
		if !seen[p.Node] {
			seen[p.Node] = true
			n := &res.Nodes[p.Node]
			received += n.FromOrigin + n.FromPeers
			for d := range m.has {
				wanted += float64(c.content.sizes[d])
			}
		}
	}
	res.CPUPerGiB = ratio(res.CPU, delivered/(1<<30))
	if wanted > 0 {
		res.Duplicates = received/wanted - 1
	}
	times := func(of []*pulled, f func(*pulled) float64) rig.Distribution {
		return rig.DistributionOf(rig.Column(of, f))
	}
	res.Completion = times(good, func(p *pulled) float64 { return p.Seconds })
	// Whose client had all layers already got no byte.
	begun := slices.DeleteFunc(good, func(p *pulled) bool { return p.FirstByte == 0 })
	res.FirstByte = times(begun, func(p *pulled) float64 { return p.FirstByte })
	res.RequestFirstByte = times(begun, func(p *pulled) float64 { return p.RequestFirstByte })
}

// judge counts what became of a pull.
func (c *crowd) judge(p *pulled, res *runResult) error {
	m := c.members[p.Node]
	res.Clients.Total++
	if strings.Contains(p.Error, "WRONG BYTES") {
		res.Clients.WrongBytes++
		res.Clients.Errors = append(res.Clients.Errors, fmt.Sprintf("node %d: %s", p.Node, p.Error))
	}
	switch {
	case !m.password:
		if p.Status == 401 || p.Status == 403 {
			res.Private.Refused++
		} else {
			res.Private.Other = append(res.Private.Other, fmt.Sprintf("node %d: status %d %s", p.Node, p.Status, p.Error))
		}
		held, err := c.holds(m)
		if err != nil {
			return err
		}
		for _, h := range held {
			res.Private.Holding = append(res.Private.Holding, fmt.Sprintf("node %d: %s", p.Node, h))
		}
	case m.suffered() != untouched:
		res.Clients.NotCounted++
	case p.Error == "":
		res.Clients.Completed++
		res.Clients.Resumes += p.Resumes
		res.Clients.Retries += p.Retries
	default:
		res.Clients.Failed++
		res.Clients.Errors = append(res.Clients.Errors, fmt.Sprintf("node %d after %.1f s: %s", p.Node, p.Seconds, p.Error))
	}
	return nil
}

// ratio is a/b, 0 where there is nothing to compare with: JSON has no infinity.
func ratio(a, b float64) float64 {
	if r := a / b; !math.IsNaN(r) && !math.IsInf(r, 0) {
		return r
	}
	return 0
}
