package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// virtualClient pulls as a container runtime does.
type virtualClient struct {
	http    *http.Client
	node    *virtualNode
	retries int
	begun   time.Time

	mu  sync.Mutex
	out *virtualPull
}

func (c *virtualClient) image(ctx context.Context, image virtualImage, parallel int) error {
	if err := c.blob(ctx, "manifests", image.manifest, -1); err != nil {
		return err
	}
	if parallel == 0 {
		parallel = len(image.layers)
	}
	slots := make(chan struct{}, max(1, parallel))
	errs := make([]error, len(image.layers))
	var all sync.WaitGroup
	for i, l := range image.layers {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = c.blob(ctx, "blobs", l.Digest, l.Size)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// blob reads a blob until it is complete and right, as often as the client may ask.
func (c *virtualClient) blob(ctx context.Context, kind string, d digest.Digest, size int64) error {
	c.node.mu.Lock()
	held := c.node.held[d]
	c.node.mu.Unlock()
	if held {
		return nil
	}
	for attempt := 0; ; attempt++ {
		status, err := c.read(ctx, kind, d, size)
		if err == nil {
			c.node.mu.Lock()
			defer c.node.mu.Unlock()
			c.node.held[d] = true
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.mu.Lock()
		c.out.failures++
		c.out.status = status
		c.mu.Unlock()
		if attempt == c.retries {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *virtualClient) read(ctx context.Context, kind string, d digest.Digest, size int64) (status int, err error) {
	url := fmt.Sprintf("http://%s/v2/%s/%s/%s?ns=%s", virtualProxy, virtualRepository, kind, d, virtualRegistry)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Accept", "*/*")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return resp.StatusCode, fmt.Errorf("%s %s: %s %s", kind, d, resp.Status, text)
	}
	sum := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{&firstWriter{c: c, sum: sum, layer: kind == "blobs"}}, resp.Body, make([]byte, 64<<10))
	if err != nil {
		return resp.StatusCode, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.bytes += n
	if got := digest.NewDigest(digest.SHA256, sum); got != d || size >= 0 && n != size {
		c.out.wrong = true
		return resp.StatusCode, fmt.Errorf("WRONG BYTES: %d of %s hash to %s", n, d, got)
	}
	return resp.StatusCode, nil
}

// firstWriter hashes, and notes when the first byte of a layer came.
type firstWriter struct {
	c     *virtualClient
	sum   hash.Hash
	layer bool
}

func (w *firstWriter) Write(p []byte) (int, error) {
	if w.layer {
		w.layer = false
		w.c.mu.Lock()
		if w.c.out.first == 0 {
			w.c.out.first = time.Since(w.c.begun)
		}
		w.c.mu.Unlock()
	}
	return w.sum.Write(p)
}
