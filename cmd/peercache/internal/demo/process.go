package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is a node in a process of its own.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed once it has ended; err is set then
	err  error

	// What it told once it was up.
	Proxy     string   `json:"proxy"`
	Admin     string   `json:"admin"`
	Addresses []string `json:"addresses"`
}

const (
	startTime = 30 * time.Second // until a node must be up
	stopTime  = 12 * time.Second // until a node must have stopped; serve takes 10 s at most
)

// spawner starts processes that die with this one. Linux ends a child by its
// parent-death signal when the thread that started it ends, so one thread starts
// them all and lives until close.
type spawner struct {
	requests chan spawnRequest
}

type spawnRequest struct {
	cmd *exec.Cmd
	err chan error
}

func newSpawner() *spawner {
	s := &spawner{requests: make(chan spawnRequest)}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for r := range s.requests {
			r.err <- r.cmd.Start()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	r := spawnRequest{cmd, make(chan error)}
	s.requests <- r
	return <-r.err
}

// close must not be called before every process has ended.
func (s *spawner) close() { close(s.requests) }

// startNode runs this program's serve in dir and waits until it is up.
func (s *spawner) startNode(ctx context.Context, executable, dir string, args ...string) (*process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ready := filepath.Join(dir, "addresses.json")
	p := &process{log: filepath.Join(dir, "log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	p.cmd = exec.Command(executable, append([]string{
		"serve", "--data", filepath.Join(dir, "data"), "--address-file", ready,
		"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--p2p-listen", "/ip4/127.0.0.1/tcp/0",
	}, args...)...)
	p.cmd.Args[0] = os.Args[0] // a program of several names goes by that of this one
	p.cmd.Stderr = log
	p.cmd.Env = environment(os.Environ())
	p.cmd.SysProcAttr = processAttributes()
	if err := s.start(p.cmd); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()

	timeout := time.NewTimer(startTime)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		data, err := os.ReadFile(ready)
		if err == nil {
			if err = json.Unmarshal(data, p); err == nil {
				return p, nil
			}
		}
		if !errors.Is(err, fs.ErrNotExist) {
			p.stop()
			return nil, err
		}
		select {
		case <-tick.C:
		case <-p.done:
			return nil, fmt.Errorf("it ended at once: %w\n%s", p.err, p.tail())
		case <-timeout.C:
			p.stop()
			return nil, fmt.Errorf("it was not up after %s\n%s", startTime, p.tail())
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		}
	}
}

// environment is this process's without what configures nodes: the demo is the
// same whoever runs it. Proxies are left out too, as everything is on loopback.
func environment(env []string) []string {
	var kept []string
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		switch upper := strings.ToUpper(name); {
		case strings.HasPrefix(upper, "PEERCACHE_"):
		case upper == "HTTP_PROXY", upper == "HTTPS_PROXY", upper == "ALL_PROXY":
		default:
			kept = append(kept, e)
		}
	}
	return kept
}

// stop ends the process, by force where asking does not help, and waits for it.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	// The handle, not the number: it cannot hit another process.
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has just ended
	timeout := time.NewTimer(stopTime)
	defer timeout.Stop()
	select {
	case <-p.done:
	case <-timeout.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// tail is the end of the node's log.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	return "  | " + string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n  | ")))
}
