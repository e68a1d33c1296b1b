package registryproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// memory is a Backend that holds everything in maps and remembers what it was
// asked.
type memory struct {
	mu      sync.Mutex
	blobs   map[digest.Digest][]byte
	types   map[digest.Digest]string // of manifests
	answers map[string]Answer        // by kind, origin, repository, reference
	calls   []string
	queries []Query

	resolveErr, statErr, openErr error
	// open, if set, replaces Open.
	open func(ctx context.Context, ref Ref, r *ByteRange) (Content, error)
}

func newMemory() *memory {
	return &memory{
		blobs:   map[digest.Digest][]byte{},
		types:   map[digest.Digest]string{},
		answers: map[string]Answer{},
	}
}

func (m *memory) put(content []byte) digest.Digest {
	d := digest.FromBytes(content)
	m.blobs[d] = content
	return d
}

// tag makes a tag of a manifest.
func (m *memory) tag(origin, repository, tag, mediaType string, manifest []byte) digest.Digest {
	d := m.put(manifest)
	m.types[d] = mediaType
	m.answer(KindTag, origin, repository, tag, Answer{Digest: d, Size: int64(len(manifest)), MediaType: mediaType})
	return d
}

func (m *memory) answer(kind Kind, origin, repository, reference string, a Answer) {
	m.answers[fmt.Sprint(kind, " ", origin, " ", repository, " ", reference)] = a
}

func (m *memory) record(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls, fmt.Sprintf(format, args...))
}

// took returns the calls since it was last called.
func (m *memory) took() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := strings.Join(m.calls, "; ")
	m.calls = nil
	return s
}

func (m *memory) Resolve(_ context.Context, q Query) (Answer, error) {
	m.record("resolve %s %s/%s %s", q.Kind, q.Origin, q.Repository, q.Reference)
	m.mu.Lock()
	m.queries = append(m.queries, q)
	m.mu.Unlock()
	if m.resolveErr != nil {
		return Answer{}, m.resolveErr
	}
	a, ok := m.answers[fmt.Sprint(q.Kind, " ", q.Origin, " ", q.Repository, " ", q.Reference)]
	if !ok {
		return Answer{}, fmt.Errorf("memory: %w", fs.ErrNotExist)
	}
	return a, nil
}

func what(ref Ref) string {
	kind := "blob"
	if ref.Manifest {
		kind = "manifest"
	}
	return fmt.Sprintf("%s %s/%s@%s", kind, ref.Origin, ref.Repository, ref.Digest.Encoded()[:6])
}

func (m *memory) Stat(_ context.Context, ref Ref) (Info, error) {
	m.record("stat %s", what(ref))
	if m.statErr != nil {
		return Info{}, m.statErr
	}
	b, ok := m.blobs[ref.Digest]
	if !ok {
		return Info{}, fmt.Errorf("memory: %w", fs.ErrNotExist)
	}
	return Info{Size: int64(len(b)), MediaType: m.types[ref.Digest]}, nil
}

func (m *memory) Open(ctx context.Context, ref Ref, r *ByteRange) (Content, error) {
	if r != nil {
		m.record("open %s %s", what(ref), r)
	} else {
		m.record("open %s", what(ref))
	}
	if m.openErr != nil {
		return nil, m.openErr
	}
	if m.open != nil {
		return m.open(ctx, ref, r)
	}
	b, ok := m.blobs[ref.Digest]
	if !ok {
		return nil, fmt.Errorf("memory: %w", fs.ErrNotExist)
	}
	off, n := int64(0), int64(len(b))
	if r != nil {
		if off, n, ok = r.Resolve(int64(len(b))); !ok {
			return nil, fmt.Errorf("memory: %w", &RangeError{Size: int64(len(b))})
		}
	}
	return &content{
		Reader: bytes.NewReader(b[off : off+n]), size: int64(len(b)), off: off, n: n, mediaType: m.types[ref.Digest],
	}, nil
}

// content is a Content over any reader.
type content struct {
	io.Reader
	size, off, n int64
	mediaType    string
	closed       func()
}

func (c *content) Size() int64           { return c.size }
func (c *content) Range() (int64, int64) { return c.off, c.n }
func (c *content) MediaType() string     { return c.mediaType }

func (c *content) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, c.Reader) }

func (c *content) Close() error {
	if c.closed != nil {
		c.closed()
	}
	return nil
}

// newProxy returns a proxy that logs to the test.
func newProxy(t testing.TB, b Backend, opts *Options) *Proxy {
	t.Helper()
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	p, err := New(b, &o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve starts a server of the kind that is used in earnest.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.Config = NewServer(h, nil)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// ask passes one request to a handler. Headers are given as "Name: value".
func ask(h http.Handler, method, target string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return string(b)
}

// wantHeaders compares headers given as "Name: value"; an empty value means that
// the header is absent.
func wantHeaders(t testing.TB, h http.Header, want ...string) {
	t.Helper()
	for _, line := range want {
		name, value, _ := strings.Cut(line, ":")
		if got := strings.Join(h.Values(name), " | "); got != strings.TrimSpace(value) {
			t.Errorf("header %s: got %q, want %q", name, got, strings.TrimSpace(value))
		}
	}
}

// wantCode checks a response's status and the code of its OCI error body.
func wantCode(t testing.TB, resp *http.Response, status int, code string) {
	t.Helper()
	body := bodyOf(t, resp)
	if resp.StatusCode != status || !strings.Contains(body, `{"errors":[{"code":"`+code+`","message":"`) {
		t.Errorf("got %d %s, want %d with code %s", resp.StatusCode, body, status, code)
	}
	wantHeaders(t, resp.Header,
		"Content-Type: application/json",
		"Docker-Distribution-Api-Version: registry/2.0",
		"Docker-Content-Digest:", "Etag:", "Accept-Ranges:", "Content-Encoding:", "WWW-Authenticate:")
}

const (
	ociIndex    = imagespec.MediaTypeImageIndex
	ociManifest = imagespec.MediaTypeImageManifest
)

var (
	someBlob = []byte("0123456789abcdefghij")
	someOCI  = []byte(`{"schemaVersion":2,"mediaType":"` + ociManifest + `","config":{},"layers":[]}`)
)
