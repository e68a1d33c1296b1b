package registryproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

func TestBase(t *testing.T) {
	p := newProxy(t, newMemory(), nil)
	for _, target := range []string{"/v2/", "/v2", "/v2/?ns=x.test"} {
		resp := ask(p, "GET", target)
		wantHeaders(t, resp.Header, "Content-Type: application/json", "Docker-Distribution-Api-Version: registry/2.0", "Content-Length: 3")
		if body := bodyOf(t, resp); resp.StatusCode != 200 || body != "{}\n" {
			t.Errorf("%s: got %d %q", target, resp.StatusCode, body)
		}
		if resp := ask(p, "HEAD", target); resp.StatusCode != 200 || bodyOf(t, resp) != "" {
			t.Errorf("HEAD %s: got %d", target, resp.StatusCode)
		}
	}
}

func TestBlob(t *testing.T) {
	b := newMemory()
	d := b.put(someBlob)
	empty := b.put(nil)
	d512 := digest.SHA512.FromBytes(someBlob)
	b.blobs[d512] = someBlob
	p := newProxy(t, b, nil)
	at := func(d digest.Digest) string { return "/v2/x.test/a/blobs/" + string(d) }
	id, emptyID := d.Encoded()[:6], empty.Encoded()[:6]
	tag := `"` + string(d) + `"`

	for _, c := range []struct {
		name, method string
		d            digest.Digest
		send         []string
		status       int
		body         string
		want         []string
		calls        string
	}{
		{"whole", "GET", d, nil, 200, string(someBlob), []string{
			"Content-Length: 20", "Content-Type: application/octet-stream", "Accept-Ranges: bytes", "Etag: " + tag,
			"Docker-Content-Digest: " + string(d), "Content-Range:", "Content-Encoding:", "Docker-Distribution-Api-Version: registry/2.0",
			"X-Content-Type-Options: nosniff",
		}, "open blob x.test/a@" + id},
		{"encoding offered", "GET", d, []string{"Accept-Encoding: zstd, gzip, deflate"}, 200, string(someBlob), []string{"Content-Length: 20", "Content-Encoding:"}, "open blob x.test/a@" + id},
		{"sha512", "GET", d512, nil, 200, string(someBlob), []string{"Docker-Content-Digest: " + string(d512)}, "open blob x.test/a@" + d512.Encoded()[:6]},
		{"head", "HEAD", d, nil, 200, "", []string{"Content-Length: 20", "Content-Type: application/octet-stream", "Accept-Ranges: bytes", "Etag: " + tag,
			"Docker-Content-Digest: " + string(d)}, "stat blob x.test/a@" + id},
		{"head ignores ranges", "HEAD", d, []string{"Range: bytes=3-4"}, 200, "", []string{"Content-Length: 20", "Content-Range:"}, "stat blob x.test/a@" + id},
		{"empty", "GET", empty, nil, 200, "", []string{"Content-Length: 0"}, "open blob x.test/a@" + emptyID},

		{"range", "GET", d, []string{"Range: bytes=3-5"}, 206, "345", []string{"Content-Length: 3", "Content-Range: bytes 3-5/20", "Etag: " + tag}, "open blob x.test/a@" + id + " bytes=3-5"},
		{"open-ended", "GET", d, []string{"Range: bytes=18-"}, 206, "ij", []string{"Content-Length: 2", "Content-Range: bytes 18-19/20"}, "open blob x.test/a@" + id + " bytes=18-"},
		{"open-ended whole", "GET", d, []string{"Range: bytes=0-"}, 206, string(someBlob), []string{"Content-Length: 20", "Content-Range: bytes 0-19/20"}, "open blob x.test/a@" + id + " bytes=0-"},
		{"suffix", "GET", d, []string{"Range: bytes=-2"}, 206, "ij", []string{"Content-Length: 2", "Content-Range: bytes 18-19/20"}, "open blob x.test/a@" + id + " bytes=-2"},
		{"long suffix", "GET", d, []string{"Range: bytes=-99"}, 206, string(someBlob), []string{"Content-Range: bytes 0-19/20"}, "open blob x.test/a@" + id + " bytes=-99"},
		{"clamped", "GET", d, []string{"Range: bytes=15-99"}, 206, "fghij", []string{"Content-Range: bytes 15-19/20"}, "open blob x.test/a@" + id + " bytes=15-99"},
		{"several ranges", "GET", d, []string{"Range: bytes=0-1,3-4"}, 200, string(someBlob), []string{"Content-Range:"}, "open blob x.test/a@" + id},
		{"foreign unit", "GET", d, []string{"Range: chunks=0-1"}, 200, string(someBlob), []string{"Content-Range:"}, "open blob x.test/a@" + id},
		{"beyond", "GET", d, []string{"Range: bytes=20-"}, 416, "RANGE_INVALID", []string{"Content-Range: bytes */20"}, "open blob x.test/a@" + id + " bytes=20-"},
		{"empty suffix", "GET", d, []string{"Range: bytes=-0"}, 416, "RANGE_INVALID", []string{"Content-Range: bytes */20"}, "open blob x.test/a@" + id + " bytes=-0"},
		{"range of nothing", "GET", empty, []string{"Range: bytes=0-"}, 416, "RANGE_INVALID", []string{"Content-Range: bytes */0"}, "open blob x.test/a@" + emptyID + " bytes=0-"},
		{"malformed range", "GET", d, []string{"Range: bytes=5-3"}, 416, "RANGE_INVALID", []string{"Content-Range:"}, ""},

		{"if-range", "GET", d, []string{"Range: bytes=3-5", "If-Range: " + tag}, 206, "345", nil, "open blob x.test/a@" + id + " bytes=3-5"},
		{"if-range of another", "GET", d, []string{"Range: bytes=3-5", `If-Range: "x"`}, 200, string(someBlob), []string{"Content-Range:"}, "open blob x.test/a@" + id},
		{"unchanged", "GET", d, []string{"If-None-Match: W/" + tag}, 304, "", []string{"Etag: " + tag, "Content-Length:", "Content-Type:"}, "stat blob x.test/a@" + id},
		{"unchanged head", "HEAD", d, []string{"If-None-Match: *"}, 304, "", []string{"Etag: " + tag}, "stat blob x.test/a@" + id},
		{"unchanged but gone", "GET", sha256, []string{"If-None-Match: *"}, 404, "BLOB_UNKNOWN", nil, "stat blob x.test/a@012345"},
		{"changed", "GET", d, []string{`If-None-Match: "x"`}, 200, string(someBlob), nil, "open blob x.test/a@" + id},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := ask(p, c.method, at(c.d), c.send...)
			wantHeaders(t, resp.Header, c.want...)
			if c.status >= 400 {
				wantCode(t, resp, c.status, c.body)
			} else if body := bodyOf(t, resp); resp.StatusCode != c.status || body != c.body {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
			if calls := b.took(); calls != c.calls {
				t.Errorf("backend was asked %q, want %q", calls, c.calls)
			}
		})
	}
}

