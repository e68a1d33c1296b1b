package origin

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// What was read without credentials is public, and nothing else.
func TestPublic(t *testing.T) {
	known := keychain{"registry.test": authn.AuthConfig{Username: "u", Password: "p"}}
	for name, c := range map[string]struct {
		keys    authn.Keychain
		require func(*origintest.Origin)
		mirror  bool
		want    bool
	}{
		"open":                        {want: true},
		"open, with credentials":      {keys: known, want: true},
		"a token for anybody":         {require: func(o *origintest.Origin) { o.RequireToken("http://registry.test", "", "", 60) }, want: true},
		"a token for credentials":     {keys: known, require: func(o *origintest.Origin) { o.RequireToken("http://registry.test", "u", "p", 60) }},
		"basic":                       {keys: known, require: func(o *origintest.Origin) { o.RequireBasic("u", "p") }},
		"refused":                     {require: func(o *origintest.Origin) { o.RequireBasic("u", "p") }},
		"a mirror, which lets all in": {mirror: true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(o *Options) {
				if c.keys != nil {
					o.Keychain = c.keys
				}
				if c.mirror {
					o.Origins[0].Mirrors = []string{"http://storage.test"}
				}
			}, func(s *stage) {
				_, d := s.blob(10)
				if _, known := s.client.Public(app); known {
					s.Error("known before anybody asked")
				}
				if c.require != nil {
					c.require(s.origin)
				}
				_, err := s.client.Size(s.Context(), app, d)
				if (err != nil) != (name == "refused") {
					s.Fatal(err)
				}
				if public, known := s.client.Public(app); public != c.want || known == c.mirror {
					s.Errorf("public: %v, known: %v", public, known)
				}
				for _, src := range []Source{{"registry.test", "other"}, {"169.254.169.254", "x"}} {
					if public, known := s.client.Public(src); public || known {
						s.Errorf("%v, which nobody asked for, is known", src)
					}
				}
				// It may change.
				s.origin.RequireBasic("u", "other")
				s.storage.RequireBasic("u", "other")
				if _, err := s.client.Size(s.Context(), app, d); err == nil {
					s.Error("let in")
				}
				if public, known := s.client.Public(app); public || !known {
					s.Error("public although it was refused")
				}
			})
		})
	}
}

// A mirror's answer says nothing about who may read a repository: it must not undo
// what the origin itself said, nor make it last.
func TestMirrorDoesNotEndPublic(t *testing.T) {
	play(t, func(o *Options) {
		o.Origins[0].Mirrors = []string{"http://storage.test"}
	}, func(s *stage) {
		_, d := s.blob(10)
		read := func() {
			s.Helper()
			if _, err := s.client.Size(s.Context(), app, d); err != nil {
				s.Fatal(err)
			}
		}
		s.storage.On("HEAD *", origintest.Status(404))
		read()
		read() // from the mirror
		if public, _ := s.client.Public(app); !public {
			s.Error("an answer of a mirror made a public repository one that needs credentials")
		}
		s.storage.On("HEAD *", origintest.Status(403))
		read() // the mirror refuses, the origin does not
		if public, _ := s.client.Public(app); !public {
			s.Error("a mirror's refusal made a public repository one that needs credentials")
		}
		time.Sleep(publicLifetime)
		read()
		if public, known := s.client.Public(app); public || known {
			s.Errorf("public: %v, known: %v, long after the origin was asked", public, known)
		}
	})
}

// A node that has credentials for a host finds out that a repository needs none,
// by one question an hour.
func TestAnybody(t *testing.T) {
	known := keychain{"registry.test": authn.AuthConfig{Username: "u", Password: "p"}}
	play(t, func(o *Options) { o.Keychain = known }, func(s *stage) {
		_, d := s.blob(10)
		s.origin.RequireToken("http://registry.test", "", "", 60)
		size := func() {
			s.Helper()
			if _, err := s.client.Size(s.Context(), app, d); err != nil {
				s.Fatal(err)
			}
		}
		size()
		if public, known := s.client.Public(app); public || !known {
			s.Errorf("public: %v, known: %v, after a read with credentials", public, known)
		}
		const scope = "scope=repository%3Ateam%2Fapp%3Apull&service=origintest"
		s.asked(s.origin, "HEAD B", "GET /token?"+scope+" [Basic u]", "HEAD B [Bearer token-1]")
		for range 2 {
			if !s.client.Anybody(s.Context(), app, d.String(), true) {
				s.Error("not public")
			}
		}
		s.asked(s.origin, "GET /token?"+scope, "HEAD B [Bearer token-2]")
		// That the node goes on with its credentials does not mean that they are
		// needed.
		size()
		s.asked(s.origin, "HEAD B [Bearer token-1]")
		if public, _ := s.client.Public(app); !public {
			s.Error("not public after another read with credentials")
		}
		time.Sleep(publicLifetime)
		if public, _ := s.client.Public(app); public {
			s.Error("public for ever")
		}
		size()
		if public, known := s.client.Public(app); public || !known {
			s.Errorf("public: %v, known: %v, an hour later", public, known)
		}
		if !s.client.Anybody(s.Context(), app, d.String(), true) {
			s.Error("not public, an hour later")
		}
	})
}

