package origin

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

func TestCheck(t *testing.T) {
	c, err := New(&Options{
		Origins: []Config{{Name: "registry.corp:5000", URL: "http://10.0.0.5:5000"}},
		Allow:   []string{"127.0.0.1:5001", "*.lab.internal", "Other.Corp"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range []string{
		"docker.io", "ghcr.io", "ghcr.io:443", "GHCR.io", "registry.corp:5000", "127.0.0.1:5001", "a.b.lab.internal", "other.corp",
		"xn--bcher-kva.example.org",
	} {
		if err := c.Check(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, hint := range map[string]string{
		"ghcr.io:5000":             "--origin ghcr.io:5000=https://ghcr.io:5000",
		"registry.corp":            "--origin registry.corp=https://registry.corp",
		"registry.test":            `origins: {allow: ["registry.test"]}`,
		"localhost":                "--origin localhost=http://localhost",
		"127.0.0.1:5000":           "--origin 127.0.0.1:5000=http://127.0.0.1:5000",
		"[::1]:5000":               "--origin [::1]:5000=http://[::1]:5000",
		"8.8.8.8":                  "--origin 8.8.8.8=https://8.8.8.8",
		"registry":                 "--origin registry=https://registry",
		"lab.internal":             "--origin lab.internal=https://lab.internal",
		"x.svc.cluster.local":      "--origin x.svc.cluster.local=",
		"0x7f.1":                   "--origin 0x7f.1=",
		"169.254.169.254":          "",
		"[fe80::1]":                "",
		"[fd00:ec2::254]":          "",
		"100.100.100.200":          "",
		"0.0.0.0:5000":             "",
		"[::ffff:169.254.169.254]": "",
		"metadata.google.internal": "",
	} {
		err := c.Check(name)
		var denied *DeniedError
		if !errors.As(err, &denied) || denied.HTTPStatus() != 403 || denied.OCICode() != CodeDenied ||
			!strings.Contains(denied.Hint, hint) || (hint == "") != (denied.Hint == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]*Options{
		"metadata":     {Origins: []Config{{Name: "169.254.169.254"}}},
		"metadata URL": {Origins: []Config{{Name: "x", URL: "http://169.254.169.254"}}},
		"allowed":      {Allow: []string{"metadata.google.internal"}},
		"no URL":       {Origins: []Config{{Name: "x", URL: "registry"}}},
		"file":         {Origins: []Config{{Name: "x", URL: "file:///etc"}}},
		"password":     {Origins: []Config{{Name: "x", URL: "http://u:p@x"}}},
		"mirror":       {Origins: []Config{{Name: "x", Mirrors: []string{"://"}}}},
		"name":         {Origins: []Config{{Name: "a/b"}}},
		"twice":        {Origins: []Config{{Name: "docker.io"}, {Name: "index.docker.io"}}},
		"CA":           {Origins: []Config{{Name: "x", CAFile: "/nonexistent"}}},
		"instance":     {Instance: "a b"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestClassify(t *testing.T) {
	for s, want := range map[string]addrClass{
		"8.8.8.8": addrPublic, "2606:4700::1111": addrPublic, "172.32.0.1": addrPublic, "192.0.1.1": addrPublic,
		"10.1.2.3": addrPrivate, "172.31.255.255": addrPrivate, "127.0.0.53": addrPrivate, "::1": addrPrivate,
		"fd12::1": addrPrivate, "100.64.0.1": addrPrivate, "::ffff:10.0.0.1": addrPrivate, "64:ff9b::10.0.0.1": addrPrivate,
		"2002:a00:1::1": addrPrivate, "64:ff9b::8.8.8.8": addrPublic,
		"169.254.169.254": addrNever, "fe80::1": addrNever, "fe80::1%eth0": addrNever, "::ffff:169.254.169.254": addrNever,
		"64:ff9b::a9fe:a9fe": addrNever, "2002:a9fe:a9fe::": addrNever, "fd00:ec2::254": addrNever, "100.100.100.200": addrNever,
		"0.0.0.0": addrNever, "::": addrNever, "224.0.0.1": addrNever, "255.255.255.255": addrNever, "168.63.129.16": addrNever,
	} {
		if got := classify(netip.MustParseAddr(s)); got != want {
			t.Errorf("%s: %v", s, got)
		}
	}
}

// fakeDNS answers every question for an IPv4 address with addr.
func fakeDNS(t *testing.T, addr [4]byte) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := answerDNS(buf[:n], addr); reply != nil {
				conn.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// answerDNS builds the answer to a question (RFC 1035, section 4): addr for an
// A record, nothing for others.
func answerDNS(question []byte, addr [4]byte) []byte {
	end := 12 // after the header: labels, each with its length, and a zero
	for end < len(question) && question[end] != 0 {
		end += 1 + int(question[end])
	}
	end += 5 // the zero, type and class
	if end > len(question) {
		return nil
	}
	reply := append([]byte(nil), question[:end]...)
	reply[2], reply[3] = 0x84, 0x80 // an answer, authoritative, recursion available
	copy(reply[4:12], []byte{0, 1, 0, 0, 0, 0, 0, 0})
	if reply[end-3] == 1 { // type A
		reply[7] = 1
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
		reply = append(reply, addr[:]...)
	}
	return reply
}

// A public name that resolves to a private or forbidden address is refused when
// it is dialled, and the refusal logged once with what would allow it.
func TestRebinding(t *testing.T) {
	var out bytes.Buffer
	for _, c := range []struct {
		addr [4]byte
		opts Options
		hint bool
	}{
		{[4]byte{127, 0, 0, 1}, Options{}, true},
		{[4]byte{10, 0, 0, 1}, Options{}, true},
		{[4]byte{169, 254, 169, 254}, Options{}, false},
		{[4]byte{169, 254, 169, 254}, Options{Origins: []Config{{Name: "registry.example.org", URL: "http://registry.example.org"}}}, false},
	} {
		out.Reset()
		o := c.opts
		o.Resolver, o.Proxy, o.Keychain = fakeDNS(t, c.addr), noProxy, keychain{}
		o.Logger = slog.New(slog.NewTextHandler(&out, nil))
		client, err := New(&o)
		if err != nil {
			t.Fatal(err)
		}
		src := Source{"registry.example.org", "a"}
		for range 2 {
			_, err = client.Blob(t.Context(), src, digest.FromString("x"), 0, -1)
			var denied *DeniedError
			if !errors.As(err, &denied) || (denied.Hint != "") != c.hint {
				t.Errorf("%v: %v", c.addr, err)
			}
		}
		if n := strings.Count(out.String(), "origin may not be contacted"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, &out)
		}
		if c.hint && !strings.Contains(out.String(), "--origin registry.example.org=https://registry.example.org") {
			t.Errorf("no hint:\n%s", &out)
		}
		if h := client.Health(); len(h) > 0 && h[0].State != OK {
			t.Errorf("a refusal opened the breaker: %+v", h)
		}
		client.Close()
	}
}

// Unnamed origins lead to public hosts only; named ones anywhere but to the
// places where nobody goes, and to plain http if they are that themselves.
func TestCheckURL(t *testing.T) {
	for raw, want := range map[string]struct{ unnamed, namedTLS, namedPlain bool }{
		"https://cdn.example.org/x":           {true, true, true},
		"https://cdn.example.org:443/x":       {true, true, true},
		"https://8.8.8.8/x":                   {true, true, true},
		"https://cdn.example.org:8443/x":      {false, true, true},
		"http://cdn.example.org/x":            {false, false, true},
		"https://10.0.0.1/x":                  {false, true, true},
		"https://minio.corp:9000/x":           {false, true, true},
		"http://127.0.0.1:9000/x":             {false, false, true},
		"https://localhost/x":                 {false, true, true},
		"https://169.254.169.254/x":           {false, false, false},
		"https://[fe80::1]/x":                 {false, false, false},
		"https://METADATA.google.internal./x": {false, false, false},
		"https://[::ffff:169.254.169.254]/x":  {false, false, false},
		"gopher://cdn.example.org/x":          {false, false, false},
		"https:///x":                          {false, false, false},
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		got := struct{ unnamed, namedTLS, namedPlain bool }{
			(&target{}).checkURL(u) == "",
			(&target{named: true}).checkURL(u) == "",
			(&target{named: true, plain: true}).checkURL(u) == "",
		}
		if got != want {
			t.Errorf("%s: %+v", raw, got)
		}
	}
}

// Real sockets: TLS with a certificate of one's own, HTTP/2, redirects to
// another port, a connection that is reset.
func TestSockets(t *testing.T) {
	registry, storage := origintest.New(), origintest.New()
	secure := httptest.NewUnstartedServer(registry)
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	files := httptest.NewServer(storage)
	defer files.Close()

	data := bytes.Repeat([]byte("peercache"), 200_000)
	d := registry.Blob(data)
	storage.Blob(data)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(cfg Config) *Client {
		cfg.Name, cfg.URL = "registry.corp", secure.URL
		c, err := New(&Options{Origins: []Config{cfg}, Keychain: keychain{}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	src := Source{"registry.corp", "team/app"}

	c := open(Config{})
	_, err := c.Blob(t.Context(), src, d, 0, -1)
	var e *Error
	if !errors.As(err, &e) || e.Status != 502 || !e.Unreachable() || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the CA: %v", err)
	}
	c.Close()

	c = open(Config{CAFile: ca})
	registry.On("GET *", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.ProtoMajor != 2 {
			t.Errorf("HTTP/%d", r.ProtoMajor)
		}
		origintest.Reset(100_000)(w, r, next)
	})
	read := func() error {
		b, err := c.Blob(t.Context(), src, d, 0, -1)
		if err != nil {
			return err
		}
		defer b.Close()
		got, err := io.ReadAll(b)
		if err == nil && !bytes.Equal(got, data) {
			t.Error("other bytes")
		}
		return err
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	registry.Always("GET *", origintest.Redirect(307, files.URL+"*"))
	var denied *DeniedError
	if err := read(); !errors.As(err, &denied) {
		t.Errorf("redirect to plain http: %v", err)
	}
	c.Close()

	c = open(Config{CAFile: ca, PlainHTTP: true})
	defer c.Close()
	storage.On("GET *", origintest.Reset(300_000), origintest.Reset(1000))
	if err := read(); err != nil {
		t.Error(err)
	}
	if got := len(storage.Requests()); got != 3 {
		t.Errorf("%d requests", got)
	}
}

// The operator's proxy may be at a private address, also for origins that may
// not be; what is asked through it is still checked as far as it is written.
func TestProxy(t *testing.T) {
	asked := make(chan string, 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.Host
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(&Options{Proxy: http.ProxyURL(u), Keychain: keychain{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := digest.FromString("x")
	var denied *DeniedError
	if _, err := c.Size(t.Context(), Source{"registry.example.org", "a"}, d); err == nil || errors.As(err, &denied) {
		t.Errorf("%v", err)
	}
	if got := <-asked; got != "CONNECT registry.example.org:443" {
		t.Error(got)
	}
	if _, err := c.Size(t.Context(), Source{u.Host, "a"}, d); !errors.As(err, &denied) {
		t.Errorf("%v", err)
	}
}

func TestVia(t *testing.T) {
	o, server := origintest.Start(t)
	o.Always("* *", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		if r.Header.Get("Via") == "1.1 peercache-node7" {
			origintest.WriteError(w, http.StatusLoopDetected, "DENIED", "loop")
		}
	})
	addr := server.Listener.Addr().String()
	c, err := New(&Options{Allow: []string{addr}, Instance: "node7", Keychain: keychain{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Resolve(t.Context(), Source{addr, "a"}, "v1", nil)
	var e *Error
	if !errors.As(err, &e) || e.HTTPStatus() != 508 {
		t.Errorf("%v", err)
	}
}

func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"docker.io", "a:5000", "[::1]:5000", "::1", "A.b:443", "1.2.3.4", "a:+1", "[fe80::1%25x]", "x:0443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := Canonical(s)
		if err != nil {
			return
		}
		if again, err := Canonical(name); err != nil || again != name {
			t.Errorf("%q: %q, then %q, %v", s, name, again, err)
		}
		if u, err := url.Parse("https://" + name + "/v2/"); err != nil || u.Host != name {
			t.Errorf("%q: %q is no host of a URL: %v", s, name, err)
		}
	})
}
