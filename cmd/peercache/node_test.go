package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/fetcher"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/p2p"
	"github.com/peercache/peercache/registryproxy"
)

func testConfig(t *testing.T) *config.Config {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	settings := config.New(flags, func(string) string { return "" })
	err := flags.Parse([]string{
		"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--p2p-listen", "/ip4/127.0.0.1/tcp/0",
		"--data", t.TempDir(), "--min-free", "0", "--max-size", "64MiB",
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := settings.Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var quiet = slog.New(slog.DiscardHandler)

// A whole node comes up, serves, and leaves nothing running when it stops.
func TestNodeStopsWithoutTraces(t *testing.T) {
	before := goleak.IgnoreCurrent()
	n, err := openNode(testConfig(t), quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	get := func(url string) (int, string) {
		resp, err := client.Get(url)
		if err != nil {
			t.Error(err)
			return 0, ""
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return resp.StatusCode, string(body)
	}
	err = n.Run(ctx, func() error {
		a := n.addresses()
		if code, body := get("http://" + a.Proxy + "/v2/"); code != http.StatusOK {
			t.Errorf("/v2/: %d %s", code, body)
		}
		if code, body := get("http://" + a.Admin + "/readyz"); code != http.StatusOK || body != "ready\n" {
			t.Errorf("/readyz of a lone node: %d %s", code, body)
		}
		cancel()
		return nil
	})
	transport.CloseIdleConnections()
	if err := errors.Join(err, n.Close()); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
}

// A node that cannot tell that it is up stops, and says why.
func TestNodeStopsWhenItCannotBeAnnounced(t *testing.T) {
	n, err := openNode(testConfig(t), quiet)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken pipe")
	if err := n.Run(t.Context(), func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Run = %v", err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestFetchRange(t *testing.T) {
	for _, test := range []struct {
		in   *registryproxy.ByteRange
		want *fetcher.Range
		ok   bool
	}{
		{nil, nil, true},
		{&registryproxy.ByteRange{Start: 0, End: 0}, &fetcher.Range{Start: 0, End: 1}, true},
		{&registryproxy.ByteRange{Start: 3, End: 9}, &fetcher.Range{Start: 3, End: 10}, true},
		{&registryproxy.ByteRange{Start: 3, End: -1}, &fetcher.Range{Start: 3, End: -1}, true},
		{&registryproxy.ByteRange{Start: 3, End: math.MaxInt64}, &fetcher.Range{Start: 3, End: -1}, true},
		{&registryproxy.ByteRange{Start: -1, End: 5}, &fetcher.Range{Suffix: 5}, true},
		{&registryproxy.ByteRange{Start: -1, End: 0}, nil, false},
	} {
		got, ok := fetchRange(test.in)
		if ok != test.ok || ok && (got == nil) != (test.want == nil) || ok && got != nil && *got != *test.want {
			t.Errorf("fetchRange(%v) = %v, %v; want %v, %v", test.in, got, ok, test.want, test.ok)
		}
	}
}

// What a peer refuses, and what is refused to a peer, keeps its meaning.
func TestErrorsKeepTheirMeaning(t *testing.T) {
	var busy interface{ Busy() bool }
	if err := peerError(p2p.ErrBusy); !errors.As(err, &busy) || !busy.Busy() || !errors.Is(err, p2p.ErrBusy) {
		t.Errorf("busy peer: %v", err)
	}
	if err := peerError(p2p.ErrNotFound); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, p2p.ErrNotFound) {
		t.Errorf("peer without it: %v", err)
	}
	if err := peerError(p2p.ErrStalled); err != p2p.ErrStalled {
		t.Errorf("other error of a peer: %v", err)
	}
	if peerError(nil) != nil || refusal(nil) != nil {
		t.Error("no error became one")
	}
	if err := refusal(busyError{errors.New("full")}); !errors.Is(err, p2p.ErrBusy) {
		t.Errorf("busy here: %v", err)
	}
	if err := refusal(fmt.Errorf("serving: %w", fetcher.ErrRange)); !errors.Is(err, p2p.ErrBadRange) {
		t.Errorf("bad range: %v", err)
	}
	if err := refusal(fs.ErrNotExist); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, p2p.ErrBusy) {
		t.Errorf("absence: %v", err)
	}
}

// Labels are the same on every node of a place, and tell places apart.
func TestLabel(t *testing.T) {
	a := label("zone", "1")
	switch {
	case label("", "") != policy.Label{}:
		t.Error("a place that nobody named")
	case a.Zone == 0 || a.Rack == 0 || a != label("zone", "1"):
		t.Errorf("%+v", a)
	case label("zone", "") != policy.Label{Zone: a.Zone}:
		t.Errorf("without a rack: %+v", label("zone", ""))
	case label("zone", "2").Rack == a.Rack, label("other", "1").Rack == a.Rack, label("other", "1").Zone == a.Zone:
		t.Error("two places of one label")
	}
	// FNV-1a, by its published vectors.
	if got := label("foobar", "").Zone; got != 0xbf9cf968 {
		t.Errorf("%x", got)
	}
}

// Signatures verify, each for its own use only.
func TestKeyring(t *testing.T) {
	n, err := openNode(testConfig(t), quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	k := keyring{n.host.Self(), n.host.PrivateKey()}
	d := digest.FromString("x")
	l, err := chunkindex.LayoutFor(3 << 20)
	if err != nil {
		t.Fatal(err)
	}
	claim := k.Sign(d, l, 1, chunkindex.Sum{7})
	if claim.Signer != k.Self() || claim.Verify(d, l, 1) != nil || claim.Verify(d, l, 2) == nil {
		t.Errorf("claim: %+v", claim)
	}
	if a, b := k.SignRecord("a", []byte("m")), k.SignRecord("am", nil); len(a) != 64 || string(a) == string(b) {
		t.Error("signatures of two contexts are one")
	}
}
