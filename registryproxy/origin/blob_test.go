package origin

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

func TestBlob(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(100_000)
		for _, c := range []struct {
			off, n int64
			want   []byte
			ranged bool
			asked  string
		}{
			{0, -1, data, false, "GET B"},
			{0, 100_000, data, true, "GET B [bytes=0-99999]"},
			{10, 20, data[10:30], true, "GET B [bytes=10-29]"},
			{99_990, -1, data[99_990:], true, "GET B [bytes=99990-]"},
			{99_990, 5000, data[99_990:], true, "GET B [bytes=99990-104989]"},
		} {
			b := s.wantBytes(d, c.off, c.n, c.want)
			if b.Size != 100_000 || b.Offset != c.off || b.Ranged != c.ranged || b.Length() != int64(len(c.want)) {
				s.Errorf("%d+%d: size %d, offset %d, ranged %v, length %d", c.off, c.n, b.Size, b.Offset, b.Ranged, b.Length())
			}
			s.asked(s.origin, c.asked)
		}
		if got := s.metric("peercache_origin_received_bytes_total"); got != 200_000+20+10+10 {
			s.Errorf("%v bytes received", got)
		}
		s.wantBytes(d, 5, 0, nil)
		s.asked(s.origin)
	})
}

func TestBlobSHA512(t *testing.T) {
	play(t, nil, func(s *stage) {
		data := []byte("hello")
		s.wantBytes(s.origin.Blob512(data), 0, -1, data)
	})
}

func TestEmptyBlob(t *testing.T) {
	play(t, nil, func(s *stage) {
		d := s.origin.Blob(nil)
		s.wantBytes(d, 0, -1, nil)
		s.origin.On("GET *", origintest.Status(416, "Content-Range: bytes */0"))
		if b := s.wantBytes(d, 0, 100, nil); b.Size != 0 {
			s.Errorf("size %d", b.Size)
		}
	})
}

// What goes wrong in mid-blob is mended without the reader noticing. Each case
// names the requests that it takes.
func TestBodyIsResumed(t *testing.T) {
	const n = 3 << 20
	for name, c := range map[string]struct {
		faults []origintest.Fault
		asked  []string
		off    int64
	}{
		"reset":                 {[]origintest.Fault{origintest.Reset(1000)}, []string{"GET B", "GET B [bytes=1000-3145727]"}, 0},
		"truncated":             {[]origintest.Fault{origintest.Reset(n - 1)}, []string{"GET B", "GET B [bytes=3145727-3145727]"}, 0},
		"before the first byte": {[]origintest.Fault{origintest.Drop}, []string{"GET B", "GET B"}, 0},
		"stall":                 {[]origintest.Fault{origintest.Stall(4096)}, []string{"GET B", "GET B [bytes=4096-3145727]"}, 0},
		"twice": {
			[]origintest.Fault{origintest.Reset(1000), origintest.Reset(500)},
			[]string{"GET B", "GET B [bytes=1000-3145727]", "GET B [bytes=1500-3145727]"}, 0,
		},
		"a range": {
			[]origintest.Fault{origintest.Reset(1000)},
			[]string{"GET B [bytes=100-]", "GET B [bytes=1100-3145727]"}, 100,
		},
		"500 on the way": {
			[]origintest.Fault{origintest.Reset(1000), origintest.Status(500)},
			[]string{"GET B", "GET B [bytes=1000-3145727]", "GET B [bytes=1000-3145727]"}, 0,
		},
		"chunked, then reset": {
			[]origintest.Fault{func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				origintest.Header("Content-Length", "")(w, r, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					origintest.Reset(1000)(w, r, next)
				}))
			}},
			[]string{"GET B", "GET B [bytes=1000-]"}, 0,
		},
		"Range ignored on resuming": {
			[]origintest.Fault{origintest.Reset(1000), origintest.IgnoreRange},
			[]string{"GET B", "GET B [bytes=1000-3145727]"}, 0,
		},
		"less than asked for": {
			[]origintest.Fault{origintest.ShortRange(2 << 20)},
			[]string{"GET B [bytes=100-]", "GET B [bytes=2097252-3145727]"}, 100,
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				data, d := s.blob(n)
				s.origin.On("GET *", c.faults...)
				b := s.wantBytes(d, c.off, -1, data[c.off:])
				if b.Size != n {
					s.Errorf("size %d", b.Size)
				}
				s.asked(s.origin, c.asked...)
			})
		})
	}
}

