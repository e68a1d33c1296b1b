package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
)

// OriginName is how clients of a node name the origin, and Repository what is
// in it.
const (
	OriginName = "origin.bench.test:5000"
	Repository = "bench/image"
)

// Node is a `peercache serve` process.
type Node struct {
	*Process
	Proxy     string   `json:"proxy"`
	Admin     string   `json:"admin"`
	Addresses []string `json:"addresses"`

	client *http.Client
}

// NodeOptions are what a node may be told.
type NodeOptions struct {
	Data   string // directory; may hold what [Seed] left there
	Origin string // URL of the origin; "" for one that nobody listens at
	Peers  []*Node
	Args   []string // of serve, further ones
	// Host is where the node runs, with peers on its address and the proxy on
	// loopback; nil: beside this process, all on loopback.
	Host *Host
	Env  []string // NAME=value, further ones
}

// StartNode starts a node and waits until it serves and is connected to its
// peers.
func (r *Rig) StartNode(ctx context.Context, name string, o NodeOptions) (*Node, error) {
	ready := filepath.Join(r.Dir, name+".addresses.json")
	if o.Origin == "" {
		o.Origin = "http://127.0.0.1:1"
	}
	args := []string{
		"serve", "--data", o.Data, "--address-file", ready, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0",
		"--origin", OriginName + "=" + o.Origin, "--max-size", "64GiB", "--min-free", "1%", "--pprof",
	}
	client := http.DefaultClient
	var ns *Namespace
	if o.Host != nil {
		ns, client = o.Host.Namespace, o.Host.Client()
		args = append(args, "--p2p-listen", "/ip4/"+o.Host.IP+"/tcp/5051", "--open-cluster")
	} else {
		args = append(args, "--p2p-listen", "/ip4/127.0.0.1/tcp/0")
	}
	for _, p := range o.Peers {
		for _, a := range p.Addresses {
			args = append(args, "--bootstrap", a)
		}
	}
	p, err := r.StartIn(ns, o.Env, name, r.binary, append(args, o.Args...)...)
	if err != nil {
		return nil, err
	}
	n := &Node{Process: p, client: client}
	err = Await(ctx, time.Minute, name+" is up", func() (bool, error) {
		if err := p.Ended(); err != nil {
			return true, err
		}
		data, err := os.ReadFile(ready)
		if err != nil {
			return false, err
		}
		err = json.Unmarshal(data, n)
		return err == nil, err
	})
	if err == nil {
		err = p.Ended()
	}
	if err == nil && len(o.Peers) > 0 {
		err = Await(ctx, 30*time.Second, name+" finds its peers", func() (bool, error) {
			s, err := n.Status(ctx)
			return len(s.Peers) >= len(o.Peers), err
		})
	}
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("%w\n%s", err, p.Tail())
	}
	return n, nil
}

// BlobURL is where clients get a blob of the origin from the node.
func (n *Node) BlobURL(d digest.Digest) string {
	return fmt.Sprintf("http://%s/v2/%s/blobs/%s?ns=%s", n.Proxy, Repository, d, OriginName)
}

// ManifestURL is the same of a manifest, by tag or digest.
func (n *Node) ManifestURL(reference string) string {
	return fmt.Sprintf("http://%s/v2/%s/manifests/%s?ns=%s", n.Proxy, Repository, reference, OriginName)
}

// Status is what benchmarks read of a node's status, in bytes.
type Status struct {
	ID       string // libp2p's peer ID
	Peers    []struct{ ID string }
	Blobs    struct{ Complete, Partial int }
	Received struct{ Peer, Origin int64 }
	Served   struct{ Store, Peer, Origin int64 }
}

// Status asks the node.
func (n *Node) Status(ctx context.Context) (s Status, err error) {
	body, err := get(ctx, n.client, "http://"+n.Admin+"/status")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// Metrics returns what the node tells Prometheus.
func (n *Node) Metrics(ctx context.Context) ([]byte, error) {
	return get(ctx, n.client, "http://"+n.Admin+"/metrics")
}

// Get returns the body of a 200.
func Get(ctx context.Context, url string) ([]byte, error) {
	return get(ctx, http.DefaultClient, url)
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // a node that hangs ends the wait for it, too
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return body, err
}
