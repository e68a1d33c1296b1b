package registryproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The grammar of names and tags is the distribution specification's, section
// "Pulling manifests". It sets no limit to a name's length; 255 bytes is what
// clients allow for host and name together.
var (
	namePattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

const maxNameLength = 255

func validName(name string) bool { return len(name) <= maxNameLength && namePattern.MatchString(name) }
func validTag(tag string) bool   { return tagPattern.MatchString(tag) }

// parseDigest accepts sha256 and sha512 in the specification's form. go-digest
// alone would also accept sha384, and refuse sha512 in a binary that does not
// link it.
func parseDigest(s string) (digest.Digest, error) {
	algorithm, encoded, ok := strings.Cut(s, ":")
	if !ok {
		return "", errors.New("not of the form algorithm:hex")
	}
	var want int
	switch digest.Algorithm(algorithm) {
	case digest.SHA256:
		want = 64
	case digest.SHA512:
		want = 128
	default:
		return "", fmt.Errorf("algorithm %.32q is not supported (sha256 and sha512 are)", algorithm)
	}
	if len(encoded) != want {
		return "", fmt.Errorf("%s needs %d hexadecimal digits, not %d", algorithm, want, len(encoded))
	}
	for i := range len(encoded) {
		if c := encoded[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", errors.New("not in lower-case hexadecimal")
		}
	}
	return digest.Digest(s), nil
}

// ErrOrigin says that a text does not name a registry.
var ErrOrigin = errors.New("not a registry's host[:port]")

// CanonicalOrigin returns the one form in which a registry's name is compared,
// stored and looked up in configuration: host[:port], in lower case, IPv6
// addresses in brackets and in their shortest form, and Docker Hub's other
// names as docker.io. It fails with [ErrOrigin].
//
// Nothing but a host and a port passes: no scheme, user, path, query, space,
// trailing dot, IPv6 zone or IPv4 address in IPv6 clothes. Nor does a host whose last label is a number and
// that is no dotted IPv4 address (2130706433, 0x7f.1, 127.1), since some
// resolvers take these for addresses, and a policy that looks at names would
// not. A port of 443 stays, since clients take host:443 for another registry
// than host, with credentials of its own.
func CanonicalOrigin(s string) (string, error) {
	host, port, err := splitHostPort(s)
	if err != nil {
		return "", err
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() || addr.Is4In6() || addr.Zone() != "" {
			return "", fmt.Errorf("%w: %.64q", ErrOrigin, s)
		}
		host = "[" + addr.String() + "]"
	} else {
		host = strings.ToLower(host)
		if !validHost(host) {
			return "", fmt.Errorf("%w: %.64q", ErrOrigin, s)
		}
	}
	if port == "" {
		switch host {
		case "index.docker.io", "registry-1.docker.io":
			host = "docker.io"
		}
		return host, nil
	}
	return host + ":" + port, nil
}

// splitHostPort leaves an IPv6 host in its brackets.
func splitHostPort(s string) (host, port string, err error) {
	host = s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
		if !validPort(port) {
			return "", "", fmt.Errorf("%w: port in %.64q", ErrOrigin, s)
		}
	}
	if strings.HasPrefix(host, "[") != strings.HasSuffix(host, "]") {
		return "", "", fmt.Errorf("%w: %.64q", ErrOrigin, s)
	}
	return host, port, nil
}

func validPort(s string) bool {
	if s == "" || len(s) > 5 || s[0] == '0' {
		return false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n <= 65535
}

// validHost checks a lower-case DNS name or dotted IPv4 address.
func validHost(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	var last string
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		addr, err := netip.ParseAddr(host)
		return err == nil && addr.Is4()
	}
	return true
}

// looksLikeHost decides, as docker's reference grammar does, whether the first
// component of a name is a registry.
func looksLikeHost(component string) bool {
	return strings.ContainsAny(component, ".:") || component == "localhost"
}
