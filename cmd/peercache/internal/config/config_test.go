package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// load does what a command does with its arguments, environment and file.
func load(t *testing.T, file string, env map[string]string, args ...string) (*Config, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s := New(flags, func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		return map[string]string{"HOME": "/home/somebody"}[name]
	})
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return s.Load()
}

func TestDefaultsAreSound(t *testing.T) {
	c, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:5050" || c.Admin != "127.0.0.1:5052" || c.P2PListen[0] != "/ip4/127.0.0.1/tcp/5051" ||
		c.Verify != "strict" || c.MaxSize != 0 || c.DefaultOrigin != "docker.io" || c.TagLifetime != time.Minute {
		t.Errorf("defaults: %+v", c)
	}
}

// The same settings are given by the file, the environment and flags, one after
// the other: the stronger always wins, and is named as the place it came from.
func TestPrecedence(t *testing.T) {
	const file = "listen: 127.0.0.1:1\nadmin: 127.0.0.1:2\nmax_size: 1GiB\n" +
		"p2p:\n  bootstrap: [dns:file.test, dns:file2.test]\n  open_cluster: true\norigins:\n  named:\n    file.test: https://file.test\n"
	env := map[string]string{
		"PEERCACHE_LISTEN": "127.0.0.1:11", "PEERCACHE_BOOTSTRAP": "dns:env.test, dns:env2.test",
		"PEERCACHE_ORIGIN":       "env.test=https://env.test,b.test:5000=http://10.0.0.1:5000",
		"PEERCACHE_OPEN_CLUSTER": "false", "PEERCACHE_PORT": "tcp://10.0.0.1:80", // Kubernetes' own, left alone
	}
	c, err := load(t, file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:1" || c.MaxSize != 1<<30 || len(c.Bootstrap) != 2 || !c.OpenCluster || c.Origins[0].URL != "https://file.test" {
		t.Errorf("file: %+v", c)
	}
	if !strings.HasSuffix(c.At("listen"), "node.yaml:1: listen") || !strings.HasSuffix(c.At("bootstrap"), ":5: p2p.bootstrap") {
		t.Errorf("places in the file: %q, %q", c.At("listen"), c.At("bootstrap"))
	}
	if c, err = load(t, file, env); err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:11" || c.Admin != "127.0.0.1:2" || c.OpenCluster || len(c.Origins) != 2 ||
		!reflect.DeepEqual(c.Bootstrap, []string{"dns:env.test", "dns:env2.test"}) || c.At("listen") != "PEERCACHE_LISTEN" {
		t.Errorf("environment over file: %+v", c)
	}
	c, err = load(t, file, env, "--listen", "127.0.0.1:111", "--bootstrap", "dns:flag.test", "--open-cluster")
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:111" || !c.OpenCluster || !reflect.DeepEqual(c.Bootstrap, []string{"dns:flag.test"}) ||
		c.At("listen") != "--listen" || c.At("verify") != "--verify" {
		t.Errorf("flags over environment: %+v", c)
	}
	path := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(path, []byte("verify: member"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = load(t, "", map[string]string{"PEERCACHE_CONFIG": path}); err != nil || c.Verify != "member" {
		t.Errorf("PEERCACHE_CONFIG: %+v, %v", c, err)
	}
}

// The example in the help is what it says: each setting at its default.
func TestExampleIsTheDefaults(t *testing.T) {
	def, err := load(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := load(t, strings.Replace(Example(), "/var/lib/peercache", def.Data, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []Origin{
		{Name: "registry.test:5000", URL: "http://127.0.0.1:5000"},
		{Name: "registry.example.com", URL: "https://10.0.0.5", Mirrors: []string{"https://10.0.0.6"}},
	}
	if !reflect.DeepEqual(c.Origins, want) {
		t.Errorf("origins: %+v", c.Origins)
	}
	for _, set := range settings() {
		if set.key == "" || set.key == "origins.named" {
			continue
		}
		if _, ok := c.from[set.flag]; !ok {
			t.Errorf("the example lacks %s", set.key)
		}
		if got, want := set.show(c), set.show(def); got != want {
			t.Errorf("%s is %q in the example, %q by default", set.key, got, want)
		}
	}
}

func TestFileIsStrict(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"listen: 127.0.0.1:1\nlisen: 127.0.0.1:1\n", `node.yaml:2: unknown key "lisen"; perhaps "listen" is meant`},
		{"p2p:\n\n  open-cluster: true\n", `:3: unknown key "p2p.open-cluster"; perhaps "p2p.open_cluster" is meant`},
		{"bootstrap: [a]\n", `:1: unknown key "bootstrap"; perhaps "p2p.bootstrap" is meant`},
		{"zebra: 1\n", `:1: unknown key "zebra"`},
		{"origins:\n  named:\n    a.test:\n      url: http://a.test\n      ca: x\n", `:5: unknown key "origins.named.a.test.ca"`},
		{"listen: 127.0.0.1:1\nlisten: 127.0.0.1:2\n", "listen"},
		{"listen: [127.0.0.1:1]\n", ":1: listen must be a single value"},
		{"max_size: {a: 1}\n", ":1: max_size must be a single value"},
		{"p2p: 3\n", ":1: p2p must hold keys and values"},
		{"p2p:\n  listen: [[a]]\n", ":2: p2p.listen must be a single value"},
		{"max_size: lots\n", `:1: max_size: "lots" is not a size`},
		{"a: [\n", ":1: "},
		{"- listen\n", ":1: the file must hold keys and values"},
		{"listen: a:1\n---\nadmin: a:2\n", "more than one YAML document"},
		{"origins:\n  named:\n    a.test: {url: http://a.test, plain_http: maybe}\n", `plain_http: "maybe" is neither true nor false`},
		{"announce: [blobs, chunks]\n", ":1: announce must be a single value"},
		{"announce: everything\n", `:1: announce: "everything" is none of blobs, groups, chunks`},
		{"\nrack: r1\n", ":2: rack: a rack lies in a zone"},
		{"limits:\n  upload: 50MiB\n  downloads: 1\n", `:3: unknown key "limits.downloads"`},
		{"limits:\n  origin: 5 apples\n", `:2: limits.origin: "5 apples" is not a rate`},
		{"limits:\n  origin: 1kbit\n", ":2: limits.origin: must be at least 1mbit"},
		{"tags:\n  from-peers: never\n", `:2: unknown key "tags.from-peers"; perhaps "tags.from_peers" is meant`},
		{"listen: 127.0.0.1:x\n", `:1: listen: "127.0.0.1:x": port "x" is not a number`},
	} {
		if _, err := load(t, test.file, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q:\n got  %v\n want …%s…", test.file, err, test.want)
		}
	}
	for _, file := range []string{"# nothing\n", "listen:\n", "p2p:\n", "{}", "max_size: 1073741824", "p2p: {bootstrap: dns:one.test}"} {
		if _, err := load(t, file, nil); err != nil {
			t.Errorf("%q: %v", file, err)
		}
	}
	if _, err := load(t, "", nil, "--config", "/dev/zero"); err == nil {
		t.Error("/dev/zero taken for a configuration file")
	}
}

func TestValidation(t *testing.T) {
	for _, test := range []struct {
		flag, value, want string // want "": sound
	}{
		{"listen", "localhost:0", ""},
		{"listen", "[::1]:5050", ""},
		{"listen", "5050", "is not HOST:PORT"},
		{"listen", "127.0.0.1:65536", "from 0 to 65535"},
		{"admin", "127.0.0.1:http", "port"},
		{"admin", "127.0.0.1:5050", "is the proxy's address too"},
		{"p2p-listen", "/ip4/127.0.0.1/tcp/0", ""},
		{"p2p-listen", "/ip6/::1/tcp/5051", ""},
		{"p2p-listen", "/ip4/0.0.0.0/tcp/5051", "add --open-cluster"},
		{"p2p-listen", "/ip4/10.0.0.1/tcp/5051", "nothing yet decides who may join"},
		{"p2p-listen", "/ip4/127.0.0.1/udp/5051/quic-v1", "is not of the form"},
		{"p2p-listen", "/dns4/localhost/tcp/5051", "is not of the form"},
		{"p2p-listen", "127.0.0.1:5051", "is not a multiaddr"},
		{"p2p-announce", "/dns4/node.test/tcp/5051", ""},
		{"p2p-announce", "/ip4/1.2.3.4", "is not of the form"},
		{"announce", "blobs", ""},
		{"announce", "groups", ""},
		{"announce", "chunks", ""},
		{"announce", "/ip4/1.2.3.4/tcp/5051", "is none of blobs, groups, chunks"},
		{"zone", "eu-west-1a", ""},
		{"rack", "r12", "a rack lies in a zone"},
		{"rack", " ", ""},
		{"limit-upload", "50MiB", ""},
		{"limit-upload", "", ""},
		{"limit-upload", "0", ""},
		{"limit-upload", "fast", "is not a rate"},
		{"limit-download", "400mbit", ""},
		{"limit-download", "1mbit", ""},
		{"limit-download", "1kbit", "at least 1mbit"},
		{"limit-origin", "1gbit", ""},
		{"limit-origin", "-1mbit", "is not a rate"},
		{"tags-from-peers", "origin-down", ""},
		{"tags-from-peers", "sometimes", "is none of always, origin-down, never"},
		{"bootstrap", "/ip4/10.0.0.1/tcp/5051/p2p/12D3KooWLo964DbdK4pGJmBqgpfWVahnjUv6M4YUkF3wLfWL5GTj", ""},
		{"bootstrap", "/ip4/10.0.0.1/tcp/5051", ""},
		{"bootstrap", "/dns/node.test/tcp/5051", ""},
		{"bootstrap", "dns:peers.test", ""},
		{"bootstrap", "dns:_p2p.peers.svc.cluster.local.:5051", ""},
		{"bootstrap", "file:/does/not/exist/yet", ""},
		{"bootstrap", "10.0.0.1:5051", "bad bootstrap address"},
		{"bootstrap", "/ip4/10.0.0.1/tcp/5051/p2p/nobody", "bad bootstrap address"},
		{"bootstrap", "/ip4/10.0.0.1/udp/5051/quic-v1", "bad bootstrap address"},
		{"bootstrap", "dns:", "is not a DNS name"},
		{"bootstrap", "dns:a b", "is not a DNS name"},
		{"bootstrap", "dns:a.test:0", "from 1 to 65535"},
		{"bootstrap", "file:", "no path"},
		{"origin", "registry.test:5000=http://127.0.0.1:5000", ""},
		{"origin", "registry.test", "is not NAME=URL"},
		{"origin", "registry.test=ftp://x", "is not an http or https URL"},
		{"origin", "registry.test=https://user:pass@x", "docker login"},
		{"origin", "a/b=https://x", "is not HOST or HOST:PORT"},
		{"allow-origin", "*.corp.test", ""},
		{"allow-origin", "10.0.0.5:5000", ""},
		{"allow-origin", "a.test/b", "is not HOST or HOST:PORT"},
		{"default-origin", "ghcr.io", ""},
		{"default-origin", "", "is not HOST or HOST:PORT"},
		{"max-size", "64MiB", ""},
		{"max-size", "1MiB", "at least 16MiB"},
		{"max-size", "0", "at least 16MiB"},
		{"max-size", "-3GiB", "is not a size"},
		{"min-free", "100%", "is not a percentage"},
		{"min-free", "0", ""},
		{"verify", "lax", "is none of strict, member"},
		{"tag-lifetime", "0s", ""},
		{"tag-lifetime", "-1s", "must not be negative"},
		{"tag-lifetime", "5", "is not a duration"},
		{"origin-first-byte", "0s", "must be more than 0"},
		{"log-level", "loud", "is none of debug"},
		{"log-level", "debug", ""},
		{"log-format", "xml", "is none of text, json"},
		{"open-cluster", "perhaps", "is neither true nor false"},
	} {
		_, err := load(t, "", nil, "--"+test.flag+"="+test.value)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("--%s %s: %v", test.flag, test.value, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "--"+test.flag)):
			t.Errorf("--%s %s:\n got  %v\n want …%s…", test.flag, test.value, err, test.want)
		}
	}
	// All faults at once.
	_, err := load(t, "", map[string]string{"PEERCACHE_ADMIN": "nonsense"}, "--listen", "nonsense", "--bootstrap", "nonsense")
	for _, want := range []string{"--listen: ", "PEERCACHE_ADMIN: ", "--bootstrap: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := load(t, "", nil, "--p2p-listen", "/ip4/0.0.0.0/tcp/5051", "--open-cluster"); err != nil {
		t.Errorf("open cluster: %v", err)
	}
}

func TestDefaultData(t *testing.T) {
	if os.Geteuid() == 0 {
		if got := defaultData(os.Getenv); got != "/var/lib/peercache" {
			t.Errorf("root: %q", got)
		}
		return
	}
	for home, want := range map[string]string{"": "", "/home/a": "/home/a/.local/share/peercache"} {
		got := defaultData(func(name string) string { return map[string]string{"HOME": home}[name] })
		if got != want {
			t.Errorf("HOME=%s: %q, want %q", home, got, want)
		}
	}
	if got := defaultData(func(name string) string { return map[string]string{"XDG_DATA_HOME": "/x", "HOME": "/h"}[name] }); got != "/x/peercache" {
		t.Errorf("XDG_DATA_HOME: %q", got)
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "17": 17, "50GiB": 50 << 30, "1.5 GiB": 3 << 29, "800MB": 800e6, "64Mi": 64 << 20, "2kB": 2000, "1TiB": 1 << 40, "12B": 12,
	} {
		if got, err := ParseSize(s); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "GiB", "-1", "1e300GiB", "9223372036854775808", "NaN", "Inf", "1 2", "5XB"} {
		if got, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %d", s, got)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 200 << 20: "200 MiB", 1535 << 20: "1.50 GiB", 50 << 30: "50.0 GiB", 1 << 50: "1024 TiB"} {
		if got := FormatSize(n); got != want {
			t.Errorf("FormatSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestRates(t *testing.T) {
	for s, want := range map[string]int64{
		"": 0, " ": 0, "0": 0, "50MiB": 50 << 20, "50MiB/s": 50 << 20, "400mbit": 50e6, "400 Mbit/s": 50e6, "1gbit": 125e6,
		"2.5Gbit": 312_500_000, "800kbit": 100e3, "1000000bit": 125e3, "125000": 125e3, "1.5 MB": 1.5e6,
	} {
		if got, err := ParseRate(s); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"mbit", "-1mbit", "NaNmbit", "Infgbit", "1e300gbit", "1mbits", "/s", "1 mbit/h", "x"} {
		if got, err := ParseRate(s); err == nil {
			t.Errorf("ParseRate(%q) = %d", s, got)
		}
	}
}

// The settings of the swarm, by each of their three names.
func TestSwarmSettings(t *testing.T) {
	const file = "announce: blobs\nzone: file\nrack: \"7\"\np2p:\n  announce: [/ip4/10.0.0.1/tcp/1]\n" +
		"limits: {upload: 1MiB, download: 8mbit, origin: 2MB}\ntags:\n  from_peers: never\n"
	c, err := load(t, file, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Announce != "blobs" || c.Zone != "file" || c.Rack != "7" || len(c.P2PAnnounce) != 1 || c.TagsFromPeers != "never" ||
		c.LimitUpload != 1<<20 || c.LimitDownload != 1e6 || c.LimitOrigin != 2e6 {
		t.Errorf("file: %+v", c)
	}
	c, err = load(t, file, map[string]string{
		"PEERCACHE_ANNOUNCE": "chunks", "PEERCACHE_ZONE": " env ", "PEERCACHE_RACK": "8", "PEERCACHE_LIMIT_UPLOAD": "2MiB",
		"PEERCACHE_P2P_ANNOUNCE": "/ip4/10.0.0.2/tcp/1,/ip4/10.0.0.3/tcp/1", "PEERCACHE_TAGS_FROM_PEERS": "origin-down",
	}, "--limit-download", "0", "--rack", "9")
	if err != nil {
		t.Fatal(err)
	}
	if c.Announce != "chunks" || c.Zone != "env" || c.Rack != "9" || len(c.P2PAnnounce) != 2 || c.TagsFromPeers != "origin-down" ||
		c.LimitUpload != 2<<20 || c.LimitDownload != 0 || c.LimitOrigin != 2e6 {
		t.Errorf("environment and flags: %+v", c)
	}
}
