package main

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// virtualResult says how a run went, in one line of JSON. Times are seconds of the run.
type virtualResult struct {
	Driver   string `json:"driver"`
	Scenario string `json:"scenario"`
	Nodes    int    `json:"nodes"`
	Seed     uint64 `json:"seed"`

	// UniqueBytes is what the pulled images hold, EgressBytes what the origin wrote of
	// bodies, aborted and hedged ones included.
	UniqueBytes      int64   `json:"unique_bytes"`
	EgressBytes      int64   `json:"origin_egress_bytes"`
	Copies           float64 `json:"origin_egress_ratio"`
	OriginRequests   int64   `json:"origin_requests"`
	ManifestRequests int64   `json:"manifest_requests"`

	// Makespan is from the first pull's start to the last one's end; Optimum is T*, 0
	// where the nodes' links differ.
	Makespan float64 `json:"makespan_seconds"`
	Optimum  float64 `json:"optimum_seconds,omitempty"`
	Slowdown float64 `json:"makespan_ratio,omitempty"`

	Done    int `json:"done"`
	Failed  int `json:"failed"`
	Excused int `json:"excused"`
	Wrong   int `json:"wrong"`
	// Completion and FirstByte are how long each pull took, from its own start, by pull;
	// 0 for one that is not done.
	Completion []float64 `json:"completion_seconds"`
	FirstByte  []float64 `json:"first_byte_seconds"`

	// Messages are those that nodes which ran to the end sent, by kind; Policy their cores' counters.
	Messages        map[string]float64 `json:"messages"`
	MessagesPerNode float64            `json:"messages_per_node"`
	Policy          map[string]float64 `json:"policy"`
	PeerBytes       float64            `json:"peer_bytes"`
	OriginBytes     float64            `json:"origin_bytes"`

	// LostPackets are those that faults have lost.
	LostPackets int64 `json:"lost_packets"`

	Errors []string `json:"errors,omitempty"`
}

func (v *virtualRun) result() (*virtualResult, error) {
	v.mu.Lock()
	err := v.err
	v.mu.Unlock()
	r := &virtualResult{
		Driver: "virtual", Scenario: v.run.Name, Nodes: len(v.nodes), Seed: v.run.Seed,
		UniqueBytes: v.origin.wanted(), EgressBytes: v.origin.registry.Sent(),
		Messages: map[string]float64{}, Policy: map[string]float64{},
	}
	r.Copies = float64(r.EgressBytes) / float64(max(1, r.UniqueBytes))
	v.origin.mu.Lock()
	r.OriginRequests, r.ManifestRequests = v.origin.requests, v.origin.manifest
	v.origin.mu.Unlock()
	v.net.mu.Lock()
	r.LostPackets = v.net.losses
	v.net.mu.Unlock()
	first, last := v.run.Limits.Time, time.Duration(0)
	for _, o := range v.outcomes {
		var took, until time.Duration
		switch {
		case o.done > 0:
			r.Done++
			first, last = min(first, o.begun), max(last, o.done)
			took, until = o.done-o.begun, o.first-o.begun
		case o.excused:
			r.Excused++
		default:
			r.Failed++
			r.Errors = append(r.Errors, fmt.Sprintf("node %d: %v", o.node, o.lastError))
		}
		if o.wrong {
			r.Wrong++
		}
		r.Completion = append(r.Completion, took.Seconds())
		r.FirstByte = append(r.FirstByte, until.Seconds())
	}
	r.Makespan = max(0, last-first).Seconds()
	if r.Optimum = optimum(v.run).Seconds(); r.Optimum > 0 {
		r.Slowdown = r.Makespan / r.Optimum
	}
	err = errors.Join(err, v.count(r))
	return r, err
}

// count adds up what the nodes that still run have counted.
func (v *virtualRun) count(r *virtualResult) error {
	there := 0
	for _, n := range v.nodes {
		if n.running() == nil {
			continue
		}
		there++
		values, err := n.metrics()
		if err != nil {
			return err
		}
		for name, x := range values {
			family, labels, _ := strings.Cut(strings.TrimSuffix(name, "}"), "{")
			switch {
			case family == "peercache_fetcher_messages_total" && strings.Contains(labels, `direction="sent"`):
				r.Messages[labelOf(labels, "kind")] += x
				r.MessagesPerNode += x
			case family == "peercache_fetcher_policy_total":
				r.Policy[labelOf(labels, "event")] += x
			case family == "peercache_fetcher_received_bytes_total" && labels == `source="peer"`:
				r.PeerBytes += x
			case family == "peercache_fetcher_received_bytes_total" && labels == `source="origin"`:
				r.OriginBytes += x
			}
		}
	}
	r.MessagesPerNode /= float64(max(1, there))
	return nil
}

func labelOf(labels, name string) string {
	_, rest, _ := strings.Cut(labels, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// optimum is T* where all nodes' links are alike: t (M-1 + ceil(log2(N+1))) for M chunks
// of 1 MiB that take t each on a node's link, and where the origin's link is slower, its
// time for all bytes and t (ceil(log2(N+1)) - 1). Else it is 0.
func optimum(run *scenario.Run) time.Duration {
	up, down := run.Nodes[0].Up, run.Nodes[0].Down
	for _, n := range run.Nodes {
		if n.Up != up || n.Down != down {
			return 0
		}
	}
	rate := min(up, down)
	if rate == 0 || len(run.Images) != 1 {
		return 0
	}
	var size int64
	for _, l := range run.Images[0].Layers {
		size += run.Blobs[l].Size
	}
	nanos := func(n, rate int64) int64 { return int64(float64(n) / float64(rate) * 1e9) }
	t, rounds := nanos(1<<20, rate), int64(bits.Len(uint(len(run.Nodes))))
	if link := run.Origin.Link; link > 0 && link < rate {
		return time.Duration(nanos(size, link) + t*(rounds-1))
	}
	return time.Duration(t * ((size+1<<20-1)>>20 - 1 + rounds))
}
