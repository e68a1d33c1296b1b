package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// figures are what is compared. Seconds and bytes.
type figures struct {
	Makespan, P50, P99, FirstByte float64
	Egress                        int64
	Unserved                      int
	Messages                      float64 // a node
}

// mean is that of several runs.
func mean(list []figures) (m figures) {
	n := float64(len(list))
	egress := 0.0
	for _, f := range list {
		m.Makespan += f.Makespan / n
		m.P50 += f.P50 / n
		m.P99 += f.P99 / n
		m.FirstByte += f.FirstByte / n
		m.Messages += f.Messages / n
		m.Unserved += f.Unserved
		egress += float64(f.Egress) / n
	}
	m.Egress = int64(egress)
	return m
}

// document is the part of the JSON of both, a run of bench/flashcrowd and a report of
// `peercache simulate`, that means the same in both.
type document struct {
	Makespan   float64 `json:"makespan_seconds"`
	Completion struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"completion_seconds"`
	FirstByte struct {
		P50 float64 `json:"p50"`
	} `json:"first_byte_seconds"`
	OriginBytes     int64   `json:"origin_bytes"`
	UniqueBytes     int64   `json:"unique_bytes"`
	MessagesPerNode float64 `json:"messages_per_node"`
	Pulls           struct {
		Unserved int `json:"unserved"`
	} `json:"pulls"`
}

// figures of a document. unique is what the clients wanted: what the origin wrote beyond
// that is compared, since manifests are as long as they are.
func (d *document) figures(unique int64) figures {
	return figures{Makespan: d.Makespan, P50: d.Completion.P50, P99: d.Completion.P99, FirstByte: d.FirstByte.P50,
		Egress: d.OriginBytes - unique, Unserved: d.Pulls.Unserved, Messages: d.MessagesPerNode}
}

// sample is what real processes did.
type sample struct {
	testCase
	real   figures
	spread float64 // of the makespans: the largest over the smallest, less 1
	runs   int
}

// measure has real processes do the case and keeps what they say.
func (c *testCase) measure(ctx context.Context, dir string) error {
	file := filepath.Join(dir, strings.TrimSuffix(c.file(), ".json")+".yaml")
	if err := os.WriteFile(file, []byte(c.text(start)), 0o644); err != nil {
		return err
	}
	say("%s: %d real runs", c.Name, opts.repeat)
	cmd := exec.CommandContext(ctx, opts.flashcrowd, "-peercache", opts.peercache, "-scenario", file, "-repeat", fmt.Sprint(opts.repeat), "-json")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends what it has started
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	return os.WriteFile(filepath.Join(dir, c.file()), out, 0o644)
}

// load reads what was measured.
func (c *testCase) load(dir string) (s sample, err error) {
	data, err := os.ReadFile(filepath.Join(dir, c.file()))
	if err != nil {
		return s, err
	}
	return c.decode(data)
}

func (c *testCase) decode(data []byte) (s sample, err error) {
	var doc struct {
		Result struct {
			UniqueBytes int64      `json:"unique_bytes"`
			Runs        []document `json:"runs"`
		} `json:"result"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return s, fmt.Errorf("%s: %w", c.file(), err)
	}
	if len(doc.Result.Runs) == 0 {
		return s, fmt.Errorf("%s: no run in it", c.file())
	}
	var list []figures
	least, most := doc.Result.Runs[0].Makespan, 0.0
	for _, r := range doc.Result.Runs {
		list = append(list, r.figures(doc.Result.UniqueBytes))
		least, most = min(least, r.Makespan), max(most, r.Makespan)
	}
	return sample{testCase: *c, real: mean(list), spread: most/least - 1, runs: len(list)}, nil
}
