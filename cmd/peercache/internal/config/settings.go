package config

import (
	"fmt"
	"log/slog"
	"strings"
)

// setting is one thing that can be configured, under three names.
type setting struct {
	flag string // also PEERCACHE_FLAG
	key  string // in the file; "" for what makes no sense there
	arg  string // what the value is, in help; "" for a switch
	help string
	list bool
	set  func(c *Config, values []string) error
	show func(c *Config) string // the default, in help
}

// env is the name of the setting's environment variable.
func (s *setting) env() string {
	return "PEERCACHE_" + strings.ToUpper(strings.ReplaceAll(s.flag, "-", "_"))
}

func text(field func(*Config) *string) (func(*Config, []string) error, func(*Config) string) {
	return func(c *Config, v []string) error { *field(c) = v[0]; return nil },
		func(c *Config) string { return *field(c) }
}

func list(field func(*Config) *[]string) (func(*Config, []string) error, func(*Config) string) {
	return func(c *Config, v []string) error { *field(c) = v; return nil },
		func(c *Config) string { return strings.Join(*field(c), ",") }
}

func parsed[T any](field func(*Config) *T, parse func(string) (T, error)) (func(*Config, []string) error, func(*Config) string) {
	return func(c *Config, v []string) (err error) { *field(c), err = parse(v[0]); return err },
		func(c *Config) string { return fmt.Sprint(*field(c)) }
}

func oneOf(words ...string) func(string) (string, error) {
	return func(s string) (string, error) {
		for _, w := range words {
			if s == w {
				return s, nil
			}
		}
		return "", fmt.Errorf("%q is none of %s", s, strings.Join(words, ", "))
	}
}

func trimmed(s string) (string, error) { return strings.TrimSpace(s), nil }

func parseLevel(s string) (l slog.Level, err error) {
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return 0, fmt.Errorf("%q is none of debug, info, warn, error", s)
	}
	return l, nil
}

func setOrigins(c *Config, values []string) error {
	c.Origins = nil
	for _, v := range values {
		name, url, ok := strings.Cut(v, "=")
		if !ok || name == "" || url == "" {
			return fmt.Errorf("%q is not NAME=URL, such as registry.test:5000=http://127.0.0.1:5000", v)
		}
		c.Origins = append(c.Origins, Origin{Name: name, URL: url})
	}
	return nil
}

