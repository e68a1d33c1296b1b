package origin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// outages are the ways in which a registry is gone, and back again.
func outages(s *stage) map[string]struct{ begin, end func() } {
	const addr = "registry.test:80"
	return map[string]struct{ begin, end func() }{
		"silent":       {func() { s.net.Break(addr, nil) }, func() { s.net.Mend(addr) }},
		"refusing":     {func() { s.net.Break(addr, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}) }, func() { s.net.Mend(addr) }},
		"unresolvable": {func() { s.net.Break(addr, &net.DNSError{Err: "no such host", IsNotFound: true}) }, func() { s.net.Mend(addr) }},
		"503":          {func() { s.origin.Always("* *", origintest.Status(503)) }, s.origin.Heal},
		"hanging":      {func() { s.origin.Always("* *", origintest.Hang) }, s.origin.Heal},
		"dropping":     {func() { s.origin.Always("* *", origintest.Drop) }, s.origin.Heal},
	}
}

// With the registry gone, whoever can wait for 1.5 s waits once; after that
// Reachable tells him not to, and whoever asks all the same learns it at once. When
// the registry is back that shows by itself.
func TestOutage(t *testing.T) {
	for _, name := range []string{"silent", "refusing", "unresolvable", "503", "hanging", "dropping"} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				s.origin.Manifest("team/app", ociManifest, []byte(`{}`), "v1")
				ask := func(patience time.Duration) (time.Duration, error) {
					ctx, cancel := context.WithTimeout(s.Context(), patience)
					defer cancel()
					start := time.Now()
					_, err := s.client.Resolve(ctx, app, "v1", nil)
					return time.Since(start), err
				}
				if _, err := ask(time.Minute); err != nil || !s.client.Reachable("registry.test") {
					s.Fatal(err)
				}
				outage := outages(s)[name]
				outage.begin()
				s.client.configured["registry.test"].transport.CloseIdleConnections()

				if took, err := ask(1500 * time.Millisecond); err == nil || took > 1500*time.Millisecond {
					s.Errorf("first: %v, %v", took, err)
				}
				if s.client.Reachable("registry.test") {
					s.Error("still reachable")
				}
				// The probe that Reachable began notices what the first request could
				// not wait for.
				time.Sleep(6 * time.Second)
				for range 20 {
					took, err := ask(time.Minute)
					var e *Error
					if !errors.As(err, &e) || !e.Unreachable() || e.HTTPStatus() != 503 || e.RetryAfter() <= 0 || !e.Local() || took > 0 {
						s.Errorf("then: %v, %v", took, err)
					}
					if s.client.Reachable("registry.test") {
						s.Error("reachable")
					}
					time.Sleep(1700 * time.Millisecond)
				}
				if h := s.client.Health()[0]; h.State != Open || h.LastError == "" || h.Endpoint != "http://registry.test:80" {
					s.Errorf("%+v", h)
				}
				if got := s.metric("peercache_origin_state", "registry.test"); got != 2 {
					s.Errorf("state %v", got)
				}

				outage.end()
				for start := time.Now(); !s.client.Reachable("registry.test"); time.Sleep(100 * time.Millisecond) {
					if time.Since(start) > 25*time.Second {
						s.Fatal("does not come back")
					}
				}
				if took, err := ask(time.Minute); err != nil || took > time.Second {
					s.Errorf("afterwards: %v, %v", took, err)
				}
				if h := s.client.Health()[0]; h.State != OK {
					s.Errorf("%+v", h)
				}
			})
		})
	}
}

// While an origin is down only one probe at a time asks it, less and less often.
func TestProbesAreFew(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(10)
		s.origin.Always("* *", origintest.Status(503))
		start := time.Now()
		for time.Since(start) < 10*time.Minute {
			s.client.Blob(s.Context(), app, d, 0, -1)
			time.Sleep(50 * time.Millisecond)
		}
		if n := len(s.origin.Requests()); n < 30 || n > 60 {
			s.Errorf("%d requests in ten minutes", n)
		}
	})
}

// An origin that answers probes and nothing else is not taken for well.
func TestParole(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.origin.Always("HEAD *", origintest.Hang)
		slow := 0
		start := time.Now()
		for time.Since(start) < 5*time.Minute {
			if s.client.Reachable("registry.test") {
				slow++
				ctx, cancel := context.WithTimeout(s.Context(), 1500*time.Millisecond)
				s.client.Resolve(ctx, app, "v1", nil)
				cancel()
			}
			time.Sleep(100 * time.Millisecond)
		}
		if slow > 30 {
			s.Errorf("%d requests had to wait in five minutes", slow)
		}
	})
}