func TestBodyGivesUp(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(1 << 20)
		s.origin.Always("GET *", origintest.Reset(10))
		b, err := s.client.Blob(s.Context(), app, d, 0, -1)
		if err != nil {
			s.Fatal(err)
		}
		defer b.Close()
		n, err := io.Copy(io.Discard, b)
		var e *Error
		if !errors.As(err, &e) || !e.Unreachable() || n != 60 {
			s.Errorf("%d bytes, %v", n, err)
		}
		if _, again := b.Read(make([]byte, 1)); again != err {
			s.Errorf("then %v", again)
		}
	})
}

// A silent origin is given up on in bounded time, wherever it falls silent.
func TestSilence(t *testing.T) {
	for name, c := range map[string]struct {
		script func(s *stage)
		atMost time.Duration
	}{
		"before the headers": {func(s *stage) { s.origin.Always("GET *", origintest.Hang) }, 15 * time.Second},
		"in the body": {func(s *stage) {
			s.origin.On("GET /v2/team/*", origintest.Stall(100))
			s.origin.Always("GET *", origintest.Hang)
		}, 25 * time.Second},
		"when dialled": {func(s *stage) { s.net.Break("registry.test:80", nil) }, 7 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				_, d := s.blob(1 << 20)
				c.script(s)
				start := time.Now()
				b, err := s.client.Blob(s.Context(), app, d, 0, -1)
				if err == nil {
					_, err = io.Copy(io.Discard, b)
					b.Close()
				}
				var e *Error
				if !errors.As(err, &e) || !e.Unreachable() {
					s.Errorf("%v", err)
				}
				if took := time.Since(start); took > c.atMost {
					s.Errorf("took %v", took)
				}
			})
		})
	}
}

// The reader's own pauses are not the origin's.
func TestSlowReader(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(1 << 20)
		b, err := s.client.Blob(s.Context(), app, d, 0, -1)
		if err != nil {
			s.Fatal(err)
		}
		defer b.Close()
		var got bytes.Buffer
		for range 4 {
			time.Sleep(time.Minute) // of the bubble
			if _, err := io.CopyN(&got, b, 1<<18); err != nil {
				s.Fatal(err)
			}
		}
		if !bytes.Equal(got.Bytes(), data) {
			s.Error("other bytes")
		}
		s.asked(s.origin, "GET B")
	})
}

func TestClose(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(1 << 20)
		s.origin.Always("GET *", origintest.Stall(10))
		for name, end := range map[string]func(*Body, context.CancelFunc){
			"body":    func(b *Body, _ context.CancelFunc) { b.Close() },
			"context": func(_ *Body, cancel context.CancelFunc) { cancel() },
		} {
			ctx, cancel := context.WithCancel(s.Context())
			b, err := s.client.Blob(ctx, app, d, 0, -1)
			if err != nil {
				s.Fatal(err)
			}
			done := make(chan error)
			go func() {
				_, err := io.Copy(io.Discard, b)
				done <- err
			}()
			time.Sleep(time.Second)
			end(b, cancel)
			if err := <-done; !errors.Is(err, context.Canceled) {
				s.Errorf("%s: %v", name, err)
			}
			cancel()
			b.Close()
		}
		if got := s.client.Health()[0].State; got != OK {
			s.Errorf("the client's going away made the origin %s", got)
		}
	})
}

