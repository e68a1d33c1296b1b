package registryproxy

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkFile sends a 64 MiB file over loopback, beside net/http's own way to
// do so in the same run:
//
//	go test -run '^$' -bench File -count 10 ./registryproxy
func BenchmarkFile(b *testing.B) {
	const size = 64 << 20
	path := filepath.Join(b.TempDir(), "blob")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789abcdef"), size/16), 0o600); err != nil {
		b.Fatal(err)
	}
	backend := newMemory()
	backend.open = func(context.Context, Ref, *ByteRange) (Content, error) {
		f, err := os.Open(path)
		return &fileContent{content: content{size: size, n: size}, f: f, limit: size}, err
	}
	for name, h := range map[string]http.Handler{
		"proxy": newProxy(b, backend, &Options{Logger: slog.New(slog.DiscardHandler)}),
		"ServeContent": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f, err := os.Open(path)
			if err != nil {
				b.Error(err)
				return
			}
			defer f.Close()
			w.Header().Set("Content-Type", octetStream)
			http.ServeContent(w, r, "", time.Time{}, f)
		}),
	} {
		b.Run(name, func(b *testing.B) {
			s := serve(b, h)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				resp, err := s.Client().Get(s.URL + "/v2/a/blobs/" + sha256)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 1<<20))
				if err != nil || n != size {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}

// BenchmarkHeadOfTag is what a request costs besides its Backend and connection.
func BenchmarkHeadOfTag(b *testing.B) {
	backend := newMemory()
	backend.tag("registry.test:5000", "team/app", "v1", ociManifest, someOCI)
	p := newProxy(b, backend, &Options{Logger: slog.New(slog.DiscardHandler)})
	r := httptest.NewRequest("HEAD", "/v2/team/app/manifests/v1?ns=registry.test%3A5000", nil)
	r.Header.Set("Accept", ociIndex+", "+ociManifest+", */*")
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
		backend.took()
	}
}
