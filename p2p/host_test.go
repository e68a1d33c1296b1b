package p2p

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/prometheus/client_golang/prometheus"
)

func TestLifecycle(t *testing.T) {
	key := filepath.Join(t.TempDir(), "identity.pem")
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	reg := prometheus.NewRegistry()
	opts := &Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Registerer: reg}
	h, err := New(key, ds, opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(key, datastore.NewMapDatastore(), opts); err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("a second host on one registerer: %v", err)
	}
	if len(h.Addrs()) != 1 || h.Self().IsZero() || len(h.PrivateKey()) == 0 {
		t.Errorf("before Run: %v %v", h.Addrs(), h.Self())
	}
	if err := h.Close(); err != nil {
		t.Errorf("Close without Run: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
	if err := h.Run(context.Background(), newRecorder()); err == nil {
		t.Error("Run after Close")
	}

	// Everything was given back: the same can be done again.
	h, err = New(key, ds, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- h.Run(ctx, newRecorder()) }()
	until(t, "Run to begin", func() bool { return h.enter() })
	h.wg.Done()
	if err := h.Run(ctx, newRecorder()); err == nil {
		t.Error("Run twice")
	}
	cancel()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// A node that is found by its address alone may come back as somebody else.
func TestOtherIdentityAtTheSameAddress(t *testing.T) {
	a := start(t, nil)
	a.keepPort()
	b := start(t, bootstrap("/ip4/127.0.0.1/tcp/"+tcpPort(t, a)))
	together(t, a, b)
	old := a.Self()
	a.stop()
	if err := os.Remove(filepath.Join(a.dir, "identity.pem")); err != nil {
		t.Fatal(err)
	}
	a.ds = dssync.MutexWrap(datastore.NewMapDatastore())
	a.run(t)
	if a.Self() == old {
		t.Fatal("same identity")
	}
	together(t, a, b)
}

// A node that bootstraps from itself alone, as the first of a headless service
// does, is content.
func TestBootstrapFromItself(t *testing.T) {
	a := start(t, nil)
	a.keepPort()
	a.stop()
	a.opts.Bootstrap = []string{"/ip4/127.0.0.1/tcp/" + tcpPortOf(t, a.opts.Listen[0])}
	a.run(t)
	until(t, "it to be recognised", func() bool {
		return a.count(t, "peercache_p2p_dials_total", map[string]string{"result": "ok"}) == 1
	})
	b := start(t, bootstrap(a.Addrs()...))
	together(t, a, b)
}
