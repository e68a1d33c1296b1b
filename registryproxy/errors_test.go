package registryproxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// foreign is an error of another package that knows nothing of this one's types.
type foreign struct {
	status int
	code   string
	retry  time.Duration
}

func (e foreign) Error() string             { return "origin says no" }
func (e foreign) HTTPStatus() int           { return e.status }
func (e foreign) OCICode() string           { return e.code }
func (e foreign) RetryAfter() time.Duration { return e.retry }

type statusOnly int

func (s statusOnly) Error() string   { return "status only" }
func (s statusOnly) HTTPStatus() int { return int(s) }

func TestFailureOf(t *testing.T) {
	for _, c := range []struct {
		err    error
		ep     endpoint
		status int
		code   string
		retry  time.Duration
	}{
		{fs.ErrNotExist, endpointBlob, 404, "BLOB_UNKNOWN", 0},
		{fmt.Errorf("x: %w", fs.ErrNotExist), endpointManifest, 404, "MANIFEST_UNKNOWN", 0},
		{fs.ErrNotExist, endpointTags, 404, "NAME_UNKNOWN", 0},
		{fs.ErrNotExist, endpointReferrers, 404, "MANIFEST_UNKNOWN", 0},
		{foreign{404, "NAME_UNKNOWN", 0}, endpointManifest, 404, "NAME_UNKNOWN", 0},
		{foreign{404, "SOMETHING", 0}, endpointBlob, 404, "BLOB_UNKNOWN", 0},
		{statusOnly(404), endpointTags, 404, "NAME_UNKNOWN", 0},
		{foreign{401, "DENIED", 0}, endpointBlob, 401, "UNAUTHORIZED", 0},
		{foreign{403, "", 0}, endpointBlob, 403, "DENIED", 0},
		{foreign{429, "", 30 * time.Second}, endpointBlob, 503, "TOOMANYREQUESTS", 30 * time.Second},
		{fmt.Errorf("x: %w", foreign{429, "", 0}), endpointBlob, 503, "TOOMANYREQUESTS", defaultRetry},
		{statusOnly(408), endpointManifest, 503, "TOOMANYREQUESTS", defaultRetry},
		{statusOnly(400), endpointManifest, 400, "UNKNOWN", 0},
		{foreign{400, "MANIFEST_INVALID", 0}, endpointManifest, 400, "MANIFEST_INVALID", 0},
		{foreign{400, "<script>", 0}, endpointManifest, 400, "UNKNOWN", 0},
		{statusOnly(405), endpointManifest, 405, "UNSUPPORTED", 0},
		{statusOnly(418), endpointBlob, 418, "UNKNOWN", 0},
		{statusOnly(500), endpointBlob, 500, "UNKNOWN", 0},
		{statusOnly(502), endpointBlob, 502, "UNAVAILABLE", 0},
		{foreign{503, "", 7 * time.Second}, endpointBlob, 503, "UNAVAILABLE", 7 * time.Second},
		{statusOnly(504), endpointBlob, 504, "UNAVAILABLE", 0},
		{statusOnly(508), endpointBlob, 508, "UNKNOWN", 0},
		{statusOnly(407), endpointBlob, 502, "UNAVAILABLE", 0},
		{statusOnly(302), endpointBlob, 502, "UNAVAILABLE", 0},
		{statusOnly(200), endpointBlob, 502, "UNAVAILABLE", 0},
		{statusOnly(0), endpointBlob, 502, "UNAVAILABLE", 0},
		{statusOnly(999), endpointBlob, 502, "UNAVAILABLE", 0},
		{&RangeError{Size: 5}, endpointBlob, 416, "RANGE_INVALID", 0},
		{&Error{Status: 403, Message: "m"}, endpointBlob, 403, "DENIED", 0},
		{context.DeadlineExceeded, endpointBlob, 504, "UNAVAILABLE", 0},
		{errStalled, endpointBlob, 504, "UNAVAILABLE", 0},
		{errors.New("/var/lib/peercache/secret"), endpointBlob, 500, "UNKNOWN", 0},
	} {
		f := failureOf(c.err, c.ep)
		if f.status != c.status || f.code != c.code || f.retry != c.retry {
			t.Errorf("%v (%T %v) at %s: got %d %s %v, want %d %s %v", c.err, c.err, c.err, c.ep, f.status, f.code, f.retry, c.status, c.code, c.retry)
		}
		if strings.Contains(f.message, "secret") {
			t.Errorf("%v: told the client %q", c.err, f.message)
		}
	}
}

