package registryproxy

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

const (
	hex64  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sha256 = "sha256:" + hex64
	sha512 = "sha512:" + hex64 + hex64
)

func TestParseRoute(t *testing.T) {
	for target, want := range map[string]route{
		"/v2/": {endpoint: endpointBase},
		"/v2":  {endpoint: endpointBase},

		// containerd, BuildKit
		"/v2/a/b/manifests/v1?ns=registry.test%3A5000":           {endpoint: endpointManifest, origin: "registry.test:5000", repository: "a/b", tag: "v1", ns: "registry.test:5000"},
		"/v2/a/b/manifests/v1?ns=registry.test:5000":             {endpoint: endpointManifest, origin: "registry.test:5000", repository: "a/b", tag: "v1", ns: "registry.test:5000"},
		"/v2/a/blobs/" + sha256 + "?ns=docker.io":                {endpoint: endpointBlob, origin: "docker.io", repository: "a", digest: sha256, ns: "docker.io"},
		"/v2/a/blobs/" + sha512 + "?ns=Index.Docker.IO":          {endpoint: endpointBlob, origin: "docker.io", repository: "a", digest: sha512, ns: "Index.Docker.IO"},
		"/v2/a/manifests/" + sha256 + "?ns=%5B2001:db8::1%5D:80": {endpoint: endpointManifest, origin: "[2001:db8::1]:80", repository: "a", digest: sha256, ns: "[2001:db8::1]:80"},

		// Podman, CRI-O
		"/v2/registry.test:5000/a/b/manifests/v1": {endpoint: endpointManifest, origin: "registry.test:5000", repository: "a/b", tag: "v1"},
		"/v2/registry.test%3A5000/a/manifests/v1": {endpoint: endpointManifest, origin: "registry.test:5000", repository: "a", tag: "v1"},
		"/v2/ghcr.io/a/blobs/" + sha256:           {endpoint: endpointBlob, origin: "ghcr.io", repository: "a", digest: sha256},
		"/v2/localhost/a/blobs/" + sha256:         {endpoint: endpointBlob, origin: "localhost", repository: "a", digest: sha256},
		"/v2/registry:5000/a/referrers/" + sha256: {endpoint: endpointReferrers, origin: "registry:5000", repository: "a", digest: sha256, params: url.Values{}},
		"/v2/GHCR.io/a/tags/list":                 {endpoint: endpointTags, origin: "ghcr.io", repository: "a", params: url.Values{}},

		// Docker
		"/v2/library/alpine/manifests/latest": {endpoint: endpointManifest, origin: "default.test", repository: "library/alpine", tag: "latest"},
		"/v2/some.name/manifests/latest":      {endpoint: endpointManifest, origin: "default.test", repository: "some.name", tag: "latest"},
		"/v2/localhost/manifests/latest":      {endpoint: endpointManifest, origin: "default.test", repository: "localhost", tag: "latest"},

		// ns wins over what the name looks like.
		"/v2/ghcr.io/a/manifests/v1?ns=quay.io": {endpoint: endpointManifest, origin: "quay.io", repository: "ghcr.io/a", tag: "v1", ns: "quay.io"},

		// Names made of routes' words.
		"/v2/tags/list/tags/list?ns=x.y":      {endpoint: endpointTags, origin: "x.y", repository: "tags/list", ns: "x.y", params: url.Values{}},
		"/v2/manifests/manifests/manifests":   {endpoint: endpointManifest, origin: "default.test", repository: "manifests", tag: "manifests"},
		"/v2/a/blobs/uploads/blobs/" + sha256: {endpoint: endpointBlob, origin: "default.test", repository: "a/blobs/uploads", digest: sha256},

		"/v2/a/blobs/sha256%3A" + hex64: {endpoint: endpointBlob, origin: "default.test", repository: "a", digest: sha256},
		"/v2/a/tags/list?n=10&last=v1&ns=x.y": {endpoint: endpointTags, origin: "x.y", repository: "a", ns: "x.y",
			params: url.Values{"n": {"10"}, "last": {"v1"}}},
		"/v2/a/tags/list?next_page=gAAAAA%3D%3D": {endpoint: endpointTags, origin: "default.test", repository: "a",
			params: url.Values{"next_page": {"gAAAAA=="}}},
		"/v2/a/referrers/" + sha256 + "?artifactType=application%2Fx": {endpoint: endpointReferrers, origin: "default.test", repository: "a", digest: sha256,
			params: url.Values{"artifactType": {"application/x"}}},
		// Parameters of a content request mean nothing.
		"/v2/a/manifests/v1?n=x": {endpoint: endpointManifest, origin: "default.test", repository: "a", tag: "v1"},
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		want.path = u.Path
		got, f := parseRoute(u, "default.test")
		if f != nil {
			t.Errorf("%s: refused: %s", target, f.message)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", target, got, want)
		}
	}
}

