package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Network is a number of hosts, each with a link of its own to one switch: a
// namespace each, a bridge in a further one, a veth pair between. The machine's
// own network has no part in it.
type Network struct {
	r     *Rig
	hub   *Namespace
	hosts []*Host
}

// Host is a namespace with one shaped link.
type Host struct {
	*Namespace
	IP string

	network  *Network
	port     string // the switch's end of its link
	up, down int64
}

// Shaping is by token buckets, of 10 ms (a packet that the kernel has not cut yet
// must fit), with a queue of 50 ms in front of them: what a switch port with a
// shallow buffer has.
const (
	bucket     = 10 * time.Millisecond
	leastBurst = 96 << 10
	queue      = "50ms"
)

// hole is the switch's own address. It has no use for packets, so that what is sent
// there is lost without a word.
const hole = "02:77:00:00:00:01"

// NewNetwork makes a network without hosts. It needs root, ip and tc.
func (r *Rig) NewNetwork(ctx context.Context) (*Network, error) {
	hub, err := NewNamespace()
	if err != nil {
		return nil, err
	}
	n := &Network{r: r, hub: hub}
	add := fmt.Sprintf("link add hub address %s type bridge forward_delay 0\nlink set hub up\n", hole)
	if err := r.command(ctx, hub, add, "ip", "-batch", "-"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// AddHost adds a host. up and down are what its link carries, in bits a second, 0
// for no limit. Both ends of the link are shaped where they send.
func (n *Network) AddHost(ctx context.Context, up, down int64) (*Host, error) {
	number := len(n.hosts) + 1
	ns, err := NewNamespace()
	if err != nil {
		return nil, err
	}
	h := &Host{Namespace: ns, IP: fmt.Sprintf("10.77.%d.%d", number/250, 1+number%250), network: n, port: fmt.Sprintf("port%d", number)}
	n.hosts = append(n.hosts, h)
	// The other process opens this process's descriptor: the namespace has no
	// other name.
	add := fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d\nlink set %s master hub up\n",
		h.port, os.Getpid(), ns.file.Fd(), h.port)
	if err := n.r.command(ctx, n.hub, add, "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	link := fmt.Sprintf("link set lo up\naddr add %s/16 dev eth0\nlink set eth0 up\n", h.IP)
	if err := n.r.command(ctx, ns, link, "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	return h, h.Shape(ctx, up, down)
}

// Shape changes what the host's link carries. What waits in its queues stays there where
// a link had a limit and has another.
func (h *Host) Shape(ctx context.Context, up, down int64) error {
	for _, end := range []struct {
		ns   *Namespace
		dev  string
		rate int64
		was  *int64
	}{{h.Namespace, "eth0", up, &h.up}, {h.network.hub, h.port, down, &h.down}} {
		if end.rate == *end.was {
			continue
		}
		shape := fmt.Sprintf("qdisc del dev %s root", end.dev)
		if end.rate > 0 {
			burst := max(int64(float64(end.rate)/8*bucket.Seconds()), leastBurst)
			shape = fmt.Sprintf("qdisc replace dev %s root tbf rate %dbit burst %db latency %s", end.dev, end.rate, burst, queue)
		}
		if err := h.network.r.command(ctx, end.ns, "", "tc", strings.Fields(shape)...); err != nil {
			return err
		}
		*end.was = end.rate
	}
	return nil
}

// Rates returns what the host's link carries, as [Host.Shape] takes it.
func (h *Host) Rates() (up, down int64) { return h.up, h.down }

// Block has what the host sends to others be lost on the way; what they send arrives.
// Nobody is told, as where a cable is cut.
func (h *Host) Block(ctx context.Context, others ...*Host) error {
	return h.neighbours(ctx, "neigh replace %s lladdr "+hole+" dev eth0 nud permanent\n", others)
}

// Unblock undoes Block.
func (h *Host) Unblock(ctx context.Context, others ...*Host) error {
	return h.neighbours(ctx, "neigh del %s dev eth0\n", others)
}

func (h *Host) neighbours(ctx context.Context, line string, others []*Host) error {
	if len(others) == 0 {
		return nil
	}
	var batch strings.Builder
	for _, o := range others {
		fmt.Fprintf(&batch, line, o.IP)
	}
	return h.network.r.command(ctx, h.Namespace, batch.String(), "ip", "-batch", "-")
}

// Close lets go of all namespaces.
func (n *Network) Close() error {
	errs := []error{n.hub.Close()}
	for _, h := range n.hosts {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}

// command runs a program in a namespace to its end.
func (r *Rig) command(ctx context.Context, ns *Namespace, in, name string, args ...string) error {
	path, err := Find(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &out
	if err := r.begin(ns, cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}
