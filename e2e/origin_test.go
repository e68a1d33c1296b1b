//go:build e2e && linux

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

// abort cuts the connection without an end of the body.
func abort() { panic(http.ErrAbortHandler) }

// partly writes the first n bytes of what the request asks for, as if all were
// to come.
func partly(w http.ResponseWriter, r *http.Request, content []byte, n int) {
	start, end, ranged := rangeOf(r, len(content))
	w.Header().Set("Content-Length", strconv.Itoa(end-start))
	if ranged {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, end-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
	}
	w.Write(content[start:min(start+n, end)])
	http.NewResponseController(w).Flush()
}

// imageManifest returns an OCI manifest of one layer.
func imageManifest(config string, configSize int, layer string, layerSize int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		config, configSize, layer, layerSize)
}

func always(code int) script {
	return func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int) bool {
		w.WriteHeader(code)
		return true
	}
}

// TestBadOrigins: whatever a registry does, the client gets the right bytes or
// an error that makes it fall back, soon, and never bytes that are wrong.
func TestBadOrigins(t *testing.T) {
	blob := contents(300, 20*mib) // more than a stripe
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("signature") != "good" || r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		serveRange(w, r, blob)
	}))
	t.Cleanup(elsewhere.Close) // after the parallel subtests
	_, elsewherePort, _ := strings.Cut(strings.TrimPrefix(elsewhere.URL, "http://"), ":")

	for _, tt := range []struct {
		name   string
		script script
		size   bool   // the node knows the size, from a manifest
		whole  bool   // the client gets the blob
		status int    // otherwise: what it gets, 0 for any error
		code   string // and its code
		limit  time.Duration
	}{
		{name: "nothing wrong", whole: true, limit: 5 * time.Second},
		{name: "resets after every 3 MiB", whole: true, limit: 25 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
				if r.Method != http.MethodGet || content == nil {
					return false
				}
				partly(w, r, content, 3*mib)
				abort()
				return true
			}},
		{name: "resets before the first byte", limit: 30 * time.Second,
			script: func(http.ResponseWriter, *http.Request, []byte, int) bool { abort(); return true }},
		{name: "hangs before the first byte", limit: 30 * time.Second,
			script: func(_ http.ResponseWriter, r *http.Request, _ []byte, _ int) bool { <-r.Context().Done(); return true }},
		{name: "hangs in mid-body", limit: 30 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
				start, _, _ := rangeOf(r, len(content))
				if r.Method != http.MethodGet || content == nil {
					return false
				}
				partly(w, r, content, max(5*mib-start, 0))
				<-r.Context().Done()
				return true
			}},
		{name: "hangs once in mid-body", whole: true, limit: 15 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, n int) bool {
				if r.Method != http.MethodGet || n > 1 {
					return false
				}
				partly(w, r, content, 5*mib)
				<-r.Context().Done()
				return true
			}},
		{name: "sends a wrong byte", limit: 30 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
				wrong := append([]byte(nil), content...)
				if len(wrong) > 0 {
					wrong[len(wrong)/2] ^= 1
				}
				serveRange(w, r, wrong)
				return true
			}},
		{name: "lies about the size", limit: 30 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
				serveRange(w, r, content[:min(len(content), 18*mib)])
				return true
			}},
		{name: "401", status: 401, code: "UNAUTHORIZED", limit: 10 * time.Second, script: always(401)},
		{name: "403", status: 403, code: "DENIED", limit: 10 * time.Second, script: always(403)},
		{name: "404", status: 404, code: "BLOB_UNKNOWN", limit: 10 * time.Second, script: always(404)},
		{name: "429", status: 503, code: "TOOMANYREQUESTS", limit: 30 * time.Second,
			script: func(w http.ResponseWriter, _ *http.Request, _ []byte, _ int) bool {
				w.Header().Set("Retry-After", "60")
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}},
		{name: "500", status: 500, limit: 30 * time.Second, script: always(500)},
		{name: "503 at first", whole: true, limit: 15 * time.Second,
			script: func(w http.ResponseWriter, _ *http.Request, _ []byte, n int) bool {
				if n < 2 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return n < 2
			}},
		{name: "refuses HEAD", whole: true, limit: 10 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, _ []byte, _ int) bool {
				if r.Method == http.MethodHead {
					w.WriteHeader(http.StatusMethodNotAllowed)
				}
				return r.Method == http.MethodHead
			}},
		{name: "ignores Range", whole: true, limit: 10 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
				r.Header.Del("Range")
				serveRange(w, r, content)
				return true
			}},
		{name: "says no length and ignores Range", size: true, whole: true, limit: 15 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
				if len(content) < 1*mib { // the manifest
					return false
				}
				if r.Method == http.MethodGet {
					http.NewResponseController(w).Flush()
					w.Write(content)
				}
				return true
			}},
		{name: "says no length to anybody", limit: 10 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, content []byte, _ int) bool {
				if r.Method == http.MethodGet {
					http.NewResponseController(w).Flush()
					w.Write(content)
				}
				return true
			}},
		{name: "redirects to a signed URL elsewhere", whole: true, limit: 10 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, _ []byte, _ int) bool {
				http.Redirect(w, r, "http://localhost:"+elsewherePort+"/blob?signature=good", http.StatusTemporaryRedirect)
				return true
			}},
		{name: "its signed URLs expire", whole: true, limit: 20 * time.Second,
			script: func(w http.ResponseWriter, r *http.Request, _ []byte, n int) bool {
				signature := "good"
				if n%2 == 1 {
					signature = "expired"
				}
				http.Redirect(w, r, "http://localhost:"+elsewherePort+"/blob?signature="+signature, http.StatusTemporaryRedirect)
				return true
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := startOrigin(t)
			digest := o.add("sha256", blob)
			o.play(tt.script)
			n := startNode(t, o.url(), nil, "--origin-first-byte", "2s", "--origin-between-bytes", "1s",
				"--allow-origin", "localhost:"+elsewherePort)
			if tt.size {
				manifest := o.addManifest("v1", "application/vnd.oci.image.manifest.v1+json", imageManifest(digest, len(blob), digest, len(blob)))
				fetch(t, time.Minute, "GET", n.at("app", "manifests/v1")).wantWhole(t, "the manifest", manifest)
			}
			r := fetch(t, time.Minute, "GET", n.at("app", "blobs/"+digest))
			r.wantNotWrong(t, "the blob", digest)
			switch {
			case tt.whole:
				r.wantWhole(t, "the blob", digest)
			case r.err == nil && r.status == http.StatusOK:
				t.Errorf("success: %v", r)
			case tt.status != 0 && (r.status != tt.status || tt.code != "" && r.code() != tt.code):
				t.Errorf("%v, want %d %s: %s", r, tt.status, tt.code, r.body)
			case r.err == nil && r.code() == "":
				t.Errorf("%v without an OCI error: %s", r, r.body)
			}
			if tt.name == "429" && r.header.Get("Retry-After") == "" {
				t.Errorf("%v without Retry-After", r)
			}
			if r.took > tt.limit {
				t.Errorf("took %v, want %v at most", r.took, tt.limit)
			}
			n.healthy(t)
		})
	}
}

// TestSHA512Layer: the specification allows sha512, so images with it exist.
func TestSHA512Layer(t *testing.T) {
	o := startOrigin(t)
	blob := contents(400, 5*mib)
	layer := o.add("sha512", blob)
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	configDigest := o.add("sha256", config)
	image := o.addManifest("v1", "application/vnd.oci.image.manifest.v1+json", imageManifest(configDigest, len(config), layer, len(blob)))
	one := startNode(t, o.url(), nil)
	two := startNode(t, o.url(), []*node{one})
	for _, n := range []*node{one, two} {
		fetch(t, 20*time.Second, "GET", n.at("app", "manifests/v1")).wantWhole(t, "the manifest", image)
		fetch(t, 20*time.Second, "GET", n.at("app", "blobs/"+layer)).wantWhole(t, "the sha512 layer", layer)
		part := fetch(t, 20*time.Second, "GET", n.at("app", "blobs/"+layer), "Range", "bytes=100-199")
		if part.status != http.StatusPartialContent || string(part.body) != string(blob[100:200]) {
			t.Fatalf("a range of it: %v", part)
		}
		o.srv.Close()
	}
}
