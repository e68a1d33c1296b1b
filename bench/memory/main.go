// Command memory measures what a node holds in memory while it idles, and while
// 1 GiB passes through it from an origin to clients, with 20,000 chunk records
// and 50,000 provider records in its store. The goals are about RssAnon: the
// page cache that is mapped from files goes when others need the memory.
//
//	go run ./bench/memory [-runs 3] [-size 1073741824] [-idle 20s] [-after 30s] [-json]
package main

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
)

var (
	runs      = flag.Int("runs", 3, "repetitions of each pull")
	size      = flag.Int64("size", 1<<30, "bytes that pass through the node")
	idle      = flag.Duration("idle", 20*time.Second, "how long the node idles")
	chunks    = flag.Int("chunks", 20_000, "chunk records in the store")
	providers = flag.Int("providers", 50_000, "provider records in the store")
	after     = flag.Duration("after", 30*time.Second, "how long the node idles once a blob has passed")
)

const (
	mib      = 1 << 20
	idleGoal = 60 * mib
	peakGoal = 150 * mib
	every    = 20 * time.Millisecond
	parallel = 8 // clients of the second kind of pull
)

// measured is what a node held over some time, in bytes.
type measured struct {
	Anon     int64 `json:"anon_median"`
	AnonPeak int64 `json:"anon_peak"`
	File     int64 `json:"file_median"`
	Peak     int64 `json:"vm_hwm"` // since the node began
}

type result struct {
	Bytes     int64      `json:"bytes"`
	Chunks    int        `json:"chunk_records"`
	Providers int        `json:"provider_records"`
	Idle      []measured `json:"idle"`       // after the start
	One       []measured `json:"one_blob"`   // one blob to one client
	IdleAfter []measured `json:"idle_after"` // what is left afterwards
	Many      []measured `json:"eight_blobs"`
	IdleGoal  int64      `json:"idle_goal"`
	PeakGoal  int64      `json:"peak_goal"`
}

func main() {
	rig.Main(20*time.Minute, map[string]rig.Role{"origin": rig.OriginRole}, run)
}

func run(ctx context.Context, r *rig.Rig) error {
	origin, err := r.StartOrigin(ctx)
	if err != nil {
		return err
	}
	data := filepath.Join(r.Dir, "node")
	r.Log("writing %d chunk records and %d provider records", *chunks, *providers)
	if err := fill(ctx, data, *chunks, *providers); err != nil {
		return err
	}
	res := result{Bytes: *size, Chunks: *chunks, Providers: *providers, IdleGoal: idleGoal, PeakGoal: peakGoal}
	for i := range *runs {
		if err := once(ctx, r, origin, data, uint64(i), &res); err != nil {
			return err
		}
	}

	t := rig.NewTable(fmt.Sprintf("MiB held by a node with %d chunk and %d provider records, medians of %d (most)", *chunks, *providers, *runs),
		"", "RssAnon", "RssAnon, peak", "RssFile", "VmHWM")
	for _, row := range []struct {
		name string
		list []measured
	}{
		{fmt.Sprintf("idle, the last half of %s", *idle), res.Idle},
		{fmt.Sprintf("%d MiB pass as one blob", *size/mib), res.One},
		{fmt.Sprintf("%s later", *after), res.IdleAfter},
		{fmt.Sprintf("%d MiB pass as %d blobs at once", *size/mib, parallel), res.Many},
	} {
		cell := func(field func(measured) int64) string {
			v := rig.Column(row.list, func(m measured) float64 { return float64(field(m)) / mib })
			return fmt.Sprintf("%.1f (%.1f)", rig.Median(v), slices.Max(v))
		}
		t.Row(row.name, cell(func(m measured) int64 { return m.Anon }), cell(func(m measured) int64 { return m.AnonPeak }),
			cell(func(m measured) int64 { return m.File }), cell(func(m measured) int64 { return m.Peak }))
	}
	most := func(lists ...[]measured) (n int64) {
		for _, m := range slices.Concat(lists...) {
			n = max(n, m.AnonPeak)
		}
		return n
	}
	idleMost, peak := most(res.Idle), most(res.One, res.Many)
	t.Note("idle: at most %.1f MiB RssAnon; goal under %d: %s", float64(idleMost)/mib, idleGoal/mib, rig.Verdict(idleMost < idleGoal))
	t.Note("peak: at most %.1f MiB RssAnon; goal under %d: %s", float64(peak)/mib, peakGoal/mib, rig.Verdict(peak < peakGoal))
	return r.Report(res, t)
}

