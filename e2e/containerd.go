//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// containerd is a containerd process with its own root, state and socket, and a
// hosts.toml that names a mirror.
type containerd struct {
	*process
	bin    string // directory of containerd and ctr, "" for those in PATH
	socket string
	hosts  string // for ctr's --hosts-dir
	env    []string
}

// containerdNamespace names where containerd keeps our images, and begins the
// path of our containers' control groups.
const containerdNamespace = cgroupName

// startContainerd runs the containerd of bin ("": Debian's). Its configuration
// is version 2 for containerd 1.6 and for 2.x, which converts it; extra is
// appended.
func startContainerd(t testing.TB, bin, extra string) *containerd {
	t.Helper()
	dir := t.TempDir()
	c := &containerd{bin: bin, socket: filepath.Join(dir, "c.sock"), hosts: filepath.Join(dir, "certs.d")}
	if bin != "" {
		c.env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	}
	config := filepath.Join(dir, "config.toml")
	err := os.WriteFile(config, fmt.Appendf(nil, `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = %q
[ttrpc]
  address = %q
%s`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), c.socket, c.socket+".ttrpc", extra), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	// Runs after the process has ended: what containers left mounted.
	t.Cleanup(func() { unmountUnder(t, dir) })
	c.process = start(t, "containerd", c.env, c.tool("containerd"), "--config", config)
	eventually(t, 20*time.Second, "containerd is up", func() error {
		if err := c.ended(); err != nil {
			t.Fatal(err)
		}
		_, err := try(t, 5*time.Second, c.env, c.tool("ctr"), "--address", c.socket, "version")
		return err
	})
	return c
}

func (c *containerd) tool(name string) string {
	if c.bin == "" {
		return name
	}
	return filepath.Join(c.bin, name)
}

func (c *containerd) args(args ...string) []string {
	return append([]string{c.tool("ctr"), "--address", c.socket, "--namespace", containerdNamespace}, args...)
}

// mirror makes containerd ask a mirror first, and fall back to upstream, a URL.
func (c *containerd) mirror(t testing.TB, mirror, upstream string) {
	t.Helper()
	dir := filepath.Join(c.hosts, originName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	toml := fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", upstream, mirror)
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(toml), 0o644); err != nil {
		t.Fatal(err)
	}
}

// pull pulls originName/ref for linux/amd64 and unpacks it.
func (c *containerd) pull(t testing.TB, ref string, args ...string) {
	t.Helper()
	if err := c.tryPull(t, ref, args...); err != nil {
		t.Fatal(err)
	}
}

func (c *containerd) tryPull(t testing.TB, ref string, args ...string) error {
	t.Helper()
	args = append([]string{"images", "pull", "--hosts-dir", c.hosts, "--platform", "linux/amd64"}, args...)
	_, err := try(t, 2*time.Minute, c.env, c.args(append(args, originName+"/"+ref)...)...)
	return err
}

// run runs a container from a pulled image with runc and returns what it
// printed.
func (c *containerd) run(t testing.TB, ref, id string) string {
	t.Helper()
	return run(t, time.Minute, c.env, c.args("run", "--rm", originName+"/"+ref, id)...)
}

// forget removes an image and everything that only it held.
func (c *containerd) forget(t testing.TB, ref string) {
	t.Helper()
	run(t, time.Minute, c.env, c.args("images", "rm", "--sync", originName+"/"+ref)...)
	if left := strings.TrimSpace(run(t, time.Minute, c.env, c.args("content", "ls", "-q")...)); left != "" {
		t.Fatalf("containerd still holds content after the image was removed:\n%s", left)
	}
}

// unmountUnder unmounts everything below dir, the last mounted first.
func unmountUnder(t testing.TB, dir string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
		return
	}
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 5 {
			continue
		}
		point, err := strconv.Unquote(`"` + fields[4] + `"`) // octal escapes
		if err != nil {
			point = fields[4]
		}
		if strings.HasPrefix(point, dir+"/") {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				t.Errorf("unmounting %s: %v", point, err)
			}
		}
	}
}
