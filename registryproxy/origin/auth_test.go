package origin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// keychain maps names of registries, and of repositories, to credentials.
type keychain map[string]authn.AuthConfig

func (k keychain) Resolve(r authn.Resource) (authn.Authenticator, error) {
	for _, name := range []string{r.String(), r.RegistryStr()} {
		if cfg, ok := k[name]; ok {
			return authn.FromConfig(cfg), nil
		}
	}
	return authn.Anonymous, nil
}

const tokenURL = "GET /token?scope=repository%3Ateam%2Fapp%3Apull&service=origintest"

// Nothing is sent unasked; one challenge is enough for all repositories; a
// token is used as long as it lasts.
func TestToken(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(1000)
		s.origin.RequireToken("http://registry.test", "", "", 60)
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, "GET B", tokenURL, "GET B [Bearer token-1]")
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, "GET B [Bearer token-1]")

		other := Source{"registry.test", "other"}
		s.names["/v2/other/blobs/"+d.String()] = "C"
		if _, err := s.client.Size(s.Context(), other, d); err != nil {
			s.Error(err)
		}
		s.asked(s.origin, "GET /token?scope=repository%3Aother%3Apull&service=origintest", "HEAD C [Bearer token-2]")

		time.Sleep(55 * time.Second)
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, tokenURL, "GET B [Bearer token-3]")
		if got := s.metric("peercache_origin_requests_total", "token", "200"); got != 3 {
			s.Errorf("%v tokens counted", got)
		}
	})
}

func TestTokenExpiresInMidBlob(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(1 << 20)
		s.origin.RequireToken("http://registry.test", "", "", 0)
		s.origin.On("GET /v2/*", origintest.None, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			s.origin.ExpireTokens()
			// What was authorized goes on for a while.
			origintest.Reset(1000)(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "1048576")
				w.Write(data)
			}))
		})
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, "GET B", tokenURL, "GET B [Bearer token-1]",
			"GET B [bytes=1000-1048575, Bearer token-1]", tokenURL, "GET B [bytes=1000-1048575, Bearer token-2]")
	})
}

// Many requests that need the same token fetch it once, and the first one's
// going away does not fail the others.
func TestTokenIsShared(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(1000)
		s.origin.RequireToken("http://registry.test", "", "", 60)
		s.origin.Always("GET /token", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			time.Sleep(300 * time.Millisecond)
			next.ServeHTTP(w, r)
		})
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				ctx := s.Context()
				if i == 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
					defer cancel()
				} else {
					time.Sleep(100 * time.Millisecond)
				}
				_, err := s.client.Size(ctx, app, d)
				if want := i > 0; (err == nil) != want {
					s.Errorf("%d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if got := s.metric("peercache_origin_requests_total", "token"); got != 1 {
			s.Errorf("%v tokens", got)
		}
	})
}

func TestCredentials(t *testing.T) {
	for name, c := range map[string]struct {
		keychain keychain
		require  func(*origintest.Origin)
		asked    []string
		status   int // 0: success
	}{
		"password for a token": {
			keychain{"registry.test": {Username: "u", Password: "p"}},
			func(o *origintest.Origin) { o.RequireToken("http://registry.test", "u", "p", 60) },
			[]string{"GET B", tokenURL + " [Basic u]", "GET B [Bearer token-1]"}, 0,
		},
		"of the repository": {
			keychain{"registry.test/team/app": {Username: "u", Password: "p"}, "registry.test": {Username: "x"}},
			func(o *origintest.Origin) { o.RequireToken("http://registry.test", "u", "p", 60) },
			[]string{"GET B", tokenURL + " [Basic u]", "GET B [Bearer token-1]"}, 0,
		},
		"identity token": {
			keychain{"registry.test": {IdentityToken: "p"}},
			func(o *origintest.Origin) { o.RequireToken("http://registry.test", "u", "p", 60) },
			[]string{"GET B", "POST /token", "GET B [Bearer token-1]"}, 0,
		},
		"registry token": {
			keychain{"registry.test": {RegistryToken: "given"}},
			func(o *origintest.Origin) { o.RequireToken("http://registry.test", "", "", 60) },
			[]string{"GET B", "GET B [Bearer given]"}, 401,
		},
		"wrong password for a token": {
			keychain{"registry.test": {Username: "u", Password: "wrong"}},
			func(o *origintest.Origin) { o.RequireToken("http://registry.test", "u", "p", 60) },
			[]string{"GET B", tokenURL + " [Basic u]"}, 401,
		},
		"no password for a token": {
			nil,
			func(o *origintest.Origin) { o.RequireToken("http://registry.test", "u", "p", 60) },
			[]string{"GET B", tokenURL}, 401,
		},
		"Basic": {
			keychain{"registry.test": {Username: "u", Password: "p"}},
			func(o *origintest.Origin) { o.RequireBasic("u", "p") },
			[]string{"GET B", "GET B [Basic u]"}, 0,
		},
		"Basic, wrong password": {
			keychain{"registry.test": {Username: "u", Password: "wrong"}},
			func(o *origintest.Origin) { o.RequireBasic("u", "p") },
			[]string{"GET B", "GET B [Basic u]"}, 401,
		},
		"Basic, no password": {
			nil,
			func(o *origintest.Origin) { o.RequireBasic("u", "p") },
			[]string{"GET B"}, 401,
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(o *Options) { o.Keychain = c.keychain }, func(s *stage) {
				data, d := s.blob(100)
				c.require(s.origin)
				if c.status == 0 {
					s.wantBytes(d, 0, -1, data)
				} else {
					_, err := s.client.Blob(s.Context(), app, d, 0, -1)
					var e *Error
					if !errors.As(err, &e) || e.Status != c.status || e.Code != CodeUnauthorized || e.Unreachable() {
						s.Errorf("%v", err)
					}
				}
				s.asked(s.origin, c.asked...)
			})
		})
	}
}