func TestBadRanges(t *testing.T) {
	for name, c := range map[string]struct {
		off, n int64
		fault  origintest.Fault
		status int
	}{
		"another start":      {100, 10, origintest.WrongRange("bytes 99-108/1000"), 502},
		"beyond the end":     {100, 10, origintest.WrongRange("bytes 100-110/1000"), 502},
		"of another length":  {100, 10, origintest.WrongRange("bytes 100-108/1000"), 502},
		"malformed":          {100, 10, origintest.WrongRange("bytes 100-"), 502},
		"none":               {100, 10, origintest.Header("Content-Range", ""), 502},
		"unasked 206":        {0, -1, origintest.Status(206, "Content-Range: bytes 0-5/6"), 502},
		"beyond the blob":    {1000, 10, origintest.None, 416},
		"no content":         {0, -1, origintest.Status(204), 502},
		"redirect, no where": {0, -1, origintest.Status(302), 502},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				_, d := s.blob(1000)
				s.origin.Always("GET *", c.fault)
				_, err := s.client.Blob(s.Context(), app, d, c.off, c.n)
				var e *Error
				if !errors.As(err, &e) || e.Status != c.status {
					s.Errorf("%v", err)
				}
				if got := len(s.origin.Requests()); got != 1 {
					s.Errorf("%d requests", got)
				}
			})
		})
	}
}

func TestRangeIgnored(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(1000)
		s.origin.On("GET *", origintest.IgnoreRange)
		b := s.wantBytes(d, 100, 10, data)
		if b.Offset != 0 || b.Ranged || b.Size != 1000 {
			s.Errorf("offset %d, ranged %v, size %d", b.Offset, b.Ranged, b.Size)
		}
		s.asked(s.origin, "GET B [bytes=100-109]")
	})
}

func TestNoContentLength(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(100_000)
		s.origin.On("GET *", origintest.Header("Content-Length", ""))
		b, err := s.client.Blob(s.Context(), app, d, 0, -1)
		if err != nil {
			s.Fatal(err)
		}
		defer b.Close()
		if b.Size != -1 || b.Length() != -1 {
			s.Errorf("size %d, length %d", b.Size, b.Length())
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
			s.Errorf("%d bytes, %v", len(got), err)
		}
		if b.Length() != 100_000 {
			s.Errorf("length %d", b.Length())
		}
	})
}

// A blob that has become another one is not spliced.
func TestChanged(t *testing.T) {
	for name, change := range map[string]origintest.Fault{
		"ETag": origintest.Header("ETag", `"other"`),
		"size": origintest.WrongRange("bytes 1000-99999/100001"),
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				_, d := s.blob(100_000)
				s.origin.On("GET *", origintest.Reset(1000), change)
				b, err := s.client.Blob(s.Context(), app, d, 0, -1)
				if err != nil {
					s.Fatal(err)
				}
				defer b.Close()
				if n, err := io.Copy(io.Discard, b); !errors.Is(err, ErrChanged) || n != 1000 {
					s.Errorf("%d bytes, %v", n, err)
				}
			})
		})
	}
}