// settings returns every setting, in the order of help.
func settings() []*setting {
	var all []*setting
	add := func(flag, key, arg, help string) func(func(*Config, []string) error, func(*Config) string) *setting {
		return func(set func(*Config, []string) error, show func(*Config) string) *setting {
			s := &setting{flag: flag, key: key, arg: arg, help: help, set: set, show: show}
			all = append(all, s)
			return s
		}
	}
	add("listen", "listen", "HOST:PORT", "address of the proxy, for container runtimes")(
		text(func(c *Config) *string { return &c.Listen }))
	add("admin", "admin", "HOST:PORT", "address of metrics, health and status")(
		text(func(c *Config) *string { return &c.Admin }))
	add("pprof", "pprof", "", "serve /debug/pprof/ on the admin address")(
		parsed(func(c *Config) *bool { return &c.Pprof }, parseBool))
	add("data", "data", "DIR", "directory of the store and of the node's identity")(
		text(func(c *Config) *string { return &c.Data }))

	add("p2p-listen", "p2p.listen", "MULTIADDR", "address for peers; may be repeated; other than loopback only with --open-cluster")(
		list(func(c *Config) *[]string { return &c.P2PListen })).list = true
	add("open-cluster", "p2p.open_cluster", "", "permit --p2p-listen on other addresses than loopback: whoever reaches it joins")(
		parsed(func(c *Config) *bool { return &c.OpenCluster }, parseBool))
	add("p2p-announce", "p2p.announce", "MULTIADDR", "address that peers are told instead of those of --p2p-listen; may be repeated")(
		list(func(c *Config) *[]string { return &c.P2PAnnounce })).list = true
	add("bootstrap", "p2p.bootstrap", "ADDRESS", "where other nodes are: a multiaddr, dns:NAME[:PORT] or file:PATH; may be repeated")(
		list(func(c *Config) *[]string { return &c.Bootstrap })).list = true
	add("mdns", "p2p.mdns", "", "find nodes on the local network by multicast DNS")(
		parsed(func(c *Config) *bool { return &c.MDNS }, parseBool))
	add("announce", "announce", "blobs|groups|chunks", "what is announced on the DHT: whole blobs, groups of chunks of large ones too, or each chunk too")(
		parsed(func(c *Config) *string { return &c.Announce }, oneOf("blobs", "groups", "chunks")))
	add("zone", "zone", "NAME", "where this node is, in words that mean the same on every node: nodes of a zone prefer one another")(
		parsed(func(c *Config) *string { return &c.Zone }, trimmed))
	add("rack", "rack", "NAME", "the rack within --zone: nodes of a rack prefer one another still more")(
		parsed(func(c *Config) *string { return &c.Rack }, trimmed))

	for _, limit := range []struct {
		name, help string
		field      func(*Config) *int64
	}{
		{"upload", "most bytes a second to peers, such as 50MiB or 400mbit; 0 is no limit", func(c *Config) *int64 { return &c.LimitUpload }},
		{"download", "most bytes a second from peers", func(c *Config) *int64 { return &c.LimitDownload }},
		{"origin", "most bytes a second from origins", func(c *Config) *int64 { return &c.LimitOrigin }},
	} {
		add("limit-"+limit.name, "limits."+limit.name, "RATE", limit.help)(
			parsed(func(c *Config) *rate { return (*rate)(limit.field(c)) }, parseRateValue))
	}

	add("origin", "origins.named", "NAME=URL", "a registry: how clients name it, and where it is; may be repeated")(
		setOrigins, func(*Config) string { return "" }).list = true
	add("allow-origin", "origins.allow", "HOST[:PORT]", "a registry that may be contacted although it is private or on another port, or *.DOMAIN; may be repeated")(
		list(func(c *Config) *[]string { return &c.AllowOrigins })).list = true
	add("default-origin", "origins.default", "HOST[:PORT]", "the registry of requests that name none")(
		text(func(c *Config) *string { return &c.DefaultOrigin }))
	add("origin-first-byte", "origins.first_byte", "DURATION", "how long an origin may take until its first byte")(
		parsed(func(c *Config) *duration { return (*duration)(&c.OriginFirstByte) }, parseDurationValue))
	add("origin-between-bytes", "origins.between_bytes", "DURATION", "how long an origin may pause between two bytes")(
		parsed(func(c *Config) *duration { return (*duration)(&c.OriginBetweenBytes) }, parseDurationValue))

	add("max-size", "max_size", "SIZE", "most bytes in the store; unset, the smaller of 50GiB and 20% of the file system")(
		func(c *Config, v []string) (err error) { c.MaxSize, err = ParseSize(v[0]); return err },
		func(*Config) string { return "" })
	add("min-free", "min_free", "PERCENT", "part of the file system that stays free, also when others fill it")(
		func(c *Config, v []string) (err error) { c.MinFree, err = parsePercent(v[0]); return err },
		func(c *Config) string { return fmt.Sprintf("%g%%", 100*c.MinFree) })

	add("verify", "verify", "strict|member", "whose word releases bytes before their blob is proven: the origin's alone, or a member's too")(
		parsed(func(c *Config) *string { return &c.Verify }, oneOf("strict", "member")))
	add("tag-lifetime", "tags.lifetime", "DURATION", "how long the answer to what a tag means is used")(
		parsed(func(c *Config) *duration { return (*duration)(&c.TagLifetime) }, parseDurationValue))
	add("max-stale", "tags.max_stale", "DURATION", "how old such an answer may be while the origin cannot be asked")(
		parsed(func(c *Config) *duration { return (*duration)(&c.MaxStale) }, parseDurationValue))
	add("tags-from-peers", "tags.from_peers", "WHEN", "when peers' answers to what a tag means are used: always, origin-down or never")(
		parsed(func(c *Config) *string { return &c.TagsFromPeers }, oneOf("always", "origin-down", "never")))

	add("log-level", "log.level", "LEVEL", "debug, info, warn or error")(
		func(c *Config, v []string) (err error) { c.LogLevel, err = parseLevel(v[0]); return err },
		func(c *Config) string { return strings.ToLower(c.LogLevel.String()) })
	add("log-format", "log.format", "text|json", "form of the log on stderr")(
		parsed(func(c *Config) *string { return &c.LogFormat }, oneOf("text", "json")))
	add("address-file", "", "PATH", "write the addresses in use to PATH as JSON once the node is up (for scripts that use port 0)")(
		text(func(c *Config) *string { return &c.AddressFile }))
	return all
}
