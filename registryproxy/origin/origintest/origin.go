// Package origintest is a scripted registry for tests: it serves blobs,
// manifests and lists as the distribution spec wants it, does what it is told
// to do wrong, and writes down what it was asked.
//
// It is no registry for anything but tests: it keeps everything in memory,
// takes no pushes and knows no uploads.
package origintest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Origin is a registry. It is an http.Handler and safe for concurrent use.
type Origin struct {
	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string]manifest // by "REPOSITORY@REFERENCE"
	rules     []*rule
	log       []string
	sent      int64

	realm      string // of the token server; empty: no tokens
	user, pass string // empty: anonymous will do
	basic      bool
	tokens     map[string]string // valid tokens and their scopes
	issued     int
	tokenLife  int
}

type manifest struct {
	mediaType string
	body      []byte
	digest    digest.Digest
}

type rule struct {
	method, path string
	faults       []Fault
	always       bool
}

// New returns an empty registry.
func New() *Origin {
	return &Origin{
		blobs: make(map[digest.Digest][]byte), manifests: make(map[string]manifest), tokens: make(map[string]string),
	}
}

// Start serves a new registry on loopback until the test is over.
func Start(t testing.TB) (*Origin, *httptest.Server) {
	o := New()
	s := httptest.NewServer(o)
	t.Cleanup(s.Close)
	return o, s
}

// Blob adds a blob to every repository.
func (o *Origin) Blob(data []byte) digest.Digest {
	d := digest.FromBytes(data)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blobs[d] = data
	return d
}

// Blob512 adds a blob under its sha512 digest.
func (o *Origin) Blob512(data []byte) digest.Digest {
	d := digest.SHA512.FromBytes(data)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blobs[d] = data
	return d
}

// Manifest adds a manifest under its digest and tags.
func (o *Origin) Manifest(repository, mediaType string, body []byte, tags ...string) digest.Digest {
	m := manifest{mediaType, body, digest.FromBytes(body)}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ref := range append(tags, m.digest.String()) {
		o.manifests[repository+"@"+ref] = m
	}
	return m.digest
}

// RequireToken makes the registry ask for a Bearer token, which it issues itself
// at /token of the given base URL, to anybody or, if user is not empty, to that
// user. life is the tokens' expires_in in seconds, 0 for none.
func (o *Origin) RequireToken(base, user, pass string, life int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.realm, o.user, o.pass, o.tokenLife = base+"/token", user, pass, life
}

// RequireBasic makes the registry ask for Basic authentication.
func (o *Origin) RequireBasic(user, pass string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.basic, o.user, o.pass = true, user, pass
}

// ExpireTokens makes all tokens issued so far invalid.
func (o *Origin) ExpireTokens() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.tokens)
}

// On makes the next requests that match go wrong, one fault each. A pattern is
// a method and a path, either of which may end in *: "GET /v2/*", "* /token".
// Rules are tried in the order in which they were made.
func (o *Origin) On(pattern string, faults ...Fault) { o.on(pattern, false, faults) }

// Always makes all requests that match go wrong, until Heal.
func (o *Origin) Always(pattern string, fault Fault) { o.on(pattern, true, []Fault{fault}) }

func (o *Origin) on(pattern string, always bool, faults []Fault) {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok {
		panic("origintest: pattern " + pattern)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules = append(o.rules, &rule{method, path, faults, always})
}

// Heal forgets all faults.
func (o *Origin) Heal() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rules = nil
}

// Requests returns what was asked since the last call, in the order in which it
// came: method, path with query, and in brackets the headers that matter.
func (o *Origin) Requests() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	log := o.log
	o.log = nil
	return log
}

// Sent is the number of body bytes of blobs and manifests written so far.
func (o *Origin) Sent() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent
}

// ServeHTTP implements http.Handler.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.log = append(o.log, describe(r))
	var fault Fault
	for _, rule := range o.rules {
		if len(rule.faults) > 0 && match(rule.method, r.Method) && match(rule.path, r.URL.Path) {
			fault = rule.faults[0]
			if !rule.always {
				rule.faults = rule.faults[1:]
			}
			break
		}
	}
	o.mu.Unlock()
	next := http.HandlerFunc(o.serve)
	if fault != nil {
		fault(w, r, next)
		return
	}
	next(w, r)
}

func match(pattern, s string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(s, prefix)
	}
	return pattern == s
}

func describe(r *http.Request) string {
	s := r.Method + " " + r.URL.RequestURI()
	var notes []string
	if v := r.Header.Get("Range"); v != "" {
		notes = append(notes, v)
	}
	if v := r.Header.Get("Authorization"); v != "" {
		if user, _, ok := r.BasicAuth(); ok {
			v = "Basic " + user
		}
		notes = append(notes, v)
	}
	if len(notes) > 0 {
		s += " [" + strings.Join(notes, ", ") + "]"
	}
	return s
}

