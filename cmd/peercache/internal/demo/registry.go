package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// upstream is the origin: a registry in this process, and in front of it a
// counter of the body bytes that it wrote.
type upstream struct {
	server   *http.Server
	served   chan struct{}
	addr     string
	bytes    atomic.Int64
	requests atomic.Int64
}

func startUpstream(dir string) (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		l.Close()
		return nil, err
	}
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)))
	u := &upstream{addr: l.Addr().String(), served: make(chan struct{})}
	u.server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			u.requests.Add(1)
			handler.ServeHTTP(&countedWriter{w, &u.bytes}, r)
		}),
	}
	go func() {
		defer close(u.served)
		_ = u.server.Serve(l) // until stop; a registry that fails shows in the pulls
	}()
	return u, nil
}

// stop breaks all connections off, as a registry that dies does.
func (u *upstream) stop() {
	u.server.Close()
	<-u.served
}

type countedWriter struct {
	http.ResponseWriter
	bytes *atomic.Int64
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes.Add(int64(n))
	return n, err
}

const (
	repository = "peercache/demo"
	tag        = "latest"
	// originName is how clients name the origin. No DNS knows it: that only
	// --origin leads there is part of what is shown.
	originName = "registry.demo.test"
)

// push uploads the image, blobs before the manifest.
func (u *upstream) push(ctx context.Context, img *image) error {
	for _, b := range img.blobs {
		f, err := os.Open(b.path)
		if err != nil {
			return err
		}
		err = u.upload(ctx, http.MethodPost, fmt.Sprintf("blobs/uploads/?digest=%s", b.Digest), "application/octet-stream", f, b.Size)
		f.Close()
		if err != nil {
			return fmt.Errorf("pushing %s: %w", filepath.Base(b.path), err)
		}
		if err := os.Remove(b.path); err != nil { // the registry has its own copy
			return err
		}
	}
	err := u.upload(ctx, http.MethodPut, "manifests/"+tag, string(types.OCIManifestSchema1), bytes.NewReader(img.manifest), int64(len(img.manifest)))
	if err != nil {
		return fmt.Errorf("pushing the manifest: %w", err)
	}
	u.bytes.Store(0)
	u.requests.Store(0)
	return nil
}

func (u *upstream) upload(ctx context.Context, method, what, mediaType string, body io.Reader, n int64) error {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://%s/v2/%s/%s", u.addr, repository, what), io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = n
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		message, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s", resp.Status, message)
	}
	return nil
}
