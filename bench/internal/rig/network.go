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
}

// Shaping is by token buckets, of 10 ms (a packet that the kernel has not cut yet
// must fit), with a queue of 50 ms in front of them: what a switch port with a
// shallow buffer has.
const (
	bucket     = 10 * time.Millisecond
	leastBurst = 96 << 10
	queue      = "50ms"
)

// NewNetwork makes a network without hosts. It needs root, ip and tc.
func (r *Rig) NewNetwork(ctx context.Context) (*Network, error) {
	hub, err := NewNamespace()
	if err != nil {
		return nil, err
	}
	n := &Network{r: r, hub: hub}
	if err := r.command(ctx, hub, "link add hub type bridge forward_delay 0\nlink set hub up\n", "ip", "-batch", "-"); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// AddHost adds a host. rate is what its link carries each way, in bits a second,
// 0 for no limit. Both ends of the link are shaped where they send.
func (n *Network) AddHost(ctx context.Context, rate int64) (*Host, error) {
	number := len(n.hosts) + 1
	ns, err := NewNamespace()
	if err != nil {
		return nil, err
	}
	h := &Host{Namespace: ns, IP: fmt.Sprintf("10.77.%d.%d", number/250, 1+number%250)}
	n.hosts = append(n.hosts, h)
	port := fmt.Sprintf("port%d", number)
	// The other process opens this process's descriptor: the namespace has no
	// other name.
	add := fmt.Sprintf("link add %s type veth peer name eth0 netns /proc/%d/fd/%d\nlink set %s master hub up\n",
		port, os.Getpid(), ns.file.Fd(), port)
	if err := n.r.command(ctx, n.hub, add, "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	up := fmt.Sprintf("link set lo up\naddr add %s/16 dev eth0\nlink set eth0 up\n", h.IP)
	if err := n.r.command(ctx, ns, up, "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	if rate == 0 {
		return h, nil
	}
	burst := max(int64(float64(rate)/8*bucket.Seconds()), leastBurst)
	for _, end := range []struct {
		ns  *Namespace
		dev string
	}{{ns, "eth0"}, {n.hub, port}} {
		shape := fmt.Sprintf("qdisc add dev %s root tbf rate %dbit burst %db latency %s", end.dev, rate, burst, queue)
		if err := n.r.command(ctx, end.ns, "", "tc", strings.Fields(shape)...); err != nil {
			return nil, err
		}
	}
	return h, nil
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
