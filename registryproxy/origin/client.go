package origin

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Client asks origins. It is safe for concurrent use. It has no goroutine of
// its own; those that requests start (tokens that several requests wait for,
// probes of hosts that failed) end by themselves or with Close.
type Client struct {
	opts    Options // defaults filled in
	via     string
	metrics *metrics

	// Immutable after New.
	configured map[string]*target
	hub        *target // docker.io, if it is not configured
	fixed      map[string]*host
	allow      *allowList
	public     *http.Transport // of origins that nobody named
	allowed    *http.Transport // of those on the allow list

	hosts   *lru[*host]    // all others, by origin and scheme://host:port
	tokens  *lru[*token]   // see token.go
	refused *lru[struct{}] // origins whose refusal has been logged
	access  *lru[access]   // by repository, changed under mu: see access.go

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	pending map[string]*tokenCall
}

// New returns a client, or an error that names the option that is wrong. It
// starts nothing.
func New(opts *Options) (*Client, error) {
	c := &Client{
		configured: make(map[string]*target), fixed: make(map[string]*host),
		hosts: newLRU[*host](1024), tokens: newLRU[*token](4096), refused: newLRU[struct{}](1024),
		access:  newLRU[access](4096),
		pending: make(map[string]*tokenCall),
	}
	if opts != nil {
		c.opts = *opts
	}
	c.opts.setDefaults()
	for _, b := range []byte(c.opts.Instance) {
		if (b|0x20 < 'a' || b|0x20 > 'z') && (b < '0' || b > '9') && b != '.' && b != '_' && b != '-' {
			return nil, fmt.Errorf("origin: instance %q cannot be sent in a Via header", c.opts.Instance)
		}
	}
	c.via = strings.TrimSuffix("1.1 peercache-"+c.opts.Instance, "-")

	var err error
	if c.allow, err = newAllowList(c.opts.Allow); err != nil {
		return nil, err
	}
	c.public = newTransport(&c.opts, false, nil)
	c.allowed = newTransport(&c.opts, true, nil)
	for _, cfg := range c.opts.Origins {
		t, err := newConfigured(&c.opts, cfg)
		if err != nil {
			return nil, err
		}
		if c.configured[t.name] != nil {
			return nil, fmt.Errorf("origin: %s is configured twice", t.name)
		}
		c.configured[t.name] = t
		c.fix(t)
	}
	if c.configured[dockerHub] == nil {
		if c.hub, err = newUnconfigured(dockerHub, false, c.public); err != nil {
			return nil, err
		}
		c.fix(c.hub)
	}
	if c.metrics, err = newMetrics(c.opts.Registerer, c); err != nil {
		return nil, fmt.Errorf("origin: metrics: %w", err)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func (o *Options) setDefaults() {
	o.FirstByte = cmp.Or(o.FirstByte, 15*time.Second)
	o.Idle = cmp.Or(o.Idle, 5*time.Second)
	o.Dial = cmp.Or(o.Dial, 3*time.Second)
	o.TLSHandshake = cmp.Or(o.TLSHandshake, 5*time.Second)
	o.RetryFor = cmp.Or(o.RetryFor, 5*time.Second)
	o.Stall = cmp.Or(o.Stall, 20*time.Second)
	o.SuspectAfter = cmp.Or(o.SuspectAfter, time.Second)
	o.MaxCooldown = cmp.Or(o.MaxCooldown, 60*time.Second)
	o.MaxStreams = cmp.Or(o.MaxStreams, 16)
	o.UserAgent = cmp.Or(o.UserAgent, "peercache")
	if o.Keychain == nil {
		o.Keychain = authn.DefaultKeychain
	}
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Close ends what is in flight, bodies included, and waits for the client's own
// goroutines. Calling it again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
	c.public.CloseIdleConnections()
	c.allowed.CloseIdleConnections()
	for _, t := range c.configured {
		t.transport.CloseIdleConnections()
	}
	return nil
}

// spawn runs f in a goroutine that Close waits for, unless it is too late.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.wg.Go(f)
	return true
}

// fix keeps the state of a target's endpoints for good.
func (c *Client) fix(t *target) {
	for _, e := range t.endpoints {
		h := newHost(t.name, e.host, c.opts.MaxStreams)
		h.probe = e.url("/v2/", nil)
		c.fixed[t.name+" "+e.host] = h
	}
}

// host returns the state of a host as one target sees it. It is not shared
// between targets, so that an origin cannot talk others out of asking a host.
func (c *Client) host(t *target, u *url.URL) *host {
	key := hostKey(u)
	if h := c.fixed[t.name+" "+key]; h != nil {
		return h
	}
	h, _ := c.hosts.get(t.name+" "+key, func() *host {
		h := newHost(t.name, key, c.opts.MaxStreams)
		h.probe = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: "/"}
		if last := t.endpoints[len(t.endpoints)-1]; last.host == key {
			h.probe = last.url("/v2/", nil)
		}
		return h
	})
	return h
}

