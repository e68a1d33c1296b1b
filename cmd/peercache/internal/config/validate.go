package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/multiformats/go-multiaddr"
)

// validate checks everything that can be checked without starting anything.
func (c *Config) validate() error {
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.At(flag), err))
		}
	}
	check("listen", HostPort(c.Listen))
	check("admin", HostPort(c.Admin))
	if c.Listen == c.Admin && !strings.HasSuffix(c.Listen, ":0") {
		check("admin", fmt.Errorf("%s is the proxy's address too (%s)", c.Admin, c.At("listen")))
	}
	if c.Data == "" {
		check("data", errors.New("no home directory to put the data in; name a directory"))
	} else if abs, err := filepath.Abs(c.Data); err != nil {
		check("data", err)
	} else {
		c.Data = abs
	}

	if len(c.P2PListen) == 0 {
		check("p2p-listen", errors.New("at least one address is needed"))
	}
	for _, a := range c.P2PListen {
		check("p2p-listen", c.peerListen(a))
	}
	for _, a := range c.P2PAnnounce {
		_, err := tcpMultiaddr(a, true)
		check("p2p-announce", err)
	}
	for _, b := range c.Bootstrap {
		check("bootstrap", bootstrap(b))
	}
	if c.Rack != "" && c.Zone == "" {
		check("rack", errors.New("a rack lies in a zone: name that too, with --zone"))
	}
	for flag, n := range map[string]int64{"limit-upload": c.LimitUpload, "limit-download": c.LimitDownload, "limit-origin": c.LimitOrigin} {
		if n > 0 && n < minRate {
			check(flag, errors.New("must be at least 1mbit (125kB a second), or 0 for no limit"))
		}
	}

	seen := map[string]bool{}
	for _, o := range c.Origins {
		if name := strings.ToLower(o.Name); seen[name] {
			check("origin", fmt.Errorf("%s is given twice", o.Name))
		} else {
			seen[name] = true
		}
		check("origin", originName(o.Name))
		for _, u := range append([]string{o.URL}, o.Mirrors...) {
			check("origin", originURL(o.Name, u))
		}
		if o.CAFile != "" {
			_, err := os.ReadFile(o.CAFile)
			check("origin", err)
		}
	}
	for _, a := range c.AllowOrigins {
		check("allow-origin", originName(strings.TrimPrefix(a, "*.")))
	}
	check("default-origin", originName(c.DefaultOrigin))
	for flag, d := range map[string]int64{
		"origin-first-byte": int64(c.OriginFirstByte), "origin-between-bytes": int64(c.OriginBetweenBytes),
	} {
		if d <= 0 {
			check(flag, errors.New("must be more than 0"))
		}
	}
	for flag, d := range map[string]int64{"tag-lifetime": int64(c.TagLifetime), "max-stale": int64(c.MaxStale)} {
		if d < 0 {
			check(flag, errors.New("must not be negative"))
		}
	}
	if _, set := c.from["max-size"]; set && c.MaxSize < 16<<20 {
		check("max-size", errors.New("must be at least 16MiB"))
	}
	return errors.Join(errs...)
}

// minRate is the lowest limit, in bytes a second: with less, transfers would look
// as if they stood still.
const minRate = 125_000

// HostPort checks that s is HOST:PORT, the port a number.
func HostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: port %q is not a number from 0 to 65535", s, port)
	} else if strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%q: port %q", s, port)
	}
	if strings.ContainsAny(host, "/ @") {
		return fmt.Errorf("%q is not HOST:PORT", s)
	}
	return nil
}

// tcpMultiaddr reads /ip4|ip6/ADDRESS/tcp/PORT, or with names also /dns…/NAME.
func tcpMultiaddr(s string, names bool) (multiaddr.Multiaddr, error) {
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not a multiaddr such as /ip4/127.0.0.1/tcp/5051: %w", s, err)
	}
	var protocols []string
	for _, p := range m.Protocols() {
		protocols = append(protocols, p.Name)
	}
	ok := len(protocols) == 2 && protocols[1] == "tcp"
	if ok {
		switch protocols[0] {
		case "ip4", "ip6":
		case "dns", "dns4", "dns6":
			ok = names
		default:
			ok = false
		}
	}
	if !ok {
		return nil, fmt.Errorf("%q is not of the form /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT", s)
	}
	return m, nil
}

func (c *Config) peerListen(s string) error {
	m, err := tcpMultiaddr(s, false)
	if err != nil {
		return err
	}
	if loopback(m) || c.OpenCluster {
		return nil
	}
	return fmt.Errorf("%s is not a loopback address, and nothing yet decides who may join the cluster: "+
		"whoever reaches it can read every cached image, private ones too, and offer bytes (which are verified). "+
		"If only trusted machines reach it, add --open-cluster", s)
}

// loopback reports whether a multiaddr that [tcpMultiaddr] accepted is.
func loopback(m multiaddr.Multiaddr) bool {
	for _, code := range []int{multiaddr.P_IP4, multiaddr.P_IP6} {
		if v, err := m.ValueForProtocol(code); err == nil {
			ip, err := netip.ParseAddr(v)
			return err == nil && ip.Unmap().IsLoopback()
		}
	}
	return false
}

// bootstrap checks the form of an address where other nodes are.
func bootstrap(s string) error {
	const forms = "a multiaddr such as /ip4/10.0.0.1/tcp/5051/p2p/12D3…, dns:NAME, dns:NAME:PORT, or file:PATH"
	if name, ok := strings.CutPrefix(s, "dns:"); ok {
		if host, port, err := net.SplitHostPort(name); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return fmt.Errorf("bad bootstrap address %q: port %q is not a number from 1 to 65535", s, port)
			}
			name = host
		}
		if !hostname(name) {
			return fmt.Errorf("bad bootstrap address %q: %q is not a DNS name", s, name)
		}
		return nil
	}
	if path, ok := strings.CutPrefix(s, "file:"); ok {
		if path == "" {
			return fmt.Errorf("bad bootstrap address %q: no path", s)
		}
		return nil // it may appear later, and is read again and again
	}
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("bad bootstrap address %q: want %s", s, forms)
	}
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return fmt.Errorf("bad bootstrap address %q: %w; want %s", s, err, forms)
	}
	// The node's ID at the end may be left out: whoever answers there is met.
	transport, _ := multiaddr.SplitFunc(m, func(c multiaddr.Component) bool { return c.Protocol().Code == multiaddr.P_P2P })
	if _, err := tcpMultiaddr(transport.String(), true); err != nil {
		return fmt.Errorf("bad bootstrap address %q: want %s", s, forms)
	}
	return nil
}

// hostname reports whether s has the form of a DNS name (RFC 1123, and
// underscores, which headless services' SRV-like names may hold).
func hostname(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
				return false
			}
		}
	}
	return true
}

// originName checks HOST or HOST:PORT.
func originName(s string) error {
	host := s
	if h, port, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q: port %q is not a number from 1 to 65535", s, port)
		}
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil && !hostname(host) {
		return fmt.Errorf("%q is not HOST or HOST:PORT, as clients name a registry", s)
	}
	return nil
}

func originURL(name, s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%s: %q is not an http or https URL", name, s)
	case u.User != nil:
		return fmt.Errorf("%s: credentials do not belong into the URL; log in with docker login or podman login", name)
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%s: %q has a query or a fragment", name, s)
	}
	return nil
}
