package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math/bits"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/fetcher"
	"github.com/peercache/peercache/simulation/scenario"
)

// virtualRun carries a run out with real nodes, in a bubble of testing/synctest: all of
// `peercache serve` (policy core, fetcher, store on disk, libp2p, kad-dht, the proxy and the
// client of origins), on simulated packets. Virtual time passes while all of them wait.
//
// What is not as in production: QUIC is spoken instead of TCP with TLS and yamux. A node's own
// work, its disk's too, takes no time, so that [scenario.Costs] and [scenario.DHT] say nothing here. Clients
// reach their node over pipes in memory. A full link queues as FQ-CoDel has it (RFC 8290), whatever
// Latency.Queue says. A node that is killed loses nothing that it has written; its store has to
// find out what that is. Keys and goroutines are random: a seed does not bring a run back.
type virtualRun struct {
	run    *scenario.Run
	log    *slog.Logger
	net    *virtualNetwork
	origin *virtualOrigin
	nodes  []*virtualNode
	begun  time.Time
	work   sync.WaitGroup // restarts

	mu       sync.Mutex
	lasting  []*scenario.Fault
	outcomes []virtualPull
	err      error
}

// virtualPull says how a pull went. Times count from the start of the run.
type virtualPull struct {
	node               int
	begun, first, done time.Duration // first and done 0: never
	bytes              int64
	failures, status   int
	excused            bool // its node died, or was stopped
	wrong              bool // a complete response had wrong bytes
	lastError          error
}

// The nodes have virtualMeeting to find one another before the run begins. When they have,
// virtualSettling is for what they do then: look themselves up, and tell each other apart.
const virtualMeeting, virtualSettling = time.Minute, 5 * time.Second

const (
	// Below 400 connections a node is connected to all others, and each of the two ends takes
	// some 200 KiB: 200 nodes take 8 to 12 GiB.
	maxVirtualNodes   = 256
	maxVirtualContent = 1 << 30
)

// virtualRefuses says what of a run real nodes in virtual time cannot do.
func virtualRefuses(run *scenario.Run) error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if n := len(run.Nodes); n > maxVirtualNodes {
		refuse("%d nodes: there is memory for %d", n, maxVirtualNodes)
	}
	size := int64(0)
	for _, b := range run.Blobs {
		size += b.Size
	}
	if size > maxVirtualContent {
		refuse("blobs of %d bytes: the origin keeps them in memory, %d at most", size, int64(maxVirtualContent))
	}
	for i, r := range run.Racks {
		if r.Up != 0 || r.Down != 0 {
			refuse("rack %d: packets have no uplinks that nodes share", i)
		}
	}
	for i, z := range run.Zones {
		if z.Up != 0 || z.Down != 0 {
			refuse("zone %d: packets have no uplinks that nodes share", i)
		}
	}
	for i, n := range run.Nodes {
		if n.Disk != 0 && (n.Down == 0 || n.Disk < n.Down) {
			refuse("node %d: its disk is slower than its link, and real disks take no virtual time", i)
			break
		}
	}
	if run.Origin.Readers != 0 {
		refuse("origin: every node may read from it")
	}
	for i := range run.Faults {
		switch f := &run.Faults[i]; f.Kind {
		case scenario.Crash, scenario.Drain, scenario.Partition, scenario.Offline, scenario.Loss,
			scenario.OriginThrottle, scenario.OriginError, scenario.OriginReset, scenario.OriginStall, scenario.OriginOutage, scenario.ExpiredToken:
		default:
			refuse("fault %d: %q cannot be made with real nodes in virtual time", i, f.Kind)
		}
	}
	return errors.Join(errs...)
}