func TestSize(t *testing.T) {
	const get = "GET B [bytes=0-0]"
	for name, c := range map[string]struct {
		head, get origintest.Fault
		want      int64
		asked     []string
	}{
		"HEAD":          {nil, nil, 1000, []string{"HEAD B"}},
		"405":           {origintest.Status(405), nil, 1000, []string{"HEAD B", get}},
		"501":           {origintest.Status(501), nil, 1000, []string{"HEAD B", get}},
		"no length":     {origintest.Header("Content-Length", ""), nil, 1000, []string{"HEAD B", get}},
		"length 0":      {origintest.Header("Content-Length", "0"), nil, 1000, []string{"HEAD B", get}},
		"no range":      {origintest.Status(405), origintest.IgnoreRange, 1000, []string{"HEAD B", get}},
		"unknown total": {origintest.Status(405), origintest.WrongRange("bytes 0-0/*"), -1, []string{"HEAD B", get}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				_, d := s.blob(1000)
				if c.head != nil {
					s.origin.On("HEAD *", c.head)
				}
				if c.get != nil {
					s.origin.On("GET *", c.get)
				}
				if got, err := s.client.Size(s.Context(), app, d); got != c.want || err != nil {
					s.Errorf("%d, %v", got, err)
				}
				s.asked(s.origin, c.asked...)
			})
		})
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		fault               origintest.Fault
		status, http, tries int
		code                string
		unreachable         bool
	}{
		"404":          {nil, 404, 404, 1, "BLOB_UNKNOWN", false},
		"401":          {origintest.Status(401), 401, 401, 1, "UNKNOWN", false},
		"403":          {origintest.Status(403), 403, 403, 1, "UNKNOWN", false},
		"451":          {origintest.Status(451), 451, 451, 1, "UNKNOWN", false},
		"408":          {origintest.Status(408), 408, 503, 4, "UNKNOWN", true},
		"429":          {origintest.Status(429, "Retry-After: 30"), 429, 503, 1, "UNKNOWN", true},
		"500":          {origintest.Status(500), 500, 500, 4, "UNKNOWN", true},
		"503":          {origintest.Status(503), 503, 503, 3, "UNAVAILABLE", true},
		"508":          {origintest.Status(508), 508, 508, 1, "UNKNOWN", true},
		"drop":         {origintest.Drop, 503, 503, 3, "UNAVAILABLE", true},
		"huge headers": {origintest.HugeHeaders(1 << 20), 503, 503, 3, "UNAVAILABLE", true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				if c.fault != nil {
					s.origin.Always("GET /v2/team/*", c.fault)
				}
				start := time.Now()
				_, err := s.client.Blob(s.Context(), app, digest.FromString("none"), 0, -1)
				var e *Error
				if !errors.As(err, &e) {
					s.Fatal(err)
				}
				if e.Status != c.status || e.HTTPStatus() != c.http || e.OCICode() != c.code || e.Unreachable() != c.unreachable {
					s.Errorf("%d %d %s %v: %v", e.Status, e.HTTPStatus(), e.OCICode(), e.Unreachable(), e)
				}
				if errors.Is(err, fs.ErrNotExist) != (c.status == 404) {
					s.Error("fs.ErrNotExist is for 404 only")
				}
				if got := len(s.origin.Requests()); got != c.tries {
					s.Errorf("%d requests", got)
				}
				if took := time.Since(start); took > 2*time.Second {
					s.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestBadNames(t *testing.T) {
	play(t, nil, func(s *stage) {
		d := digest.FromString("x")
		for _, src := range []Source{
			{"registry.test", ""}, {"registry.test", "a/../b"}, {"registry.test", "/a"}, {"registry.test", "a?b"},
			{"registry.test", "a%2fb"}, {"regi stry", "a"}, {"registry.test/x", "a"}, {"", "a"}, {"registry.test:0", "a"},
			{"user@registry.test", "a"}, {"registry.test:99999", "a"}, {"[fe80::1%eth0]:5000", "a"},
		} {
			_, err := s.client.Blob(s.Context(), src, d, 0, -1)
			var e *Error
			if !errors.As(err, &e) || e.Status != 400 || e.Code != CodeNameInvalid {
				s.Errorf("%v: %v", src, err)
			}
		}
		for _, bad := range []digest.Digest{"", "sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../x"} {
			_, err := s.client.Blob(s.Context(), app, bad, 0, -1)
			var e *Error
			if !errors.As(err, &e) || e.Status != 400 || e.Code != CodeDigestInvalid {
				s.Errorf("%q: %v", bad, err)
			}
		}
		s.asked(s.origin)
	})
}
