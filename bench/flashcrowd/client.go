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
	"github.com/peercache/peercache/simulation/scenario"
)

// client pulls an image as containerd does: HEAD of the tag, GET of the manifest,
// then config and layers at once. A body that breaks off is resumed by a range
// request; an error status is the end, where containerd would go on to the origin.
type client struct {
	http    *http.Client
	base    string // http://HOST:PORT
	query   string // ?ns=..., or nothing
	private bool   // the registry wants a password

	parallel int // blobs at once, 0 all
	// has is what it need not pull again; guarded by mu.
	mu  *sync.Mutex
	has map[digest.Digest]bool
}

// pulled is what became of one pull. Times are in seconds from its start, but
// Begun and RequestFirstByte.
type pulled struct {
	Node    int     `json:"node"`
	Image   int     `json:"image"`
	Begun   float64 `json:"begun_seconds"` // from the start of the run
	Seconds float64 `json:"seconds"`
	// FirstByte is when the first byte of a layer came.
	FirstByte float64 `json:"first_byte_seconds"`
	// RequestFirstByte is from the request for a layer, on a connection that is there
	// or not, to the first byte of its body, the least of all layers.
	RequestFirstByte float64 `json:"request_first_byte_seconds"`
	Bytes            int64   `json:"bytes"` // of bodies, as they came
	Resumes          int     `json:"resumes,omitempty"`
	Retries          int     `json:"retries,omitempty"`
	Error            string  `json:"error,omitempty"`
	Status           int     `json:"status,omitempty"` // that ended it

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

// retryWait is how long a client waits before it asks again for what it was told that
// it cannot have.
const retryWait = time.Second

// pull is one client's pull: it begins at its time, or at once if that is over, asks again where it may, and
// anew when its node has come back.
func (c *crowd) pull(ctx context.Context, of *scenario.Pull) *pulled {
	start := c.start.Add(of.At)
	if now := time.Now(); of.After > 0 && now.After(start) {
		start = now // the wave before took longer
	}
	p := &pulled{Node: of.Node, Image: of.Image, Begun: start.Sub(c.start).Seconds()}
	timer := time.NewTimer(time.Until(start))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		p.Error = "cut off before it began"
		return p
	}
	m := c.members[of.Node]
	err := func() error {
		for try := 0; ; {
			err := c.once(ctx, m, of, p, start)
			var status *statusError
			switch {
			case err == nil || ctx.Err() != nil:
				return err
			case errors.Is(err, errDown):
				if m.suffered() == killed {
					return err
				}
			case !errors.As(err, &status) || try >= of.Retries:
				return err
			default:
				try++
				p.Retries++
				timer.Reset(retryWait)
				select {
				case <-timer.C:
				case <-ctx.Done():
					return err
				}
			}
		}
	}()
	p.Seconds = time.Since(start).Seconds()
	if err != nil {
		p.Error = err.Error()
		if s := (*statusError)(nil); errors.As(err, &s) {
			p.Status = s.status
		}
	}
	return p
}

// once tries a pull as long as the node lives: errDown says that it ended.
func (c *crowd) once(ctx context.Context, m *member, of *scenario.Pull, p *pulled, start time.Time) error {
	node, during, end, err := m.life(ctx)
	if err != nil {
		return err
	}
	defer end()
	cl := &client{http: m.host.Client(), base: "http://" + node.Proxy, query: "?ns=" + rig.OriginName,
		parallel: of.Parallel, mu: &m.mu, has: m.has}
	defer cl.http.CloseIdleConnections()
	err = cl.image(during, p, c.content.images[of.Image], start)
	if err != nil && during.Err() != nil && ctx.Err() == nil {
		return errDown
	}
	if err != nil && node.Ended() != nil && ctx.Err() == nil {
		return errDown // it has ended, and nobody has said so yet
	}
	return err
}

func (c *client) image(ctx context.Context, p *pulled, of *image, start time.Time) error {
	want := of.Manifest
	resp, err := c.do(ctx, http.MethodHead, "manifests/"+of.Tag, 0, -1)
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
	p.mu.Lock()
	p.Bytes += int64(len(body))
	p.mu.Unlock()
	var m specs.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if c.parallel > 0 {
		g.SetLimit(c.parallel)
	}
	get := func(d specs.Descriptor, first func(asked, now time.Time)) {
		if !c.holds(d.Digest) {
			g.Go(func() error {
				asked := time.Now()
				err := c.blob(ctx, p, d, func(now time.Time) { first(asked, now) })
				if err == nil {
					c.hold(d.Digest)
				}
				return err
			})
		}
	}
	get(m.Config, func(time.Time, time.Time) {})
	for _, l := range m.Layers {
		get(l, func(asked, now time.Time) {
			if p.FirstByte == 0 || now.Sub(start).Seconds() < p.FirstByte {
				p.FirstByte = now.Sub(start).Seconds()
			}
			if took := now.Sub(asked).Seconds(); p.RequestFirstByte == 0 || took < p.RequestFirstByte {
				p.RequestFirstByte = took
			}
		})
	}
	return g.Wait()
}

// holds reports whether the client has pulled a blob before.
func (c *client) holds(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.has[d]
}

func (c *client) hold(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.has[d] = true
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
	if c.private {
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
func (c *client) firstByte(ctx context.Context, layer digest.Digest, size int64, n int) (seconds []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for range n {
		start := time.Now()
		resp, err := c.do(ctx, http.MethodGet, "blobs/"+layer.String(), 0, min(size, 32<<10)-1)
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
