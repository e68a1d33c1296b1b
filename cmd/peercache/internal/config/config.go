// Package config is the configuration of a node: which settings there are, how
// flags, environment and file give them values, and which values are sound.
//
// Flags win over the environment, the environment over the file, the file over
// the defaults. Everything is checked before anything starts, all faults are
// reported at once, and each names the place that the value came from. The
// package reads nothing but the file and starts nothing.
package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Config is a node's configuration, complete and checked when it comes from
// [Settings.Load].
type Config struct {
	// Listen and Admin are the HOST:PORT of the proxy and of the admin server.
	// Port 0 lets the system choose.
	Listen, Admin string
	// Pprof adds /debug/pprof/ to the admin server.
	Pprof bool
	// Data is the directory of the store and of the node's identity.
	Data string

	// P2PListen are multiaddrs (/ip4/…/tcp/…) on which peers are served.
	P2PListen []string
	// OpenCluster permits addresses other than loopback in P2PListen: nothing
	// yet decides who may join.
	OpenCluster bool
	// P2PAnnounce are the multiaddrs that peers are told instead of P2PListen.
	P2PAnnounce []string
	// Bootstrap says where other nodes are: multiaddrs, dns:NAME[:PORT],
	// file:PATH.
	Bootstrap []string
	// MDNS looks for nodes on the local network.
	MDNS bool
	// Announce is what of a blob is announced on the DHT: "blobs", "groups" (of
	// chunks of large blobs, too) or "chunks".
	Announce string
	// Zone and Rack say where the node is, in words that mean the same on every
	// node. A rack lies in a zone; empty is unknown.
	Zone, Rack string

	// Origins are the registries that the operator named.
	Origins []Origin
	// AllowOrigins are further registries (HOST, HOST:PORT, *.DOMAIN) that may
	// be contacted although they are private or on another port.
	AllowOrigins []string
	// DefaultOrigin is meant by requests that name none.
	DefaultOrigin string
	// OriginFirstByte and OriginBetweenBytes bound an origin's silence.
	OriginFirstByte, OriginBetweenBytes time.Duration

	// LimitUpload and LimitDownload bound what is sent to and received from peers,
	// LimitOrigin what is read from origins: bytes a second, 0 for no bound.
	LimitUpload, LimitDownload, LimitOrigin int64

	// MaxSize is the store's budget in bytes; 0 is the smaller of 50 GiB and a
	// fifth of the file system.
	MaxSize int64
	// MinFree is the part of the file system that stays free, 0 to 0.99.
	MinFree float64

	// Verify is "strict" or "member".
	Verify string
	// TagLifetime is how long the answer to what a tag means is used. MaxStale
	// is how old it may grow while the origin cannot be asked.
	TagLifetime, MaxStale time.Duration
	// TagsFromPeers says when peers' answers to what a tag means are used:
	// "always", "origin-down" or "never".
	TagsFromPeers string

	// LogLevel and LogFormat ("text" or "json") are for the log on stderr.
	LogLevel  slog.Level
	LogFormat string

	// AddressFile is written with the addresses in use once the node is up;
	// empty for none.
	AddressFile string

	from map[string]string
}

// Origin is a registry that the operator named.
type Origin struct {
	// Name is how clients name it: HOST or HOST:PORT.
	Name string
	// URL is where it is.
	URL string
	// Mirrors are URLs that are asked before URL.
	Mirrors []string
	// CAFile holds further PEM certificates that are trusted for it.
	CAFile string
	// PlainHTTP permits it to lead to plain http although URL is https.
	PlainHTTP bool
}

// Default is the configuration of a node that nobody configured. env looks up
// environment variables.
func Default(env func(string) string) Config {
	return Config{
		Listen:             "127.0.0.1:5050",
		Admin:              "127.0.0.1:5052",
		Data:               defaultData(env),
		P2PListen:          []string{"/ip4/127.0.0.1/tcp/5051"},
		Announce:           "groups",
		DefaultOrigin:      "docker.io",
		OriginFirstByte:    15 * time.Second,
		OriginBetweenBytes: 5 * time.Second,
		MinFree:            0.2,
		Verify:             "strict",
		TagLifetime:        time.Minute,
		MaxStale:           7 * 24 * time.Hour,
		TagsFromPeers:      "always",
		LogLevel:           slog.LevelInfo,
		LogFormat:          "text",
		from:               map[string]string{},
	}
}

// defaultData is /var/lib/peercache for root and the user's data directory (XDG
// Base Directory Specification; ~/Library on macOS) for others.
func defaultData(env func(string) string) string {
	if os.Geteuid() == 0 {
		return "/var/lib/peercache"
	}
	if dir := env("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "peercache")
	}
	home := env("HOME")
	if home == "" {
		return "" // refused by validation, with a message that says what to do
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support", "peercache")
	}
	return filepath.Join(home, ".local", "share", "peercache")
}
