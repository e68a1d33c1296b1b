package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
)

// addresses are those that a node really uses, ports included.
type addresses struct {
	ID        string   `json:"id"`
	Proxy     string   `json:"proxy"`
	Admin     string   `json:"admin"`
	Addresses []string `json:"addresses"` // for peers, with /p2p/
}

// printHints tells a person how to point clients and further nodes at this one,
// in lines that can be pasted. Nothing is written anywhere by it.
func printHints(w io.Writer, a addresses, c *config.Config) error {
	proxy := reachable(a.Proxy)
	origin := c.DefaultOrigin
	repository, tag := "library/alpine", "latest"
	if origin != "docker.io" {
		repository, tag = "REPOSITORY", "TAG"
	}
	// containers/image refuses a port in a mirror's path. The default origin is
	// what a mirror without a path means.
	mirror := proxy
	if !strings.Contains(origin, ":") {
		mirror += "/" + origin
	}
	var b strings.Builder
	fmt.Fprintf(&b, `Peercache is up.
  proxy  http://%s
  admin  http://%s
  peers  %s
  data   %s

Try it:

curl -sS 'http://%s/v2/%s/manifests/%s?ns=%s'
peercache status --admin %s

containerd, with config_path = "/etc/containerd/certs.d" in its registry configuration, for every registry:

mkdir -p /etc/containerd/certs.d/_default
cat > /etc/containerd/certs.d/_default/hosts.toml <<'EOF'
[host."http://%[5]s"]
  capabilities = ["pull", "resolve"]
EOF

Podman, CRI-O, Buildah, Skopeo, for one registry:

cat > /etc/containers/registries.conf.d/50-peercache.conf <<'EOF'
[[registry]]
location = "%[8]s"
[[registry.mirror]]
location = "%[10]s"
insecure = true
EOF

`, a.Proxy, a.Admin, strings.Join(a.Addresses, "\n         "), c.Data,
		proxy, repository, tag, origin, reachable(a.Admin), mirror)
	if onlyLoopback(a.Addresses) {
		fmt.Fprintf(&b, `Another node on this machine:

peercache serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --p2p-listen /ip4/127.0.0.1/tcp/0 --data "$(mktemp -d)" --bootstrap %s

Nodes on other machines find this one once it runs with --p2p-listen /ip4/ADDRESS/tcp/5051 --open-cluster.
`, first(a.Addresses))
	} else {
		fmt.Fprintf(&b, "The next node:\n\npeercache serve --p2p-listen /ip4/ITS-ADDRESS/tcp/5051 --open-cluster --bootstrap %s\n", first(a.Addresses))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// first prefers an address that other machines can reach.
func first(addrs []string) string {
	for _, a := range addrs {
		if !onlyLoopback([]string{a}) {
			return a
		}
	}
	if len(addrs) > 0 {
		return addrs[0]
	}
	return "ADDRESS"
}

func onlyLoopback(addrs []string) bool {
	for _, a := range addrs {
		parts := strings.Split(a, "/")
		if len(parts) < 3 {
			return false
		}
		if ip, err := netip.ParseAddr(parts[2]); err != nil || !ip.IsLoopback() {
			return false
		}
	}
	return true
}

// reachable turns an address that is listened on into one that this machine's
// clients can dial: 0.0.0.0 and :: are none.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		if ip.Is4() {
			return net.JoinHostPort("127.0.0.1", port)
		}
		return net.JoinHostPort("::1", port)
	}
	return addr
}
