//go:build e2e && linux

package e2e

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/p2p"
)

// stripe is what one request to the origin covers at most.
const stripe = 16 * mib

// swarm is some nodes that all know one another and reach one scripted origin,
// each by a front of its own, so that it is known who took what from there.
type swarm struct {
	origin *origin
	nodes  []*node
	fronts []*front
}

// startSwarm starts a swarm of n nodes.
func startSwarm(t testing.TB, n int, flags ...string) *swarm {
	t.Helper()
	s := &swarm{origin: startOrigin(t)}
	for range n {
		s.join(t, nil, flags...)
	}
	s.meet(t)
	return s
}

// join adds a node that knows all others. env is added to its environment.
func (s *swarm) join(t testing.TB, env []string, flags ...string) *node {
	t.Helper()
	f := startFront(t, s.origin.addr, "")
	n := startNodeIn(t, env, f.url(), s.nodes, flags...)
	s.nodes, s.fronts = append(s.nodes, n), append(s.fronts, f)
	return n
}

// meet waits until every node has met every other.
func (s *swarm) meet(t testing.TB) {
	t.Helper()
	for _, n := range s.nodes {
		n.awaitPeers(t, len(s.nodes)-1)
	}
}

// limit bounds the rate of each of the origin's responses.
func (s *swarm) limit(bytesPerSecond int64) {
	for _, f := range s.fronts {
		f.limit(bytesPerSecond)
	}
}

// written is how many body bytes of a blob went out for all nodes together.
func (s *swarm) written(digest string) (n int64) {
	for _, f := range s.fronts {
		n += f.bytesOf(digest)
	}
	return n
}

// awaitWritten waits until the origin has written so much of a blob.
func (s *swarm) awaitWritten(t testing.TB, digest string, least int64) {
	t.Helper()
	eventually(t, 30*time.Second, "the origin has written a part", func() error {
		if got := s.written(digest); got < least {
			return fmt.Errorf("%d of %d bytes", got, least)
		}
		return nil
	})
}

// wantEgress fails the test if the origin wrote more of a blob of size than
// permitted beyond one copy.
func (s *swarm) wantEgress(t testing.TB, digest string, size, more int64) {
	t.Helper()
	got := s.written(digest)
	t.Logf("egress: %.3f copies", float64(got)/float64(size))
	if got > size+more {
		t.Errorf("the origin wrote %d bytes of a blob of %d, want at most %d more", got, size, more)
	}
}

// ranked lists the nodes as they rank for a blob: the first coordinates.
func (s *swarm) ranked(t testing.TB, digest string) []int {
	t.Helper()
	var ids []chunkindex.NodeID
	for _, n := range s.nodes {
		ids = append(ids, n.id(t))
	}
	var order []int
	for _, id := range policy.Rank(digest, ids) {
		order = append(order, slices.Index(ids, id))
	}
	return order
}

// id is the node's name among its peers.
func (n *node) id(t testing.TB) chunkindex.NodeID {
	t.Helper()
	p, err := peer.Decode(n.status(t).ID)
	if err != nil {
		t.Fatal(err)
	}
	id, ok := p2p.NodeOf(p)
	if !ok {
		t.Fatalf("%s is no node's ID", p)
	}
	return id
}

// reader waits until a node reads a blob from the origin, and returns its index.
func (s *swarm) reader(t testing.TB) (i int) {
	t.Helper()
	eventually(t, 10*time.Second, "a node reads from the origin", func() error {
		if i = slices.IndexFunc(s.fronts, (*front).isRead); i < 0 {
			return fmt.Errorf("none does")
		}
		return nil
	})
	return i
}

// pull gets a blob from a node in the background.
func (n *node) pull(t testing.TB, digest string) <-chan reply {
	done := make(chan reply, 1)
	go func() { done <- fetch(t, 2*time.Minute, "GET", n.at("app", "blobs/"+digest)) }()
	return done
}

// pulls is what the clients of some nodes wait for, by the node's index.
type pulls map[int]<-chan reply

// pull has the clients of all nodes get a blob in the same instant.
func (s *swarm) pull(t testing.TB, digest string) pulls {
	p := pulls{}
	for i, n := range s.nodes {
		p[i] = n.pull(t, digest)
	}
	return p
}

// wantWhole waits for all pulls but those left out, and fails the test for those
// that did not get the blob.
func (p pulls) wantWhole(t testing.TB, digest string, but ...int) {
	t.Helper()
	for i, done := range p {
		if !slices.Contains(but, i) {
			(<-done).wantWhole(t, fmt.Sprintf("the blob at node %d", i), digest)
		}
	}
}

// metric returns the sum of a node's metric over the series that have all the
// labels, each as `name="value"`.
func (n *node) metric(t testing.TB, name string, labels ...string) (sum float64) {
	t.Helper()
	body, err := get("http://" + n.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(body))
next:
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(series, l) {
				continue next
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		sum += v
	}
	return sum
}

// receivedFrom is how many bytes of content a node received from "peer" or
// "origin".
func (n *node) receivedFrom(t testing.TB, source string) int64 {
	t.Helper()
	return int64(n.metric(t, "peercache_fetcher_received_bytes_total", `source="`+source+`"`))
}

// The only user of a private origin.
const (
	userName = "puller"
	password = "e2e"
)

// guard makes the origin private: who has no password gets a 401, and who has a
// wrong one a 403.
func (o *origin) guard() {
	o.play(func(w http.ResponseWriter, r *http.Request, _ []byte, _ int) bool {
		user, pass, ok := r.BasicAuth()
		switch {
		case !ok:
			w.Header().Set("WWW-Authenticate", `Basic realm="e2e"`)
			w.WriteHeader(http.StatusUnauthorized)
		case user != userName || pass != password:
			w.WriteHeader(http.StatusForbidden)
		default:
			return false
		}
		return true
	})
}

// withPassword returns an environment with docker's credentials for the origin,
// none for a pass of "".
func withPassword(t testing.TB, pass string) []string {
	t.Helper()
	dir := t.TempDir()
	auths := map[string]any{}
	if pass != "" {
		auths[originName] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(userName + ":" + pass))}
	}
	data, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"DOCKER_CONFIG=" + dir}
}