// runVirtual carries a run out. It must be called in a bubble; the content of origin is
// made outside. dir is where the nodes' stores go. before, which may be nil, is called
// once the nodes have found one another, before the run begins.
func runVirtual(run *scenario.Run, origin *virtualOrigin, dir string, log *slog.Logger, before func(*virtualRun) error) (_ *virtualResult, err error) {
	v := &virtualRun{run: run, log: log, origin: origin}
	v.net = newVirtualNetwork(run.Seed, v.delay)
	defer v.net.close()
	if err := origin.serve(v.net.addHost(originHost, run.Origin.Link, run.Origin.Link)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, origin.close()) }()
	if err := v.makeNodes(dir); err != nil {
		return nil, err
	}
	defer v.leave()
	ctx, cancel := context.WithCancel(context.Background())
	defer v.work.Wait()
	defer cancel()

	if err := v.each(func(n *virtualNode) error {
		if run.Nodes[n.number].Joins > 0 {
			return nil
		}
		return n.start(log)
	}); err != nil {
		return nil, err
	}
	if err := v.meet(); err != nil {
		return nil, err
	}
	if before != nil {
		if err := before(v); err != nil {
			return nil, err
		}
	}
	v.begin(ctx)
	return v.result()
}

// delay is the latency between two hosts.
func (v *virtualRun) delay(from, to int) time.Duration {
	l := &v.run.Latency
	if from == originHost || to == originHost {
		return l.Origin
	}
	a, b := v.run.Nodes[from-firstNode], v.run.Nodes[to-firstNode]
	switch {
	case a.Zone != b.Zone:
		return l.Far
	case a.Rack != b.Rack:
		return l.Zone
	}
	return l.Rack
}

func (v *virtualRun) makeNodes(dir string) error {
	const seeds = 3
	for i, s := range v.run.Nodes {
		n, err := newVirtualNode(i, v.net.addHost(firstNode+i, s.Up, s.Down), filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return err
		}
		n.args = append(n.args, "--verify", cmp.Or(v.run.Verify, "member"))
		if len(v.run.Racks) > 1 || len(v.run.Zones) > 1 {
			n.args = append(n.args, "--zone", "zone-"+strconv.Itoa(s.Zone), "--rack", "rack-"+strconv.Itoa(s.Rack))
		}
		if s.Space > 0 {
			n.args = append(n.args, "--max-size", strconv.FormatInt(s.Space, 10))
		}
		for _, other := range v.nodes[:min(seeds, len(v.nodes))] {
			n.args = append(n.args, "--bootstrap", other.addr)
		}
		v.nodes = append(v.nodes, n)
	}
	return nil
}

