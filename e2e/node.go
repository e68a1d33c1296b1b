//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// binary is the peercache binary: PEERCACHE_BIN's, or built once.
var binary struct {
	once sync.Once
	path string
	err  error
}

func peercache(t testing.TB) string {
	t.Helper()
	binary.once.Do(func() {
		if binary.path = os.Getenv("PEERCACHE_BIN"); binary.path != "" {
			_, binary.err = os.Stat(binary.path)
			return
		}
		binary.path = filepath.Join(os.Getenv(insideEnv), "peercache")
		out, err := exec.Command("go", "build", "-o", binary.path, "github.com/peercache/peercache/cmd/peercache").CombinedOutput()
		if err != nil {
			binary.err = fmt.Errorf("building peercache: %w\n%s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// node is a `peercache serve` process.
type node struct {
	*process
	proxy, admin string   // host:port
	args         []string // of serve: what a restart uses again
	env          []string
	dir          string // data
}

// status is what these tests read of `peercache status --json`.
type status struct {
	ID        string
	Addresses []string
	Peers     []struct{ ID string }
	Blobs     struct{ Complete, Partial int }
	Store     struct {
		Bytes    int64
		MaxBytes int64 `json:"max_bytes"`
	}
	Received struct{ Peer, Origin int64 }
	Served   struct{ Store, Peer, Origin int64 }
	Origins  []struct{ Origin, State string }
}

// startNode starts a node whose [originName] is at the URL, with flags added,
// and waits until it serves. Its peers are those given.
func startNode(t testing.TB, originURL string, peers []*node, flags ...string) *node {
	t.Helper()
	return startNodeIn(t, nil, originURL, peers, flags...)
}

// startNodeIn is startNode with additions to the process's environment.
func startNodeIn(t testing.TB, env []string, originURL string, peers []*node, flags ...string) *node {
	t.Helper()
	n := &node{
		env:   env,
		proxy: "127.0.0.1:" + freePort(t),
		admin: "127.0.0.1:" + freePort(t),
		dir:   t.TempDir(),
	}
	n.args = []string{"serve", "--listen", n.proxy, "--admin", n.admin, "--data", n.dir,
		"--p2p-listen", "/ip4/127.0.0.1/tcp/" + freePort(t), "--origin", originName + "=" + originURL, "--origin", plainOriginName + "=" + originURL,
		// Whatever else fills the machine's disk.
		"--max-size", "4GiB", "--min-free", "1%"}
	for _, p := range peers {
		for _, a := range p.status(t).Addresses {
			n.args = append(n.args, "--bootstrap", a)
		}
	}
	n.args = append(n.args, flags...)
	n.start(t)
	if len(peers) > 0 {
		n.awaitPeers(t, len(peers))
	}
	return n
}

// start starts the node's process, a first time or again on what it left.
func (n *node) start(t testing.TB) {
	t.Helper()
	n.process = start(t, "peercache "+n.proxy, n.env, append([]string{peercache(t)}, n.args...)...)
	eventually(t, 15*time.Second, "node is ready", func() error {
		if err := n.ended(); err != nil {
			t.Fatal(err)
		}
		_, err := get("http://" + n.admin + "/readyz")
		return err
	})
}

// status asks the node as a user does.
func (n *node) status(t testing.TB) (s status) {
	t.Helper()
	out := run(t, 10*time.Second, nil, peercache(t), "status", "--json", "--admin", n.admin)
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("status --json of %s: %v\n%s", n.proxy, err, out)
	}
	return s
}

func (n *node) awaitPeers(t testing.TB, least int) {
	t.Helper()
	eventually(t, 15*time.Second, "node finds its peers", func() error {
		if got := len(n.status(t).Peers); got < least {
			return fmt.Errorf("%d peers of %d", got, least)
		}
		return nil
	})
}

// healthy fails the test unless the node is alive and serving.
func (n *node) healthy(t testing.TB) {
	t.Helper()
	if err := n.ended(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if _, err := get("http://" + n.admin + path); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) url() string { return "http://" + n.proxy }

// get returns the body of a 200, or an error, within 5 s.
func get(url string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return string(body), nil
}
