package demo

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// pulled is what one pull came to.
type pulled struct {
	Seconds  float64
	Bytes    int64
	Verified int // digests that the bytes received hash to
}

// pull does what a container runtime does: the manifest by its tag, then the
// config and all layers at once, through the proxy at addr, and checks every
// digest. progress counts the bytes of blobs; it is called concurrently.
func pull(ctx context.Context, addr string, progress func(n int64)) (pulled, error) {
	start := time.Now()
	transport := &http.Transport{MaxConnsPerHost: 16}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	get := func(ctx context.Context, what string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet,
			fmt.Sprintf("http://%s/v2/%s/%s?ns=%s", addr, repository, what, originName), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", string(types.OCIManifestSchema1))
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			message, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
			resp.Body.Close()
			return nil, fmt.Errorf("GET %s: %s: %s", what, resp.Status, message)
		}
		return resp, nil
	}

	resp, err := get(ctx, "manifests/"+tag)
	if err != nil {
		return pulled{}, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	resp.Body.Close()
	if err != nil {
		return pulled{}, err
	}
	if want, got := resp.Header.Get("Docker-Content-Digest"), digest.FromBytes(body).String(); want != got {
		return pulled{}, fmt.Errorf("the manifest hashes to %s, its header says %s", got, want)
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(body, &manifest); err != nil {
		return pulled{}, fmt.Errorf("the manifest: %w", err)
	}
	if len(manifest.Layers) == 0 {
		return pulled{}, errors.New("the manifest names no layers")
	}

	var total, verified atomic.Int64
	total.Add(int64(len(body)))
	verified.Add(1)
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range append([]descriptor{manifest.Config}, manifest.Layers...) {
		g.Go(func() error {
			resp, err := get(ctx, "blobs/"+d.Digest.String())
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			h := sha256.New()
			n, err := io.Copy(io.MultiWriter(h, counter(progress)), resp.Body)
			total.Add(n)
			if err != nil {
				return fmt.Errorf("%s: after %d of %d bytes: %w", d.Digest, n, d.Size, err)
			}
			if got := digest.NewDigest(digest.SHA256, h); got != d.Digest || n != d.Size {
				return fmt.Errorf("wrong bytes: %s of %d bytes hashes to %s and has %d", d.Digest, d.Size, got, n)
			}
			verified.Add(1)
			return nil
		})
	}
	err = g.Wait()
	return pulled{time.Since(start).Seconds(), total.Load(), int(verified.Load())}, err
}

type counter func(int64)

func (c counter) Write(p []byte) (int, error) {
	c(int64(len(p)))
	return len(p), nil
}
