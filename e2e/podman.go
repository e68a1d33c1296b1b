//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// podman is Podman with a storage root, configuration and mirrors of its own.
type podman struct {
	args []string
	env  []string
	dir  string
}

// newPodman returns a Podman whose pulls of [plainOriginName] go to the mirror, a
// location of the form host:port/path, and where that fails to upstream,
// host:port.
func newPodman(t testing.TB, mirror, upstream string) *podman {
	t.Helper()
	// A test's own directory has so long a name that sockets in it don't work,
	// and Podman then waits 20 s for the end of each container.
	p := &podman{dir: must[string](t)(os.MkdirTemp(os.Getenv(insideEnv), "p"))}
	file := func(name, content string) string {
		path := filepath.Join(p.dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p.env = []string{
		"CONTAINERS_REGISTRIES_CONF=" + file("registries.conf", fmt.Sprintf(`unqualified-search-registries = []
[[registry]]
prefix = %q
location = %q
insecure = true
[[registry.mirror]]
location = %q
insecure = true
`, plainOriginName, upstream, mirror)),
		// No raising of limits, and runc: what machines without all
		// capabilities, and those with both cgroup versions mounted, allow.
		"CONTAINERS_CONF=" + file("containers.conf", `[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
`),
		"CONTAINERS_STORAGE_CONF=" + file("storage.conf", fmt.Sprintf("[storage]\ndriver = \"overlay\"\nrunroot = %q\ngraphroot = %q\n",
			filepath.Join(p.dir, "run"), filepath.Join(p.dir, "root"))),
		"HOME=" + p.dir,
		"XDG_RUNTIME_DIR=" + p.dir,
	}
	policy := file("policy.json", `{"default": [{"type": "insecureAcceptAnything"}]}`)
	p.args = []string{"--signature-policy", policy}
	t.Cleanup(func() {
		unmountUnder(t, p.dir)
		if err := os.RemoveAll(p.dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

// pull pulls plainOriginName/ref.
func (p *podman) pull(t testing.TB, ref string) {
	t.Helper()
	argv := append([]string{"podman", "pull", "-q"}, p.args...)
	run(t, 2*time.Minute, p.env, append(argv, plainOriginName+"/"+ref)...)
}

// run runs a container from a pulled image and returns what it printed.
func (p *podman) run(t testing.TB, ref string) string {
	t.Helper()
	return run(t, time.Minute, p.env, "podman", "run", "--rm", "--network", "none", "--pull", "never", plainOriginName+"/"+ref)
}
