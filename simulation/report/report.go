package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/scenario"
)

// Schema is the version of the JSON document.
const Schema = 1

// maxUnserved is how many clients that were not served are named.
const maxUnserved = 20

// About is what a result does not know of itself.
type About struct {
	// Description is the scenario's own.
	Description string
	// Version, Commit, Modified, Go and Platform are the binary's.
	Version, Commit string
	Modified        bool
	Go, Platform    string
	// Command is the line that does the run again.
	Command string
	Sharing simulation.Sharing
}

// Report is the JSON document: see the package comment.
type Report struct {
	Schema      int    `json:"schema"`
	Scenario    string `json:"scenario"`
	Description string `json:"description,omitempty"`
	Seed        uint64 `json:"seed"`
	Nodes       int    `json:"nodes"`
	TraceHash   string `json:"trace_hash"`
	Version     string `json:"version,omitempty"`
	Commit      string `json:"commit,omitempty"`
	Modified    bool   `json:"modified,omitempty"`
	Go          string `json:"go,omitempty"`
	Platform    string `json:"platform,omitempty"`
	Command     string `json:"command"`

	OK       bool       `json:"ok"`
	Problems []string   `json:"problems"`
	Partial  bool       `json:"partial"`
	Pulls    Pulls      `json:"pulls"`
	Unserved []Unserved `json:"unserved"`

	Makespan      float64      `json:"makespan_seconds"`
	Optimum       float64      `json:"optimum_seconds"`
	MakespanRatio *float64     `json:"makespan_ratio"`
	Completion    Distribution `json:"completion_seconds"`
	FirstByte     Distribution `json:"first_byte_seconds"`

	UniqueBytes            int64            `json:"unique_bytes"`
	OriginBytes            int64            `json:"origin_bytes"`
	OriginEgressRatio      *float64         `json:"origin_egress_ratio"`
	WithoutBytes           int64            `json:"without_bytes"`
	OriginRequests         int64            `json:"origin_requests"`
	OriginManifestRequests int64            `json:"origin_manifest_requests"`
	OriginThrottled        int64            `json:"origin_throttled"`
	PeerBytes              int64            `json:"peer_bytes"`
	StoreBytes             int64            `json:"store_bytes"`
	CutBytes               int64            `json:"cut_bytes"`
	LinkBytes              map[string]int64 `json:"link_bytes"`
	LinkCapacity           map[string]int64 `json:"link_capacity"`

	Messages        map[string]int64     `json:"messages"`
	MessageCount    int64                `json:"message_count"`
	MessagesPerNode float64              `json:"messages_per_node"`
	MessagesPerPull float64              `json:"messages_per_pull"`
	Mechanisms      map[string]int64     `json:"mechanisms"`
	Counters        map[string]int64     `json:"counters"`
	Invariants      map[string]Invariant `json:"invariants"`
	Recovery        float64              `json:"recovery_seconds"`

	Configuration *Configuration `json:"configuration,omitempty"`
	Faults        []Fault        `json:"faults,omitempty"`
	Notes         []string       `json:"notes,omitempty"`

	Events          int64   `json:"events"`
	Steps           int64   `json:"steps"`
	EventsPerSecond float64 `json:"events_per_second"`
	Wall            float64 `json:"wall_seconds"`
	Virtual         float64 `json:"virtual_seconds"`

	Series []Point `json:"series,omitempty"`

	run *scenario.Run
	res *simulation.Result
	// curve is what is left of the completion's course in a short report.
	curve plotter.XYs
}

// Pulls counts the run's pulls by how they ended.
type Pulls struct {
	Total    int `json:"total"`
	Complete int `json:"complete"`
	// Unserved are those that should have been served. Excused: the node was dead or
	// cut off. Refused: the registry does not let the node in, and it was told so. Unfinished: the
	// run was interrupted before them.
	Unserved   int `json:"unserved"`
	Excused    int `json:"excused"`
	Refused    int `json:"refused"`
	Unfinished int `json:"unfinished"`
	// Failures is how often clients were told that they cannot have a blob.
	Failures int64 `json:"failures"`
}

