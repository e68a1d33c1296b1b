// Command control measures how long control messages take beside chunks: hosts
// of package p2p, each a process in a network namespace with a shaped link, each
// reading ranges of others without a pause, and all saying something to all. It
// says where a message waits too: how much the kernel holds that is not sent yet,
// and how much is on its way.
//
//	go run ./bench/control [-nodes 6] [-from 4] [-rate 100] [-json]
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/peercache/peercache/bench/internal/rig"
)

var (
	nodes    = flag.Int("nodes", 6, "hosts")
	from     = flag.Int("from", 4, "of how many others each reads, one range at a time of each")
	rate     = flag.Int64("rate", 100, "of each link, each way, in Mbit/s; 0: not limited")
	length   = flag.Int64("range", 1<<20, "bytes of a range")
	duration = flag.Duration("for", 10*time.Second, "how long a run measures, after a second that does not count")
	runs     = flag.Int("runs", 3, "repetitions")
)

// goal is what a message beside a chunk may wait, in the mean, where the link is the
// bottleneck: half of what messages between the nodes of a flash crowd took (the table in
// simulation/README.md).
const goal = 70 * time.Millisecond

// runResult is one run. Milliseconds are from Send to the other's Handler.
type runResult struct {
	// Beside is of messages to whom the sender sends a range just then, Idle of those to
	// others, Request of how long a request's answer takes to begin.
	Beside  rig.Distribution `json:"message_beside_chunk_ms"`
	Idle    rig.Distribution `json:"message_ms"`
	Request rig.Distribution `json:"request_ms"`
	// Unsent and InFlight are bytes in the kernel, RTT is its own measure: means of
	// samples, of connections that have much on its way in that moment.
	Unsent   float64 `json:"unsent_bytes"`
	InFlight float64 `json:"in_flight_bytes"`
	RTT      float64 `json:"rtt_ms"`
	// Used is the part of the links' rate that went into ranges' bytes.
	Used float64 `json:"link_used,omitempty"`
	Rate float64 `json:"bytes_per_second"` // into each host
	CPU  float64 `json:"cpu_seconds_per_gib"`
	Load string  `json:"load_average"`
}

func main() {
	rig.Main(15*time.Minute, map[string]rig.Role{"member": runMember}, run)
}

