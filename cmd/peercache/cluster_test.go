package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// startCluster runs nodes that know each other, and returns their proxies'
// addresses once all are connected to all.
func startCluster(t *testing.T, size int, flags func(i int) []string) []string {
	t.Helper()
	data := t.TempDir() // before the clean-up below, so that it outlives the nodes
	var nodes []*node
	var proxies []string
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		for _, n := range nodes {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range size {
		set := pflag.NewFlagSet("test", pflag.ContinueOnError)
		settings := config.New(set, func(string) string { return "" })
		args := append([]string{
			"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--p2p-listen", "/ip4/127.0.0.1/tcp/0",
			"--data", filepath.Join(data, strconv.Itoa(i)), "--min-free", "0", "--max-size", "64MiB",
		}, flags(i)...)
		for _, n := range nodes {
			args = append(args, "--bootstrap", n.host.Addrs()[0])
		}
		if err := set.Parse(args); err != nil {
			t.Fatal(err)
		}
		c, err := settings.Load()
		if err != nil {
			t.Fatal(err)
		}
		n, err := openNode(c, quiet)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		up := make(chan struct{})
		running.Go(func() {
			if err := n.Run(ctx, func() error { close(up); return nil }); err != nil {
				t.Error(err)
			}
		})
		<-up
		proxies = append(proxies, n.addresses().Proxy)
	}
	deadline := time.After(30 * time.Second)
	for _, n := range nodes {
		for len(n.host.Peers()) < size-1 {
			select {
			case <-deadline:
				t.Fatalf("a node has %d peers", len(n.host.Peers()))
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return proxies
}

// Four real nodes pull a tag at the same instant: one HEAD for the tag, one GET
// for the manifest.
func TestClusterAsksOnce(t *testing.T) {
	o := origintest.New()
	body := []byte(`{"schemaVersion":2,"manifests":[]}`)
	d := o.Manifest("team/app", "application/vnd.oci.image.index.v1+json", body, "v1")
	registry := httptest.NewServer(o)
	defer registry.Close()
	proxies := startCluster(t, 4, func(int) []string {
		return []string{"--origin", "registry.test=" + registry.URL}
	})
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	pull := func(method, proxy, reference string) error {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+proxy+"/v2/team/app/manifests/"+reference+"?ns=registry.test", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Content-Digest") != d.String() ||
			method == http.MethodGet && digest.FromBytes(got) != d {
			return fmt.Errorf("%s %s: %s %s", method, reference, resp.Status, got)
		}
		return nil
	}
	var wg sync.WaitGroup
	for _, p := range proxies {
		wg.Go(func() {
			for _, step := range []struct{ method, reference string }{
				{http.MethodHead, "v1"}, {http.MethodGet, d.String()}, {http.MethodGet, "v1"}, {http.MethodHead, d.String()},
			} {
				if err := pull(step.method, p, step.reference); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	want := []string{"GET /v2/team/app/manifests/" + d.String(), "HEAD /v2/team/app/manifests/v1"}
	got := o.Requests()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("asked:\n\t%s", strings.Join(got, "\n\t"))
	}
}