// Unserved is a client that did not get its image.
type Unserved struct {
	Node     int     `json:"node"`
	Image    string  `json:"image"`
	Begun    float64 `json:"begun_seconds"`
	Status   int     `json:"status"` // HTTP, 0: it was still waiting
	Failures int     `json:"failures"`
}

// Distribution is that of times in seconds.
type Distribution struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Invariant is a rule that holds at every step.
type Invariant struct {
	Rule       string `json:"rule"`
	Checks     int64  `json:"checks"`
	Violations int64  `json:"violations"`
	First      string `json:"first,omitempty"`
}

// Point is the state of a run at a time; all but At are sums from the start.
type Point struct {
	At         float64          `json:"at_seconds"`
	Done       int              `json:"done"`
	FromOrigin int64            `json:"from_origin"`
	FromPeers  int64            `json:"from_peers"`
	FromStore  int64            `json:"from_store"`
	Egress     int64            `json:"origin_bytes"`
	Messages   int64            `json:"messages"`
	LinkBytes  map[string]int64 `json:"link_bytes"`
}

// messageNames are those of the metrics that real nodes keep.
var messageNames = [...]string{
	policy.MsgState: "state", policy.MsgHave: "have", policy.MsgLeave: "leave", policy.MsgAsk: "ask",
	policy.MsgGrant: "grant", policy.MsgGiveBack: "give_back", policy.MsgRedirect: "redirect",
	policy.MsgPeers: "peers", policy.MsgPing: "ping", policy.MsgPong: "pong",
	policy.MsgAskSums: "ask_sums", policy.MsgSums: "sums", policy.MsgJoin: "join", policy.MsgCooldown: "cooldown", policy.MsgFree: "free",
}

func messageName(kind int) string {
	if kind < len(messageNames) && messageNames[kind] != "" {
		return messageNames[kind]
	}
	return fmt.Sprintf("kind_%d", kind)
}

// New makes the report of a run. It keeps both, and changes neither.
func New(run *scenario.Run, res *simulation.Result, about About) *Report {
	r := &Report{
		Schema: Schema, Scenario: run.Name, Description: about.Description, Seed: run.Seed, Nodes: len(run.Nodes),
		TraceHash: fmt.Sprintf("%016x", res.Trace), Version: about.Version, Commit: about.Commit, Modified: about.Modified,
		Go: about.Go, Platform: about.Platform, Command: about.Command, Partial: res.Partial,
		Makespan: seconds(res.Makespan), Optimum: seconds(res.Optimum), MakespanRatio: ratio(int64(res.Makespan), int64(res.Optimum)),
		Completion: distribution(res.Completion), FirstByte: distribution(firstBytes(res)),
		UniqueBytes: res.UniqueBytes, OriginBytes: res.OriginBytes, OriginEgressRatio: ratio(res.OriginBytes, res.UniqueBytes),
		OriginRequests: res.OriginRequests, OriginManifestRequests: res.ManifestRequests, OriginThrottled: res.Throttled,
		PeerBytes: res.PeerBytes, CutBytes: res.CutBytes,
		LinkBytes: links(&res.Links), LinkCapacity: links(&res.Capacity),
		Messages: map[string]int64{}, MessageCount: res.MessageCount(), Counters: map[string]int64{},
		Invariants: map[string]Invariant{}, Recovery: seconds(res.Recovery),
		Configuration: configuration(run, about.Sharing), Faults: faults(run), Notes: run.Notes,
		Events: res.Events, Steps: res.Steps, Wall: seconds(res.Wall),
		Problems: []string{}, Unserved: []Unserved{},
		run: run, res: res,
	}
	for kind, n := range res.Messages {
		if n > 0 || kind > 0 && kind < len(messageNames) {
			r.Messages[messageName(kind)] = n
		}
	}
	r.MessagesPerNode = math.Round(100*float64(r.MessageCount)/float64(max(r.Nodes, 1))) / 100
	r.MessagesPerPull = math.Round(100*float64(r.MessageCount)/float64(max(len(run.Pulls), 1))) / 100
	for m := policy.Metric(1); m < policy.MetricCount; m++ {
		r.Counters[m.String()] = res.Metrics[m]
	}
	r.Mechanisms = mechanisms(res)
	for _, i := range res.Invariants {
		r.Invariants[i.Name] = Invariant{Rule: i.Rule, Checks: i.Checks, Violations: i.Violations, First: i.First}
	}
	if w := res.Wall.Seconds(); w > 0 {
		r.EventsPerSecond = math.Round(float64(res.Events) / w)
	}
	for i := range res.Series {
		p := &res.Series[i]
		r.Series = append(r.Series, Point{At: seconds(p.At), Done: p.Done, FromOrigin: p.FromOrigin, FromPeers: p.FromPeers,
			FromStore: p.FromStore, Egress: p.Egress, Messages: p.Messages, LinkBytes: links(&p.Links)})
		r.StoreBytes, r.Virtual = p.FromStore, seconds(p.At)
	}
	r.Virtual = max(r.Virtual, r.Makespan)
	r.WithoutBytes = without(run)
	if r.Partial || r.Makespan == 0 || r.lastStart() > res.Optimum/2 {
		// There is more to come, or most of both times is waiting for the last client.
		r.MakespanRatio = nil
	}
	r.countPulls()
	r.judge()
	return r
}

