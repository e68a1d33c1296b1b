//go:build e2e && linux

package e2e

import (
	"errors"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// originFault is a way for a registry to be of no use.
type originFault struct {
	name string
	// url is what nodes are told to find the registry at.
	url func(testing.TB) string
	// begin lets the fault happen, until the test ends.
	begin func(testing.TB)
}

// originFaults lists them, for the registry behind the front.
func originFaults(f *front) []originFault {
	same := func(testing.TB) string { return f.url() }
	return []originFault{
		{"answers 503", same, func(t testing.TB) {
			f.answer(http.StatusServiceUnavailable)
			t.Cleanup(func() { f.answer(0) })
		}},
		{"drops packets", same, func(t testing.TB) { dropPackets(t, f.addr) }},
		{"has no name", unresolvable, func(testing.TB) {}},
		{"is stopped", same, func(testing.TB) { f.close() }}, // last: for good
	}
}

// dropPackets makes the sandbox's network lose every packet from and to an
// address: whoever connects gets no answer of any kind.
func dropPackets(t testing.TB, addr string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	rule := func(op, direction string) []string {
		return []string{"iptables", "-w", op, "INPUT", "-p", "tcp", "-d", host, direction, port, "-j", "DROP"}
	}
	for _, direction := range []string{"--dport", "--sport"} {
		run(t, 10*time.Second, nil, rule("-A", direction)...)
		t.Cleanup(func() {
			// Not the test's own context: that has ended.
			if out, err := command(10*time.Second, rule("-D", direction)...); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	hangs(t, addr)
}

// hangs fails the test unless connecting to addr gets no answer at all.
func hangs(t testing.TB, addr string) {
	t.Helper()
	c, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
	if err == nil {
		c.Close()
	}
	if e := net.Error(nil); !errors.As(err, &e) || !e.Timeout() {
		t.Fatalf("connecting to %s: %v, want a timeout", addr, err)
	}
}

// unresolvable makes name servers silent, the worst that resolving can meet,
// and returns a URL with a name.
func unresolvable(t testing.TB) string {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	_, resolv := sandboxFiles()
	if data, err := os.ReadFile(resolv); err != nil || string(data) != sandboxResolv {
		t.Fatalf("resolv.conf is %q: %v", data, err)
	}
	return "http://registry.example:5000"
}
