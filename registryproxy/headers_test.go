package registryproxy

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func TestNotModified(t *testing.T) {
	const tag = `"` + sha256 + `"`
	for value, want := range map[string]bool{
		tag:                      true,
		"W/" + tag:               true,
		sha256:                   true,
		"*":                      true,
		`"x", ` + tag:            true,
		`"a,b",W/` + tag:         true,
		`"x"` + "\n" + tag:       true, // two header lines
		"":                       false,
		`"x"`:                    false,
		`"` + sha256:             false,
		`"a, ` + sha256 + `, b"`: false,
		"w/" + tag:               false,
		`"` + sha512 + `"`:       false,
	} {
		if got := notModified(http.Header{"If-None-Match": strings.Split(value, "\n")}, sha256); got != want {
			t.Errorf("%q: got %v", value, got)
		}
	}
	if notModified(http.Header{}, sha256) {
		t.Error("no header: not modified")
	}
}

func TestRangeApplies(t *testing.T) {
	for value, want := range map[string]bool{
		`"` + sha256 + `"`:              true,
		`W/"` + sha256 + `"`:            false, // compared strongly
		`"x"`:                           false,
		"Sat, 21 Nov 2026 04:00:00 GMT": false,
		"":                              false,
	} {
		if got := rangeApplies(http.Header{"If-Range": {value}}, sha256); got != want {
			t.Errorf("%q: got %v", value, got)
		}
	}
	if !rangeApplies(http.Header{}, sha256) {
		t.Error("no header: does not apply")
	}
}