// A slow origin is suspect while one waits for it, and well when it answers;
// that a blob takes its time means nothing.
func TestSlowOrigin(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.origin.Manifest("team/app", ociManifest, []byte(`{}`), "v1")
		data, d := s.blob(10)
		slow := func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			time.Sleep(4 * time.Second)
			next.ServeHTTP(w, r)
		}
		s.origin.Always("HEAD *", slow)
		s.origin.Always("GET /v2/team/*", slow)
		done := make(chan error)
		go func() {
			_, err := s.client.Resolve(s.Context(), app, "v1", nil)
			done <- err
		}()
		time.Sleep(2 * time.Second)
		if h := s.client.Health()[0]; h.State != Suspect {
			s.Errorf("%+v", h)
		}
		if err := <-done; err != nil || !s.client.Reachable("registry.test") {
			s.Error(err)
		}
		go func() {
			time.Sleep(2 * time.Second)
			if !s.client.Reachable("registry.test") {
				s.Error("suspect for a slow blob")
			}
		}()
		s.wantBytes(d, 0, -1, data)
	})
}

// A request that hangs while others are answered says nothing about the host.
func TestOneHangs(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(10)
		bad := s.origin.Blob([]byte("bad"))
		s.origin.Always("GET /v2/team/app/blobs/"+bad.String(), origintest.Hang)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := s.client.Blob(s.Context(), app, bad, 0, -1); err == nil {
					s.Error("answered")
				}
			})
		}
		for range 30 {
			time.Sleep(time.Second)
			s.wantBytes(d, 0, -1, data)
		}
		wg.Wait()
	})
}

func TestCooldown(t *testing.T) {
	play(t, nil, func(s *stage) {
		s.origin.Manifest("team/app", ociManifest, []byte(`{}`), "v1")
		data, d := s.blob(10)

		// A short one is waited for.
		s.origin.On("HEAD *", origintest.Status(429, "Retry-After: 2"))
		start := time.Now()
		if _, err := s.client.Resolve(s.Context(), app, "v1", nil); err != nil || time.Since(start) < 2*time.Second {
			s.Errorf("%v, %v", time.Since(start), err)
		}
		s.asked(s.origin, "HEAD /v2/team/app/manifests/v1", "HEAD /v2/team/app/manifests/v1")

		// A long one fails at once, for all manifests, and for blobs not at all.
		s.origin.On("HEAD *", origintest.Status(429, "Retry-After: 3000"))
		for i := range 3 {
			start = time.Now()
			_, err := s.client.Resolve(s.Context(), app, fmt.Sprint("v", i+1), nil)
			var e *Error
			if !errors.As(err, &e) || e.HTTPStatus() != 503 || !e.Unreachable() || e.Local() || e.RetryAfter() > time.Minute || e.RetryAfter() < 50*time.Second || time.Since(start) > 0 {
				s.Errorf("%v, %v", time.Since(start), err)
			}
		}
		if s.client.Reachable("registry.test") || s.client.Health()[0].Cooldown == 0 {
			s.Error("no cooldown")
		}
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, "HEAD /v2/team/app/manifests/v1", "GET B")
		time.Sleep(time.Minute)
		if _, err := s.client.Resolve(s.Context(), app, "v1", nil); err != nil {
			s.Error(err)
		}
		s.asked(s.origin, "HEAD /v2/team/app/manifests/v1")

		// 503 with Retry-After holds up everything, and does not open the breaker.
		s.origin.On("GET *", origintest.Status(503, "Retry-After: "+time.Now().Add(30*time.Second).UTC().Format(http.TimeFormat)))
		for range 5 {
			if _, err := s.client.Blob(s.Context(), app, d, 0, -1); err == nil {
				s.Error("answered")
			}
		}
		if _, err := s.client.Resolve(s.Context(), app, "v1", nil); err == nil {
			s.Error("answered")
		}
		s.asked(s.origin, "GET B")
		if h := s.client.Health()[0]; h.State != OK {
			s.Errorf("%+v", h)
		}
	})
}

