//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a program that runs beside the test. It ends with the test at the
// latest; what it wrote is logged if the test failed.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // file with stdout and stderr
	done chan struct{} // closed when it has ended
	err  error         // from Wait; read after done
}

// start runs a program until [process.stop], [process.kill], or the end of the
// test.
func start(t testing.TB, name string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(t.TempDir(), "log"), done: make(chan struct{})}
	out := must[*os.File](t)(os.Create(p.log))
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		out.Close()
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		out.Close()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s wrote, at last:\n%s", p.name, p.tail(8<<10))
		}
	})
	return p
}

// tail returns the last n bytes that p wrote.
func (p *process) tail(n int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(data) > n {
		data = data[len(data)-n:]
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	return string(data)
}

// ended returns an error if p is no longer running.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended (%v): %s", p.name, p.err, p.tail(2<<10))
	default:
		return nil
	}
}

// stop asks p to end, waits, and kills it if it doesn't within 10 s, which is a
// failure. It does nothing to a process that has ended.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		t.Errorf("%s didn't end within 10 s of SIGTERM", p.name)
		p.kill()
	}
}

// kill ends p at once, as kill -9 does, and waits for it.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// run runs a program to its end and returns its standard output.
func run(t testing.TB, limit time.Duration, env []string, argv ...string) string {
	t.Helper()
	out, err := try(t, limit, env, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try is run for a program that may fail; the error holds what it wrote to
// standard error.
func try(t testing.TB, limit time.Duration, env []string, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	// A child that outlives it must not keep us waiting on the pipe.
	cmd.WaitDelay = time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		if ctx.Err() != nil {
			err = fmt.Errorf("not within %v: %w", limit, err)
		}
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// command runs a program to its end outside of any test's context, for cleaning
// up, and returns what it wrote.
func command(limit time.Duration, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	return string(out), err
}

// lastPort is the last that freePort gave.
var lastPort atomic.Int32

// firstPort is the first of the ports that freePort gives: below those that the
// kernel gives to outgoing connections and to listeners on port 0, so that nobody
// takes one before its user. The sandbox's network is ours alone.
const firstPort = 20000

// freePort returns a TCP port that nothing listens on, another each time.
func freePort(t testing.TB) string {
	t.Helper()
	for {
		port := firstPort + int(lastPort.Add(1))
		if port >= 32768 {
			t.Fatal("no port is left")
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			l.Close()
			return strconv.Itoa(port)
		}
	}
}
