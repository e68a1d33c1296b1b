package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. It has no name and no file: it ends once it
// is closed, nothing runs in it and none of its sockets is open, so that there is
// nothing to clean up however this process ends. A nil *Namespace is the one that
// this process began in.
type Namespace struct{ file *os.File }

const threadNamespace = "/proc/thread-self/ns/net"

// NewNamespace makes an empty namespace; its loopback is down. It needs root.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		n.file, err = os.Open(threadNamespace)
		return err
	})
	return n, err
}

// onThread runs f on a thread that nothing else runs on, before or after.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
		done <- f()
	}()
	return <-done
}

// Do calls f on a thread in the namespace. Sockets that f makes stay in it; where
// goroutines that f starts run is not said.
func (n *Namespace) Do(f func() error) error {
	if n == nil {
		return f()
	}
	return onThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return f()
	})
}

// enter moves the calling thread into the namespace.
func (n *Namespace) enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering a network namespace: %w", err)
	}
	return nil
}

// start starts cmd in the namespace. The caller is locked to its thread, which
// is in its own namespace again afterwards.
func (n *Namespace) start(cmd *exec.Cmd) error {
	if n == nil {
		return cmd.Start()
	}
	own, err := os.Open(threadNamespace)
	if err != nil {
		return err
	}
	defer own.Close()
	if err := n.enter(); err != nil {
		return err
	}
	return errors.Join(cmd.Start(), (&Namespace{own}).enter())
}

// Listen listens on a TCP address of the namespace.
func (n *Namespace) Listen(addr string) (l net.Listener, err error) {
	err = n.Do(func() error {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}

// DialContext connects from the namespace to an IP address and port. It fits
// http.Transport.
func (n *Namespace) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Client returns an HTTP client whose connections begin in the namespace and
// whose bodies are what came over the wire.
func (n *Namespace) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: n.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 16}}
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return n.file.Close() }
