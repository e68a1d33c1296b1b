package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/bench/internal/rig"
	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/p2p"
)

const (
	maxRange = 8 << 20
	// messagePeriod is the mean time between two messages to the same host; a message
	// is as long as a Have.
	messagePeriod = 10 * time.Millisecond
	messageBytes  = 40
	// warmUp is the time in which nothing counts.
	warmUp = time.Second
)

// task is what a member's process is started with.
type task struct {
	Listen  string  `json:"listen"` // an IP address
	Dir     string  `json:"dir"`
	Others  []hello `json:"others"` // who is there
	Hosts   int     `json:"hosts"`  // how many there will be
	Length  int64   `json:"length"`
	Seconds float64 `json:"seconds"`
}

// hello is how a member says that it listens.
type hello struct {
	ID    string   `json:"id"`
	Addrs []string `json:"addrs"`
}

// measured is what a member saw. Times are in ms.
type measured struct {
	Messages map[string][]float64 `json:"messages"` // by sender
	Requests []float64            `json:"requests"`
	Sockets  []socket             `json:"sockets"`
	Bytes    float64              `json:"bytes"`
	CPU      float64              `json:"cpu"` // seconds
}

// handler serves ranges from memory and notes how old messages are.
type handler struct {
	data []byte

	mu       sync.Mutex
	counting bool
	up       map[chunkindex.NodeID]bool
	got      measured
}

func (h *handler) PeerUp(n chunkindex.NodeID) { h.mu.Lock(); defer h.mu.Unlock(); h.up[n] = true }
func (h *handler) PeerDown(n chunkindex.NodeID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.up, n)
}

// Frame holds when it was sent: all processes have one clock.
func (h *handler) Frame(n chunkindex.NodeID, frame []byte) error {
	now := time.Now().UnixNano()
	sent := int64(binary.BigEndian.Uint64(frame))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.counting {
		id := hex.EncodeToString(n[:])
		h.got.Messages[id] = append(h.got.Messages[id], float64(now-sent)/1e6)
	}
	return nil
}

func (h *handler) OpenRange(_ context.Context, _ chunkindex.NodeID, r p2p.RangeRequest) (*p2p.RangeSource, error) {
	if r.Length < 0 || r.Length > maxRange {
		return nil, p2p.ErrBadRange
	}
	body := bytes.NewReader(h.data[:r.Length])
	return &p2p.RangeSource{Size: r.Offset + r.Length, Length: r.Length, Body: io.NopCloser(body)}, nil
}

func (h *handler) Call(context.Context, chunkindex.NodeID, []byte) ([]byte, error) {
	return nil, p2p.ErrNotFound
}

// runMember is the role of a host: it listens and says so, waits until all others are
// up and says so, is told of whom to read, and says what it measured.
func runMember(ctx context.Context, args []string, in io.Reader, out io.Writer) (err error) {
	var t task
	if err := json.Unmarshal([]byte(args[0]), &t); err != nil {
		return err
	}
	if err := os.Mkdir(t.Dir, 0o700); err != nil {
		return err
	}
	var bootstrap []string
	for _, o := range t.Others {
		bootstrap = append(bootstrap, o.Addrs...)
	}
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	host, err := p2p.New(filepath.Join(t.Dir, "identity.pem"), ds, &p2p.Options{
		Listen: []string{fmt.Sprintf("/ip4/%s/tcp/5051", t.Listen)}, Bootstrap: bootstrap,
	})
	if err != nil {
		return err
	}
	h := &handler{up: map[chunkindex.NodeID]bool{}, got: measured{Messages: map[string][]float64{}}}
	h.data = make([]byte, maxRange)
	if _, err := io.ReadFull(rig.Content{Number: 5, Size: maxRange}.Reader(), h.data); err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- host.Run(ctx, h) }()
	defer func() { err = errors.Join(err, host.Close(), <-ran) }()

	say := json.NewEncoder(out)
	self := host.Self()
	if err := say.Encode(hello{hex.EncodeToString(self[:]), host.Addrs()}); err != nil {
		return err
	}
	if err := rig.Await(ctx, time.Minute, "all hosts are up", func() (bool, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.up) == t.Hosts-1, nil
	}); err != nil {
		return err
	}
	if err := say.Encode("ready"); err != nil {
		return err
	}
	listen := json.NewDecoder(in)
	var names []string
	if err := listen.Decode(&names); err != nil {
		return err
	}
	var of []chunkindex.NodeID
	for _, name := range names {
		id, err := hex.DecodeString(name)
		if err != nil || len(id) != len(chunkindex.NodeID{}) {
			return fmt.Errorf("%q is no node (%w)", name, err)
		}
		of = append(of, chunkindex.NodeID(id))
	}
	got, err := load(ctx, host, h, t, of)
	if err != nil {
		return err
	}
	if err := say.Encode(got); err != nil {
		return err
	}
	<-ctx.Done() // it goes on answering until the others are done too
	return nil
}

// load reads and talks for the time of the task.
func load(ctx context.Context, host *p2p.Host, h *handler, t task, of []chunkindex.NodeID) (got *measured, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	failed := make(chan error, len(of))
	for _, peer := range of {
		wg.Go(func() {
			if err := h.read(ctx, host, peer, t.Length); err != nil && ctx.Err() == nil {
				failed <- err
			}
		})
	}
	h.mu.Lock()
	for peer := range h.up {
		wg.Go(func() { talk(ctx, host, peer) })
	}
	h.mu.Unlock()
	sampled := make(chan []socket, 1)

	wait(ctx, warmUp)
	before := rig.OwnCPU()
	h.mu.Lock()
	h.counting = true
	h.mu.Unlock()
	go func() { sampled <- sampleSockets(ctx) }()
	wait(ctx, time.Duration(t.Seconds*float64(time.Second)))
	h.mu.Lock()
	h.counting = false
	h.mu.Unlock()
	h.got.CPU = (rig.OwnCPU() - before).Seconds()
	// The load goes on while the others count to their end.
	wait(ctx, warmUp/2)
	stop()
	wg.Wait()
	h.got.Sockets = <-sampled
	select {
	case err := <-failed:
		return nil, err
	default:
		return &h.got, nil
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// read reads one range of a peer after the other.
func (h *handler) read(ctx context.Context, host *p2p.Host, peer chunkindex.NodeID, length int64) error {
	buf := make([]byte, 256<<10)
	for ctx.Err() == nil {
		start := time.Now()
		resp, err := host.Read(ctx, peer, p2p.RangeRequest{Digest: digest.FromString("range"), Length: length})
		if err != nil {
			return err
		}
		h.mu.Lock()
		if h.counting {
			h.got.Requests = append(h.got.Requests, time.Since(start).Seconds()*1e3)
		}
		h.mu.Unlock()
		for left := length; left > 0; {
			n, err := resp.Body.Read(buf)
			if err != nil {
				return errors.Join(err, resp.Body.Close())
			}
			left -= int64(n)
			h.mu.Lock()
			if h.counting {
				h.got.Bytes += float64(n)
			}
			h.mu.Unlock()
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
	}
	return nil
}

// talk sends a peer messages at random times, so that they find a range's bytes at
// every stage.
func talk(ctx context.Context, host *p2p.Host, peer chunkindex.NodeID) {
	for ctx.Err() == nil {
		frame := binary.BigEndian.AppendUint64(make([]byte, 0, messageBytes), uint64(time.Now().UnixNano()))
		_ = host.Send(peer, frame[:messageBytes]) // a peer that is down shows in what is counted
		wait(ctx, rand.N(2*messagePeriod))
	}
}
