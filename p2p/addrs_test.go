package p2p

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

func addrs(t testing.TB, list ...string) (out []ma.Multiaddr) {
	t.Helper()
	for _, s := range list {
		m, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func TestAnnouncedAddresses(t *testing.T) {
	machine := func() ([]netInterface, error) {
		in := func(name string, ips ...string) netInterface {
			n := netInterface{name: name}
			for _, s := range ips {
				n.addrs = append(n.addrs, netip.MustParseAddr(s))
			}
			return n
		}
		return []netInterface{
			in("lo", "127.0.0.1", "::1"), in("eth0", "192.0.2.7", "2001:db8::7", "fe80::7"), in("br0", "198.51.100.7"),
			in("docker0", "172.17.0.1"), in("cni0", "10.244.0.1"), in("br-0123456789ab", "172.18.0.1"), in("virbr0", "192.168.122.1"),
			in("cali1234", "169.254.1.1"), in("flannel.1", "10.244.0.0"), in("kube-ipvs0", "10.96.0.1"), in("veth12ab", "fe80::9"),
		}, nil
	}
	var everything []string
	list, _ := machine()
	for _, i := range list {
		for _, ip := range i.addrs {
			family := "/ip4/"
			if ip.Is6() {
				family = "/ip6/"
			}
			everything = append(everything, family+ip.String()+"/tcp/5051")
		}
	}
	none := func() ([]netInterface, error) { return nil, errors.New("not permitted") }
	for _, tc := range []struct {
		name       string
		listen     []string
		announce   []string
		interfaces func() ([]netInterface, error)
		from       []string
		want       []string
	}{
		{"everywhere", []string{"/ip4/0.0.0.0/tcp/5051", "/ip6/::/tcp/5051"}, nil, machine, everything,
			[]string{"/ip4/192.0.2.7/tcp/5051", "/ip6/2001:db8::7/tcp/5051", "/ip4/198.51.100.7/tcp/5051"}},
		{"loopback only", []string{"/ip4/127.0.0.1/tcp/5051"}, nil, machine, []string{"/ip4/127.0.0.1/tcp/5051"}, []string{"/ip4/127.0.0.1/tcp/5051"}},
		{"everywhere on a machine with loopback only", []string{"/ip4/0.0.0.0/tcp/5051"}, nil, machine,
			[]string{"/ip4/127.0.0.1/tcp/5051"}, []string{"/ip4/127.0.0.1/tcp/5051"}},
		{"a bridge by name", []string{"/ip4/172.17.0.1/tcp/5051"}, nil, machine, []string{"/ip4/172.17.0.1/tcp/5051"}, []string{"/ip4/172.17.0.1/tcp/5051"}},
		{"told", []string{"/ip4/0.0.0.0/tcp/5051"}, []string{"/dns4/node1.example/tcp/80"}, machine, everything, []string{"/dns4/node1.example/tcp/80"}},
		{"interfaces unknown", []string{"/ip4/0.0.0.0/tcp/5051"}, nil, none, []string{"/ip4/172.17.0.1/tcp/5051"}, []string{"/ip4/172.17.0.1/tcp/5051"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			book, err := newAddressBook(addrs(t, tc.listen...), tc.announce, tc.interfaces)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range book.choose(addrs(t, tc.from...)) {
				got = append(got, m.String())
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("announces %v, want %v", got, tc.want)
			}
		})
	}
	if _, err := newAddressBook(nil, []string{"nonsense"}, machine); err == nil || !strings.Contains(err.Error(), `"nonsense"`) {
		t.Errorf("bad announce address: %v", err)
	}
}

// The machine's own interfaces, without loopback, are what listening everywhere
// announces.
func TestAnnounceOnThisMachine(t *testing.T) {
	n := start(t, func(o *Options) { o.Listen = []string{"/ip4/0.0.0.0/tcp/0"} })
	if len(n.Addrs()) == 0 {
		t.Fatal("no address")
	}
	for _, s := range n.Addrs() {
		if !strings.HasSuffix(s, "/p2p/"+n.PeerID()) || strings.Contains(s, "/ip4/0.0.0.0/") || strings.Contains(s, "/tcp/0/") {
			t.Errorf("address %s", s)
		}
	}
	b := start(t, bootstrap(n.Addrs()...))
	together(t, n, b)
}