// lastStart is when the last client began, from the first one's start on.
func (r *Report) lastStart() time.Duration {
	var last time.Duration
	for i := range r.run.Pulls {
		last = max(last, r.due(i)-r.run.Pulls[0].At)
	}
	return last
}

// due is when a client was to begin: at its time, or when the wave before it was done.
func (r *Report) due(i int) time.Duration { return max(r.run.Pulls[i].At, r.res.Pulls[i].At) }

func (r *Report) countPulls() {
	r.Pulls = Pulls{Total: len(r.res.Pulls), Failures: r.res.Failures}
	for i := range r.res.Pulls {
		p := &r.res.Pulls[i]
		switch {
		case p.Done > 0:
			r.Pulls.Complete++
		case p.Excused:
			r.Pulls.Excused++
		case r.locked(p):
			r.Pulls.Refused++
		case r.Partial && p.Status == 0:
			r.Pulls.Unfinished++
		default:
			r.Pulls.Unserved++
			if len(r.Unserved) < maxUnserved {
				r.Unserved = append(r.Unserved, Unserved{Node: p.Node, Image: r.run.Images[p.Image].Name,
					Begun: seconds(p.Begun), Status: p.Status, Failures: p.Failures})
			}
		}
	}
}

// without is what the registry would send if each node asked it for all that its clients
// pull, each blob once.
func without(run *scenario.Run) int64 {
	type wanted struct{ node, blob int }
	seen := map[wanted]bool{}
	images := map[wanted]bool{}
	var sum int64
	for i := range run.Pulls {
		p := &run.Pulls[i]
		if images[wanted{p.Node, p.Image}] {
			continue
		}
		images[wanted{p.Node, p.Image}] = true
		image := &run.Images[p.Image]
		for _, b := range append([]int{image.Manifest}, image.Layers...) {
			if k := (wanted{p.Node, b}); !seen[k] {
				seen[k] = true
				sum += run.Blobs[b].Size
			}
		}
	}
	return sum
}

// firstBytes is how long clients waited for the first byte, ascending; where the run was
// interrupted also those that were not done yet.
func firstBytes(res *simulation.Result) []time.Duration {
	if !res.Partial {
		return res.FirstByte
	}
	var all []time.Duration
	for i := range res.Pulls {
		if p := &res.Pulls[i]; p.First > 0 {
			all = append(all, p.First-p.Begun)
		}
	}
	slices.Sort(all)
	return all
}

