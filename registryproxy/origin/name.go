package origin

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// dockerHub is what everybody calls the registry that is really at
// dockerHubHost and whose credentials are kept under a third name
// (authn.DefaultAuthKey, by way of index.docker.io).
const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"
	dockerHubAuth = "index.docker.io"
)

// Canonical returns the one name of an origin: lower case, without the port of
// https, and docker.io for each of Docker Hub's names. Two names with the same
// canonical form have the same content. It fails with an *Error (400
// NAME_INVALID) when name is not HOST, HOST:PORT or [IPv6]:PORT.
func Canonical(name string) (string, error) {
	bad := &Error{Status: 400, Code: CodeNameInvalid, Message: fmt.Sprintf("%.80q is not the name of a registry", name)}
	if len(name) > 255+6 {
		return "", bad
	}
	host, port := strings.ToLower(name), ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 || p[0] == '+' {
			return "", bad
		}
		host, port = h, strconv.FormatUint(n, 10)
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" {
			return "", bad
		}
		if host = addr.String(); addr.Is6() {
			host = "[" + host + "]"
		}
	} else if !validDNSName(host) {
		return "", bad
	}
	switch host {
	case dockerHubAuth, dockerHubHost:
		host = dockerHub
	}
	if port == "" || port == "443" {
		return host, nil
	}
	return host + ":" + port, nil
}

// validDNSName accepts what a registry's host name can look like. Underscores
// are no part of host names, but of container names, which serve as such.
func validDNSName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// splitName splits a canonical name into a host without brackets and a port.
func splitName(name string) (host, port string) {
	if h, p, err := net.SplitHostPort(name); err == nil {
		return h, p
	}
	return strings.Trim(name, "[]"), "443"
}

// isLoopbackName reports whether a canonical name is of this machine.
func isLoopbackName(name string) bool {
	host, _ := splitName(name)
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