// A broken credential helper does not stop pulls of what is public.
func TestBrokenKeychain(t *testing.T) {
	play(t, func(o *Options) { o.Keychain = brokenKeychain{} }, func(s *stage) {
		data, d := s.blob(100)
		s.origin.RequireToken("http://registry.test", "", "", 60)
		s.wantBytes(d, 0, -1, data)
	})
}

type brokenKeychain struct{}

func (brokenKeychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return nil, errors.New("helper not found")
}

// Nor does one that hangs, nor does it hold up Close.
func TestHangingKeychain(t *testing.T) {
	var hang chan struct{} // made in the bubble
	play(t, func(o *Options) { hang = make(chan struct{}); o.Keychain = hangingKeychain(hang) }, func(s *stage) {
		defer close(hang)
		data, d := s.blob(100)
		s.origin.RequireToken("http://registry.test", "", "", 60)
		s.wantBytes(d, 0, -1, data)
		s.client.Close()
	})
}

type hangingKeychain chan struct{}

func (k hangingKeychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	<-k
	return authn.Anonymous, nil
}

// Docker Hub is at another host than its name says and has its credentials
// under a third one.
func TestDockerHub(t *testing.T) {
	play(t, func(o *Options) {
		o.Origins = []Config{{Name: "docker.io", URL: "http://registry.test"}}
		o.Keychain = keychain{"index.docker.io": {Username: "u", Password: "p"}}
	}, func(s *stage) {
		data, d := s.blob(100)
		s.origin.RequireBasic("u", "p")
		for _, name := range []string{"docker.io", "index.docker.io", "registry-1.docker.io", "DOCKER.IO:443"} {
			b, err := s.client.Blob(s.Context(), Source{name, "team/app"}, d, 0, -1)
			if err != nil {
				s.Fatal(err)
			}
			if got, err := io.ReadAll(b); err != nil || len(got) != len(data) {
				s.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			b.Close()
		}
	})
	c, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	hub, err := c.target("docker.io")
	if err != nil || hub.endpoints[0].base.String() != "https://registry-1.docker.io" || hub.endpoints[0].credentials[0] != "index.docker.io" {
		t.Errorf("%v, %v", hub, err)
	}
}

// A token server that is down costs its requests their time once, not each.
func TestTokenServerDown(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(100)
		s.origin.RequireToken("http://auth.test", "", "", 60)
		for range 4 {
			_, err := s.client.Blob(s.Context(), app, d, 0, -1)
			var e *Error
			if !errors.As(err, &e) || !e.Unreachable() {
				s.Errorf("%v", err)
			}
		}
		if got := s.metric("peercache_origin_requests_total", "token"); got > 4 {
			s.Errorf("%v attempts", got)
		}
		if !s.client.Reachable("registry.test") {
			s.Error("the registry itself answered")
		}
	})
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/alpine:pull"`,
		`Basic realm="x"`, `Negotiate, Basic realm=x, Bearer realm="y"`, `Negotiate YWJj==, Bearer realm="y" , service = z`,
		`Bearer realm="a\"b"`, `Bearer realm="unterminated`, `Bearer realm=https://x/y?z=1,service=s`, `,,,`, `=`, `Bearer =,`, `a b c`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges(s) {
			if c.scheme == "" || len(c.scheme) > len(s) {
				t.Errorf("scheme %q of %q", c.scheme, s)
			}
			for name := range c.params {
				if name == "" {
					t.Errorf("parameter without a name in %q", s)
				}
			}
		}
		if ch := findChallenge(http.Header{"Www-Authenticate": {s}}, "a/b"); ch != nil && ch.scheme == "bearer" && ch.realm == "" {
			t.Errorf("no realm in %q", s)
		}
	})
}

func TestChallenges(t *testing.T) {
	for s, want := range map[string]*challenge{
		`Bearer realm="https://a/t",service="s",scope="repository:x/y:pull"`: {"bearer", "https://a/t", "s", "repository:x/y:pull", "x/y"},
		`bearer REALM=https://a/t?x=1, Service=s`:                            {"bearer", "https://a/t?x=1", "s", "", "x/y"},
		`Basic realm="a, b", Bearer realm="https://a/t"`:                     {"bearer", "https://a/t", "", "", "x/y"},
		`Negotiate YWJj==, Basic realm=z`:                                    {scheme: "basic"},
		`Negotiate`:                                                          nil,
		`Bearer service="s"`:                                                 nil,
		`Bearer realm="a\"b"`:                                                {"bearer", `a"b`, "", "", "x/y"},
		``:                                                                   nil,
	} {
		got := findChallenge(http.Header{"Www-Authenticate": {s}}, "x/y")
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%s: %+v", s, got)
		}
	}
	for _, c := range []struct{ scope, want string }{
		{"", "repository:c:pull"}, {"aws", "aws"}, {"repository:a/b:pull", "repository:c:pull"},
		{"repository:a/b:pull repository:a/b/x:pull", "repository:c:pull repository:a/b/x:pull"},
	} {
		if got := (&challenge{scope: c.scope, repo: "a/b"}).scopeFor("c"); got != c.want {
			t.Errorf("%s: %s", c.scope, got)
		}
	}
}