// Without Retry-After the pauses grow, within what a client can wait for.
func TestCooldownUnasked(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(10)
		s.origin.Always("GET *", origintest.Status(429))
		start := time.Now()
		_, err := s.client.Blob(s.Context(), app, d, 0, -1)
		var e *Error
		if !errors.As(err, &e) || e.OCICode() == "" || time.Since(start) > 6*time.Second {
			s.Errorf("%v, %v", time.Since(start), err)
		}
		if n := len(s.origin.Requests()); n != 2 {
			s.Errorf("%d requests", n)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, " 3 ": 3 * time.Second, "-1": 0, "x": 0, "99999999999": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// A host is asked for a bounded number of bodies at once; the rest wait, and
// manifests do not wait for bodies.
func TestStreamsAreBounded(t *testing.T) {
	play(t, func(o *Options) { o.MaxStreams = 2 }, func(s *stage) {
		s.origin.Manifest("team/app", ociManifest, []byte(`{}`), "v1")
		_, d := s.blob(1 << 20)
		var bodies []*Body
		for range 2 {
			b, err := s.client.Blob(s.Context(), app, d, 0, -1)
			if err != nil {
				s.Fatal(err)
			}
			bodies = append(bodies, b)
		}
		if _, err := s.client.Resolve(s.Context(), app, "v1", nil); err != nil {
			s.Error(err)
		}
		third := make(chan error)
		go func() {
			b, err := s.client.Blob(s.Context(), app, d, 0, -1)
			if err == nil {
				defer b.Close()
			}
			third <- err
		}()
		synctest.Wait()
		s.asked(s.origin, "GET B", "GET B", "HEAD /v2/team/app/manifests/v1")
		bodies[0].Close()
		if err := <-third; err != nil {
			s.Error(err)
		}

		b, err := s.client.Blob(s.Context(), app, d, 0, -1)
		if err != nil {
			s.Fatal(err)
		}
		_, err = s.client.Blob(s.Context(), app, d, 0, -1)
		var e *Error
		if !errors.As(err, &e) || e.Status != 503 || e.Unreachable() {
			s.Errorf("%v", err)
		}
		if h := s.client.Health()[0]; h.State != OK {
			s.Errorf("%+v", h)
		}
		b.Close()
		bodies[1].Close()
	})
}

func TestMirrors(t *testing.T) {
	play(t, func(o *Options) {
		o.Origins = []Config{{Name: "registry.test", URL: "http://registry.test", Mirrors: []string{"http://storage.test/v2/"}}}
		o.Keychain = keychain{"registry.test": {Username: "u", Password: "p"}}
	}, func(s *stage) {
		data, d := s.blob(1000)
		s.origin.RequireBasic("u", "p")
		s.wantBytes(d, 0, -1, data)
		s.asked(s.storage, "GET B")
		s.asked(s.origin)

		// What the mirror lacks, refuses or fails at comes from the origin, to
		// which alone its credentials go.
		s.storage.On("GET *", origintest.Status(404), origintest.Status(500), origintest.Status(503))
		for range 3 {
			s.wantBytes(d, 0, -1, data)
		}
		s.storage.RequireBasic("other", "secret")
		s.wantBytes(d, 0, -1, data)
		s.asked(s.storage, "GET B", "GET B", "GET B", "GET B")
		s.asked(s.origin, "GET B", "GET B [Basic u]", "GET B [Basic u]", "GET B [Basic u]", "GET B [Basic u]")

		// With one of them gone the origin counts as reachable.
		s.net.Break("storage.test:80", errors.New("gone"))
		for range 5 {
			s.wantBytes(d, 0, -1, data)
		}
		if !s.client.Reachable("registry.test") || len(s.client.Health()) != 2 {
			s.Errorf("%+v", s.client.Health())
		}
	})
}

// A body that the client's own end cuts short ends.
func TestClientClose(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(1 << 20)
		s.origin.Always("GET *", origintest.Stall(10))
		b, err := s.client.Blob(s.Context(), app, d, 0, -1)
		if err != nil {
			s.Fatal(err)
		}
		defer b.Close()
		s.client.Close()
		s.client.Close()
		p := make([]byte, 100)
		for err == nil {
			_, err = b.Read(p)
		}
		if !errors.Is(err, errClosed) {
			s.Error(err)
		}
		if _, err := s.client.Size(s.Context(), app, d); !errors.Is(err, errClosed) {
			s.Error(err)
		}
	})
}
