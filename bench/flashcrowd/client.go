package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
)

// client pulls an image as containerd does: HEAD of the tag, GET of the manifest,
// then config and layers at once. A body that breaks off is resumed by a range
// request; an error status is the end, where containerd would go on to the origin.
type client struct {
	http  *http.Client
	base  string // http://HOST:PORT
	query string // ?ns=..., or nothing
}

// pulled is what became of one pull. Times are in seconds from its start, but
// FirstByte.
type pulled struct {
	Seconds float64 `json:"seconds"`
	// FirstByte is from the request for a layer, on a connection that is there
	// or not, to the first byte of its body, the least of all layers.
	FirstByte float64 `json:"first_byte"`
	// FromStart is the same from the start of the whole pull.
	FromStart float64 `json:"first_byte_from_start"`
	Bytes     int64   `json:"bytes"` // of bodies, as they came
	Resumes   int     `json:"resumes,omitempty"`
	Error     string  `json:"error,omitempty"`
	Status    int     `json:"status,omitempty"` // that ended it

	mu sync.Mutex
}

// statusError is an answer that is no 200 or 206.
type statusError struct {
	what   string
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%s: %d %s", e.what, e.status, e.body) }

// acceptManifests is what containerd sends.
var acceptManifests = strings.Join([]string{
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
	specs.MediaTypeImageManifest, specs.MediaTypeImageIndex, "*/*",
}, ", ")

// resumeLimit is how often a client goes on with one blob without a byte coming
// in between.
const resumeLimit = 5

func (c *client) pull(ctx context.Context, want digest.Digest) *pulled {
	p := &pulled{}
	start := time.Now()
	err := c.image(ctx, p, want, start)
	p.Seconds = time.Since(start).Seconds()
	if err != nil {
		p.Error = err.Error()
		if s := (*statusError)(nil); errors.As(err, &s) {
			p.Status = s.status
		}
	}
	return p
}

func (c *client) image(ctx context.Context, p *pulled, want digest.Digest, start time.Time) error {
	resp, err := c.do(ctx, http.MethodHead, "manifests/"+tagName, 0, -1)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if got := digest.Digest(resp.Header.Get("Docker-Content-Digest")); got != want {
		return fmt.Errorf("the tag stands for %q, not for %s", got, want)
	}
	resp, err = c.do(ctx, http.MethodGet, "manifests/"+want.String(), 0, -1)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	resp.Body.Close()
	if err != nil {
		return err
	}
	if got := digest.FromBytes(body); got != want {
		return fmt.Errorf("WRONG BYTES: the manifest hashes to %s, not to %s", got, want)
	}
	p.Bytes = int64(len(body))
	var m specs.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.blob(ctx, p, m.Config, func(time.Time) {}) })
	for _, l := range m.Layers {
		g.Go(func() error {
			asked := time.Now()
			return c.blob(ctx, p, l, func(now time.Time) {
				if p.FromStart == 0 || now.Sub(start).Seconds() < p.FromStart {
					p.FromStart = now.Sub(start).Seconds()
				}
				if took := now.Sub(asked).Seconds(); p.FirstByte == 0 || took < p.FirstByte {
					p.FirstByte = took
				}
			})
		})
	}
	return g.Wait()
}

// blob reads a blob to its end and checks it. first is called with p locked.
func (c *client) blob(ctx context.Context, p *pulled, d specs.Descriptor, first func(time.Time)) error {
	h := sha256.New()
	buf := make([]byte, 128<<10)
	var done int64
	for idle := 0; done < d.Size; {
		before := done
		err := c.part(ctx, p, d, h, buf, &done, first)
		if s := (*statusError)(nil); errors.As(err, &s) || ctx.Err() != nil {
			return err
		}
		if done == d.Size && err != nil {
			return err
		}
		if done == d.Size {
			break
		}
		if idle++; done > before {
			idle = 0
		}
		if idle > resumeLimit {
			return fmt.Errorf("%s broke off after %d of %d bytes: %w", d.Digest, done, d.Size, err)
		}
		p.mu.Lock()
		p.Resumes++
		p.mu.Unlock()
	}
	if got := digest.NewDigest(digest.SHA256, h); got != d.Digest {
		return fmt.Errorf("WRONG BYTES: %s hashes to %s", d.Digest, got)
	}
	return nil
}

// part reads a blob from done on, as far as it comes.
func (c *client) part(ctx context.Context, p *pulled, d specs.Descriptor, h hash.Hash, buf []byte, done *int64, first func(time.Time)) error {
	resp, err := c.do(ctx, http.MethodGet, "blobs/"+d.Digest.String(), *done, -1)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for *done < d.Size {
		n, err := resp.Body.Read(buf[:min(int64(len(buf)), d.Size-*done)])
		if n > 0 {
			p.mu.Lock()
			if *done == 0 {
				first(time.Now())
			}
			p.Bytes += int64(n)
			p.mu.Unlock()
			*done += int64(n)
			h.Write(buf[:n])
		}
		if err != nil && *done < d.Size {
			return err
		}
	}
	// The last byte is not all: the end of the response says that it is whole.
	n, err := resp.Body.Read(buf)
	switch {
	case n > 0:
		return fmt.Errorf("WRONG BYTES: %s goes on after its last byte", d.Digest)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("%s has no end: %w", d.Digest, err)
	}
	return nil
}

// do asks for what is below the repository, from that byte on, as far as to (both
// included; to is -1 for the end). Any answer but 200, or 206 to a range, is an
// error.
func (c *client) do(ctx context.Context, method, what string, from, to int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/v2/"+rig.Repository+"/"+what+c.query, nil)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(what, "manifests/") {
		req.Header.Set("Accept", acceptManifests)
	}
	if opts.private > 0 && c.query == "" {
		req.SetBasicAuth(userName, password) // at the origin itself; nodes have their own
	}
	expect := http.StatusOK
	if from > 0 || to >= 0 {
		bounds := fmt.Sprintf("bytes=%d-", from)
		if to >= 0 {
			bounds += strconv.FormatInt(to, 10)
		}
		req.Header.Set("Range", bounds)
		expect = http.StatusPartialContent
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != expect {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		resp.Body.Close()
		return nil, &statusError{method + " " + what, resp.StatusCode, strings.TrimSpace(string(body))}
	}
	return resp, nil
}

// firstByte measures how long a client at the host waits for the first byte of a
// layer from the origin itself, on a new connection, n times. It asks for the
// first bytes only: what a broken-off response leaves in the link's queue would
// delay the next one.
func (c *client) firstByte(ctx context.Context, layer digest.Digest, n int) (seconds []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for range n {
		start := time.Now()
		resp, err := c.do(ctx, http.MethodGet, "blobs/"+layer.String(), 0, min(int64(opts.size)/int64(opts.layers), 32<<10)-1)
		if err != nil {
			return nil, err
		}
		_, err = io.ReadFull(resp.Body, make([]byte, 1))
		seconds = append(seconds, time.Since(start).Seconds())
		_, restErr := io.Copy(io.Discard, resp.Body)
		err = errors.Join(err, restErr, resp.Body.Close())
		c.http.CloseIdleConnections()
		if err != nil {
			return nil, err
		}
	}
	return seconds, nil
}
