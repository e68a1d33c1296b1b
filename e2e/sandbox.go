//go:build e2e && linux

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Three processes of this program run: the one that `go test` started makes the
// namespaces and waits; the first process in them furnishes them and reaps
// orphans; its child runs the tests. stageEnv tells them apart, insideEnv is
// their directory.
const (
	stageEnv  = "PEERCACHE_E2E_STAGE"
	insideEnv = "PEERCACHE_E2E_INSIDE"

	stageInit  = "init"
	stageTests = "tests"
)

// sandboxResolv names a server on loopback: nobody listens there unless a test
// does.
const sandboxResolv = "nameserver 127.0.0.1\n"

// sandboxFiles returns the files that stand for /etc/hosts and /etc/resolv.conf
// in the sandbox. Tests may rewrite them in place.
func sandboxFiles() (hosts, resolv string) {
	dir := os.Getenv(insideEnv)
	return filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
}

// runInSandbox runs this program again as the first process of its own
// network, mount, process, host name and IPC namespaces and returns its exit
// code. With the first process of a process namespace all others in it die, and
// with the last one its mounts and network go: there is no way to leave
// anything running.
func runInSandbox() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: these tests make namespaces and run containers: run them as root (make test-e2e uses sudo)")
		return 1
	}
	dir, err := os.MkdirTemp("", "peercache-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)

	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Go's testing takes its temporary directories from TMPDIR: whatever a
	// killed test leaves behind goes with dir.
	cmd.Env = append(os.Environ(), stageEnv+"="+stageInit, insideEnv+"="+dir, "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)
	before := cgroupsNow()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: no namespaces:", err)
		return 1
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	removeCgroups(before)
	if err == nil {
		return 0
	}
	return max(cmd.ProcessState.ExitCode(), 1)
}

// initSandbox is the first process of the new namespaces. It inherits the
// orphans of all others and must reap them: Podman waits for its monitor, a
// grandchild, to be gone for good. The tests' process can't do that itself
// without taking exit codes away from os/exec.
func initSandbox() int {
	if err := furnishSandbox(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	// Not appended to the environment: of two values the first would count.
	if err := os.Setenv(stageEnv, stageTests); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	tests, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: starting the tests:", err)
		return 1
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			syscall.Kill(tests, s.(syscall.Signal))
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			fmt.Fprintln(os.Stderr, "e2e: waiting:", err)
			return 1
		case pid == tests && status.Exited():
			return status.ExitStatus()
		case pid == tests:
			fmt.Fprintln(os.Stderr, "e2e: the tests ended:", status.Signal())
			return 1
		}
	}
}

// furnishSandbox makes the new namespaces habitable: loopback is up, /proc shows
// this namespace's processes, and no name resolves but those that a test puts
// in [sandboxFiles].
func furnishSandbox() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	// What clients keep in fixed places (locks, runtime state) must meet
	// neither the machine's nor that of an earlier run.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	hostsFile, resolvFile := sandboxFiles()
	for _, f := range []struct{ path, over, content string }{
		{hostsFile, "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"},
		{resolvFile, "/etc/resolv.conf", sandboxResolv},
	} {
		if err := os.WriteFile(f.path, []byte(f.content), 0o644); err != nil {
			return err
		}
		over, err := filepath.EvalSymlinks(f.over)
		if err != nil { // a link into what /run was
			if err := os.MkdirAll(filepath.Dir(f.over), 0o755); err != nil {
				return err
			}
			continue
		}
		if err := unix.Mount(f.path, over, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting over %s: %w", over, err)
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// cgroupsNow lists the control groups that clients of ours name: with those of
// others, the difference tells what this run left.
func cgroupsNow() map[string]bool {
	seen := map[string]bool{}
	for _, pattern := range []string{
		"/sys/fs/cgroup/*/" + cgroupName + "*/*", "/sys/fs/cgroup/*/" + cgroupName + "*",
		"/sys/fs/cgroup/" + cgroupName + "*/*", "/sys/fs/cgroup/" + cgroupName + "*",
		"/sys/fs/cgroup/*/libpod_parent/*", "/sys/fs/cgroup/*/libpod_parent",
		"/sys/fs/cgroup/libpod_parent/*", "/sys/fs/cgroup/libpod_parent",
	} {
		found, _ := filepath.Glob(pattern)
		for _, f := range found {
			seen[f] = true
		}
	}
	return seen
}

// cgroupName begins the names of the containerd namespaces of these tests, and
// with them the control groups of their containers.
const cgroupName = "peercache-e2e"

// removeCgroups removes the empty control groups that the dead containers of
// this run left.
func removeCgroups(before map[string]bool) {
	for range 2 { // children, then parents
		for dir := range cgroupsNow() {
			if !before[dir] {
				os.Remove(dir) // rmdir; fails where somebody lives
			}
		}
	}
}