func TestManifest(t *testing.T) {
	b := newMemory()
	d := b.tag("docker.io", "library/a", "v1", ociManifest, someOCI)
	id := d.Encoded()[:6]
	length := fmt.Sprint("Content-Length: ", len(someOCI))
	// A tag whose type and size the origin did not tell.
	bare := b.tag("docker.io", "library/a", "bare", "", []byte(`{"schemaVersion":2,"manifests":[]}`))
	b.answer(KindTag, "docker.io", "library/a", "bare", Answer{Digest: bare})
	// Generic and dangerous types count as unknown.
	plain := b.put([]byte(`{"config":{},"layers":[]}`))
	b.types[plain] = "text/html"
	junk := b.put([]byte(`junk`))
	b.answer(KindTag, "docker.io", "library/a", "typed", Answer{Digest: junk, MediaType: "application/vnd.x+json"})
	b.answer(KindTag, "docker.io", "library/a", "stale", Answer{Digest: d, Size: int64(len(someOCI)), MediaType: ociManifest, Stale: true, Age: 90*time.Second + 5})
	b.answer(KindTag, "docker.io", "library/a", "aged", Answer{Digest: d, Size: int64(len(someOCI)), MediaType: ociManifest, Age: 5 * time.Second})
	b.answer(KindTag, "docker.io", "library/a", "broken", Answer{Digest: "sha256:x"})
	gone := digest.FromString("gone")
	b.answer(KindTag, "docker.io", "library/a", "gone", Answer{Digest: gone})

	p := newProxy(t, b, nil)
	for _, c := range []struct {
		method, ref string
		send        []string
		status      int
		body        string
		want        []string
		calls       string
	}{
		{"GET", "v1", nil, 200, string(someOCI), []string{length, "Content-Type: " + ociManifest, "Docker-Content-Digest: " + string(d), `Etag: "` + string(d) + `"`,
			"Peercache-Stale:", "Warning:", "Age:", "Content-Encoding:"}, "resolve tag docker.io/library/a v1; open manifest docker.io/library/a@" + id},
		{"HEAD", "v1", nil, 200, "", []string{length, "Content-Type: " + ociManifest, "Docker-Content-Digest: " + string(d)}, "resolve tag docker.io/library/a v1"},
		{"GET", string(d), nil, 200, string(someOCI), []string{length, "Content-Type: " + ociManifest, "Docker-Content-Digest: " + string(d)}, "open manifest docker.io/library/a@" + id},
		{"HEAD", string(d), nil, 200, "", []string{length, "Content-Type: " + ociManifest}, "stat manifest docker.io/library/a@" + id},
		{"GET", string(d), []string{"Range: bytes=0-3"}, 200, string(someOCI), []string{"Content-Range:", "Accept-Ranges:"}, "open manifest docker.io/library/a@" + id},

		{"GET", "v1", []string{`If-None-Match: "` + string(d) + `"`}, 304, "", []string{`Etag: "` + string(d) + `"`, "Docker-Content-Digest: " + string(d)}, "resolve tag docker.io/library/a v1"},
		{"HEAD", string(d), []string{`If-None-Match: "` + string(d) + `"`}, 304, "", nil, "stat manifest docker.io/library/a@" + id},

		{"GET", "bare", nil, 200, `{"schemaVersion":2,"manifests":[]}`, []string{"Content-Type: " + ociIndex, "Content-Length: 34"},
			"resolve tag docker.io/library/a bare; open manifest docker.io/library/a@" + bare.Encoded()[:6]},
		{"HEAD", "bare", nil, 200, "", []string{"Content-Type: " + ociIndex, "Content-Length: 34"},
			"resolve tag docker.io/library/a bare; stat manifest docker.io/library/a@" + bare.Encoded()[:6] + "; open manifest docker.io/library/a@" + bare.Encoded()[:6]},
		{"GET", string(plain), nil, 200, `{"config":{},"layers":[]}`, []string{"Content-Type: " + ociManifest}, "open manifest docker.io/library/a@" + plain.Encoded()[:6]},
		{"GET", string(junk), nil, 200, "junk", []string{"Content-Type: application/octet-stream"}, "open manifest docker.io/library/a@" + junk.Encoded()[:6]},
		{"GET", "typed", nil, 200, "junk", []string{"Content-Type: application/vnd.x+json"}, "resolve tag docker.io/library/a typed; open manifest docker.io/library/a@" + junk.Encoded()[:6]},

		{"GET", "stale", nil, 200, string(someOCI), []string{"Peercache-Stale: 90", "Age: 90", `Warning: 299 - "stale: Peercache cannot reach the origin, whose answer this was 90 s ago"`},
			"resolve tag docker.io/library/a stale; open manifest docker.io/library/a@" + id},
		{"HEAD", "aged", nil, 200, "", []string{"Age: 5", "Peercache-Stale:", "Warning:"}, "resolve tag docker.io/library/a aged"},

		{"GET", "broken", nil, 500, "UNKNOWN", nil, "resolve tag docker.io/library/a broken"},
		{"GET", "gone", nil, 404, "MANIFEST_UNKNOWN", []string{"Etag:"}, "resolve tag docker.io/library/a gone; open manifest docker.io/library/a@" + gone.Encoded()[:6]},
		{"GET", "none", nil, 404, "MANIFEST_UNKNOWN", nil, "resolve tag docker.io/library/a none"},
	} {
		t.Run(c.method+" "+c.ref, func(t *testing.T) {
			resp := ask(p, c.method, "/v2/library/a/manifests/"+c.ref, c.send...)
			wantHeaders(t, resp.Header, c.want...)
			if c.status >= 400 {
				wantCode(t, resp, c.status, c.body)
			} else if body := bodyOf(t, resp); resp.StatusCode != c.status || body != c.body {
				t.Errorf("got %d %q, want %d %q", resp.StatusCode, body, c.status, c.body)
			}
			if calls := b.took(); calls != c.calls {
				t.Errorf("backend was asked %q, want %q", calls, c.calls)
			}
		})
	}
}