func TestAcceptElements(t *testing.T) {
	h := http.Header{"Accept": {"a/b, c/d;q=0.5 ,", `e/f;x="1,2"`, "*/*"}}
	want := []string{"a/b", "c/d;q=0.5", `e/f;x="1,2"`, "*/*"}
	if got := acceptElements(h); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIsLoop(t *testing.T) {
	for value, want := range map[string]bool{
		"1.1 peercache-12D3KooW":                  true,
		"1.1 peercache":                           true,
		"HTTP/1.1 Peercache-x (comment)":          true,
		"1.1 squid, 1.1 peercache-x":              true,
		"1.1 squid\n1.1 peercache-x":              true,
		"1.1 squid":                               false,
		"1.1 notpeercache-x":                      false,
		"1.1 peercaches":                          false,
		"1.1 squid (not a peercache-x)":           false,
		`1.1 squid (", 1.1 peercache-x"), 1.0 fw`: false,
		"peercache-x":                             false,
		"":                                        false,
	} {
		if got := isLoop(http.Header{"Via": strings.Split(value, "\n")}); got != want {
			t.Errorf("%q: got %v", value, got)
		}
	}
}

func TestRewriteLink(t *testing.T) {
	plain := route{endpoint: endpointTags, path: "/v2/a/b/tags/list"}
	withNS := plain
	withNS.ns = "registry.test:5000"
	byPath := route{endpoint: endpointTags, path: "/v2/registry.test:5000/a/b/tags/list"}
	for _, c := range []struct {
		rt         route
		link, want string
	}{
		{plain, `</v2/a/b/tags/list?last=v2&n=2>; rel="next"`, `</v2/a/b/tags/list?last=v2&n=2>; rel="next"`},
		{withNS, `</v2/a/b/tags/list?n=2&last=v2>; rel="next"`, `</v2/a/b/tags/list?last=v2&n=2&ns=registry.test%3A5000>; rel="next"`},
		{byPath, `</v2/a/b/tags/list?n=2&last=v2>; rel="next"`, `</v2/registry.test:5000/a/b/tags/list?last=v2&n=2>; rel="next"`},
		// Whatever host and path the origin gives, the client stays here.
		{withNS, `<https://evil.test/x/y?last=v2>; rel="next"`, `</v2/a/b/tags/list?last=v2&ns=registry.test%3A5000>; rel="next"`},
		{plain, `<//evil.test/?last=v2>; rel="next"`, `</v2/a/b/tags/list?last=v2>; rel="next"`},
		{plain, `<list?last=v2>;rel=next`, `</v2/a/b/tags/list?last=v2>; rel="next"`},
		{plain, `<?next_page=gA%3D%3D>; rel="next"`, `</v2/a/b/tags/list?next_page=gA%3D%3D>; rel="next"`},
		{plain, `<?last=v2>; title="a, b; rel=x"; REL="prev NEXT"`, `</v2/a/b/tags/list?last=v2>; rel="next"`},
		{plain, `<?last=v1>; rel="prev", <?last=v3>; rel="next"`, `</v2/a/b/tags/list?last=v3>; rel="next"`},
		{withNS, `<?last=v2&ns=evil.test>; rel="next"`, `</v2/a/b/tags/list?last=v2&ns=registry.test%3A5000>; rel="next"`},
		{plain, `<?last=a%3E%0d%0aX:b>; rel="next"`, `</v2/a/b/tags/list?last=a%3E%0D%0AX%3Ab>; rel="next"`},

		{plain, "", ""},
		{plain, `</v2/a/b/tags/list>; rel="next"`, ""},
		{plain, `<?ns=x>; rel="next"`, ""},
		{plain, `<?n=x>; rel="next"`, ""},
		{plain, `<?last=%zz>; rel="next"`, ""},
		{plain, `<?last=v2>; rel="prev"`, ""},
		{plain, `<?last=v2>`, ""},
		{plain, `<?last=v2>; rel="prev"; rel="next"`, ""},
		{plain, `?last=v2; rel="next"`, ""},
		{plain, `<?last=v2; rel="next"`, ""},
		{plain, `<?last=` + strings.Repeat("x", maxLink) + `>; rel="next"`, ""},
		{plain, `<?last=` + strings.Repeat("x", maxParamBytes) + `>; rel="next"`, ""},
	} {
		if got := rewriteLink(c.link, c.rt); got != c.want {
			t.Errorf("%.80s: got %s, want %s", c.link, got, c.want)
		}
	}
}

// A rewritten link always leads to the same list through the proxy, and is one
// that the proxy accepts and can rewrite again.
func FuzzRewriteLink(f *testing.F) {
	for _, s := range []string{
		`</v2/a/tags/list?last=v2&n=2>; rel="next"`, `<https://x/y?last=v2>; rel=next`, `<?a>;rel="prev", <?b=%20>; rel="x next"`,
		`<?last="\">; rel="next`, `<//h?ns=1&x=2>;;rel=next`,
	} {
		f.Add(s)
	}
	rt := route{endpoint: endpointTags, path: "/v2/registry.test:5000/a/tags/list"}
	f.Fuzz(func(t *testing.T, link string) {
		got := rewriteLink(link, rt)
		if got == "" {
			return
		}
		target, ok := nextLink(got)
		if !ok || !strings.HasPrefix(target, rt.path+"?") || strings.ContainsAny(got, "\r\n") {
			t.Fatalf("%q: %q", link, got)
		}
		u, err := url.ParseRequestURI(target)
		if err != nil {
			t.Fatalf("%q: %q: %v", link, got, err)
		}
		if again, f := parseRoute(u, "docker.io"); f != nil || again.path != rt.path || again.origin != "registry.test:5000" {
			t.Fatalf("%q: %q: %+v, %v", link, got, again, f)
		}
		if again := rewriteLink(got, rt); again != got {
			t.Fatalf("%q: %q, again %q", link, got, again)
		}
	})
}

func TestDetectMediaType(t *testing.T) {
	const docker2, list = dockerManifest, "application/vnd.docker.distribution.manifest.list.v2+json"
	for body, want := range map[string]string{
		`{"mediaType":"` + ociManifest + `"}`:                         ociManifest,
		` {"schemaVersion":2, "mediaType" : "` + docker2 + `"}`:       docker2,
		`{"mediaType":"` + list + `","manifests":[]}`:                 list,
		`{"mediaType":"application/vnd.example.thing.v1+json"}`:       "application/vnd.example.thing.v1+json",
		`{"schemaVersion":2,"manifests":[{"digest":"x"}]}`:            ociIndex,
		`{"schemaVersion":2,"config":{},"layers":[]}`:                 ociManifest,
		`{"config":{"mediaType":"` + dockerConfig + `"},"layers":[]}`: docker2,
		`{"schemaVersion":1,"fsLayers":[],"signatures":[]}`:           dockerSchema1Signed,
		`{"schemaVersion":1,"fsLayers":[]}`:                           dockerSchema1,

		``:                                      "",
		`null`:                                  "",
		`[]`:                                    "",
		`{}`:                                    "",
		`"x"`:                                   "",
		`{"mediaType":"` + ociManifest + `"} x`: "",
		`{"mediaType":"text/html","manifests":[]}`:        "",
		`{"mediaType":"application/json","manifests":[]}`: "",
		`{"mediaType":"application/x\r\nSet-Cookie: y"}`:  "",
		`{"mediaType":7,"manifests":[]}`:                  "",
		`{"MEDIATYPE":"` + ociManifest + `"}`:             "",
		`{"manifests":[],"config":{},"layers":[]}`:        "", // both
		`{"manifests":[],"layers":[]}`:                    "",
		`{"manifests":{}}`:                                "",
		`{"config":[],"layers":[]}`:                       "",
		`{"schemaVersion":2,"fsLayers":[]}`:               "",
		strings.Repeat("[", 20000):                        "",
	} {
		if got := DetectMediaType([]byte(body)); got != want {
			t.Errorf("%.60s: got %q, want %q", body, got, want)
		}
	}
}

func FuzzDetectMediaType(f *testing.F) {
	for _, s := range []string{`{"mediaType":"application/x"}`, `{"manifests":[]}`, `{"config":{},"layers":[]}`, `{"schemaVersion":1,"fsLayers":[]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := DetectMediaType(body)
		if got != "" && specificMediaType(got) != got || got != DetectMediaType(body) {
			t.Fatalf("%q: %q", body, got)
		}
		name, _, _ := strings.Cut(got, ";")
		if strings.ContainsAny(name, "\r\n\x00<") {
			t.Fatalf("%q: %q", body, got)
		}
	})
}

func ExampleCanonicalOrigin() {
	fmt.Println(CanonicalOrigin("Registry-1.Docker.io"))
	fmt.Println(CanonicalOrigin("Registry.test:5000"))
	// Output:
	// docker.io <nil>
	// registry.test:5000 <nil>
}
