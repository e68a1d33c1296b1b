// Package demo shows a small cluster at work on one machine, without internet
// and without leaving a trace: an origin registry in this process, an image made
// of this machine's files, several real node processes, and pulls from them, the
// last one with the origin gone.
//
// It is also the smallest honest test of the whole: the nodes are this program's
// own serve, their ports and folders are theirs, the bytes that the origin wrote
// are counted in front of it, and every digest is checked by the client.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/cmd/peercache/internal/admin"
	"github.com/peercache/peercache/cmd/peercache/internal/config"
)

// Limits of [Options].
const (
	MinNodes, MaxNodes = 3, 16
	MinSize, MaxSize   = 8 << 20, 8 << 30
)

// Options say how large a demo is.
type Options struct {
	// Nodes is the number of nodes; Size that of the image in bytes.
	Nodes int
	Size  int64
	// Executable is the program whose serve is a node.
	Executable string
	// Progress receives a line for each step.
	Progress io.Writer
}

// peerTime is how long nodes may take to find one another.
const peerTime = 30 * time.Second

// Run runs a demo and cleans up after it. The error says why it could not be
// finished; what a finished one found wrong is in the report.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	began := time.Now()
	dir, err := os.MkdirTemp("", "peercache-demo-")
	if err != nil {
		return nil, err
	}
	d := &demo{Options: o, dir: dir, progress: newProgress(o.Progress), spawner: newSpawner()}
	defer func() { err = errors.Join(err, d.close()) }()
	r, err := d.run(ctx)
	if err != nil {
		return nil, err
	}
	r.Seconds = time.Since(began).Seconds()
	return r, nil
}

type demo struct {
	Options
	dir      string
	progress *progress
	spawner  *spawner
	upstream *upstream
	image    *image
	nodes    []*process
}

// close ends everything that was started and removes what was written.
func (d *demo) close() error {
	var stopping sync.WaitGroup
	for _, n := range d.nodes {
		stopping.Go(n.stop)
	}
	stopping.Wait()
	d.spawner.close()
	if d.upstream != nil {
		d.upstream.stop()
	}
	return os.RemoveAll(d.dir)
}

func (d *demo) run(ctx context.Context) (*Report, error) {
	size := config.FormatSize
	err := d.progress.step("Making an image of this machine's files", d.Size, func(done *atomic.Int64) (said string, err error) {
		d.image, err = buildImage(ctx, d.dir, d.Size, done.Store)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d layers, %d files, %s", len(d.image.blobs)-1, d.image.files, size(d.image.bytes)), nil
	})
	if err != nil {
		return nil, err
	}
	err = d.progress.step("Starting an origin registry and pushing the image to it", 0, func(*atomic.Int64) (said string, err error) {
		if d.upstream, err = startUpstream(filepath.Join(d.dir, "origin")); err != nil {
			return "", err
		}
		return "http://" + d.upstream.addr, d.upstream.push(ctx, d.image)
	})
	if err != nil {
		return nil, err
	}
	early := d.Nodes - 1
	err = d.progress.step(fmt.Sprintf("Starting %d nodes", early), 0, func(*atomic.Int64) (string, error) {
		return "connected", d.startNodes(ctx, early)
	})
	if err != nil {
		return nil, err
	}

	r := &Report{
		Problems: []string{},
		Image:    Image{Digest: digest.FromBytes(d.image.manifest), Layers: len(d.image.blobs) - 1, Files: d.image.files, Bytes: d.image.bytes},
	}
	if err := d.pull(ctx, r, "first", "Pulling on node 1", 0, 1); err != nil {
		return nil, err
	}
	first := d.upstream.bytes.Load()
	if err := d.pull(ctx, r, "together", fmt.Sprintf("Pulling on %s", names(1, early)), 1, early); err != nil {
		return nil, err
	}
	err = d.progress.step(fmt.Sprintf("Stopping the origin, starting node %d", d.Nodes), 0, func(*atomic.Int64) (string, error) {
		d.upstream.stop()
		return "connected", d.startNodes(ctx, 1)
	})
	if err != nil {
		return nil, err
	}
	if err := d.pull(ctx, r, "origin-stopped", fmt.Sprintf("Pulling on node %d", d.Nodes), early, d.Nodes); err != nil {
		return nil, err
	}

	total := d.upstream.bytes.Load()
	r.Origin = Origin{
		Bytes: total, AfterFirst: total - first, UniqueBytes: d.image.bytes,
		Ratio: float64(total) / float64(d.image.bytes), Requests: d.upstream.requests.Load(),
	}
	r.judge()
	return r, nil
}