func TestAcceptIsPassedOnInFull(t *testing.T) {
	b := newMemory()
	b.tag("docker.io", "a", "v1", ociManifest, someOCI)
	ask(newProxy(t, b, nil), "GET", "/v2/a/manifests/v1", "Accept: "+ociManifest+", "+ociIndex+";q=0.5", "Accept: */*")
	if got, want := b.queries[0].Accept, []string{ociManifest, ociIndex + ";q=0.5", "*/*"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if b.queries[0].Params != nil {
		t.Errorf("got params %v", b.queries[0].Params)
	}
}

func TestManifestOfUnknownTypeIsBounded(t *testing.T) {
	b := newMemory()
	d := b.put(bytes.Repeat([]byte{' '}, int(maxManifest)+1))
	wantCode(t, ask(newProxy(t, b, nil), "GET", "/v2/a/manifests/"+string(d)), 502, "UNAVAILABLE")
}

func TestLists(t *testing.T) {
	b := newMemory()
	tags := Answer{Body: []byte(`{"name":"a","tags":["v1","v2"]}`), Link: `</v2/a/tags/list?last=v2&n=2>; rel="next"`, FiltersApplied: "no"}
	b.answer(KindTags, "x.test:5000", "a", "", tags)
	b.answer(KindReferrers, "x.test:5000", "a", sha256, Answer{
		Body: []byte(`{"manifests":[]}`), MediaType: ociIndex, FiltersApplied: "artifactType", Stale: true,
		Link: `<https://x.test:5000/v2/a/referrers/` + sha256 + `?artifactType=b%2Fc&page=2>; rel="next"`,
	})
	b.answer(KindTags, "x.test", "html", "", Answer{Body: []byte(`<html>`), MediaType: "text/html"})
	p := newProxy(t, b, nil)

	for _, c := range []struct {
		target, body string
		want         []string
	}{
		{"/v2/a/tags/list?ns=x.test:5000&n=2", string(tags.Body), []string{
			`Link: </v2/a/tags/list?last=v2&n=2&ns=x.test%3A5000>; rel="next"`, "Content-Type: application/json", "Content-Length: 31", "OCI-Filters-Applied:", "Peercache-Stale:"}},
		{"/v2/x.test:5000/a/tags/list?n=2", string(tags.Body), []string{
			`Link: </v2/x.test:5000/a/tags/list?last=v2&n=2>; rel="next"`}},
		{"/v2/x.test:5000/a/referrers/" + sha256 + "?artifactType=b/c", `{"manifests":[]}`, []string{
			`Link: </v2/x.test:5000/a/referrers/` + sha256 + `?artifactType=b%2Fc&page=2>; rel="next"`,
			"OCI-Filters-Applied: artifactType", "Content-Type: " + ociIndex, "Peercache-Stale: 1", "Age:"}},
		{"/v2/x.test/html/tags/list", "<html>", []string{"Content-Type: application/json", "Link:"}},
	} {
		resp := ask(p, "GET", c.target)
		wantHeaders(t, resp.Header, c.want...)
		if body := bodyOf(t, resp); resp.StatusCode != 200 || body != c.body {
			t.Errorf("%s: got %d %q", c.target, resp.StatusCode, body)
		}
		resp = ask(p, "HEAD", c.target)
		wantHeaders(t, resp.Header, c.want...)
		if body := bodyOf(t, resp); resp.StatusCode != 200 || body != "" {
			t.Errorf("HEAD %s: got %d %q", c.target, resp.StatusCode, body)
		}
	}
	q := b.queries[4]
	if q.Kind != KindReferrers || q.Reference != sha256 || q.Params.Get("artifactType") != "b/c" || q.Repository != "a" {
		t.Errorf("got %+v", q)
	}
	if q = b.queries[0]; q.Kind != KindTags || len(q.Params) != 1 || q.Params.Get("n") != "2" {
		t.Errorf("got %+v", q)
	}
}

// A Backend that breaks its promises is found out before the client is lied to:
// by an error while that is possible, by a broken connection after that.
func TestBackendThatLies(t *testing.T) {
	reader := func(s string) io.Reader { return strings.NewReader(s) }
	failing := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s), errReader{}) }
	for _, c := range []struct {
		name    string
		content content
		send    []string
		status  int // 0: the connection breaks
	}{
		{"other range", content{Reader: reader("0123"), size: 20, off: 2, n: 4}, []string{"Range: bytes=0-3"}, 500},
		{"whole instead of range", content{Reader: reader("0123"), size: 4, off: 0, n: 4}, []string{"Range: bytes=1-2"}, 500},
		{"range instead of whole", content{Reader: reader("0123"), size: 20, off: 0, n: 4}, nil, 500},
		{"range outside", content{Reader: reader("0123"), size: 4, off: 9, n: 4}, []string{"Range: bytes=9-"}, 416},
		{"no size", content{Reader: reader("0123"), size: -1, off: 0, n: -1}, nil, 500},
		{"fails at once", content{Reader: failing(""), size: 4, n: 4}, nil, 500},
		{"nothing", content{Reader: reader(""), size: 4, n: 4}, nil, 500},
		{"empty but fails", content{Reader: failing(""), size: 0, n: 0}, nil, 500},
		{"too long at once", content{Reader: reader("01234"), size: 4, n: 4}, nil, 500},
		{"fails in the middle", content{Reader: failing("01"), size: 4, n: 4}, nil, 0},
		{"fails at the end", content{Reader: failing("0123"), size: 4, n: 4}, nil, 0},
		{"short", content{Reader: reader("012"), size: 4, n: 4}, nil, 0},
		{"too long", content{Reader: io.MultiReader(reader("0123"), reader("4")), size: 4, n: 4}, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newMemory()
			closed := 0
			b.open = func(context.Context, Ref, *ByteRange) (Content, error) {
				opened := c.content
				opened.closed = func() { closed++ }
				return &opened, nil
			}
			reg := prometheus.NewRegistry()
			s := serve(t, newProxy(t, b, &Options{Registerer: reg}))
			req, err := http.NewRequest("GET", s.URL+"/v2/a/blobs/"+sha256, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range c.send {
				name, value, _ := strings.Cut(line, ": ")
				req.Header.Set(name, value)
			}
			resp, err := s.Client().Do(req)
			if c.status != 0 {
				if err != nil {
					t.Fatal(err)
				}
				wantHeaders(t, resp.Header, "Etag:", "Accept-Ranges:")
				if body := bodyOf(t, resp); resp.StatusCode != c.status || !strings.Contains(body, `"errors"`) {
					t.Errorf("got %d %q", resp.StatusCode, body)
				}
			} else {
				// The connection may break before or after the headers are flushed.
				if err == nil {
					var body []byte
					body, err = io.ReadAll(resp.Body)
					resp.Body.Close()
					if err == nil {
						t.Errorf("clean end after %q", body)
					}
				}
				s.Close() // waits for the handler
				if got := counts(t, reg, "peercache_proxy_aborted"); got != "peercache_proxy_aborted_total client 0\npeercache_proxy_aborted_total proxy 1" {
					t.Errorf("counted %s", got)
				}
			}
			if closed != 1 {
				t.Errorf("content closed %d times", closed)
			}
		})
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("chunk 7 is not to be had") }

