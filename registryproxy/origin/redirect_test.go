package origin

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/peercache/peercache/registryproxy/origin/origintest"
)

// signedStorage makes registry.test redirect blobs to storage.test by URLs with
// a signature that can be used uses times, and makes that refuse any
// Authorization. It returns how many URLs were signed.
func signedStorage(s *stage, uses int) (signed *int) {
	signed = new(int)
	left := map[string]int{}
	s.origin.Always("* /v2/team/app/blobs/*", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		*signed++
		sig := fmt.Sprint("sig", *signed)
		left[sig] = uses
		origintest.Redirect(307, "http://storage.test"+r.URL.Path+"?"+sig)(w, r, nil)
	})
	s.storage.Always("* /v2/*", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		switch {
		case r.Header.Get("Authorization") != "":
			origintest.WriteError(w, 400, "X", "only one authentication mechanism allowed")
		case left[r.URL.RawQuery] == 0:
			origintest.WriteError(w, 403, "X", "the signature has expired")
		default:
			left[r.URL.RawQuery]--
			if r.URL.RawQuery == "sig1" {
				next = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					origintest.Reset(1000)(w, r, storageOf(s))
				})
			}
			next.ServeHTTP(w, r)
		}
	})
	return signed
}

// storageOf serves storage.test's blobs without its faults.
func storageOf(s *stage) http.Handler {
	o := origintest.New()
	data, _ := s.blob(100_000)
	o.Blob(data)
	return o
}

// Authorization goes to the registry and not to where it redirects, Range goes
// to both, and a body that breaks off is continued with a URL signed anew.
func TestRedirect(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(100_000)
		signedStorage(s, 1)
		b := s.wantBytes(d, 100, -1, data[100:])
		if !b.Ranged || b.Size != 100_000 {
			s.Errorf("ranged %v, size %d", b.Ranged, b.Size)
		}
		s.asked(s.origin, "GET B [bytes=100-]", "GET B [bytes=1100-99999]")
		s.asked(s.storage, "GET B?sig1 [bytes=100-]", "GET B?sig2 [bytes=1100-99999]")
	})
}

func TestRedirectWithToken(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(1000)
		s.origin.RequireToken("http://registry.test", "", "", 60)
		s.origin.On("GET /v2/*", origintest.None)
		s.origin.Always("GET /v2/*", origintest.Redirect(302, "http://storage.test*"))
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, "GET B", tokenURL, "GET B [Bearer token-1]")
		s.asked(s.storage, "GET B")
	})
}

// A signature that the storage refuses is asked for again at the registry.
func TestExpiredSignature(t *testing.T) {
	play(t, nil, func(s *stage) {
		data, d := s.blob(1000)
		s.origin.Always("GET /v2/*", origintest.Redirect(307, "http://storage.test*"))
		s.storage.On("GET *", origintest.Status(403))
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, "GET B", "GET B")
	})
}

// A URL that is signed for GET is refused for HEAD: that is no answer about
// the blob.
func TestSizeOfSigned(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(1000)
		s.origin.Always("* /v2/*", origintest.Redirect(307, "http://storage.test*"))
		s.storage.Always("HEAD *", origintest.Status(403))
		if n, err := s.client.Size(s.Context(), app, d); n != 1000 || err != nil {
			s.Errorf("%d, %v", n, err)
		}
		s.asked(s.origin, "HEAD B", "GET B [bytes=0-0]")
	})
}

// Within the registry's own host the token goes along; a backend elsewhere that
// challenges gets an anonymous one, and never the registry's.
func TestRedirectWithinAndToBackend(t *testing.T) {
	play(t, func(o *Options) { o.Keychain = keychain{"registry.test": {Username: "u", Password: "p"}} }, func(s *stage) {
		data, d := s.blob(1000)
		s.origin.RequireToken("http://registry.test", "u", "p", 60)
		s.storage.RequireToken("http://storage.test", "", "", 60)
		s.origin.On("GET /v2/*", origintest.None, origintest.Redirect(307, "/v2/team/app/blobs/"+d.String()+"?again"),
			origintest.Redirect(307, "http://storage.test/v2/team/app/blobs/"+d.String()))
		s.wantBytes(d, 0, -1, data)
		s.asked(s.origin, "GET B", tokenURL+" [Basic u]", "GET B [Bearer token-1]", "GET B?again [Bearer token-1]")
		s.asked(s.storage, "GET B", tokenURL, "GET B [Bearer token-1]")
	})
}

func TestRedirectLoops(t *testing.T) {
	for name, c := range map[string]struct {
		to   string
		want string
		n    int
	}{
		"circle":      {"http://registry.test*", "in a circle", 1},
		"long":        {"http://registry.test*x", "more than 5", 6},
		"malformed":   {"http://registry.test:x/", "malformed", 1},
		"no http":     {"ftp://storage.test/x", "neither http", 1},
		"link-local":  {"http://169.254.169.254/latest/meta-data", "never", 1},
		"metadata":    {"http://metadata.google.internal/", "metadata", 1},
		"unspecified": {"http://0.0.0.0/", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, nil, func(s *stage) {
				_, d := s.blob(10)
				s.origin.Always("GET *", origintest.Redirect(307, c.to))
				_, err := s.client.Blob(s.Context(), app, d, 0, -1)
				var e *Error
				var denied *DeniedError
				if !(errors.As(err, &e) && e.Status == 502 || errors.As(err, &denied) && denied.Hint == "") {
					s.Errorf("%v", err)
				}
				if err != nil && name != "link-local" && !strings.Contains(err.Error(), c.want) {
					s.Errorf("%v", err)
				}
				if got := len(s.origin.Requests()); got != c.n {
					s.Errorf("%d requests", got)
				}
			})
		})
	}
}

// The signature in a URL is a secret: no error shows it.
func TestSignatureIsNotShown(t *testing.T) {
	play(t, nil, func(s *stage) {
		_, d := s.blob(10)
		s.origin.Always("GET *", origintest.Redirect(307, "http://storage.test*?secret"))
		for _, fault := range []origintest.Fault{origintest.Drop, origintest.Status(404), origintest.Status(500), origintest.Redirect(307, "ftp://x/?secret")} {
			s.storage.Heal()
			s.storage.Always("GET *", fault)
			if _, err := s.client.Blob(s.Context(), app, d, 0, -1); err == nil || strings.Contains(err.Error(), "secret") {
				s.Errorf("%v", err)
			}
		}
	})
}