// target finds out where an origin is, and whether it may be contacted.
func (c *Client) target(origin string) (*target, error) {
	name, err := Canonical(origin)
	if err != nil {
		return nil, err
	}
	if t := c.configured[name]; t != nil {
		return t, nil
	}
	if name == dockerHub {
		return c.hub, nil
	}
	hostname, _ := splitName(name)
	if why := never(hostname); why != "" {
		return nil, c.denied(name, name, why, "")
	}
	if c.allow.has(name) {
		return newUnconfigured(name, true, c.allowed)
	}
	if why := forbidden(name); why != "" {
		return nil, c.denied(name, name, why, hint(name))
	}
	return newUnconfigured(name, false, c.public)
}

// denied counts a refusal, and logs the first one for each origin.
func (c *Client) denied(origin, host, why, hint string) error {
	c.metrics.refused.Inc()
	if _, found := c.refused.get(origin, func() struct{} { return struct{}{} }); !found {
		c.opts.Logger.Warn("origin may not be contacted", "origin", origin, "host", host, "reason", why, "allow", hint)
	}
	return &DeniedError{Origin: origin, Host: host, Reason: why, Hint: hint}
}

// log logs what happens to origins that the operator knows of, and the rest,
// whose names come from clients, for debugging only.
func (c *Client) log(t *target, msg string, args ...any) {
	level := slog.LevelDebug
	if t.named || t == c.hub {
		level = slog.LevelWarn
	}
	c.opts.Logger.Log(context.Background(), level, msg, args...)
}

// Check reports whether policy allows to contact an origin, from its name
// alone: nil, a *DeniedError, or an *Error (400 NAME_INVALID). What the name
// resolves to is checked when it is dialled.
func (c *Client) Check(origin string) error {
	_, err := c.target(origin)
	return err
}

// Reachable reports whether a question to the origin is likely to be answered
// soon: one of its endpoints is neither suspect nor failed nor resting. Whoever
// has an older answer may give that one if not. It never blocks; asking
// it keeps probes going, so that it turns true again by itself.
func (c *Client) Reachable(origin string) bool {
	t, err := c.target(origin)
	if err != nil {
		return false
	}
	reachable := false
	for _, e := range t.endpoints {
		h := c.host(t, e.base)
		c.probeIfDue(t, h)
		hl, _ := h.health(time.Now())
		reachable = reachable || hl.State == OK && hl.Cooldown == 0
	}
	return reachable
}

// Health returns the state of the hosts of configured origins, of Docker Hub
// once it has been asked, and of those others that do not answer as they
// should; by origin and endpoint.
func (c *Client) Health() []Health {
	now := time.Now()
	var out []Health
	for _, h := range c.fixed {
		if hl, used := h.health(now); used || c.configured[h.origin] != nil {
			out = append(out, hl)
		}
	}
	for _, h := range c.hosts.values() {
		if hl, _ := h.health(now); hl.State != OK || hl.Cooldown > 0 {
			out = append(out, hl)
		}
	}
	slices.SortFunc(out, func(a, b Health) int {
		return cmp.Or(strings.Compare(a.Origin, b.Origin), strings.Compare(a.Endpoint, b.Endpoint))
	})
	return out
}
