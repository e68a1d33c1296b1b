package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

// newTransport builds the connections of one circle of trust: one for all
// origins that nobody named, one for those on the allow list, one for each
// configured origin. They are not shared, since an idle connection is used
// again without being dialled, and so without being checked.
func newTransport(o *Options, named bool, roots *x509.CertPool) *http.Transport {
	proxies := &proxySet{choose: o.Proxy}
	t := &http.Transport{
		Proxy:                 proxies.proxy,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   o.TLSHandshake,
		ExpectContinueTimeout: time.Second,
		// Encodings are the client's and the registry's business: bytes must
		// hash to their digest.
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    8,
		MaxIdleConns:           64,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		// Without pings a dead HTTP/2 connection would be used until TCP gives
		// up, which takes a quarter of an hour.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
	}
	if o.DialContext != nil {
		t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, o.Dial)
			defer cancel()
			return o.DialContext(ctx, network, addr)
		}
		return t
	}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := &net.Dialer{Timeout: o.Dial, Resolver: o.Resolver, KeepAlive: 15 * time.Second}
		if !proxies.has(addr) {
			d.ControlContext = func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
				ap, err := netip.ParseAddrPort(resolved)
				if err != nil {
					return fmt.Errorf("address %q: %w", resolved, err)
				}
				return checkAddr(ap.Addr(), named)
			}
		}
		return d.DialContext(ctx, network, addr)
	}
	return t
}

// proxySet remembers the proxies that were chosen, since the operator's proxy
// may well be at a private address.
type proxySet struct {
	choose func(*http.Request) (*url.URL, error)
	addrs  sync.Map // "host:port" of proxies; as many as the operator configured
}

func (p *proxySet) proxy(r *http.Request) (*url.URL, error) {
	u, err := p.choose(r)
	if err != nil || u == nil {
		return u, err
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	p.addrs.Store(net.JoinHostPort(u.Hostname(), port), true)
	return u, nil
}

func (p *proxySet) has(addr string) bool {
	_, ok := p.addrs.Load(addr)
	return ok
}

// readRoots returns the system's certificates and those in the file.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", file)
	}
	return pool, nil
}
