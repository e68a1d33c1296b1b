package registryproxy

import (
	"errors"
	"strings"
	"testing"
)

func TestCanonicalOrigin(t *testing.T) {
	for in, want := range map[string]string{
		"docker.io":                 "docker.io",
		"Docker.IO":                 "docker.io",
		"index.docker.io":           "docker.io",
		"registry-1.docker.io":      "docker.io",
		"ghcr.io":                   "ghcr.io",
		"registry.test:5000":        "registry.test:5000",
		"example.com:443":           "example.com:443",
		"localhost":                 "localhost",
		"localhost:5000":            "localhost:5000",
		"registry":                  "registry",
		"127.0.0.1:5000":            "127.0.0.1:5000",
		"10.1.2.3":                  "10.1.2.3",
		"[::1]:5000":                "[::1]:5000",
		"[2001:DB8:0:0::1]":         "[2001:db8::1]",
		"xn--bcher-kva.example":     "xn--bcher-kva.example",
		"1.registry.k8s.io":         "1.registry.k8s.io",
		"123.dkr.ecr.eu-west-1.aws": "123.dkr.ecr.eu-west-1.aws",
		"example.com:65535":         "example.com:65535",

		"":                                 "",
		".":                                "",
		"..":                               "",
		":5000":                            "",
		"ghcr.io.":                         "",
		".ghcr.io":                         "",
		"a..b":                             "",
		"-a.b":                             "",
		"a-.b":                             "",
		"a_b:5000":                         "",
		"ghcr.io:":                         "",
		"ghcr.io:0":                        "",
		"ghcr.io:65536":                    "",
		"ghcr.io:080":                      "",
		"ghcr.io:5000:5000":                "",
		"ghcr.io:http":                     "",
		"https://ghcr.io":                  "",
		"user@ghcr.io":                     "",
		"user:password@ghcr.io":            "",
		"ghcr.io@evil.test":                "",
		"ghcr.io:80@evil.test":             "",
		"ghcr.io/path":                     "",
		"ghcr.io?query":                    "",
		"ghcr.io#fragment":                 "",
		"ghcr.io\\evil.test":               "",
		"ghcr.io evil.test":                "",
		" ghcr.io":                         "",
		"ghcr.io\r\nHost: x":               "",
		"ghcr.io\x00":                      "",
		"gh%63r.io":                        "",
		"bücher.example":                   "",
		"2130706433":                       "",
		"127.1":                            "",
		"0x7f.1":                           "",
		"0x7f000001":                       "",
		"example.0x7f":                     "",
		"0177.0.0.1":                       "",
		"1.2.3.4.5":                        "",
		"999.1.1.1":                        "",
		"::1":                              "",
		"[::1":                             "",
		"::1]":                             "",
		"[::1]5000":                        "",
		"[fe80::1%eth0]:5000":              "",
		"[::ffff:127.0.0.1]:5000":          "",
		"[127.0.0.1]":                      "",
		"[]":                               "",
		"[::1]@evil.test:80":               "",
		strings.Repeat("a", 64) + ".test":  "",
		strings.Repeat("a.", 127) + "test": "",
		"docker.io:443/../../admin":        "",
	} {
		got, err := CanonicalOrigin(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrOrigin) {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}

// The canonical form is a fixed point, and nothing in it can break out of a URL.
func FuzzCanonicalOrigin(f *testing.F) {
	for _, s := range []string{"docker.io", "[::1]:5000", "a@b:1", "0x7f.1", "REGISTRY.test:5000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := CanonicalOrigin(s)
		if err != nil {
			return
		}
		if again, err := CanonicalOrigin(got); again != got || err != nil {
			t.Fatalf("%q: %q, again: %q, %v", s, got, again, err)
		}
		if strings.ContainsAny(got, "/@?#%\\ \t\r\n\"<>") || got != strings.ToLower(got) || len(got) > 260 {
			t.Fatalf("%q: %q", s, got)
		}
	})
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a":                               true,
		"library/alpine":                  true,
		"a/b/c/d/e":                       true,
		"a.b_c__d-e--f/g":                 true,
		"manifests/blobs/tags":            true,
		strings.Repeat("a", 255):          true,
		strings.Repeat("a", 256):          false,
		"":                                false,
		"A":                               false,
		"a/":                              false,
		"/a":                              false,
		"a//b":                            false,
		"a/../b":                          false,
		"..":                              false,
		".":                               false,
		"a/.b":                            false,
		"a___b":                           false,
		"a._b":                            false,
		"a-":                              false,
		"a b":                             false,
		"a\nb":                            false,
		"a\n":                             false,
		"a:b":                             false,
		"ä":                               false,
		"a\\b":                            false,
		"a%2fb":                           false,
		"a?b":                             false,
		"a\x00":                           false,
		strings.Repeat("a/", 127) + "a":   true,
		strings.Repeat("a-", 127) + "a/b": false,
	} {
		if got := validName(name); got != want {
			t.Errorf("%.40q: got %v", name, got)
		}
	}
}

func TestValidTag(t *testing.T) {
	for tag, want := range map[string]bool{
		"latest": true, "v1.2.3": true, "_": true, "A-b_c.9": true, strings.Repeat("a", 128): true,
		"": false, ".a": false, "-a": false, strings.Repeat("a", 129): false, "a b": false, "a/b": false,
		"a:b": false, "ä": false, "a\n": false, "..": false,
	} {
		if got := validTag(tag); got != want {
			t.Errorf("%.40q: got %v", tag, got)
		}
	}
}

func TestParseDigest(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 8)
	for s, want := range map[string]bool{
		"sha256:" + hex[:64]:                  true,
		"sha512:" + hex:                       true,
		"sha256:" + hex[:63]:                  false,
		"sha256:" + hex[:64] + "0":            false,
		"sha512:" + hex[:64]:                  false,
		"sha384:" + hex[:96]:                  false,
		"md5:" + hex[:32]:                     false,
		"SHA256:" + hex[:64]:                  false,
		"sha256:" + strings.ToUpper(hex[:64]): false,
		"sha256:" + hex[:62] + "/x":           false,
		"sha256:" + hex[:63] + "g":            false,
		"sha256:":                             false,
		"sha256":                              false,
		"":                                    false,
		":":                                   false,
		"sha256:../../" + hex[:58]:            false,
		"sha256+b64u:" + hex[:43]:             false,
		" sha256:" + hex[:64]:                 false,
		"sha256:" + hex[:64] + "\n":           false,
	} {
		if d, err := parseDigest(s); (err == nil) != want || want && string(d) != s {
			t.Errorf("%q: got %q, %v", s, d, err)
		}
	}
}
