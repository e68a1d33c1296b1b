package origin

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/prometheus/client_golang/prometheus"
)

// Config describes one origin. To name an origin in a Config is to trust it:
// it, and the hosts to which it redirects, may be on private and loopback
// addresses and on any port.
type Config struct {
	// Name is how clients name the origin: HOST or HOST:PORT, as in ?ns=.
	Name string
	// URL is where it really is: http or https, a host, and perhaps a path that
	// goes before /v2/. An http URL permits plain http for this origin. Empty
	// means https://Name, or http://Name where Name is loopback.
	URL string
	// Mirrors are URLs that are asked before URL, in this order. A mirror that
	// does not have the content, or fails, is passed over.
	Mirrors []string
	// CAFile holds PEM certificates that are trusted for this origin besides
	// the system's.
	CAFile string
	// PlainHTTP permits redirects and token servers on plain http although the
	// URL is https.
	PlainHTTP bool
}

// Options are what New can do without. A nil *Options, and each zero field,
// means the default.
type Options struct {
	// Origins are the configured origins. Others are contacted at
	// https://NAME if policy allows.
	Origins []Config
	// Allow names further origins (HOST, HOST:PORT or *.DOMAIN) that may be
	// contacted although they are private, on another port or no public DNS
	// name. They are trusted as those in Origins are. Plain http is used for
	// loopback only.
	Allow []string

	// Keychain gives credentials. Default: authn.DefaultKeychain, which reads
	// docker's config.json (or Podman's auth.json) and runs its helpers.
	Keychain authn.Keychain

	// FirstByte is how long the origin may take until its response headers, and
	// from then to the first byte. Default 15 s.
	FirstByte time.Duration
	// Idle is how long it may pause between two bytes of a body. Default 5 s.
	Idle time.Duration
	// Dial is how long resolving and connecting may take. Default 3 s.
	Dial time.Duration
	// TLSHandshake is how long the handshake may take. Default 5 s.
	TLSHandshake time.Duration
	// RetryFor bounds retries: no attempt starts later than this after the
	// first did. Default 5 s, so that the proxy's client can still fall back.
	RetryFor time.Duration
	// Stall is how long a body may be without a byte, attempts to resume it
	// included, before Read gives up. Default 20 s.
	Stall time.Duration
	// SuspectAfter is the silence after which an origin counts as suspect, so
	// that whoever has an older answer need not wait. Default 1 s.
	SuspectAfter time.Duration
	// MaxCooldown caps how long an origin can silence this node by Retry-After.
	// Default 60 s.
	MaxCooldown time.Duration

	// MaxStreams is the number of blob bodies read at once from a host. Default
	// 16. Other requests have connections of their own.
	MaxStreams int

	// Instance is this node's name in the Via header, by which a proxy notices
	// that a request comes round in a circle: letters, digits, '.', '_' and
	// '-'. The header is "Via: 1.1 peercache-INSTANCE". Default: the header is
	// "Via: 1.1 peercache".
	Instance string
	// UserAgent is sent with every request. Default "peercache".
	UserAgent string

	// Proxy chooses an HTTP proxy. Default http.ProxyFromEnvironment. Behind a
	// proxy it is the proxy that resolves names: addresses are then checked
	// only where they are written out.
	Proxy func(*http.Request) (*url.URL, error)
	// Resolver resolves names. Default net.DefaultResolver.
	Resolver *net.Resolver

	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer for metrics. Default: none.
	Registerer prometheus.Registerer

	// DialContext replaces net.Dialer, and with it the check of resolved
	// addresses. It is there for networks that are simulated.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}
