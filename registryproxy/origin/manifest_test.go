package origin

import (
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

const ociManifest = "application/vnd.oci.image.manifest.v1+json"

func TestManifest(t *testing.T) {
	play(t, nil, func(s *stage) {
		body := []byte(`{"schemaVersion":2}`)
		d := s.origin.Manifest("team/app", ociManifest, body, "v1")
		for _, ref := range []string{"v1", d.String()} {
			m, err := s.client.Manifest(s.Context(), app, ref, []string{ociManifest})
			if err != nil {
				s.Fatal(err)
			}
			if string(m.Body) != string(body) || m.Digest != d || m.MediaType != ociManifest || m.Date.IsZero() {
				s.Errorf("%+v", m)
			}
		}
		s.asked(s.origin, "GET /v2/team/app/manifests/v1", "GET /v2/team/app/manifests/"+d.String())

		_, err := s.client.Manifest(s.Context(), app, "v2", nil)
		var e *Error
		if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &e) || e.Code != CodeManifestUnknown {
			s.Errorf("%v", err)
		}
	})
}

func TestManifestIsChecked(t *testing.T) {
	other := `sha256:` + strings.Repeat("0", 64)
	for name, c := range map[string]struct {
		fault     origintest.Fault
		byTag     bool
		ok        bool
		converted bool
	}{
		"corrupt, by digest":      {origintest.Corrupt, false, false, false},
		"corrupt, by tag":         {origintest.Corrupt, true, false, false},
		"converted":               {converted, false, false, true},
		"no digest, by tag":       {origintest.Header("Docker-Content-Digest", ""), true, true, false},
		"no digest, by digest":    {origintest.Header("Docker-Content-Digest", ""), false, true, false},
		"another digest, by tag":  {origintest.Header("Docker-Content-Digest", other), true, false, false},
		"malformed digest by tag": {origintest.Header("Docker-Content-Digest", "sha256:x"), true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				ref := s.origin.Manifest("team/app", ociManifest, []byte(`{"schemaVersion":2}`), "v1").String()
				if c.byTag {
					ref = "v1"
				}
				s.origin.On("GET *", c.fault)
				_, err := s.client.Manifest(s.Context(), app, ref, nil)
				var e *DigestError
				if c.ok != (err == nil) || !c.ok && (!errors.As(err, &e) || e.Converted != c.converted) {
					s.Errorf("%v", err)
				}
			})
		})
	}
}

// converted answers with another manifest, and says so.
func converted(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	body := []byte(`{"schemaVersion":1}`)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
	w.Header().Set("Content-Type", "application/vnd.docker.distribution.manifest.v1+json")
	w.Write(body)
}

func TestManifestTooLarge(t *testing.T) {
	play(t, nil, func(s *stage) {
		d := s.origin.Manifest("team/app", ociManifest, make([]byte, 8<<20), "fits")
		if m, err := s.client.Manifest(s.Context(), app, "fits", nil); err != nil || m.Digest != d {
			s.Errorf("%v", err)
		}
		s.origin.Manifest("team/app", ociManifest, make([]byte, 8<<20+1), "large")
		var e *Error
		if _, err := s.client.Manifest(s.Context(), app, "large", nil); !errors.As(err, &e) || e.Status != 502 {
			s.Errorf("%v", err)
		}
	})
}

// A manifest that breaks off is fetched again.
func TestManifestBreaksOff(t *testing.T) {
	play(t, nil, func(s *stage) {
		d := s.origin.Manifest("team/app", ociManifest, make([]byte, 10_000), "v1")
		s.origin.On("GET *", origintest.Reset(100), origintest.Stall(200))
		if m, err := s.client.Manifest(s.Context(), app, "v1", nil); err == nil || m != nil {
			// The stall used up the time for retries.
			s.Errorf("%v", err)
		}
		s.origin.On("GET *", origintest.Reset(100))
		if m, err := s.client.Manifest(s.Context(), app, "v1", nil); err != nil || m.Digest != d {
			s.Errorf("%v", err)
		}
	})
}

// The client's Accept decides what docker-registry answers, so that it is
// passed on as it is.
func TestAccept(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.origin.Manifest("team/app", ociManifest, []byte(`{}`), "v1")
		var got []string
		s.origin.Always("GET *", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			got = r.Header.Values("Accept")
			if r.Header.Get("Accept-Encoding") != "identity" || r.Header.Get("Via") != "1.1 peercache" || r.Header.Get("User-Agent") != "peercache" {
				s.Errorf("%v", r.Header)
			}
			next.ServeHTTP(w, r)
		})
		for _, accept := range [][]string{{"a/b"}, {"a/b, c/d;q=0.5", "*/*"}} {
			if _, err := s.client.Manifest(s.Context(), app, "v1", accept); err != nil {
				s.Error(err)
			}
			if strings.Join(got, "|") != strings.Join(accept, "|") {
				s.Errorf("%q", got)
			}
		}
		if s.client.Manifest(s.Context(), app, "v1", nil); len(got) != len(defaultAccept) {
			s.Errorf("%q", got)
		}
	})
}