// each does something with all nodes at once.
func (v *virtualRun) each(f func(*virtualNode) error) error {
	errs := make([]error, len(v.nodes))
	var all sync.WaitGroup
	for i, n := range v.nodes {
		all.Go(func() { errs[i] = f(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// meet waits until all nodes have found enough others.
func (v *virtualRun) meet() error {
	there := 0
	for _, n := range v.run.Nodes {
		if n.Joins == 0 {
			there++
		}
	}
	enough := min(there-1, 32)
	for start := time.Now(); ; {
		lonely, peers := -1, 0
		for i, n := range v.nodes {
			if node := n.running(); node != nil {
				if peers = len(node.host.Peers()); peers < enough {
					lonely = i
					break
				}
			}
		}
		if lonely < 0 {
			time.Sleep(virtualSettling)
			return nil
		}
		if time.Since(start) > virtualMeeting {
			return fmt.Errorf("node %d has found %d of %d others within %s", lonely, peers, there-1, virtualMeeting)
		}
		time.Sleep(time.Second)
	}
}

// leave ends all nodes. Nobody hears of the others' end, which would keep them busy.
func (v *virtualRun) leave() {
	v.net.lose(func(int, int) int { return 1e6 })
	_ = v.each(func(n *virtualNode) error { n.leave(true); return nil })
}

// begin is the run itself: until every pull is over, or its time is.
func (v *virtualRun) begin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, v.run.Limits.Time)
	defer cancel()
	v.begun = time.Now()
	v.origin.begin()
	v.outcomes = make([]virtualPull, len(v.run.Pulls))
	for i := range v.run.Faults {
		v.work.Go(func() { v.fail(v.report(v.fault(ctx, &v.run.Faults[i]))) })
	}
	for _, n := range v.nodes {
		if at := v.run.Nodes[n.number].Joins; at > 0 {
			v.work.Go(func() {
				if v.until(ctx, at) {
					v.fail(n.start(v.log))
				}
			})
		}
	}
	var pulls sync.WaitGroup
	for i := range v.run.Pulls {
		pulls.Go(func() {
			if v.until(ctx, v.run.Pulls[i].At) {
				v.outcomes[i] = v.pull(ctx, &v.run.Pulls[i])
			}
		})
	}
	pulls.Wait()
}

func (v *virtualRun) report(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil // the run was over first
	}
	return err
}

func (v *virtualRun) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = errors.Join(v.err, err)
}

// until waits for a time of the run.
func (v *virtualRun) until(ctx context.Context, at time.Duration) bool {
	select {
	case <-time.After(time.Until(v.begun.Add(at))):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// pull is one client.
func (v *virtualRun) pull(ctx context.Context, p *scenario.Pull) virtualPull {
	n, image := v.nodes[p.Node], v.origin.images[p.Image]
	out := virtualPull{node: p.Node, begun: time.Since(v.begun)}
	for {
		client, life, done, err := n.alive(ctx)
		if err != nil {
			out.excused, out.lastError = errors.Is(err, errGone), err
			return out
		}
		c := &virtualClient{http: client, node: n, retries: p.Retries, out: &out, begun: v.begun}
		err = c.image(life, image, p.Parallel)
		ended := life.Err() != nil
		done()
		if err == nil {
			out.done = time.Since(v.begun)
			return out
		}
		out.lastError = err
		if !ended || ctx.Err() != nil {
			return out
		}
		// Its node has ended, and the client asks anew when it is back.
	}
}

// virtualClient pulls as a container runtime does.
type virtualClient struct {
	http    *http.Client
	node    *virtualNode
	retries int
	begun   time.Time

	mu  sync.Mutex
	out *virtualPull
}

func (c *virtualClient) image(ctx context.Context, image virtualImage, parallel int) error {
	if err := c.blob(ctx, "manifests", image.manifest, -1); err != nil {
		return err
	}
	if parallel == 0 {
		parallel = len(image.layers)
	}
	slots := make(chan struct{}, max(1, parallel))
	errs := make([]error, len(image.layers))
	var all sync.WaitGroup
	for i, l := range image.layers {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = c.blob(ctx, "blobs", l.Digest, l.Size)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// blob reads a blob until it is complete and right, as often as the client may ask.
func (c *virtualClient) blob(ctx context.Context, kind string, d digest.Digest, size int64) error {
	c.node.mu.Lock()
	held := c.node.held[d]
	c.node.mu.Unlock()
	if held {
		return nil
	}
	for attempt := 0; ; attempt++ {
		status, err := c.read(ctx, kind, d, size)
		if err == nil {
			c.node.mu.Lock()
			defer c.node.mu.Unlock()
			c.node.held[d] = true
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.mu.Lock()
		c.out.failures++
		c.out.status = status
		c.mu.Unlock()
		if attempt == c.retries {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *virtualClient) read(ctx context.Context, kind string, d digest.Digest, size int64) (status int, err error) {
	url := fmt.Sprintf("http://%s/v2/%s/%s/%s?ns=%s", virtualProxy, virtualRepository, kind, d, virtualRegistry)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "*/*")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return resp.StatusCode, fmt.Errorf("%s %s: %s %s", kind, d, resp.Status, text)
	}
	sum := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{&firstWriter{c: c, sum: sum, layer: kind == "blobs"}}, resp.Body, make([]byte, 64<<10))
	if err != nil {
		return resp.StatusCode, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.bytes += n
	if got := digest.NewDigest(digest.SHA256, sum); got != d || size >= 0 && n != size {
		c.out.wrong = true
		return resp.StatusCode, fmt.Errorf("WRONG BYTES: %d of %s hash to %s", n, d, got)
	}
	return resp.StatusCode, nil
}

// firstWriter hashes, and notes when the first byte of a layer came.
type firstWriter struct {
	c     *virtualClient
	sum   hash.Hash
	layer bool
}

func (w *firstWriter) Write(p []byte) (int, error) {
	if w.layer {
		w.layer = false
		w.c.mu.Lock()
		if w.c.out.first == 0 {
			w.c.out.first = time.Since(w.c.begun)
		}
		w.c.mu.Unlock()
	}
	return w.sum.Write(p)
}

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

// fault carries a fault out.
func (v *virtualRun) fault(ctx context.Context, f *scenario.Fault) error {
	if !v.until(ctx, f.At) {
		return ctx.Err()
	}
	nodes := f.Nodes
	if f.Role != "" {
		n, err := v.whoHas(ctx, f.Role)
		if err != nil {
			return err
		}
		nodes = []int{n}
	}
	switch f.Kind {
	case scenario.Crash, scenario.Drain:
		var all sync.WaitGroup
		for _, i := range nodes {
			all.Go(func() { v.fail(v.report(v.end(ctx, f, v.nodes[i]))) })
		}
		all.Wait()
		return nil
	}
	here := *f
	here.Nodes = nodes
	v.change(func() { v.lasting = append(v.lasting, &here) })
	if at, ever := f.Heals(); ever && v.until(ctx, at) {
		v.change(func() { v.lasting = slices.DeleteFunc(v.lasting, func(x *scenario.Fault) bool { return x == &here }) })
	}
	return nil
}

// end is a crash or a drain of one node.
func (v *virtualRun) end(ctx context.Context, f *scenario.Fault, n *virtualNode) error {
	forGood := f.Restart == 0
	if f.Kind == scenario.Crash {
		if err := n.crash(forGood); err != nil {
			return err
		}
	} else {
		n.dismiss()
		select {
		case <-time.After(f.Notice):
		case <-ctx.Done():
			return ctx.Err()
		}
		n.leave(forGood)
	}
	if forGood || !v.until(ctx, f.At+f.Notice+f.Restart) {
		return nil
	}
	return n.start(v.log)
}

// change changes which faults last, and tells network and origin.
func (v *virtualRun) change(what func()) {
	v.mu.Lock()
	what()
	lasting := slices.Clone(v.lasting)
	v.mu.Unlock()
	v.origin.set(lasting)
	v.net.lose(func(from, to int) int {
		lost := 0
		for _, f := range lasting {
			has := func(host int) bool { return host != originHost && slices.Contains(f.Nodes, host-firstNode) }
			switch f.Kind {
			case scenario.Partition:
				if from != originHost && to != originHost && (has(from) && !has(to) || has(to) && !has(from) && !f.OneWay) {
					return 1e6
				}
			case scenario.Offline:
				if has(from) && to == originHost || has(to) && from == originHost {
					return 1e6
				}
			case scenario.Loss:
				if has(from) || has(to) {
					lost = max(lost, f.Part)
				}
			}
		}
		return lost
	})
}

// whoHas waits until a node has a role, by what the nodes say themselves: whom most of
// them take for the coordinator, or who reads from the origin.
func (v *virtualRun) whoHas(ctx context.Context, role scenario.Role) (int, error) {
	for {
		votes := make([]int, len(v.nodes))
		for i, n := range v.nodes {
			node := n.running()
			if node == nil {
				continue
			}
			live, err := node.fetcher.Live()
			if err != nil {
				continue
			}
			for _, b := range live.Blobs {
				v.vote(role, i, b, votes)
			}
		}
		if most := slices.Max(votes); most > 0 {
			return slices.Index(votes, most), nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (v *virtualRun) vote(role scenario.Role, node int, b fetcher.LiveBlob, votes []int) {
	switch {
	case role == scenario.Fetcher && b.Reads > 0:
		votes[node]++
	case role == scenario.Coordinator && !b.Coordinator.IsZero():
		for i, n := range v.nodes {
			if n.id == b.Coordinator && n.running() != nil {
				votes[i]++
			}
		}
	}
}