func TestParseRouteRefuses(t *testing.T) {
	long := strings.Repeat("a/", 127) + "aa"
	for target, want := range map[string]string{
		"/":                           "404 UNSUPPORTED",
		"/v1/search":                  "404 UNSUPPORTED",
		"/V2/":                        "404 UNSUPPORTED",
		"//v2/":                       "404 UNSUPPORTED",
		"/v2/_catalog":                "404 UNSUPPORTED",
		"/v2/a":                       "404 UNSUPPORTED",
		"/v2/a/":                      "404 UNSUPPORTED",
		"/v2/a/tags":                  "404 UNSUPPORTED",
		"/v2/a/tags/other":            "404 UNSUPPORTED",
		"/v2/a/blobs/uploads/":        "404 UNSUPPORTED",
		"/v2/a/blobs/uploads/1":       "404 UNSUPPORTED",
		"/v2/a/blobs/" + sha256 + "/": "404 UNSUPPORTED",
		"/v2/a/blobs/uploads":         "400 DIGEST_INVALID",

		"/v2/tags/list":                            "400 NAME_INVALID",
		"/v2/manifests/v1":                         "400 NAME_INVALID",
		"/v2//manifests/v1":                        "400 NAME_INVALID",
		"/v2/a//b/manifests/v1":                    "400 NAME_INVALID",
		"/v2/A/manifests/v1":                       "400 NAME_INVALID",
		"/v2/../manifests/v1":                      "400 NAME_INVALID",
		"/v2/../../etc/passwd/manifests/v1":        "400 NAME_INVALID",
		"/v2/a/../../b/manifests/v1":               "400 NAME_INVALID",
		"/v2/a/%2e%2e/b/manifests/v1":              "400 NAME_INVALID",
		"/v2/a/%252e%252e/b/manifests/v1":          "400 NAME_INVALID",
		"/v2/a%2fb/manifests/v1":                   "400 NAME_INVALID",
		"/v2/a%2Fb/manifests/v1":                   "400 NAME_INVALID",
		"/v2/a%5cb/manifests/v1":                   "400 NAME_INVALID",
		"/v2/a%00/manifests/v1":                    "400 NAME_INVALID",
		"/v2/a%0d%0ax/manifests/v1":                "400 NAME_INVALID",
		"/v2/a%20b/manifests/v1":                   "400 NAME_INVALID",
		"/v2/" + long + "/manifests/v1":            "400 NAME_INVALID",
		"/v2/registry:5000/manifests/v1":           "400 NAME_INVALID", // a host and no name
		"/v2/user@ghcr.io/a/manifests/v1":          "400 NAME_INVALID",
		"/v2/registry.test:5000x/a/manifests/v1":   "400 NAME_INVALID",
		"/v2/registry.test:5000/../a/manifests/v1": "400 NAME_INVALID",
		"/v2/registry.test:5000//manifests/v1":     "400 NAME_INVALID",
		"/v2/2130706433.1/a/manifests/v1":          "400 NAME_INVALID",

		"/v2/a/manifests/v1?ns=":                                      "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns":                                       "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=a.b&ns=c.d":                            "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=user:pw@ghcr.io":                       "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=user%40ghcr.io":                        "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=https://ghcr.io":                       "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io/evil":                          "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io%2Fevil":                        "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io%3Fx":                           "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io%23x":                           "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io%20evil":                        "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io+evil":                          "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io%0d%0aHost:x":                   "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=%00":                                   "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=127.1":                                 "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=%zz":                                   "400 NAME_INVALID",
		"/v2/a/manifests/v1?ns=ghcr.io;x=1":                           "400 NAME_INVALID",
		"/v2/registry.test:5000/a/manifests/v1?ns=registry.test:5000": "400 NAME_INVALID",

		"/v2/a/manifests/":                            "404 MANIFEST_UNKNOWN",
		"/v2/a/manifests/.INVALID_MANIFEST_NAME":      "404 MANIFEST_UNKNOWN",
		"/v2/a/manifests/..":                          "404 MANIFEST_UNKNOWN",
		"/v2/a/manifests/a%20b":                       "404 MANIFEST_UNKNOWN",
		"/v2/a/manifests/" + strings.Repeat("a", 129): "404 MANIFEST_UNKNOWN",

		"/v2/a/manifests/sha256:":                  "400 DIGEST_INVALID",
		"/v2/a/manifests/v1:x":                     "400 DIGEST_INVALID",
		"/v2/a/manifests/md5:" + hex64[:32]:        "400 DIGEST_INVALID",
		"/v2/a/manifests/" + sha256 + "%00":        "400 DIGEST_INVALID",
		"/v2/a/blobs/latest":                       "400 DIGEST_INVALID",
		"/v2/a/blobs/":                             "400 DIGEST_INVALID",
		"/v2/a/blobs/sha384:" + hex64 + hex64[:32]: "400 DIGEST_INVALID",
		"/v2/a/blobs/SHA256:" + hex64:              "400 DIGEST_INVALID",
		"/v2/a/blobs/sha256:..%5c..%5cetc":         "400 DIGEST_INVALID",
		"/v2/a/blobs/sha256:..%2f..%2fetc":         "400 NAME_INVALID",
		"/v2/a/referrers/v1":                       "400 DIGEST_INVALID",

		"/v2/a/tags/list?n=x":   "400 PAGINATION_NUMBER_INVALID",
		"/v2/a/tags/list?n=-1":  "400 PAGINATION_NUMBER_INVALID",
		"/v2/a/tags/list?n=":    "400 PAGINATION_NUMBER_INVALID",
		"/v2/a/tags/list?n=1.5": "400 PAGINATION_NUMBER_INVALID",
		"/v2/a/tags/list?last=" + strings.Repeat("x", maxParamBytes): "400 UNSUPPORTED",
		"/v2/a/tags/list?" + strings.Repeat("a=b&", maxParams+1):     "400 UNSUPPORTED",
	} {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatal(err)
		}
		_, f := parseRoute(u, "docker.io")
		got := "accepted"
		if f != nil {
			got = fmt.Sprint(f.status, " ", f.code)
		}
		if got != want {
			t.Errorf("%.90s: got %s, want %s", target, got, want)
		}
	}
}