// once measures a node from its start on: idle, one blob, idle, many blobs.
func once(ctx context.Context, r *rig.Rig, origin *rig.Origin, data string, number uint64, res *result) error {
	node, err := r.StartNode(ctx, fmt.Sprintf("node%d", number), rig.NodeOptions{Data: data, Origin: origin.URL})
	if err != nil {
		return err
	}
	defer node.Stop()
	// What was written is what the node has.
	st, err := node.Status(ctx)
	if err != nil {
		return err
	}
	if want := (*chunks + chunksPerBlob - 1) / chunksPerBlob; st.Blobs.Partial != want || st.Blobs.Complete < manifests {
		return fmt.Errorf("the node has %d partial and %d complete blobs of %d and %d", st.Blobs.Partial, st.Blobs.Complete, want, manifests)
	}
	while := func(what string, list *[]measured, skip time.Duration, work func() error) error {
		s := node.Sample(every)
		workErr := work()
		samples, err := s.Stop()
		if workErr != nil {
			return fmt.Errorf("%s: %w\n%s", what, workErr, node.Tail())
		}
		if err != nil {
			return err
		}
		if n := int(skip / every); n < len(samples) {
			samples = samples[n:]
		}
		m := summary(samples)
		*list = append(*list, m)
		r.Log("run %d, %s: %.1f MiB, at most %.1f", number+1, what, float64(m.Anon)/mib, float64(m.AnonPeak)/mib)
		return nil
	}
	rest := func(d time.Duration) func() error {
		return func() error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-t.C:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	if err := while("idle", &res.Idle, *idle/2, rest(*idle)); err != nil {
		return err
	}
	if err := while("one blob", &res.One, 0, pull(ctx, r, origin, node, 100*(number+1), 1)); err != nil {
		return err
	}
	if err := while("idle again", &res.IdleAfter, *after-*after/10, rest(*after)); err != nil {
		return err
	}
	return while("many blobs", &res.Many, 0, pull(ctx, r, origin, node, 100*(number+1)+50, parallel))
}

func summary(samples []rig.Memory) (m measured) {
	m.Anon = int64(rig.Median(rig.Column(samples, func(s rig.Memory) float64 { return float64(s.Anon) })))
	m.File = int64(rig.Median(rig.Column(samples, func(s rig.Memory) float64 { return float64(s.File) })))
	for _, s := range samples {
		m.AnonPeak, m.Peak = max(m.AnonPeak, s.Anon), max(m.Peak, s.Peak)
	}
	return m
}

// pull pushes n blobs to the origin, and returns what makes as many clients pull
// them through the node at once.
func pull(ctx context.Context, r *rig.Rig, origin *rig.Origin, node *rig.Node, number uint64, n int) func() error {
	var urls []string
	for i := range n {
		d, err := origin.Push(ctx, rig.Content{Number: number + uint64(i), Size: *size / int64(n)})
		if err != nil {
			return func() error { return err }
		}
		urls = append(urls, node.BlobURL(d.Digest))
	}
	return func() error {
		before, err := node.Status(ctx)
		if err != nil {
			return err
		}
		g, all := errgroup.WithContext(ctx)
		for _, url := range urls {
			g.Go(func() error {
				f, err := r.Curl(all, url)
				if err == nil && f.Bytes != *size/int64(n) {
					err = fmt.Errorf("%d bytes from %s", f.Bytes, url)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		after, err := node.Status(ctx)
		if got := after.Received.Origin - before.Received.Origin; err == nil && got < *size/int64(n)*int64(n) {
			err = fmt.Errorf("the node received %d bytes from the origin: the blobs were there before", got)
		}
		return err
	}
}
