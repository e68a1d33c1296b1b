package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
)

// Report is what a demo showed: the output of --json. Keys are only ever added;
// numbers are bytes unless they are named otherwise.
type Report struct {
	// OK says that everything was as it should be; Problems say what was not.
	OK       bool     `json:"ok"`
	Problems []string `json:"problems"`
	Image    Image    `json:"image"`
	Nodes    []Node   `json:"nodes"`
	Origin   Origin   `json:"origin"`
	Seconds  float64  `json:"seconds"`
}

// Image is what was pulled.
type Image struct {
	Digest digest.Digest `json:"digest"` // of the manifest
	Layers int           `json:"layers"`
	Files  int           `json:"files"`
	Bytes  int64         `json:"bytes"` // manifest, config and layers
}

// Node is one node's pull.
type Node struct {
	Node int `json:"node"` // from 1
	// Stage is "first", "together" or "origin-stopped".
	Stage   string  `json:"stage"`
	Seconds float64 `json:"seconds"`
	// Bytes came to the client, from the three sources.
	Bytes  int64 `json:"bytes"`
	Store  int64 `json:"store"`
	Peer   int64 `json:"peer"`
	Origin int64 `json:"origin"`
	// ReceivedPeer and ReceivedOrigin came to the node by the network.
	ReceivedPeer   int64 `json:"received_peer"`
	ReceivedOrigin int64 `json:"received_origin"`
	// Verified of Digests digests were those of the bytes received.
	Verified int `json:"verified"`
	Digests  int `json:"digests"`
}

// Origin is what the origin's side counted.
type Origin struct {
	Bytes int64 `json:"bytes"` // body bytes written, whatever became of them
	// AfterFirst is the part of Bytes after the first node's pull.
	AfterFirst  int64   `json:"after_first"`
	UniqueBytes int64   `json:"unique_bytes"`
	Ratio       float64 `json:"ratio"` // Bytes / UniqueBytes; 1 is the least
	Requests    int64   `json:"requests"`
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

var stageNames = map[string]string{
	"first": "cold", "together": "at once", "origin-stopped": "origin stopped",
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "node\tpull\tfrom store\tfrom peers\tfrom origin\tseconds\tdigests verified\t")
	size := config.FormatSize
	for _, n := range r.Nodes {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%.2f\t%d of %d\t\n", n.Node, stageNames[n.Stage],
			size(n.Store), size(n.Peer), size(n.Origin), n.Seconds, n.Verified, n.Digests)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nThe origin wrote %s for %s of distinct content (%.3f times), %s of it after the first pull.\n",
		size(r.Origin.Bytes), size(r.Origin.UniqueBytes), r.Origin.Ratio, size(r.Origin.AfterFirst))
	return err
}

// judge fills in Problems and OK.
func (r *Report) judge() {
	problem := func(format string, args ...any) { r.Problems = append(r.Problems, fmt.Sprintf(format, args...)) }
	for _, n := range r.Nodes {
		if n.Verified != n.Digests {
			problem("node %d: %d of %d digests verified", n.Node, n.Verified, n.Digests)
		}
		if n.Bytes != r.Image.Bytes {
			problem("node %d: the client received %d bytes of %d", n.Node, n.Bytes, r.Image.Bytes)
		}
		if n.Stage != "first" && n.ReceivedOrigin > 0 {
			problem("node %d: %d bytes from the origin, though other nodes held everything", n.Node, n.ReceivedOrigin)
		}
		if sum := n.Store + n.Peer + n.Origin; sum != n.Bytes {
			problem("node %d: accounts for %d bytes served, its client received %d", n.Node, sum, n.Bytes)
		}
	}
	if r.Origin.AfterFirst > 0 {
		problem("the origin wrote %d bytes after the first pull", r.Origin.AfterFirst)
	}
	// A hedge may cost a little; a second copy is a fault.
	if r.Origin.Ratio > 1.1 {
		problem("the origin wrote %.3f times the distinct content", r.Origin.Ratio)
	}
	r.OK = len(r.Problems) == 0
}
