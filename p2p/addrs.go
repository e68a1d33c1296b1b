package p2p

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"sync"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

type netInterface struct {
	name  string
	addrs []netip.Addr
}

func machineInterfaces() ([]netInterface, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []netInterface
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		n := netInterface{name: i.Name}
		for _, a := range addrs {
			if ip, err := netip.ParsePrefix(a.String()); err == nil {
				n.addrs = append(n.addrs, ip.Addr().Unmap())
			}
		}
		list = append(list, n)
	}
	return list, nil
}

// privateInterface matches the bridges and virtual interfaces that container
// runtimes, overlays and hypervisors create: Docker, CNI, Podman, LXC, libvirt,
// flannel, Calico, Cilium, Weave, kube-proxy's IPVS dummy, and the host's ends
// of pods' veth pairs. Their addresses exist on many machines at once. A bridge
// that people make for their own network (br0, bond0) does not match.
var privateInterface = regexp.MustCompile(`^(docker|br-[0-9a-f]{12}$|cni|cbr|podman|lxc|lxd|virbr|veth|flannel|cali|tunl|cilium|weave|kube-|nodelocaldns|vxlan|dummy|ovs-|gke)`)

// interfaceTTL: AddrsFactory runs often, and a node with hundreds of pods has
// hundreds of interfaces to list.
const interfaceTTL = 10 * time.Second

// addressBook chooses the addresses that other nodes are told.
type addressBook struct {
	fixed      []ma.Multiaddr      // announced whatever the interfaces are
	bound      map[netip.Addr]bool // listened on by name
	interfaces func() ([]netInterface, error)

	mu      sync.Mutex
	private map[netip.Addr]bool // on interfaces that nobody else can reach
	until   time.Time
}

func newAddressBook(listen []ma.Multiaddr, announce []string, interfaces func() ([]netInterface, error)) (*addressBook, error) {
	a := &addressBook{bound: map[netip.Addr]bool{}, interfaces: interfaces}
	for _, s := range announce {
		m, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("p2p: announce address %q: %w", s, err)
		}
		a.fixed = append(a.fixed, m)
	}
	for _, m := range listen {
		if ip, ok := addrIP(m); ok && !ip.IsUnspecified() {
			a.bound[ip] = true
		}
	}
	return a, nil
}

func addrIP(m ma.Multiaddr) (netip.Addr, bool) {
	ip, err := manet.ToIP(m)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

func isLoopback(m ma.Multiaddr) bool {
	ip, ok := addrIP(m)
	return ok && ip.IsLoopback()
}

// choose is libp2p's AddrsFactory: it gets every address that a listener can be
// reached at from this machine and returns those to announce.
func (a *addressBook) choose(addrs []ma.Multiaddr) []ma.Multiaddr {
	if len(a.fixed) > 0 {
		return slices.Clone(a.fixed)
	}
	private := a.privateAddrs()
	var chosen, loopback []ma.Multiaddr
	for _, m := range addrs {
		ip, ok := addrIP(m)
		switch {
		case !ok || ip.IsUnspecified():
		case a.bound[ip]:
			chosen = append(chosen, m)
		case ip.IsLoopback():
			loopback = append(loopback, m)
		case ip.IsLinkLocalUnicast() || private[ip]:
		default:
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		return loopback
	}
	return chosen
}

func (a *addressBook) privateAddrs() map[netip.Addr]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Before(a.until) {
		return a.private
	}
	list, err := a.interfaces()
	if err != nil {
		return a.private // what was known before is the best guess
	}
	a.private = map[netip.Addr]bool{}
	for _, i := range list {
		if privateInterface.MatchString(i.name) {
			for _, ip := range i.addrs {
				a.private[ip] = true
			}
		}
	}
	a.until = time.Now().Add(interfaceTTL)
	return a.private
}
