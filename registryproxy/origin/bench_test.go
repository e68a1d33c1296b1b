package origin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// BenchmarkUnasked is what a request costs while the breaker is open: the time
// until whoever has an older answer can give it.
//
//	go test -bench Unasked ./registryproxy/origin
func BenchmarkUnasked(b *testing.B) {
	o, server := origintest.Start(b)
	o.Always("* *", origintest.Status(http.StatusServiceUnavailable))
	addr := server.Listener.Addr().String()
	c, err := New(&Options{Origins: []Config{{Name: addr, URL: server.URL}}, Keychain: keychain{}})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	src := Source{addr, "a"}
	for c.Health()[0].State != Open {
		c.Resolve(b.Context(), src, "v1", nil)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Resolve(b.Context(), src, "v1", nil); err == nil {
			b.Fatal("answered")
		}
	}
}

// BenchmarkBlob is the cost of reading 4 MiB ranges over loopback, through this
// client and by net/http alone; both count the server's.
//
//	go test -bench Blob ./registryproxy/origin
func BenchmarkBlob(b *testing.B) {
	const n = 4 << 20
	data := make([]byte, n)
	d := digest.FromBytes(data)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "4194304")
		w.Write(data)
	}))
	defer server.Close()
	buf := make([]byte, 128<<10)
	drain := func(b *testing.B, r io.ReadCloser) {
		defer r.Close()
		if m, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf); m != n || err != nil {
			b.Fatal(m, err)
		}
	}
	b.Run("origin", func(b *testing.B) {
		c, err := New(&Options{Origins: []Config{{Name: "r", URL: server.URL}}, Keychain: keychain{}})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		b.SetBytes(n)
		b.ReportAllocs()
		for b.Loop() {
			body, err := c.Blob(b.Context(), Source{"r", "a"}, d, 0, -1)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, body)
		}
	})
	b.Run("net-http", func(b *testing.B) {
		defer http.DefaultClient.CloseIdleConnections()
		b.SetBytes(n)
		b.ReportAllocs()
		for b.Loop() {
			resp, err := http.Get(server.URL)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, resp.Body)
		}
	})
}
