package p2p

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/peercache/peercache/chunkindex"
)

// childEnv makes this test's program a node of its own: with it in the
// environment, it runs a host until its input ends. Its value is a directory.
const childEnv = "PEERCACHE_P2P_TEST_CHILD"

func runChild() int {
	err := func() error {
		h, err := New(filepath.Join(os.Getenv(childEnv), "identity.pem"), dssync.MutexWrap(datastore.NewMapDatastore()),
			&Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		ran := make(chan error, 1)
		go func() { ran <- h.Run(ctx, newRecorder()) }()
		fmt.Println(h.Addrs()[0])
		_, err = io.Copy(io.Discard, os.Stdin)
		cancel()
		return errors.Join(err, <-ran, h.Close())
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// child is a node in a process of its own, which can be stopped and killed.
type child struct {
	*os.Process
	id   chunkindex.NodeID
	addr string // without /p2p/
}

func startChild(t testing.TB) child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Process.Kill() // also if it is stopped
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child does not begin: %v", err)
	}
	m, err := ma.NewMultiaddr(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	addr, p := peer.SplitAddr(m)
	id, ok := NodeOf(p)
	if !ok {
		t.Fatalf("child at %s is no node", m)
	}
	return child{cmd.Process, id, addr.String()}
}

// The kernel closes the connections of a process that is killed: its peers know
// at once, without any time-out.
func TestKilledPeerIsDownAtOnce(t *testing.T) {
	a := start(t, func(o *Options) { o.PeerTimeout = 10 * patience })
	c := startChild(t)
	a.Learn(c.id, []string{c.addr})
	until(t, "the child to be up", func() bool { return a.Connect(testContext(t), c.id) == nil && a.rec.isUp(c.id) })
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "the killed peer to be down", func() bool { return !a.rec.isUp(c.id) })
	if err := a.Connect(testContext(t), c.id); !errors.Is(err, ErrUnreachable) {
		t.Errorf("connecting to a dead peer: %v", err)
	}
}

// A stopped process keeps its connections and takes new ones, for a while, as a
// machine that hangs does: its silence gives it away.
func TestStoppedPeerIsDownAfterItsTimeout(t *testing.T) {
	a := start(t, func(o *Options) { o.PeerTimeout, o.DialTimeout = time.Second, 500*time.Millisecond })
	c := startChild(t)
	a.Learn(c.id, []string{c.addr})
	until(t, "the child to be up", func() bool { return a.Connect(testContext(t), c.id) == nil && a.rec.isUp(c.id) })
	if err := c.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "the stopped peer to be down", func() bool { return !a.rec.isUp(c.id) })
	until(t, "the session to be counted as ended for silence", func() bool { // which follows PeerDown
		return a.count(t, "peercache_p2p_sessions_ended_total", map[string]string{"reason": "silent"}) == 1
	})
	// With nobody to accept it, a connection is still made by the kernel.
	begin := time.Now()
	err := a.Connect(testContext(t), c.id)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("connecting to a stopped peer: %v", err)
	}
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("connecting to a stopped peer took %v", took)
	}
	if err := c.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "the peer to be up again", func() bool { return a.rec.isUp(c.id) })
}
