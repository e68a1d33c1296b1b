// Command nodetonode measures a blob's way from one node's store through another
// node to a client, beside what that cannot do without: the bytes over bare
// libp2p (TCP, TLS, yamux) between two processes, two SHA-256 passes (each chunk,
// the whole blob) and one file write, each measured alone in the same run. All of
// it is on loopback and in the page cache: it says nothing about networks.
//
//	go run ./bench/nodetonode [-runs 5] [-size 1073741824] [-json]
package main

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/bench/internal/rig"
)

var (
	runs = flag.Int("runs", 5, "repetitions of everything")
	size = flag.Int64("size", 1<<30, "bytes of the blob")
)

// goal is how many times the sum of the parts a node may take.
const goal = 1.3

// transfer is one blob's way from node to node. CPU is in seconds.
type transfer struct {
	// Seconds until the client, curl, has the last byte.
	Seconds   float64 `json:"seconds"`
	FirstByte float64 `json:"first_byte_seconds"`
	// SourceCPU and SinkCPU are of the node that has the blob and of the one that
	// gets it; the sink's is taken once the blob is published in its store, and
	// holds its serving of the client.
	SourceCPU float64 `json:"source_cpu_seconds"`
	SinkCPU   float64 `json:"sink_cpu_seconds"`
	ClientCPU float64 `json:"client_cpu_seconds"`
	// Published is the time until the sink's store says that it has the blob.
	Published float64 `json:"published_seconds"`
}

// parts are what the goal is made of, measured alone.
type parts struct {
	Libp2p    float64 `json:"libp2p_seconds"`
	ServerCPU float64 `json:"libp2p_server_cpu_seconds"`
	ClientCPU float64 `json:"libp2p_client_cpu_seconds"`
	SHA256    float64 `json:"sha256_seconds"` // one pass
	Write     float64 `json:"write_seconds"`
	WriteCPU  float64 `json:"write_cpu_seconds"`
	Fsync     float64 `json:"fsync_seconds"` // after it
}

// seconds is the sum, one part after the other. The fsync is left out, although
// a node does one: so the goal says.
func (p parts) seconds() float64 { return p.Libp2p + 2*p.SHA256 + p.Write }
func (p parts) cpu() float64     { return p.ServerCPU + p.ClientCPU + 2*p.SHA256 + p.WriteCPU }

type result struct {
	Bytes  int64      `json:"bytes"`
	Parts  []parts    `json:"parts"`
	Strict []transfer `json:"strict"`
	Member []transfer `json:"member"`
	Goal   float64    `json:"goal"`
	// Medians over the runs of a transfer by the sum of the same run: the machine
	// may be busier in one run than in another.
	StrictRatio    float64 `json:"strict_seconds_ratio"`
	MemberRatio    float64 `json:"member_seconds_ratio"`
	StrictCPURatio float64 `json:"strict_cpu_ratio"`
	MemberCPURatio float64 `json:"member_cpu_ratio"`
}

func main() {
	rig.Main(15*time.Minute, map[string]rig.Role{"serve": serveRaw, "fetch": fetchRaw}, run)
}

func run(ctx context.Context, r *rig.Rig) error {
	data := filepath.Join(r.Dir, "source")
	r.Log("seeding a store with %d bytes", *size)
	d, _, err := rig.Seed(ctx, data, rig.Content{Number: 2, Size: *size})
	if err != nil {
		return err
	}
	source, err := r.StartNode(ctx, "source", rig.NodeOptions{Data: data})
	if err != nil {
		return err
	}
	res := result{Bytes: *size, Goal: goal}
	for i := range *runs {
		p, err := measureParts(ctx, r)
		if err != nil {
			return err
		}
		res.Parts = append(res.Parts, p)
		modes := []struct {
			name string
			list *[]transfer
		}{{"strict", &res.Strict}, {"member", &res.Member}}
		if i%2 == 1 {
			modes[0], modes[1] = modes[1], modes[0]
		}
		for _, m := range modes {
			t, err := measureTransfer(ctx, r, source, d, m.name)
			if err != nil {
				return err
			}
			*m.list = append(*m.list, t)
			r.Log("run %d, %s: %.2f s, CPU %.2f + %.2f s; parts %.2f s, CPU %.2f s", i+1, m.name,
				t.Seconds, t.SourceCPU, t.SinkCPU, p.seconds(), p.cpu())
		}
	}
	return report(r, &res)
}