// names is "node 2", "nodes 2 and 3 at once", "nodes 2 to 4 at once" for the
// half-open run of nodes [from, to), which counts from 0.
func names(from, to int) string {
	switch to - from {
	case 1:
		return fmt.Sprintf("node %d", to)
	case 2:
		return fmt.Sprintf("nodes %d and %d at once", from+1, to)
	}
	return fmt.Sprintf("nodes %d to %d at once", from+1, to)
}

// startNodes starts count more nodes, which bootstrap from the first, and waits
// until each of them and the first are connected.
func (d *demo) startNodes(ctx context.Context, count int) error {
	for range count {
		number := len(d.nodes) + 1
		args := []string{
			"--origin", originName + "=http://" + d.upstream.addr,
			"--max-size", fmt.Sprint(2*d.image.bytes + 64<<20), "--min-free", "0%",
		}
		if number > 1 {
			args = append(args, "--bootstrap", d.nodes[0].Addresses[0])
		}
		p, err := d.spawner.startNode(ctx, d.Executable, filepath.Join(d.dir, fmt.Sprintf("node-%d", number)), args...)
		if err != nil {
			return fmt.Errorf("node %d: %w", number, err)
		}
		d.nodes = append(d.nodes, p)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, peerTime, fmt.Errorf("the nodes did not find one another within %s", peerTime))
	defer cancel()
	for i, n := range d.nodes {
		want := 1
		if i == 0 {
			want = len(d.nodes) - 1
		}
		for {
			s, _, err := admin.Fetch(ctx, n.Admin)
			if err == nil && len(s.Peers) >= want {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("node %d: %w\n%s", i+1, context.Cause(ctx), n.tail())
			case <-n.done:
				return fmt.Errorf("node %d ended: %w\n%s", i+1, n.err, n.tail())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// pull pulls on the half-open run of nodes [from, to) at once and adds what came
// of it to the report.
func (d *demo) pull(ctx context.Context, r *Report, stage, name string, from, to int) error {
	results := make([]Node, to-from)
	err := d.progress.step(name, d.image.bytes*int64(to-from), func(done *atomic.Int64) (string, error) {
		var g errgroup.Group // a failure of one is no reason to end the others' pulls
		start := time.Now()
		for i := range results {
			g.Go(func() (err error) {
				results[i], err = d.pullOn(ctx, from+i, stage, done)
				return err
			})
		}
		err := g.Wait()
		return fmt.Sprintf("%.2f s", time.Since(start).Seconds()), err
	})
	r.Nodes = append(r.Nodes, results...)
	return err
}

func (d *demo) pullOn(ctx context.Context, i int, stage string, done *atomic.Int64) (Node, error) {
	n := d.nodes[i]
	fail := func(err error) (Node, error) {
		if ctx.Err() != nil {
			return Node{}, ctx.Err()
		}
		return Node{}, fmt.Errorf("node %d: %w\nits log ends:\n%s", i+1, err, n.tail())
	}
	before, _, err := admin.Fetch(ctx, n.Admin)
	if err != nil {
		return fail(err)
	}
	p, err := pull(ctx, n.Proxy, func(n int64) { done.Add(n) })
	if err != nil {
		return fail(err)
	}
	after, err := d.settled(ctx, n, before.Served, p.Bytes)
	if err != nil {
		return fail(err)
	}
	return Node{
		Node: i + 1, Stage: stage, Seconds: p.Seconds, Bytes: p.Bytes,
		Store: after.Served.Store - before.Served.Store, Peer: after.Served.Peer - before.Served.Peer,
		Origin:         after.Served.Origin - before.Served.Origin,
		ReceivedPeer:   after.Received.Peer - before.Received.Peer,
		ReceivedOrigin: after.Received.Origin - before.Received.Origin,
		Verified:       p.Verified, Digests: len(d.image.blobs) + 1,
	}, nil
}

// accountTime is how long a node may take to account for bytes that its client
// has: it counts a piece after it was written, which is when it may be read.
const accountTime = 3 * time.Second

// settled returns the node's status once it accounts for n more bytes served, or
// as it is after accountTime: then the report says what is wrong.
func (d *demo) settled(ctx context.Context, node *process, before admin.Served, n int64) (admin.Status, error) {
	deadline := time.Now().Add(accountTime)
	for {
		s, _, err := admin.Fetch(ctx, node.Admin)
		if err != nil {
			return s, err
		}
		served := s.Served.Store + s.Served.Peer + s.Served.Origin - before.Store - before.Peer - before.Origin
		if served == n || time.Now().After(deadline) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Problem is the error of a demo that found something wrong.
func (r *Report) Problem() error {
	if r.OK {
		return nil
	}
	return errors.New("not as it should be: " + strings.Join(r.Problems, "; "))
}
