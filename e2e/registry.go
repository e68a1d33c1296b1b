//go:build e2e && linux

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// originName is what clients call the origin: a name that doesn't resolve, so
// that nothing reaches the registry but through what a test sets up.
const originName = "registry.test:5000"

// plainOriginName is the same registry to Podman, whose references can't hold a
// port in the path of a mirror.
const plainOriginName = "registry.test"

// registry is a docker-registry process.
type registry struct {
	*process
	addr string // host:port
}

// startRegistry runs Debian's docker-registry on dir.
func startRegistry(t testing.TB, dir string) *registry {
	t.Helper()
	addr := "127.0.0.1:" + freePort(t)
	config := filepath.Join(t.TempDir(), "config.yml")
	err := os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log:
  level: warn
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: %s
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: %s
`, dir, addr), 0o644)
	if err != nil {
		t.Fatal(err)
	}
	r := &registry{addr: addr, process: start(t, "docker-registry", []string{"OTEL_TRACES_EXPORTER=none"}, "docker-registry", "serve", config)}
	eventually(t, 10*time.Second, "docker-registry is up", func() error {
		if err := r.ended(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get("http://" + addr + "/v2/")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s", resp.Status)
		}
		return nil
	})
	return r
}

// push writes an image or an index to repository:tag.
func (r *registry) push(t testing.TB, ref string, what remote.Taggable) {
	t.Helper()
	tag, err := name.NewTag(r.addr+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	switch what := what.(type) {
	case v1.Image:
		err = remote.Write(tag, what, remote.WithJobs(2))
	case v1.ImageIndex:
		err = remote.WriteIndex(tag, what, remote.WithJobs(2))
	default:
		t.Fatalf("can't push a %T", what)
	}
	if err != nil {
		t.Fatalf("pushing %s: %v", ref, err)
	}
}

// shared is a registry's data that several tests serve, each from a process of
// its own, and none writes to: app/big:v1 is the runnable image, app/multi:v1
// an OCI index, app/list:v1 a docker list, app/middling:v1 an image of two layers
// of many chunks.
var shared struct {
	once         sync.Once
	dir          string
	amd64, arm64 v1.Image // of app/multi
	listed       v1.Image // of app/list
	middling     v1.Image // of app/middling
}

const bigImage = "app/big:v1"

// sharedRegistry starts a registry on the shared data.
func sharedRegistry(t testing.TB) *registry {
	t.Helper()
	shared.once.Do(func() {
		dir := filepath.Join(os.Getenv(insideEnv), "registry")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r := startRegistry(t, dir)
		r.push(t, bigImage, runnableImage(t))
		index, amd64, arm64 := platformIndex(t, 100, 3*mib)
		r.push(t, "app/multi:v1", index)
		list, listed := schema2List(t, 200, 3*mib)
		r.push(t, "app/list:v1", list)
		middling := imageOf(t, "amd64", nil, fileLayer(t, 300, 20*mib), fileLayer(t, 301, 5*mib))
		r.push(t, "app/middling:v1", middling)
		shared.amd64, shared.arm64, shared.listed, shared.middling = amd64, arm64, listed, middling
		r.stop(t)
		shared.dir = dir
	})
	if shared.dir == "" {
		t.Fatal("the shared registry was not filled; see the first test that wanted it")
	}
	return startRegistry(t, shared.dir)
}