// serve answers as a good registry does.
func (o *Origin) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		o.serveToken(w, r)
		return
	}
	if !o.authorized(w, r) {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	switch {
	case !ok:
		http.NotFound(w, r)
	case path == "":
		w.WriteHeader(http.StatusOK)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		WriteError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "read-only")
	default:
		o.serveContent(w, r, path)
	}
}

func (o *Origin) serveContent(w http.ResponseWriter, r *http.Request, path string) {
	if repository, rest, ok := strings.Cut(path, "/blobs/"); ok && repository != "" {
		o.mu.Lock()
		data, ok := o.blobs[digest.Digest(rest)]
		o.mu.Unlock()
		if !ok {
			WriteError(w, http.StatusNotFound, "BLOB_UNKNOWN", "no such blob")
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		o.content(w, r, digest.Digest(rest), data)
		return
	}
	if repository, rest, ok := strings.Cut(path, "/manifests/"); ok {
		o.mu.Lock()
		m, ok := o.manifests[repository+"@"+rest]
		o.mu.Unlock()
		if !ok {
			WriteError(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "no such manifest")
			return
		}
		w.Header().Set("Content-Type", m.mediaType)
		o.content(w, r, m.digest, m.body)
		return
	}
	if repository, ok := strings.CutSuffix(path, "/tags/list"); ok {
		o.serveTags(w, r, repository)
		return
	}
	WriteError(w, http.StatusNotFound, "NAME_UNKNOWN", "no such thing")
}

// content serves ranges and HEAD by net/http's own rules.
func (o *Origin) content(w http.ResponseWriter, r *http.Request, d digest.Digest, data []byte) {
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("ETag", `"`+d.String()+`"`)
	http.ServeContent(countingWriter{w, o}, r, "", time.Time{}, bytes.NewReader(data))
}

type countingWriter struct {
	http.ResponseWriter
	o *Origin
}

func (c countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.o.mu.Lock()
	c.o.sent += int64(n)
	c.o.mu.Unlock()
	return n, err
}

func (o *Origin) serveTags(w http.ResponseWriter, r *http.Request, repository string) {
	o.mu.Lock()
	tags := []string{}
	for key := range o.manifests {
		if tag, ok := strings.CutPrefix(key, repository+"@"); ok && !strings.Contains(tag, ":") {
			tags = append(tags, tag)
		}
	}
	o.mu.Unlock()
	slices.Sort(tags)
	if last := r.URL.Query().Get("last"); last != "" {
		tags = slices.DeleteFunc(tags, func(t string) bool { return t <= last })
	}
	if n, err := strconv.Atoi(r.URL.Query().Get("n")); err == nil && n < len(tags) {
		tags = tags[:n]
		w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?last=%s&n=%d>; rel="next"`, repository, tags[n-1], n))
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"name": repository, "tags": tags})
}

// authorized answers 401 with a challenge where that is due.
func (o *Origin) authorized(w http.ResponseWriter, r *http.Request) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	auth := r.Header.Get("Authorization")
	switch {
	case o.basic:
		if auth == "Basic "+base64.StdEncoding.EncodeToString([]byte(o.user+":"+o.pass)) {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="origintest"`)
	case o.realm != "":
		path := strings.TrimPrefix(r.URL.Path, "/v2/")
		scope := "repository:" + path[:max(repositoryEnd(path), 0)] + ":pull"
		if token, ok := strings.CutPrefix(auth, "Bearer "); ok {
			if granted, ok := o.tokens[token]; ok && (granted == scope || path == "") {
				return true
			}
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="origintest",scope=%q`, o.realm, scope))
	default:
		return true
	}
	WriteError(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
	return false
}

func repositoryEnd(path string) int {
	for _, s := range []string{"/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		if i := strings.Index(path, s); i >= 0 {
			return i
		}
	}
	return -1
}

// serveToken speaks both of docker's token protocols.
func (o *Origin) serveToken(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	scope := r.FormValue("scope")
	user, pass, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		user, pass = o.user, r.FormValue("refresh_token")
	}
	if o.user != "" && (user != o.user || pass != o.pass) {
		WriteError(w, http.StatusUnauthorized, "UNAUTHORIZED", "wrong credentials")
		return
	}
	o.issued++
	token := fmt.Sprintf("token-%d", o.issued)
	o.tokens[token] = scope
	answer := map[string]any{"token": token}
	if r.Method == http.MethodPost {
		answer = map[string]any{"access_token": token}
	}
	if o.tokenLife > 0 {
		answer["expires_in"] = o.tokenLife
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// WriteError writes an OCI error body.
func WriteError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": code, "message": message}}})
}
