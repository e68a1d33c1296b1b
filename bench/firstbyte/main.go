// Command firstbyte measures how long a client waits for the first byte of a
// blob that a node does not have, beside the origin asked directly. Each blob is
// asked for once of either, in turns, over loopback on connections of their own.
// Origins in a network answer later; what a node adds is what is looked for here.
//
//	go run ./bench/firstbyte [-blobs 30] [-size 8388608] [-json]
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/peercache/peercache/bench/internal/rig"
)

var (
	blobs = flag.Int("blobs", 30, "blobs in each case")
	size  = flag.Int64("size", 8<<20, "bytes of a blob")
)

// goal is the milliseconds that a node may add.
const goal = 10.0

// sample is one blob's first byte, in milliseconds.
type sample struct {
	Origin float64 `json:"origin_ms"`
	Node   float64 `json:"node_ms"`
}

// testcase is one way in which a node may meet a blob.
type testcase struct {
	Name    string   `json:"name"`
	Samples []sample `json:"samples"`
	// Added is the median of what the node adds, blob by blob, in milliseconds.
	Added float64 `json:"added_ms"`

	peers int
	known bool // a manifest that names the size went through the node before
}

type result struct {
	Bytes int64      `json:"bytes"`
	Cases []testcase `json:"cases"`
	Goal  float64    `json:"goal_ms"`
}

func main() {
	rig.Main(10*time.Minute, map[string]rig.Role{"origin": rig.OriginRole}, run)
}

func run(ctx context.Context, r *rig.Rig) error {
	origin, err := r.StartOrigin(ctx)
	if err != nil {
		return err
	}
	res := result{Bytes: *size, Goal: goal, Cases: []testcase{
		{Name: "lone node, size known", known: true},
		{Name: "lone node, size unknown"},
		{Name: "one peer, size known", known: true, peers: 1},
		{Name: "one peer, size unknown", peers: 1},
	}}
	for i := range res.Cases {
		c := &res.Cases[i]
		if err := c.run(ctx, r, origin, uint64(i)); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		r.Log("%s: %.2f ms more", c.Name, c.Added)
	}
	t := rig.NewTable(fmt.Sprintf("First byte of %d blobs of %d MiB, milliseconds", *blobs, *size>>20),
		"", "origin, median", "node, median", "node, 90 %", "node, worst", "more, median")
	worst := 0.0
	for _, c := range res.Cases {
		node := rig.Column(c.Samples, func(s sample) float64 { return s.Node })
		t.Row(c.Name, rig.Median(rig.Column(c.Samples, func(s sample) float64 { return s.Origin })),
			rig.Median(node), rig.Quantile(node, 0.9), rig.Quantile(node, 1), c.Added)
		worst = max(worst, c.Added)
	}
	t.Note("goal at most %.0f ms more: %s", goal, rig.Verdict(worst <= goal))
	return r.Report(res, t)
}

func (c *testcase) run(ctx context.Context, r *rig.Rig, origin *rig.Origin, number uint64) error {
	var layers []v1.Descriptor
	for i := range *blobs + 1 {
		d, err := origin.Push(ctx, rig.Content{Number: 1000*(number+1) + uint64(i), Size: *size})
		if err != nil {
			return err
		}
		layers = append(layers, d)
	}
	var nodes []*rig.Node
	for i := range c.peers + 1 {
		data := filepath.Join(r.Dir, fmt.Sprintf("node%d", i))
		defer os.RemoveAll(data)
		n, err := r.StartNode(ctx, fmt.Sprintf("node%d-%d", number, i), rig.NodeOptions{Data: data, Origin: origin.URL, Peers: nodes})
		if err != nil {
			return err
		}
		defer n.Stop()
		nodes = append(nodes, n)
	}
	node := nodes[len(nodes)-1]
	if c.known {
		tag := fmt.Sprintf("case%d", number)
		if err := origin.PushManifest(ctx, tag, layers); err != nil {
			return err
		}
		if _, err := rig.Get(ctx, node.ManifestURL(tag)); err != nil {
			return err
		}
	}
	for i, l := range layers {
		var s sample
		var err error
		turns := []func(){
			func() { s.Origin, err = firstByte(ctx, origin.BlobURL(l.Digest), l.Digest) },
			func() { s.Node, err = firstByte(ctx, node.BlobURL(l.Digest), l.Digest) },
		}
		if i%2 == 1 {
			turns[0], turns[1] = turns[1], turns[0]
		}
		for _, turn := range turns {
			if turn(); err != nil {
				return fmt.Errorf("%w\n%s", err, node.Tail())
			}
		}
		if i > 0 { // the first one warms up
			c.Samples = append(c.Samples, s)
		}
		// The node is done with this blob before the next one.
		err = rig.Await(ctx, 30*time.Second, "the node has published the blob", func() (bool, error) {
			st, err := node.Status(ctx)
			return err == nil && st.Blobs.Partial == 0, err
		})
		if err != nil {
			return err
		}
	}
	st, err := node.Status(ctx)
	if err != nil {
		return err
	}
	if want := int64(*blobs+1) * *size; st.Received.Origin+st.Received.Peer < want {
		return fmt.Errorf("the node received %d bytes from its peer and %d from the origin, less than the blobs' %d",
			st.Received.Peer, st.Received.Origin, want)
	}
	c.Added = rig.Median(rig.Column(c.Samples, func(s sample) float64 { return s.Node - s.Origin }))
	return nil
}

// firstByte returns the milliseconds from the request until the first byte of
// the blob, then reads the rest and checks it.
func firstByte(ctx context.Context, url string, want digest.Digest) (float64, error) {
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		message, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return 0, fmt.Errorf("%s: %s", resp.Status, message)
	}
	first := make([]byte, 1)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		return 0, err
	}
	ms := float64(time.Since(start)) / float64(time.Millisecond)
	v := want.Verifier()
	if _, err := v.Write(first); err != nil {
		return 0, err
	}
	if _, err := io.Copy(v, resp.Body); err != nil {
		return 0, err
	}
	if !v.Verified() {
		return 0, fmt.Errorf("%s: wrong bytes", url)
	}
	return ms, nil
}
