package p2p

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxBootstrapFile bounds a bootstrap file in bytes.
const maxBootstrapFile = 4 << 20

// bootstrapAddr is an address at which a node may be found. id is empty where
// anybody who answers there is welcome.
type bootstrapAddr struct {
	addr ma.Multiaddr // without /p2p/
	id   peer.ID
}

// source is one entry of Options.Bootstrap.
type source interface {
	kind() string
	// addresses returns what is known now; it may ask the network.
	addresses(ctx context.Context) ([]bootstrapAddr, error)
}

// parseSource reads one entry. The error names the entry and what it should be.
func parseSource(s string, port int, resolver Resolver) (source, error) {
	bad := func(why any) (source, error) {
		return nil, fmt.Errorf("p2p: bootstrap address %q: %v (want a multiaddr like /ip4/192.0.2.1/tcp/5051, dns:NAME[:PORT] or file:PATH)", s, why)
	}
	switch {
	case strings.HasPrefix(s, "dns:"):
		name := strings.TrimPrefix(s, "dns:")
		if host, p, err := net.SplitHostPort(name); err == nil {
			n, err := strconv.ParseUint(p, 10, 16)
			if err != nil || n == 0 {
				return bad("bad port")
			}
			name, port = host, int(n)
		}
		if name == "" || strings.ContainsAny(name, "/: \t") {
			return bad("bad name")
		}
		return &dnsSource{name: name, port: port, resolver: resolver}, nil
	case strings.HasPrefix(s, "file:"):
		path := strings.TrimPrefix(s, "file:")
		if path == "" {
			return bad("no path")
		}
		f := &fileSource{path: path, resolver: resolver}
		// A file that does not exist yet will perhaps be written; one that is
		// there must make sense.
		if _, err := f.addresses(context.Background()); err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("p2p: bootstrap address %q: %w", s, err)
		}
		return f, nil
	case strings.HasPrefix(s, "/"):
		a, err := parseBootstrapAddr(s)
		if err != nil {
			return bad(err)
		}
		return &addrSource{addr: a, resolver: resolver}, nil
	default:
		return bad("unknown kind")
	}
}

func parseBootstrapAddr(s string) (bootstrapAddr, error) {
	m, err := ma.NewMultiaddr(s)
	if err != nil {
		return bootstrapAddr{}, err
	}
	addr, id := peer.SplitAddr(m)
	if addr == nil {
		return bootstrapAddr{}, fmt.Errorf("no transport address")
	}
	if _, err := addr.ValueForProtocol(ma.P_TCP); err != nil {
		return bootstrapAddr{}, fmt.Errorf("no TCP port")
	}
	if id != "" {
		if _, ok := NodeOf(id); !ok {
			return bootstrapAddr{}, fmt.Errorf("peer ID is not that of an Ed25519 key")
		}
	}
	return bootstrapAddr{addr, id}, nil
}

type addrSource struct {
	addr     bootstrapAddr
	resolver Resolver
}

func (s *addrSource) kind() string { return "address" }

func (s *addrSource) addresses(ctx context.Context) ([]bootstrapAddr, error) {
	return resolveAddr(ctx, s.addr, s.resolver)
}

// resolveAddr replaces a name in a multiaddr by its addresses.
func resolveAddr(ctx context.Context, a bootstrapAddr, r Resolver) ([]bootstrapAddr, error) {
	first, rest := ma.SplitFirst(a.addr)
	family := map[int]string{ma.P_DNS: "ip", ma.P_DNS4: "ip4", ma.P_DNS6: "ip6"}[first.Protocol().Code]
	if family == "" {
		return []bootstrapAddr{a}, nil
	}
	ips, err := r.LookupNetIP(ctx, family, first.Value())
	if err != nil {
		return nil, err
	}
	var list []bootstrapAddr
	for _, ip := range ips {
		if m, err := manet.FromIP(ip.Unmap().AsSlice()); err == nil {
			list = append(list, bootstrapAddr{m.Encapsulate(rest), a.id})
		}
	}
	return list, nil
}

type dnsSource struct {
	name     string
	port     int
	resolver Resolver
}

func (s *dnsSource) kind() string { return "dns" }

func (s *dnsSource) addresses(ctx context.Context) ([]bootstrapAddr, error) {
	ips, err := s.resolver.LookupNetIP(ctx, "ip", s.name)
	if err != nil {
		return nil, err
	}
	list := make([]bootstrapAddr, 0, len(ips))
	for _, ip := range ips {
		m, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), uint16(s.port))))
		if err == nil {
			list = append(list, bootstrapAddr{addr: m})
		}
	}
	return list, nil
}

// fileSource is read again when the file's size or time changes.
type fileSource struct {
	path     string
	resolver Resolver

	read    bool
	size    int64
	modTime time.Time
	lines   []bootstrapAddr
	err     error // of the last reading
}

func (s *fileSource) kind() string { return "file" }

func (s *fileSource) addresses(ctx context.Context) ([]bootstrapAddr, error) {
	info, err := os.Stat(s.path)
	if err != nil {
		s.read = false
		return nil, err
	}
	if !s.read || info.Size() != s.size || !info.ModTime().Equal(s.modTime) {
		s.lines, s.err = readBootstrapFile(s.path)
		s.read, s.size, s.modTime = true, info.Size(), info.ModTime()
	}
	if s.err != nil {
		return nil, s.err
	}
	var list []bootstrapAddr
	var failed error
	for _, a := range s.lines {
		addrs, err := resolveAddr(ctx, a, s.resolver)
		if err != nil {
			failed = err
			continue
		}
		list = append(list, addrs...)
	}
	return list, failed
}

func readBootstrapFile(path string) ([]bootstrapAddr, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxBootstrapFile {
		return nil, fmt.Errorf("%s: larger than %d bytes (%w)", path, maxBootstrapFile, err)
	}
	var list []bootstrapAddr
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		a, err := parseBootstrapAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %q: %w", path, n, text, err)
		}
		list = append(list, a)
	}
	return list, lines.Err()
}
