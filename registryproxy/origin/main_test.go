package origin

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is a client with one scripted origin, registry.test, and a second one
// to which that may redirect, all in a bubble with its own time.
type stage struct {
	*testing.T
	net     *origintest.Network
	origin  *origintest.Origin // registry.test
	storage *origintest.Origin // storage.test
	client  *Client
	metrics *prometheus.Registry
	names   map[string]string // what to call the paths that occur
}

var app = Source{Origin: "registry.test", Repository: "team/app"}

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// play runs f on a stage. change, which may be nil, changes the options.
func play(t *testing.T, change func(*Options), f func(s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{
			T: t, net: origintest.NewNetwork(), origin: origintest.New(), storage: origintest.New(),
			metrics: prometheus.NewRegistry(), names: make(map[string]string),
		}
		s.net.Serve(t, "registry.test:80", s.origin)
		s.net.Serve(t, "storage.test:80", s.storage)
		opts := &Options{
			Origins:  []Config{{Name: "registry.test", URL: "http://registry.test"}},
			Keychain: authn.NewMultiKeychain(), Proxy: noProxy, Registerer: s.metrics, DialContext: s.net.Dial,
		}
		if change != nil {
			change(opts)
		}
		var err error
		if s.client, err = New(opts); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.client.Close() })
		f(s)
	})
}

// blob adds a blob of n bytes to both origins and calls it B.
func (s *stage) blob(n int) (data []byte, d digest.Digest) {
	data = make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	d = s.origin.Blob(data)
	s.storage.Blob(data)
	s.names["/v2/team/app/blobs/"+d.String()] = "B"
	return data, d
}

// asked checks what an origin has been asked since the last time.
func (s *stage) asked(o *origintest.Origin, want ...string) {
	s.Helper()
	got := o.Requests()
	for i, line := range got {
		for path, name := range s.names {
			line = strings.ReplaceAll(line, path, name)
		}
		got[i] = line
	}
	if !slices.Equal(got, want) {
		s.Errorf("asked:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// read opens a blob's range and reads it, which must succeed.
func (s *stage) read(d digest.Digest, off, n int64) (*Body, []byte) {
	s.Helper()
	b, err := s.client.Blob(s.Context(), app, d, off, n)
	if err != nil {
		s.Fatal(err)
	}
	defer b.Close()
	data, err := io.ReadAll(b)
	if err != nil {
		s.Fatal(err)
	}
	return b, data
}

// wantBytes reads and compares.
func (s *stage) wantBytes(d digest.Digest, off, n int64, want []byte) *Body {
	s.Helper()
	b, got := s.read(d, off, n)
	if !bytes.Equal(got, want) {
		s.Fatalf("read %d bytes that are not the %d wanted", len(got), len(want))
	}
	return b
}

// metric sums a counter over those of its labels that contain all of labels.
func (s *stage) metric(name string, labels ...string) float64 {
	s.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if text := m.String(); !slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(text, `"`+l+`"`) }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