// locked says whether a client was refused as it should be: the registry does not let
// its node in.
func (r *Report) locked(p *simulation.PullResult) bool {
	n := r.run.Origin.Readers
	return n > 0 && p.Node >= n && (p.Status == http.StatusUnauthorized || p.Status == http.StatusForbidden || p.Status == http.StatusNotFound)
}

// judge fills in Problems and OK.
func (r *Report) judge() {
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	for _, name := range r.invariantNames() {
		if i := r.Invariants[name]; i.Violations > 0 {
			text := fmt.Sprintf("invariant %s: %s", name, plural(i.Violations, "violation", "violations"))
			if i.First != "" {
				text += "; the first: " + i.First
			}
			problem("%s", text)
		}
	}
	if n := r.Pulls.Unserved; n > 0 {
		u := r.Unserved[0]
		last := "was still waiting"
		if u.Status > 0 {
			last = fmt.Sprintf("was told %d", u.Status)
		}
		problem("%s not served; node %d, image %s, %s", plural(n, "pull was", "pulls were"), u.Node, u.Image, last)
	}
	if r.overEgress() {
		problem("the origin sent %s, %.4f times what was wanted; the scenario allows %.4f", size(r.OriginBytes), *r.OriginEgressRatio, float64(r.run.Limits.Egress)/1e6)
	}
	r.OK = len(r.Problems) == 0
}

// Ways are the ways in which the run is not as demanded: names that are the same for two
// runs that fail alike.
func (r *Report) Ways() []string {
	var ways []string
	for _, name := range r.invariantNames() {
		if r.Invariants[name].Violations > 0 {
			ways = append(ways, "invariant "+name)
		}
	}
	if r.Pulls.Unserved > 0 {
		ways = append(ways, "unserved")
	}
	if r.overEgress() {
		ways = append(ways, "egress limit")
	}
	return ways
}

// overEgress says whether the origin sent more than the scenario allows.
func (r *Report) overEgress() bool {
	l := r.run.Limits.Egress
	return l > 0 && r.UniqueBytes > 0 && float64(r.OriginBytes) > float64(r.UniqueBytes)*float64(l)/1e6
}

// invariantNames lists the invariants in the order in which they were given.
func (r *Report) invariantNames() []string {
	names := make([]string, 0, len(r.Invariants))
	for _, i := range r.res.Invariants {
		if !slices.Contains(names, i.Name) {
			names = append(names, i.Name)
		}
	}
	return names
}

// JSON writes the document.
func (r *Report) JSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// mechanismNames are the mechanisms in the order in which tables have them.
var mechanismNames = []string{"takeovers", "redirects", "hedges", "bans", "busy", "regrants", "refetches"}

// mechanisms counts what makes a cluster survive: refetches are what was read from
// the origin again because of a lie.
func mechanisms(res *simulation.Result) map[string]int64 {
	m := &res.Metrics
	return map[string]int64{
		"takeovers": m[policy.CountTakeover], "redirects": m[policy.CountRedirect], "hedges": m[policy.CountHedge],
		"bans": m[policy.CountBan], "busy": m[policy.CountBusy], "regrants": m[policy.CountRegrant],
		"refetches": m[policy.CountRefuted],
	}
}

func links(by *[simulation.LinkClasses]int64) map[string]int64 {
	m := make(map[string]int64, len(by))
	for class, n := range by {
		m[simulation.LinkClass(class).String()] = n
	}
	return m
}

func distribution(sorted []time.Duration) Distribution {
	d := Distribution{Count: len(sorted)}
	if d.Count == 0 {
		return d
	}
	var sum float64
	for _, v := range sorted {
		sum += v.Seconds()
	}
	d.Mean = math.Round(sum/float64(d.Count)*1e6) / 1e6
	d.P50, d.P90 = seconds(simulation.Percentile(sorted, 50)), seconds(simulation.Percentile(sorted, 90))
	d.P99, d.Max = seconds(simulation.Percentile(sorted, 99)), seconds(sorted[len(sorted)-1])
	return d
}