func TestResolve(t *testing.T) {
	const head, get = "HEAD /v2/team/app/manifests/v1", "GET /v2/team/app/manifests/v1"
	for name, c := range map[string]struct {
		fault    origintest.Fault
		asked    []string
		manifest bool
	}{
		"HEAD":      {nil, []string{head}, false},
		"405":       {origintest.Status(405), []string{head, get}, true},
		"501":       {origintest.Status(501), []string{head, get}, true},
		"400":       {origintest.Status(400), []string{head, get}, true},
		"no digest": {origintest.Header("Docker-Content-Digest", ""), []string{head, get}, true},
		"no length": {origintest.Header("Content-Length", ""), []string{head, get}, true},
		"503 once":  {origintest.Status(503), []string{head, head}, false},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				body := []byte(`{"schemaVersion":2}`)
				want := s.origin.Manifest("team/app", ociManifest, body, "v1")
				if c.fault != nil {
					s.origin.On("HEAD *", c.fault)
				}
				d, err := s.client.Resolve(s.Context(), app, "v1", nil)
				if err != nil {
					s.Fatal(err)
				}
				if d.Digest != want || d.Size != int64(len(body)) || d.MediaType != ociManifest || (d.Manifest != nil) != c.manifest || d.Date.IsZero() {
					s.Errorf("%+v", d)
				}
				s.asked(s.origin, c.asked...)
			})
		})
	}
	play(t, nil, func(s *stage) {
		if _, err := s.client.Resolve(s.Context(), app, "none", nil); !errors.Is(err, fs.ErrNotExist) {
			s.Errorf("%v", err)
		}
		s.asked(s.origin, "HEAD /v2/team/app/manifests/none")
	})
}

func TestList(t *testing.T) {
	play(t, nil, func(s *stage) {
		for _, tag := range []string{"a", "b", "c"} {
			s.origin.Manifest("team/app", ociManifest, []byte(`{}`), tag)
		}
		l, err := s.client.List(s.Context(), app, Tags, "", url.Values{"n": {"2"}})
		if err != nil {
			s.Fatal(err)
		}
		if !strings.Contains(string(l.Body), `["a","b"]`) || l.Link != "/v2/team/app/tags/list?last=b&n=2" || l.MediaType != "application/json" {
			s.Errorf("%+v: %s", l, l.Body)
		}
		next, _ := url.Parse(l.Link)
		if l, err = s.client.List(s.Context(), app, Tags, "", next.Query()); err != nil || !strings.Contains(string(l.Body), `["c"]`) || l.Link != "" {
			s.Errorf("%+v: %v", l, err)
		}
		s.asked(s.origin, "GET /v2/team/app/tags/list?n=2", "GET /v2/team/app/tags/list?last=b&n=2")

		// A registry without referrers.
		d := digest.FromString("x")
		if _, err = s.client.List(s.Context(), app, Referrers, d.String(), url.Values{"artifactType": {"a/b"}}); !errors.Is(err, fs.ErrNotExist) {
			s.Errorf("%v", err)
		}
		s.asked(s.origin, "GET /v2/team/app/referrers/"+d.String()+"?artifactType=a%2Fb")

		s.origin.On("GET *", func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("OCI-Filters-Applied", "artifactType")
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			w.Write([]byte(`{"manifests":[]}`))
		})
		if l, err = s.client.List(s.Context(), app, Referrers, d.String(), nil); err != nil || l.FiltersApplied != "artifactType" {
			s.Errorf("%+v, %v", l, err)
		}
	})
}

func TestNextPage(t *testing.T) {
	base, _ := url.Parse("https://registry.test/prefix")
	tgt := &target{endpoints: []*endpoint{{base: base}}}
	asked, _ := url.Parse("https://registry.test/prefix/v2/a/tags/list?n=1")
	for link, want := range map[string]string{
		``: "",
		`</prefix/v2/a/tags/list?n=1&last=x>; rel="next"`:                "/v2/a/tags/list?n=1&last=x",
		`<https://registry.test/prefix/v2/a/tags/list?last=x>; rel=next`: "/v2/a/tags/list?last=x",
		`<http://registry.test/prefix/v2/a/tags/list?last=x>; rel=next`:  "/v2/a/tags/list?last=x",
		`<list?last=x>;title="a, <b>" ; REL="prev next"`:                 "/v2/a/tags/list?last=x",
		`</prefix/v2/x>; rel="prev", </prefix/v2/y>; rel="next"`:         "/v2/y",
		`<https://evil.test/prefix/v2/a/tags/list>; rel="next"`:          "",
		`</elsewhere>; rel="next"`:                                       "",
		`<https://registry.test:8443/prefix/v2/a>; rel="next"`:           "",
	} {
		resp := &http.Response{Header: http.Header{"Link": {link}}, Request: &http.Request{URL: asked}}
		if got := nextPage(tgt, resp); got != want {
			t.Errorf("%s: %q", link, got)
		}
	}
}

func FuzzLink(f *testing.F) {
	for _, s := range []string{`</v2/x>; rel="next"`, `<a>;b=c;rel=next,<d>`, `<`, `<>;;;=`, `<x>; rel="`, `<x>,<y>; rel=prev`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := nextLink(http.Header{"Link": {s}}); !strings.Contains(s, got) {
			t.Errorf("%q is no part of %q", got, s)
		}
	})
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-1/2", "bytes */5", "bytes 1-0/5", "bytes 0-9/*", "bytes 5-9/9", "items 0-1/2", "bytes 0-99999999999999999999/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseContentRange(s)
		if !ok {
			return
		}
		unsatisfied := r.first == -1 && r.last == -1 && r.total >= 0
		if !unsatisfied && (r.first < 0 || r.last < r.first || r.total >= 0 && r.total <= r.last) {
			t.Errorf("%q: %+v", s, r)
		}
	})
}