func run(ctx context.Context, r *rig.Rig) error {
	if *nodes < 2 || *from < 1 || *from >= *nodes || *length < 1 || *length > maxRange {
		return errors.New("-nodes must be 2 at least, -from less than that, -range at most 8 MiB")
	}
	n, err := r.NewNetwork(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	var hosts []*rig.Host
	for range *nodes {
		h, err := n.AddHost(ctx, *rate*1e6, *rate*1e6)
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	var list []runResult
	for i := range *runs {
		res, err := measure(ctx, r, hosts, filepath.Join(r.Dir, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		r.Log("run %d: beside a chunk %.0f ms (p90 %.0f), else %.0f, requests %.0f; %.0f KiB unsent, rtt %.0f ms; %.1f MB/s, %.2f CPU-s/GiB",
			i+1, res.Beside.Mean, res.Beside.P90, res.Idle.Mean, res.Request.Mean, res.Unsent/1024, res.RTT, res.Rate/1e6, res.CPU)
		list = append(list, res)
	}
	return report(r, list)
}

func report(r *rig.Rig, list []runResult) error {
	mid := func(field func(runResult) float64) float64 { return rig.Median(rig.Column(list, field)) }
	t := rig.NewTable(fmt.Sprintf("%d hosts, each reads of %d others, links of %d Mbit/s, medians of %d", *nodes, *from, *rate, len(list)),
		"ms", "mean", "p50", "p90", "p99")
	row := func(name string, of func(runResult) rig.Distribution) {
		t.Row(name, mid(func(x runResult) float64 { return of(x).Mean }), mid(func(x runResult) float64 { return of(x).P50 }),
			mid(func(x runResult) float64 { return of(x).P90 }), mid(func(x runResult) float64 { return of(x).P99 }))
	}
	row("message beside a chunk", func(x runResult) rig.Distribution { return x.Beside })
	row("other message", func(x runResult) rig.Distribution { return x.Idle })
	row("request until its answer begins", func(x runResult) rig.Distribution { return x.Request })
	t.Note("in the kernel, of connections with chunks: %.0f KiB not sent yet, %.0f KiB on their way, round trip %.0f ms",
		mid(func(x runResult) float64 { return x.Unsent })/1024, mid(func(x runResult) float64 { return x.InFlight })/1024,
		mid(func(x runResult) float64 { return x.RTT }))
	t.Note("%.2f MB/s into each host, %.2f CPU-s/GiB",
		mid(func(x runResult) float64 { return x.Rate })/1e6, mid(func(x runResult) float64 { return x.CPU }))
	if *rate > 0 {
		wait := mid(func(x runResult) float64 { return x.Beside.Mean })
		t.Note("%.0f %% of the links; goal: a message waits at most %s: %s",
			100*mid(func(x runResult) float64 { return x.Used }), goal, rig.Verdict(wait <= goal.Seconds()*1e3))
	}
	return r.Report(list, t)
}

// member is one host's process.
type member struct {
	*rig.Process
	tell io.Writer
	out  *bufio.Reader
	said hello
}

// measure is one run: new hosts, a load on all of them, and what they saw.
func measure(ctx context.Context, r *rig.Rig, hosts []*rig.Host, dir string) (res runResult, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return res, err
	}
	var members []*member
	defer func() {
		for _, m := range members {
			m.Stop()
		}
	}()
	var known []hello
	for i, h := range hosts {
		config, err := json.Marshal(task{
			Listen: h.IP, Dir: filepath.Join(dir, fmt.Sprint(i)), Others: known, Hosts: len(hosts),
			Length: *length, Seconds: duration.Seconds(),
		})
		if err != nil {
			return res, err
		}
		m := &member{}
		if m.Process, m.tell, m.out, err = r.StartRoleIn(ctx, h.Namespace, "member", &m.said, string(config)); err != nil {
			return res, err
		}
		members = append(members, m)
		known = append(known, m.said)
	}
	for i, m := range members {
		var ready string
		if err := m.ReadLine(ctx, m.out, &ready); err != nil {
			return res, err
		}
		var of []string
		for k := 1; k <= *from; k++ {
			of = append(of, known[(i+k)%len(known)].ID)
		}
		if err := json.NewEncoder(m.tell).Encode(of); err != nil {
			return res, err
		}
	}
	// A host sends ranges to those who read of it: these messages are the ones in
	// question. Each host tells by sender what it received.
	var beside, idle, request, unsent, inFlight, rtt []float64
	var cpu, bytes float64
	for i, m := range members {
		var got measured
		if err := m.ReadLine(ctx, m.out, &got); err != nil {
			return res, err
		}
		for k := 1; k < len(known); k++ {
			delays := got.Messages[known[(i+k)%len(known)].ID]
			if k <= *from {
				beside = append(beside, delays...)
			} else {
				idle = append(idle, delays...)
			}
		}
		request = append(request, got.Requests...)
		for _, s := range got.Sockets {
			unsent, inFlight, rtt = append(unsent, s.Unsent), append(inFlight, s.InFlight), append(rtt, s.RTT)
		}
		cpu += got.CPU
		bytes += got.Bytes
	}
	if bytes == 0 || len(beside) == 0 {
		return res, errors.New("nothing came through")
	}
	res = runResult{
		Beside: rig.DistributionOf(beside), Idle: rig.DistributionOf(idle), Request: rig.DistributionOf(request),
		Unsent: rig.DistributionOf(unsent).Mean, InFlight: rig.DistributionOf(inFlight).Mean, RTT: rig.DistributionOf(rtt).Mean,
		Rate: bytes / duration.Seconds() / float64(len(hosts)), CPU: cpu / bytes * (1 << 30),
	}
	if *rate > 0 {
		res.Used = res.Rate * 8 / float64(*rate*1e6)
	}
	load, err := os.ReadFile("/proc/loadavg")
	res.Load = strings.TrimSpace(string(load))
	return res, err
}