// Where credentials are needed the question without them is no failure of
// anything, and credentials are used as before.
func TestAnybodyCannot(t *testing.T) {
	known := keychain{"registry.test": authn.AuthConfig{Username: "u", Password: "p"}}
	for name, c := range map[string]struct {
		prepare func(s *stage)
		asked   []string
	}{
		"basic": {
			prepare: func(s *stage) { s.origin.RequireBasic("u", "p") },
			asked:   []string{"HEAD B"},
		},
		"token": {
			prepare: func(s *stage) { s.origin.RequireToken("http://registry.test", "u", "p", 3600) },
			asked: []string{"GET /token?scope=repository%3Ateam%2Fapp%3Apull&service=origintest", "HEAD B",
				"GET /token?scope=repository%3Ateam%2Fapp%3Apull&service=origintest"},
		},
		"metered": {
			prepare: func(s *stage) {
				s.origin.RequireBasic("u", "p")
				s.origin.On("HEAD *", origintest.None, origintest.None, origintest.Status(429, "Retry-After", "60"))
			},
			asked: []string{"HEAD B"},
		},
		"failing": {
			prepare: func(s *stage) {
				s.origin.RequireBasic("u", "p")
				s.origin.On("HEAD *", origintest.None, origintest.None, origintest.Status(503, "Retry-After", "60"))
			},
			asked: []string{"HEAD B"},
		},
		"silent": {
			prepare: func(s *stage) {
				s.origin.RequireBasic("u", "p")
				s.origin.On("HEAD *", origintest.None, origintest.None, origintest.Hang)
			},
			asked: []string{"HEAD B"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(o *Options) { o.Keychain = known }, func(s *stage) {
				_, d := s.blob(10)
				c.prepare(s)
				if _, err := s.client.Size(s.Context(), app, d); err != nil {
					s.Fatal(err)
				}
				s.origin.Requests()
				for range 3 {
					if s.client.Anybody(s.Context(), app, d.String(), true) {
						s.Error("public")
					}
					if !s.client.Reachable("registry.test") {
						s.Error("thought to be out of reach")
					}
				}
				s.asked(s.origin, c.asked...)
				if _, err := s.client.Size(s.Context(), app, d); err != nil {
					s.Error(err)
				}
				if public, known := s.client.Public(app); public || !known {
					s.Errorf("public: %v, known: %v", public, known)
				}
			})
		})
	}
}

// Who asks does not wait for longer than it wants to, and nothing is asked of an
// origin that is in trouble, or that may not be asked.
func TestAnybodyWaits(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(10)
		if s.client.Anybody(s.Context(), app, d.String()[:20], true) || s.client.Anybody(s.Context(), app, "v1", true) ||
			s.client.Anybody(s.Context(), Source{"169.254.169.254", "x"}, "v1", false) {
			s.Error("public although there is nothing to ask for")
		}
		s.client.Cooldown("registry.test", time.Minute)
		if s.client.Anybody(s.Context(), app, d.String(), true) {
			s.Error("public")
		}
		s.asked(s.origin)
		time.Sleep(time.Minute)
		s.origin.On("HEAD *", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			time.Sleep(time.Second)
			next.ServeHTTP(w, r)
		})
		ctx, cancel := context.WithTimeout(s.Context(), 100*time.Millisecond)
		defer cancel()
		if s.client.Anybody(ctx, app, d.String(), true) {
			s.Error("public before the answer")
		}
		time.Sleep(2 * time.Second)
		if !s.client.Anybody(s.Context(), app, d.String(), true) {
			s.Error("the answer was lost")
		}
		s.asked(s.origin, "HEAD B")
	})
}

// A pause that others were asked for holds up everything, and is bounded.
func TestCooldownByOthers(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(10)
		s.client.Cooldown("registry.test", -time.Second)
		s.client.Cooldown("169.254.169.254", time.Second)
		if _, err := s.client.Size(s.Context(), app, d); err != nil {
			s.Error(err)
		}
		s.client.Cooldown("REGISTRY.test", time.Hour)
		s.client.Cooldown("registry.test", 30*time.Second) // no shorter than it was
		time.Sleep(50 * time.Second)
		_, err := s.client.Size(s.Context(), app, d)
		var e *Error
		if !errors.As(err, &e) || e.HTTPStatus() != 503 || e.Code != CodeTooManyRequests || e.RetryAfter() != 10*time.Second {
			s.Errorf("%v", err)
		}
		if s.client.Reachable("registry.test") {
			s.Error("reachable in a cooldown")
		}
		time.Sleep(11 * time.Second)
		if _, err := s.client.Size(s.Context(), app, d); err != nil {
			s.Error(err)
		}
	})
}