// A Backend's error reaches the client as an OCI error on every route.
func TestErrorResponses(t *testing.T) {
	b := newMemory()
	p := newProxy(t, b, nil)
	routes := map[string]string{
		"/v2/a/manifests/v1":           "MANIFEST_UNKNOWN",
		"/v2/a/manifests/" + sha256:    "MANIFEST_UNKNOWN",
		"/v2/a/blobs/" + sha256:        "BLOB_UNKNOWN",
		"/v2/a/tags/list":              "NAME_UNKNOWN",
		"/v2/a/referrers/" + sha256:    "MANIFEST_UNKNOWN",
		"/v2/x.test/a/blobs/" + sha512: "BLOB_UNKNOWN",
	}
	for target, unknown := range routes {
		wantCode(t, ask(p, "GET", target), 404, unknown)
		if resp := ask(p, "HEAD", target); resp.StatusCode != 404 || bodyOf(t, resp) != "" {
			t.Errorf("HEAD %s: got %d", target, resp.StatusCode)
		}
	}
	set := func(err error) { b.resolveErr, b.statErr, b.openErr = err, err, err }
	for target := range routes {
		set(&Error{Status: 403, Message: "origin x.test is not allowed; to allow it: --origin x.test=https://x.test"})
		resp := ask(p, "GET", target)
		if body := bodyOf(t, resp); resp.StatusCode != 403 || !strings.Contains(body, `"code":"DENIED"`) || !strings.Contains(body, "--origin x.test=") {
			t.Errorf("%s: got %d %s", target, resp.StatusCode, body)
		}
		set(foreign{401, "", 0})
		wantCode(t, ask(p, "GET", target), 401, "UNAUTHORIZED") // and no WWW-Authenticate
		set(foreign{429, "", 1500 * time.Millisecond})
		resp = ask(p, "GET", target)
		wantHeaders(t, resp.Header, "Retry-After: 2")
		wantCode(t, resp, 503, "TOOMANYREQUESTS")
		set(foreign{500, "", 0})
		wantCode(t, ask(p, "GET", target), 500, "UNKNOWN")
		set(errors.New("open /secret: no"))
		resp = ask(p, "GET", target)
		if body := bodyOf(t, resp); resp.StatusCode != 500 || strings.Contains(body, "secret") {
			t.Errorf("%s: got %d %s", target, resp.StatusCode, body)
		}
	}
}

func TestMessagesAreBoundedAndOnOneLine(t *testing.T) {
	f := failureOf(&Error{Status: 502, Message: "a\r\nb\x00" + strings.Repeat("é", 2000)}, endpointBlob)
	if len(f.message) > 1100 || strings.ContainsAny(f.message, "\r\n\x00") || !strings.HasSuffix(f.message, "é...") {
		t.Errorf("got %d bytes: %.20q", len(f.message), f.message)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(newMemory(), &Options{DefaultOrigin: "https://x"}); !errors.Is(err, ErrOrigin) {
		t.Errorf("got %v", err)
	}
	reg := prometheus.NewRegistry()
	if _, err := New(newMemory(), &Options{Registerer: reg}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(newMemory(), &Options{Registerer: reg}); err == nil {
		t.Error("metrics registered twice")
	}
}

func TestPushesAreRefused(t *testing.T) {
	b := newMemory()
	p := newProxy(t, b, nil)
	for _, target := range []string{
		"/v2/", "/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/?mount=" + sha256 + "&from=b", "/v2/a/blobs/uploads/1",
		"/v2/a/manifests/v1", "/v2/a/manifests/" + sha256, "/v2/a/blobs/" + sha256, "/nowhere", "/v2/A/manifests/v1",
	} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
			resp := ask(p, method, target)
			wantHeaders(t, resp.Header, "Allow: GET, HEAD")
			wantCode(t, resp, http.StatusMethodNotAllowed, "UNSUPPORTED")
		}
	}
	if calls := b.took(); calls != "" {
		t.Errorf("backend was asked: %s", calls)
	}
}

func TestLoopIsRefused(t *testing.T) {
	b := newMemory()
	resp := ask(newProxy(t, b, nil), "GET", "/v2/a/blobs/"+sha256, "Via: 1.1 peercache-me")
	wantCode(t, resp, http.StatusLoopDetected, "DENIED")
	if calls := b.took(); calls != "" {
		t.Errorf("backend was asked: %s", calls)
	}
}