func report(r *rig.Rig, res *result) error {
	gib := float64(res.Bytes) / (1 << 30)
	mid := func(field func(parts) float64) float64 { return rig.Median(rig.Column(res.Parts, field)) }
	t := rig.NewTable(fmt.Sprintf("%d MiB from node to node, medians of %d", res.Bytes>>20, len(res.Parts)),
		"", "seconds", "MiB/s", "CPU-s/GiB, source", "sink", "both")
	both := func(name string, seconds, server, client float64) {
		t.Row(name, seconds, gib*1024/seconds, server/gib, client/gib, (server+client)/gib)
	}
	both("libp2p alone", mid(func(p parts) float64 { return p.Libp2p }),
		mid(func(p parts) float64 { return p.ServerCPU }), mid(func(p parts) float64 { return p.ClientCPU }))
	sha := mid(func(p parts) float64 { return p.SHA256 })
	both("SHA-256, two passes", 2*sha, 0, 2*sha)
	both("file write", mid(func(p parts) float64 { return p.Write }), 0, mid(func(p parts) float64 { return p.WriteCPU }))
	both("sum of these", mid(parts.seconds), mid(func(p parts) float64 { return p.ServerCPU }),
		mid(func(p parts) float64 { return p.cpu() - p.ServerCPU }))
	for _, m := range []struct {
		name       string
		list       []transfer
		ratio, cpu *float64
	}{
		{"strict", res.Strict, &res.StrictRatio, &res.StrictCPURatio},
		{"member", res.Member, &res.MemberRatio, &res.MemberCPURatio},
	} {
		col := func(field func(transfer) float64) float64 { return rig.Median(rig.Column(m.list, field)) }
		seconds := col(func(t transfer) float64 { return t.Seconds })
		both("peercache, --verify "+m.name, seconds,
			col(func(t transfer) float64 { return t.SourceCPU }), col(func(t transfer) float64 { return t.SinkCPU }))
		var ratios, cpuRatios []float64
		for i, x := range m.list {
			ratios = append(ratios, x.Seconds/res.Parts[i].seconds())
			cpuRatios = append(cpuRatios, (x.SourceCPU+x.SinkCPU)/res.Parts[i].cpu())
		}
		*m.ratio, *m.cpu = rig.Median(ratios), rig.Median(cpuRatios)
		t.Note("%s: %.2f times the sum in time, %.2f times in CPU; goal at most %.1f: %s; first byte after %.2f s, curl's own CPU %.2f s, published after %.2f s",
			m.name, *m.ratio, *m.cpu, goal, rig.Verdict(*m.ratio <= goal),
			col(func(t transfer) float64 { return t.FirstByte }), col(func(t transfer) float64 { return t.ClientCPU }),
			col(func(t transfer) float64 { return t.Published }))
	}
	t.Note("an fsync of the file, which a node does and the sum leaves out: %.2f s", mid(func(p parts) float64 { return p.Fsync }))
	return r.Report(res, t)
}

// measureTransfer pulls the blob through a fresh node whose only peer is source.
func measureTransfer(ctx context.Context, r *rig.Rig, source *rig.Node, d digest.Digest, verify string) (t transfer, err error) {
	data := filepath.Join(r.Dir, "sink")
	defer os.RemoveAll(data)
	sink, err := r.StartNode(ctx, "sink", rig.NodeOptions{Data: data, Peers: []*rig.Node{source}, Args: []string{"--verify", verify}})
	if err != nil {
		return t, err
	}
	defer sink.Stop()
	sourceBefore, err := source.CPU()
	if err != nil {
		return t, err
	}
	sinkBefore, err := sink.CPU()
	if err != nil {
		return t, err
	}
	start := time.Now()
	f, err := r.Curl(ctx, sink.BlobURL(d))
	if err != nil {
		return t, fmt.Errorf("%w\n%s", err, sink.Tail())
	}
	var s rig.Status
	err = rig.Await(ctx, time.Minute, "the blob is published", func() (bool, error) {
		s, err = sink.Status(ctx)
		return s.Blobs.Complete >= 1 && s.Blobs.Partial == 0, err
	})
	if err != nil {
		return t, err
	}
	t.Published = time.Since(start).Seconds()
	sourceAfter, err := source.CPU()
	if err != nil {
		return t, err
	}
	sinkAfter, err := sink.CPU()
	if err != nil {
		return t, err
	}
	if f.Bytes != *size || s.Received.Origin != 0 || s.Received.Peer < *size {
		return t, fmt.Errorf("of %d bytes the client has %d; the node received %d from its peer and %d from the origin",
			*size, f.Bytes, s.Received.Peer, s.Received.Origin)
	}
	t.Seconds, t.FirstByte, t.ClientCPU = f.Seconds, f.FirstByte, f.CPU.Seconds()
	t.SourceCPU, t.SinkCPU = (sourceAfter - sourceBefore).Seconds(), (sinkAfter - sinkBefore).Seconds()
	return t, nil
}

// measureParts measures what the goal is made of.
func measureParts(ctx context.Context, r *rig.Rig) (p parts, err error) {
	if p.Libp2p, p.ServerCPU, p.ClientCPU, err = measureRaw(ctx, r, *size); err != nil {
		return p, err
	}
	// 64 MiB, so that it comes from memory and not from a cache, in the pieces
	// in which a node hashes.
	data := make([]byte, 64<<20)
	if _, err := io.ReadFull(rig.Content{Number: 3, Size: int64(len(data))}.Reader(), data); err != nil {
		return p, err
	}
	start := time.Now()
	h := sha256.New()
	for done := int64(0); done < *size; done += 128 << 10 {
		off := done % int64(len(data))
		h.Write(data[off : off+min(128<<10, *size-done)])
	}
	p.SHA256 = time.Since(start).Seconds()

	f, err := os.CreateTemp(r.Dir, "write-")
	if err != nil {
		return p, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	before, start := rig.OwnCPU(), time.Now()
	for done := int64(0); done < *size; done += 1 << 20 {
		off := done % int64(len(data))
		if _, err := f.Write(data[off : off+min(1<<20, *size-done)]); err != nil {
			return p, err
		}
	}
	p.Write, p.WriteCPU = time.Since(start).Seconds(), (rig.OwnCPU() - before).Seconds()
	start = time.Now()
	if err := f.Sync(); err != nil {
		return p, err
	}
	p.Fsync = time.Since(start).Seconds()
	return p, nil
}
