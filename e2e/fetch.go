//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// reply is what a client got: what arrived of the body, and why no more.
type reply struct {
	status int
	header http.Header
	body   []byte
	err    error         // of the connection or of the body
	first  time.Duration // until the headers
	took   time.Duration // until the end
}

// code is the first OCI error code of the body, or "".
func (r reply) code() string {
	var body struct{ Errors []struct{ Code string } }
	if json.Unmarshal(r.body, &body) != nil || len(body.Errors) == 0 {
		return ""
	}
	return body.Errors[0].Code
}

func (r reply) String() string {
	return fmt.Sprintf("status %d %s, %d bytes, headers after %v, end after %v, error %v",
		r.status, r.code(), len(r.body), r.first.Round(time.Millisecond), r.took.Round(time.Millisecond), r.err)
}

// fetch asks as containerd does: HTTP/1.1, no probe, the origin in ns. Headers
// come in pairs. It doesn't take longer than the limit.
func fetch(t testing.TB, limit time.Duration, method, url string, headers ...string) (r reply) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	begin := time.Now()
	resp, err := client.Do(req)
	r.first = time.Since(begin)
	r.took = r.first
	if err != nil {
		r.err = err
		return r
	}
	defer resp.Body.Close()
	r.status, r.header = resp.StatusCode, resp.Header
	var body bytes.Buffer
	_, r.err = io.Copy(&body, resp.Body)
	r.body, r.took = body.Bytes(), time.Since(begin)
	return r
}

// at returns where the node serves a path of repository, by ns.
func (n *node) at(repository, path string) string {
	return "http://" + n.proxy + "/v2/" + repository + "/" + path + "?ns=" + originName
}

// digestOf returns the digest of data by the algorithm that like uses.
func digestOf(like string, data []byte) string {
	algorithm, _, _ := strings.Cut(like, ":")
	h := sha256.New()
	if algorithm == "sha512" {
		h = sha512.New()
	}
	h.Write(data)
	return algorithm + ":" + hex.EncodeToString(h.Sum(nil))
}

// wantWhole fails the test unless the reply is a whole blob or manifest.
func (r reply) wantWhole(t testing.TB, what, digest string) {
	t.Helper()
	if r.err != nil || r.status != http.StatusOK {
		t.Fatalf("%s: %v: %.300s", what, r, r.body)
	}
	if got := digestOf(digest, r.body); got != digest {
		t.Fatalf("%s: wrong bytes: %v hashing to %s, want %s", what, r, got, digest)
	}
}

// wantNotWrong fails the test if the reply claims to be whole, and isn't.
func (r reply) wantNotWrong(t testing.TB, what, digest string) {
	t.Helper()
	if r.err == nil && r.status == http.StatusOK && digestOf(digest, r.body) != digest {
		t.Fatalf("%s: a whole answer of wrong bytes: %v", what, r)
	}
}
