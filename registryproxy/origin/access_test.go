package origin

import (
	"errors"
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
				if s.client.Public(app) {
					s.Error("public before anybody asked")
				}
				if c.require != nil {
					c.require(s.origin)
				}
				_, err := s.client.Size(s.Context(), app, d)
				if (err != nil) != (name == "refused") {
					s.Fatal(err)
				}
				if got := s.client.Public(app); got != c.want {
					s.Errorf("public: %v", got)
				}
				if s.client.Public(Source{"registry.test", "other"}) || s.client.Public(Source{"169.254.169.254", "x"}) {
					s.Error("what nobody asked for is public")
				}
				// It may change.
				s.origin.RequireBasic("u", "other")
				s.storage.RequireBasic("u", "other")
				if _, err := s.client.Size(s.Context(), app, d); err == nil {
					s.Error("let in")
				}
				if s.client.Public(app) {
					s.Error("public although it was refused")
				}
			})
		})
	}
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