// counts returns the counters and gauges of a registry whose names begin with
// prefix, one a line, sorted.
func counts(t *testing.T, reg *prometheus.Registry, prefix string) string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), prefix) {
			continue
		}
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			lines = append(lines, fmt.Sprint(line, " ", m.GetCounter().GetValue()+m.GetGauge().GetValue()))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestMetrics(t *testing.T) {
	b := newMemory()
	d := b.put(someBlob)
	b.answer(KindTags, "docker.io", "a", "", Answer{Stale: true})
	reg := prometheus.NewRegistry()
	p := newProxy(t, b, &Options{Registerer: reg})
	ask(p, "GET", "/v2/a/blobs/"+string(d))
	ask(p, "GET", "/v2/a/blobs/"+string(d), "Range: bytes=0-1")
	ask(p, "GET", "/v2/a/blobs/"+string(d), "Range: bytes=0-1")
	ask(p, "HEAD", "/v2/a/manifests/v1")
	ask(p, "PUT", "/v2/a/manifests/v1")
	ask(p, "GET", "/v2/a/tags/list")
	ask(p, "GET", "/x")
	want := `peercache_proxy_requests_total 200 blob 1
peercache_proxy_requests_total 200 tags 1
peercache_proxy_requests_total 206 blob 2
peercache_proxy_requests_total 404 manifest 1
peercache_proxy_requests_total 404 other 1
peercache_proxy_requests_total 405 push 1`
	if got := counts(t, reg, "peercache_proxy_requests_"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := counts(t, reg, "peercache_proxy_stale"); got != "peercache_proxy_stale_answers_total 1" {
		t.Errorf("got %s", got)
	}
	if got := counts(t, reg, "peercache_proxy_in_flight"); got != "peercache_proxy_in_flight_requests 0" {
		t.Errorf("got %s", got)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	observed := uint64(0)
	for _, f := range families {
		if f.GetName() == "peercache_proxy_request_seconds" {
			for _, m := range f.GetMetric() {
				observed += m.GetHistogram().GetSampleCount()
			}
		}
	}
	if observed != 7 {
		t.Errorf("%d durations observed of 7 requests", observed)
	}
}
