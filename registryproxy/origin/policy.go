package origin

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// The rules, for the name that a client sends decides where this node connects
// to:
//
//   - Unasked, an origin is a public DNS name on port 443, by https. So are the
//     hosts that it leads to (redirects, token servers), whose addresses may
//     also be written out if they are public.
//   - An origin that the operator named (--origin, origins.allow) is trusted:
//     it, its mirrors, and the hosts that it leads to may be private or
//     loopback and on any port. An on-premises registry redirects to
//     on-premises storage, and whoever runs the registry could as well serve
//     those bytes itself. What is left to a registry gone bad is a GET without
//     credentials whose answer nobody sees unless it hashes to a digest.
//     Plain http is followed only if the origin is plain http itself or
//     PlainHTTP is set.
//   - Link-local addresses and metadata services are never contacted, whoever
//     names them.
//
// Names are checked before anything is sent, addresses when they are dialled
// (dial.go), so that a name that resolves to something else the second time
// gains nothing. Connections are never shared between trusted and other origins.

// addrClass is what kind of place an address is.
type addrClass int

const (
	addrPublic addrClass = iota
	addrPrivate
	addrNever
)

var (
	neverPrefixes = prefixes(
		"0.0.0.0/8",          // "this host": Linux connects it to loopback
		"169.254.0.0/16",     // link-local, with most clouds' metadata services
		"224.0.0.0/4",        // multicast
		"240.0.0.0/4",        // reserved, broadcast
		"100.100.100.200/32", // Alibaba Cloud's metadata service
		"168.63.129.16/32",   // Azure's platform service
		"192.0.0.192/32",     // Oracle Cloud's metadata service
		"::/128",
		"fe80::/10",         // link-local
		"ff00::/8",          // multicast
		"fd00:ec2::254/128", // AWS's metadata service
		"fd20:ce::254/128",  // Google Cloud's metadata service
		"2001::/32",         // Teredo: the real address is obfuscated
	)
	privatePrefixes = prefixes(
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // RFC 1918
		"127.0.0.0/8", "::1/128", // loopback
		"100.64.0.0/10",                                     // carrier-grade NAT, RFC 6598
		"192.0.0.0/24",                                      // IETF protocol assignments
		"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // documentation
		"198.18.0.0/15",                                            // benchmarks, RFC 2544
		"fc00::/7", "fec0::/10", "2001:db8::/32", "64:ff9b:1::/48", // unique local, site-local, documentation, local NAT64
	)
	// embedding prefixes carry an IPv4 address at the byte offset given.
	nat64, sixToFour = netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("2002::/16")
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// classify looks through IPv4 addresses in IPv6 clothing.
func classify(a netip.Addr) addrClass {
	a = a.Unmap().WithZone("")
	if b := a.As16(); nat64.Contains(a) {
		a = netip.AddrFrom4([4]byte(b[12:16]))
	} else if sixToFour.Contains(a) {
		a = netip.AddrFrom4([4]byte(b[2:6]))
	}
	for _, p := range neverPrefixes {
		if p.Contains(a) {
			return addrNever
		}
	}
	for _, p := range privatePrefixes {
		if p.Contains(a) {
			return addrPrivate
		}
	}
	return addrPublic
}

// neverNames are names of metadata services. (Their addresses are refused in
// any case; refusing the names saves the lookup and gives the better message.)
var neverNames = map[string]bool{
	"metadata":                     true,
	"metadata.google.internal":     true,
	"metadata.goog":                true,
	"instance-data":                true,
	"instance-data.ec2.internal":   true,
	"metadata.tencentyun.com":      true,
	"metadata.packet.net":          true,
	"metadata.platformequinix.com": true,
	"rancher-metadata":             true,
}

// privateDomains are top-level domains that public DNS does not serve: RFC 6761,
// RFC 6762, RFC 8375, RFC 9476, ICANN's .internal, and those that RFC 6762
// (appendix G) saw in use.
var privateDomains = map[string]bool{
	"alt": true, "arpa": true, "cluster": true, "corp": true, "example": true, "home": true, "internal": true,
	"intranet": true, "invalid": true, "lan": true, "local": true, "localdomain": true, "localhost": true,
	"onion": true, "private": true, "svc": true, "test": true,
}

// forbidden says why an unnamed origin of this canonical name may not be
// contacted, or returns "".
func forbidden(name string) string {
	host, port := splitName(name)
	if _, err := netip.ParseAddr(host); err == nil {
		return "it is an address, not a public DNS name"
	}
	tld := host[strings.LastIndexByte(host, '.')+1:]
	if tld == host || privateDomains[tld] || tld[0] >= '0' && tld[0] <= '9' {
		return "it is not a public DNS name"
	}
	if port != "443" {
		return "port " + port + " is not 443"
	}
	return ""
}

// never says why nobody may contact a host, or returns "".
func never(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if neverNames[host] {
		return "it is a metadata service"
	}
	if a, err := netip.ParseAddr(host); err == nil && classify(a) == addrNever {
		return "it is a link-local, metadata or reserved address"
	}
	return ""
}

// hint is the exact line that would allow an origin.
func hint(name string) string {
	scheme := "https"
	if isLoopbackName(name) {
		scheme = "http"
	}
	return fmt.Sprintf("--origin %s=%s://%s, or in the configuration file: origins: {allow: [%q]}", name, scheme, name, name)
}

// checkURL says why a target may not be led to u (its own endpoint, a redirect,
// a token server), or returns "". Resolved addresses are checked when dialled.
func (t *target) checkURL(u *url.URL) string {
	host := u.Hostname()
	if host == "" {
		return "it has no host"
	}
	if why := never(host); why != "" {
		return why
	}
	switch u.Scheme {
	case "https":
	case "http":
		if !t.plain {
			return "it is plain http"
		}
	default:
		return "it is neither http nor https"
	}
	if t.named {
		return ""
	}
	if p := u.Port(); p != "" && p != "443" {
		return "port " + p + " is not 443"
	}
	if a, err := netip.ParseAddr(host); err == nil && classify(a) != addrPublic {
		return "it is a private address"
	} else if err != nil && forbidden(strings.TrimSuffix(strings.ToLower(host), ".")) != "" {
		return "it is not a public DNS name"
	}
	return ""
}

// remedy is what would allow u, which checkURL refused.
func (t *target) remedy(u *url.URL) string {
	switch {
	case never(u.Hostname()) != "" || u.Scheme != "http" && u.Scheme != "https":
		return ""
	case t.named:
		return fmt.Sprintf("permit plain http for %s in its configuration", t.name)
	}
	return hint(t.name)
}

// addrError is what the dialler returns for an address that policy forbids.
type addrError struct {
	addr   netip.Addr
	reason string
	named  bool
}

func (e *addrError) Error() string { return fmt.Sprintf("address %s: %s", e.addr, e.reason) }

// checkAddr is asked about each address that is about to be dialled.
func checkAddr(a netip.Addr, named bool) error {
	switch classify(a) {
	case addrNever:
		return &addrError{addr: a, reason: "link-local, metadata and reserved addresses are never contacted", named: true}
	case addrPrivate:
		if !named {
			return &addrError{addr: a, reason: "it is a private address"}
		}
	}
	return nil
}
