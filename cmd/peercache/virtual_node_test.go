package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/p2p"
	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// virtualNode is a node of a run: all of what `peercache serve` runs, on a virtual
// host, and its client.
type virtualNode struct {
	number int
	host   *virtualHost
	args   []string
	dir    string
	id     chunkindex.NodeID
	addr   string // of its host, with its name

	mu      sync.Mutex
	node    *node              // that runs, nil if none does
	life    context.Context    // ends when the node dies or is told to end
	end     context.CancelFunc // of life
	stop    context.CancelFunc // of the node
	stopped chan struct{}      // closed when it is gone
	up      chan struct{}      // closed while a node runs
	gone    bool               // for good
	client  *http.Client
	held    map[digest.Digest]bool // what the client has pulled
}

// Where the clients and the operator of each node find it.
const virtualProxy, virtualAdmin = "127.0.0.1:5050", "127.0.0.1:5052"

// newVirtualNode gives a node its identity, so that others can be told of it
// before it runs.
func newVirtualNode(number int, host *virtualHost, dir string) (*virtualNode, error) {
	n := &virtualNode{number: number, host: host, dir: dir, up: make(chan struct{}), held: map[digest.Digest]bool{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	key, err := p2p.LoadIdentity(filepath.Join(dir, "identity"))
	if err != nil {
		return nil, err
	}
	copy(n.id[:], key[32:])
	listen := fmt.Sprintf("/ip4/%s/tcp/%d", hostIP(host.number), peerPort)
	n.addr = listen + "/p2p/" + p2p.PeerID(n.id).String()
	n.args = []string{
		"--listen", virtualProxy, "--admin", virtualAdmin, "--p2p-listen", listen, "--open-cluster",
		"--data", dir, "--min-free", "0", "--max-size", "8GiB",
		"--origin", fmt.Sprintf("%s=http://%s:%d", virtualRegistry, hostIP(originHost), registryPort),
	}
	return n, nil
}

// start runs the node, again if it ran before, and returns once it serves.
func (n *virtualNode) start(log *slog.Logger) error {
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	settings := config.New(flags, func(string) string { return "" })
	if err := flags.Parse(n.args); err != nil {
		return err
	}
	c, err := settings.Load()
	if err != nil {
		return err
	}
	n.host.revive()
	clients := origintest.NewNetwork()
	node, err := openNodeOn(n.host.network(clients), c, log.With("node", n.number))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	up, stopped := make(chan struct{}), make(chan struct{})
	var failed error
	transport := &http.Transport{DialContext: clients.Dial, MaxIdleConnsPerHost: 64}
	go func() {
		defer close(stopped)
		failed = node.Run(ctx, func() error { close(up); return nil })
		transport.CloseIdleConnections()
		if err := errors.Join(failed, node.Close()); err != nil && ctx.Err() == nil {
			log.Error("a node failed", "node", n.number, "err", err)
		}
	}()
	select {
	case <-up:
	case <-stopped:
		stop()
		return fmt.Errorf("node %d: %w", n.number, failed)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.node, n.stop, n.stopped = node, stop, stopped
	n.life, n.end = context.WithCancel(ctx)
	n.client = &http.Client{Transport: transport}
	close(n.up)
	return nil
}

// running is the node, if one runs and is not about to end.
func (n *virtualNode) running() *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.node == nil || n.life.Err() != nil {
		return nil
	}
	return n.node
}

// dismiss ends what clients do; the node runs on.
func (n *virtualNode) dismiss() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.node != nil {
		n.end()
	}
}

// leave stops the node in good order. forGood says that it will not be back.
func (n *virtualNode) leave(forGood bool) {
	n.mu.Lock()
	n.gone = n.gone || forGood
	if n.node == nil {
		n.mu.Unlock()
		return
	}
	n.end()
	n.stop()
	stopped := n.stopped
	n.mu.Unlock()
	<-stopped
	n.mu.Lock()
	defer n.mu.Unlock()
	n.node, n.up = nil, make(chan struct{})
}

// crash ends the node for everybody else at once: it falls silent. What was written is
// not lost, since the files are the machine's, but the store is told that its stop was
// unclean.
func (n *virtualNode) crash(forGood bool) error {
	n.dismiss()
	n.host.die()
	n.leave(forGood)
	if err := os.Remove(filepath.Join(n.dir, "store", "CLEAN")); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// alive waits until the node runs, and returns its client and a context that ends
// with it. It fails if ctx ends before, or the node is gone for good.
func (n *virtualNode) alive(ctx context.Context) (*http.Client, context.Context, context.CancelFunc, error) {
	for {
		n.mu.Lock()
		up, gone := n.up, n.gone
		if n.node != nil && n.life.Err() == nil {
			both, cancel := context.WithCancel(n.life)
			unhook := context.AfterFunc(ctx, cancel)
			client := n.client
			n.mu.Unlock()
			return client, both, func() { unhook(); cancel() }, nil
		}
		ending := n.node != nil
		n.mu.Unlock()
		if gone {
			return nil, nil, nil, errGone
		}
		if ending { // up is still closed
			up = nil
		}
		select {
		case <-up:
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, nil, nil, ctx.Err()
		}
	}
}

var errGone = errors.New("the node is gone for good")

// metrics are the counters of the node, by name and labels as in the text format.
func (n *virtualNode) metrics() (map[string]float64, error) {
	n.mu.Lock()
	client := n.client
	n.mu.Unlock()
	resp, err := client.Get("http://" + virtualAdmin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		if values[line[:at]], err = strconv.ParseFloat(line[at+1:], 64); err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
	}
	return values, lines.Err()
}