// Whatever the URL, what is accepted is within the grammar, and nothing in it
// can lead a Backend elsewhere.
func FuzzParseRoute(f *testing.F) {
	for _, s := range []string{
		"/v2/", "/v2/a/manifests/v1?ns=registry.test%3A5000", "/v2/registry.test:5000/a/blobs/" + sha256,
		"/v2/a/tags/list?n=1&last=x", "/v2/a/referrers/" + sha512, "/v2/a%2f..%2fb/manifests/x", "/v2/a/../b/tags/list",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil {
			return
		}
		rt, bad := parseRoute(u, "docker.io")
		if bad != nil {
			if bad.status < 400 || !isCode(bad.code) {
				t.Fatalf("%q: %+v", target, bad)
			}
			return
		}
		if rt.endpoint == endpointBase {
			return
		}
		if origin, err := CanonicalOrigin(rt.origin); err != nil || origin != rt.origin {
			t.Fatalf("%q: origin %q", target, rt.origin)
		}
		if !validName(rt.repository) || strings.Contains(rt.repository, "..") {
			t.Fatalf("%q: repository %q", target, rt.repository)
		}
		if rt.tag != "" && !validTag(rt.tag) {
			t.Fatalf("%q: tag %q", target, rt.tag)
		}
		if rt.digest != "" && rt.digest.Validate() != nil {
			t.Fatalf("%q: digest %q", target, rt.digest)
		}
		if (rt.endpoint == endpointBlob || rt.endpoint == endpointReferrers) && rt.digest == "" ||
			rt.endpoint == endpointManifest && (rt.digest == "") == (rt.tag == "") {
			t.Fatalf("%q: no reference: %+v", target, rt)
		}
		if _, ok := rt.params["ns"]; ok {
			t.Fatalf("%q: ns passed on", target)
		}
	})
}
