package origintest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
)

// Network connects names to registries by pipes in memory, without DNS, ports
// or TCP, so that tests can run in a testing/synctest bubble.
type Network struct {
	mu     sync.Mutex
	hosts  map[string]*pipeListener
	broken map[string]error // dialling such a host fails; a nil error: it hangs
}

// NewNetwork returns a network without hosts.
func NewNetwork() *Network {
	return &Network{hosts: make(map[string]*pipeListener), broken: make(map[string]error)}
}

// Listen makes addr one that can be dialled, until the listener is closed.
func (n *Network) Listen(addr string) net.Listener {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{}), addr: pipeAddr(addr)}
	n.mu.Lock()
	n.hosts[addr] = l
	n.mu.Unlock()
	return l
}

// Serve makes a handler reachable at addr ("registry.test:80") until the test
// is over.
func (n *Network) Serve(t testing.TB, addr string, h http.Handler) {
	l := n.Listen(addr)
	s := &http.Server{Handler: h}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving %s: %v", addr, err)
		}
	}()
	t.Cleanup(func() {
		s.Close()
		<-stopped
	})
}

// Break makes dialling addr fail with err, or hang if err is nil.
func (n *Network) Break(addr string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken[addr] = err
}

// Mend undoes Break.
func (n *Network) Mend(addr string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.broken, addr)
}

// Dial is for http.Transport.DialContext.
func (n *Network) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l, known := n.hosts[addr]
	err, broken := n.broken[addr]
	n.mu.Unlock()
	switch {
	case broken && err == nil:
		<-ctx.Done()
		return nil, ctx.Err()
	case broken:
		return nil, err
	case !known:
		return nil, &net.DNSError{Err: "no such host", Name: addr, IsNotFound: true}
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Addr: l.addr, Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
	addr  pipeAddr
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return l.addr }

type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return string(a) }
