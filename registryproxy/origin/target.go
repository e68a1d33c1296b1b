package origin

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// target is an origin as this client sees it: where it is, how far it is
// trusted, and the connections that go with that. It is immutable.
type target struct {
	name      string
	endpoints []*endpoint // mirrors first, the origin itself last
	named     bool        // by the operator; see policy.go
	plain     bool        // plain http may be followed
	transport *http.Transport
}

// endpoint is one registry that serves an origin's content.
type endpoint struct {
	base *url.URL // scheme, host, and a path without trailing slash
	host string   // key of its host state
	// credentials are the names under which the keychain may have them. A
	// mirror is not sent the origin's.
	credentials []string
}

// anonymous is the endpoint without credentials.
func (e *endpoint) anonymous() *endpoint { return &endpoint{base: e.base, host: e.host} }

// hostKey names a host as scheme://host:port.
func hostKey(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}

// url is the address of path (which begins with /v2/) and query.
func (e *endpoint) url(path string, query url.Values) *url.URL {
	u := *e.base
	u.Path += path
	u.RawQuery = query.Encode()
	return &u
}

func newEndpoint(raw string, credentials ...string) (*endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q is no http or https URL", raw)
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.RawPath != "":
		return nil, fmt.Errorf("%q is not of the form SCHEME://HOST[:PORT][/PATH]", raw)
	}
	if why := never(u.Hostname()); why != "" {
		return nil, fmt.Errorf("%q is never contacted: %s", raw, why)
	}
	// A trailing /v2 is what people write who think of the API's address.
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v2")
	return &endpoint{base: u, host: hostKey(u), credentials: append(credentials, u.Host)}, nil
}

// newConfigured builds the target of a configured origin.
func newConfigured(o *Options, cfg Config) (*target, error) {
	name, err := Canonical(cfg.Name)
	if err != nil {
		return nil, err
	}
	host, _ := splitName(name)
	if why := never(host); why != "" {
		return nil, fmt.Errorf("origin: %s is never contacted: %s", name, why)
	}
	t := &target{name: name, named: true, plain: cfg.PlainHTTP}
	for _, m := range cfg.Mirrors {
		e, err := newEndpoint(m)
		if err != nil {
			return nil, fmt.Errorf("origin: mirror of %s: %w", name, err)
		}
		t.endpoints = append(t.endpoints, e)
	}
	raw := cfg.URL
	if raw == "" {
		raw = defaultURL(name)
	}
	e, err := newEndpoint(raw, credentialName(name))
	if err != nil {
		return nil, fmt.Errorf("origin: %s: %w", name, err)
	}
	t.endpoints = append(t.endpoints, e)
	for _, e := range t.endpoints {
		t.plain = t.plain || e.base.Scheme == "http"
	}
	var roots *x509.CertPool
	if roots, err = readRoots(cfg.CAFile); err != nil {
		return nil, fmt.Errorf("origin: certificates for %s: %w", name, err)
	}
	t.transport = newTransport(o, true, roots)
	return t, nil
}

// newUnconfigured builds the target of an origin that is known by name only.
func newUnconfigured(name string, named bool, transport *http.Transport) (*target, error) {
	e, err := newEndpoint(defaultURL(name), credentialName(name))
	if err != nil {
		return nil, err
	}
	return &target{
		name: name, named: named, transport: transport,
		endpoints: []*endpoint{e}, plain: e.base.Scheme == "http",
	}, nil
}

func defaultURL(name string) string {
	switch {
	case name == dockerHub:
		return "https://" + dockerHubHost
	case isLoopbackName(name):
		return "http://" + name
	}
	return "https://" + name
}

func credentialName(name string) string {
	if name == dockerHub {
		return dockerHubAuth
	}
	return name
}

// allowList is the operator's list of further names.
type allowList struct {
	names    map[string]bool
	suffixes []string // ".corp.example"
}

func newAllowList(entries []string) (*allowList, error) {
	l := &allowList{names: make(map[string]bool)}
	for _, s := range entries {
		domain, wild := strings.CutPrefix(s, "*.")
		name, err := Canonical(domain)
		if err != nil {
			return nil, fmt.Errorf("origin: allow: %w", err)
		}
		host, _ := splitName(name)
		if why := never(host); why != "" {
			return nil, fmt.Errorf("origin: allow: %s is never contacted: %s", name, why)
		}
		if wild {
			l.suffixes = append(l.suffixes, "."+name)
		} else {
			l.names[name] = true
		}
	}
	return l, nil
}

func (l *allowList) has(name string) bool {
	if l.names[name] {
		return true
	}
	for _, s := range l.suffixes {
		if strings.HasSuffix(name, s) {
			return true
		}
	}
	return false
}
