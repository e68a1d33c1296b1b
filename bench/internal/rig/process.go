package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a child. It ends with the benchmark at the latest, however that
// ends.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // from Wait; read after done
}

const stopLimit = 15 * time.Second

// Start starts a program whose output goes to a file.
func (r *Rig) Start(name, path string, args ...string) (*Process, error) {
	return r.launch(name, nil, exec.Command(path, args...))
}

// StartIn does the same in a network namespace, with env (NAME=value) added to
// the environment.
func (r *Rig) StartIn(ns *Namespace, env []string, name, path string, args ...string) (*Process, error) {
	cmd := exec.Command(path, args...)
	cmd.Env = append(environment(), env...)
	return r.launch(name, ns, cmd)
}

func (r *Rig) launch(name string, ns *Namespace, cmd *exec.Cmd) (*Process, error) {
	out, err := os.CreateTemp(r.Dir, "log-"+name+"-")
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	p := &Process{name: name, cmd: cmd, log: out.Name(), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = out
	}
	cmd.Stderr = out
	if cmd.Env == nil {
		cmd.Env = environment()
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.begin(ns, cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	r.mu.Lock()
	r.children = append(r.children, p)
	r.mu.Unlock()
	return p, nil
}

// begin starts cmd on the thread that starts all of them, in ns unless that is
// nil.
func (r *Rig) begin(ns *Namespace, cmd *exec.Cmd) error {
	s := spawnRequest{cmd, ns, make(chan error)}
	r.spawn <- s
	return <-s.err
}

// environment is this process's without what configures nodes, and without
// proxies: everything is on loopback.
func environment() []string {
	var kept []string
	for _, e := range os.Environ() {
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

// StartRole runs one of this program's roles in a process of its own, waits for
// the line of JSON that it says it is ready with, and decodes that into ready.
// Lines can be written to the returned writer; the role's later lines come out
// of the reader.
func (r *Rig) StartRole(ctx context.Context, role string, ready any, args ...string) (*Process, io.Writer, *bufio.Reader, error) {
	return r.StartRoleIn(ctx, nil, role, ready, args...)
}

// StartRoleIn does the same in a network namespace.
func (r *Rig) StartRoleIn(ctx context.Context, ns *Namespace, role string, ready any, args ...string) (*Process, io.Writer, *bufio.Reader, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(environment(), roleEnv+"="+role)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, nil, err
	}
	// Not StdoutPipe, which Wait closes under the reader.
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	cmd.Stdout = pw
	p, err := r.launch(role, ns, cmd)
	pw.Close()
	if err != nil {
		pr.Close()
		return nil, nil, nil, err
	}
	out := bufio.NewReader(pr)
	if err := p.ReadLine(ctx, out, ready); err != nil {
		p.Stop()
		return nil, nil, nil, err
	}
	return p, in, out, nil
}

// ReadLine decodes the next line that a role writes.
func (p *Process) ReadLine(ctx context.Context, out *bufio.Reader, v any) error {
	line := make(chan error, 1)
	go func() {
		data, err := out.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		line <- err
	}()
	select {
	case err := <-line:
		if err != nil {
			err = fmt.Errorf("%s: %w\n%s", p.name, err, p.Tail())
		}
		return err
	case <-ctx.Done():
		_ = p.cmd.Process.Kill() // which ends the reading
		<-line                   //nolint:errcheck // the end of ctx is why
		return context.Cause(ctx)
	}
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended returns an error if the process is no longer there.
func (p *Process) Ended() error {
	select {
	case <-p.done:
		//nolint:errorlint // nil where it ended well
		return fmt.Errorf("%s has ended (%v)\n%s", p.name, p.err, p.Tail())
	default:
		return nil
	}
}

// Signal sends a signal to the process; one that has ended is an error.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("%s to %s: %w", s, p.name, err)
	}
	return nil
}

// Kill ends the process by SIGKILL and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it fails where the process has just ended
	<-p.done
}

// Stop asks the process to end, kills it where that does not help, and waits.
func (p *Process) Stop() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it fails where the process has just ended
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func (r *Rig) stopAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.children) - 1; i >= 0; i-- {
		r.children[i].Stop()
	}
}

// Tail is the end of what the process wrote.
func (p *Process) Tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "  | " + strings.Join(lines[max(0, len(lines)-15):], "\n  | ")
}

// CPU is the CPU time that the process has used, all its threads together, those
// that have ended too. It is its CPU-time clock: /proc/<pid>/stat has the same
// figure in steps of 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED, linux/posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.PID())<<3|schedClock, &ts); err != nil {
		return 0, fmt.Errorf("CPU time of %s: %w", p.name, err)
	}
	return time.Duration(ts.Nano()), nil
}

// OwnCPU is the CPU time that this process has used.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // cannot be
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Find looks for a program in PATH and in the directories of a system's own.
func Find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}
