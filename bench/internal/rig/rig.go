// Package rig is what the benchmarks stand on: processes that end with the
// benchmark, nodes with blobs in their stores, an origin, clients, the figures
// that /proc gives, and tables. It judges nothing: which figures are good enough
// is for each benchmark to say. Linux only.
package rig

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Rig is one run of a benchmark. It is safe for concurrent use.
type Rig struct {
	// Dir is a directory that is removed at the end.
	Dir string
	// Keep leaves Dir where it is.
	Keep bool

	json     bool
	binary   string
	spawn    chan spawnRequest
	mu       sync.Mutex
	children []*Process
	started  time.Time
}

type spawnRequest struct {
	cmd *exec.Cmd
	ns  *Namespace // nil: this process's
	err chan error
}

// Role is a part of the benchmark that runs in a process of its own: the same
// program, run again. It works until its standard input ends or ctx does. What
// it writes to out first, a line of JSON, goes to who started it.
type Role func(ctx context.Context, args []string, in io.Reader, out io.Writer) error

const roleEnv = "PEERCACHE_BENCH_ROLE"

// Main runs a benchmark and ends the process. limit bounds the whole run;
// -json, -dir and -peercache are added to the flags.
func Main(limit time.Duration, roles map[string]Role, run func(context.Context, *Rig) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := start(ctx, limit, roles, run)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func start(ctx context.Context, limit time.Duration, roles map[string]Role, run func(context.Context, *Rig) error) (err error) {
	if name := os.Getenv(roleEnv); name != "" {
		role := roles[name]
		if role == nil {
			return fmt.Errorf("no role %q", name)
		}
		return role(ctx, os.Args[1:], os.Stdin, os.Stdout)
	}

	r := &Rig{spawn: make(chan spawnRequest), started: time.Now()}
	flag.BoolVar(&r.json, "json", false, "print JSON instead of a table")
	dir := flag.String("dir", "", "directory for temporary files (default: the system's)")
	flag.StringVar(&r.binary, "peercache", "", "peercache binary to measure (default: built from ./cmd/peercache)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}

	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	if r.Dir, err = os.MkdirTemp(*dir, "peercache-bench-"); err != nil {
		return err
	}
	defer func() {
		if r.Keep {
			r.Log("kept: %s", r.Dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(r.Dir))
	}()

	// Linux ends a child by its parent-death signal when the thread that started
	// it ends, so one thread starts them all and lives as long as they may.
	go func() {
		runtime.LockOSThread()
		for s := range r.spawn {
			s.err <- s.ns.start(s.cmd)
		}
	}()
	defer close(r.spawn)
	defer r.stopAll()

	if r.binary == "" {
		r.binary = filepath.Join(r.Dir, "peercache")
		r.Log("building peercache")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", r.binary, "github.com/peercache/peercache/cmd/peercache")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("building peercache: %w\n%s", err, out)
		}
	}
	err = run(ctx, r)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}

// Log tells on standard error what goes on.
func (r *Rig) Log(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(r.started).Seconds(), fmt.Sprintf(format, args...))
}

// Report prints the result: v as JSON, or else the tables.
func (r *Rig) Report(v any, tables ...*Table) error {
	if r.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(struct {
			Machine Machine `json:"machine"`
			Result  any     `json:"result"`
		}{ThisMachine(), v})
	}
	fmt.Println(ThisMachine())
	for _, t := range tables {
		fmt.Printf("\n%s", t)
	}
	return nil
}

// Machine says where figures come from.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// ThisMachine describes the one that this runs on.
func ThisMachine() Machine {
	m := Machine{CPU: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version()}
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if data, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(data))
	}
	return m
}

func (m Machine) String() string {
	return fmt.Sprintf("%d x %s, Linux %s, %s", m.CPUs, m.CPU, m.Kernel, m.Go)
}

// FreePort returns a TCP port of loopback that nobody listens on now, for
// programs that cannot choose one themselves.
func FreePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

// Await polls every few milliseconds, for at most limit, until ok says that it is
// done, and returns the error that comes with that. Errors before are waited out.
func Await(ctx context.Context, limit time.Duration, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: not within %s", what, limit), err)
		}
	}
}

// Listening reports whether somebody accepts connections at addr.
func Listening(addr string) (bool, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false, err
	}
	return true, c.Close()
}
