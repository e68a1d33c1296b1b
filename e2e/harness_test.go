//go:build e2e && linux

package e2e

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// greets fails the test unless a container of the runnable image printed what
// it should.
func greets(t testing.TB, printed string) {
	t.Helper()
	want := fmt.Sprintf("%s\n%x  -\n", greeting, sha256.Sum256(contents(6, 130*mib)))
	if printed != want {
		t.Fatalf("the container printed %q, want %q", printed, want)
	}
}

// TestClientsWithoutPeercache is the other tests' own test: clients, registry
// and front work with one another, so that what fails below is ours.
func TestClientsWithoutPeercache(t *testing.T) {
	f := startFront(t, sharedRegistry(t).addr, "")
	t.Run("containerd", func(t *testing.T) {
		c := startContainerd(t, "", "")
		c.mirror(t, f.url(), f.url())
		f.reset()
		c.pull(t, bigImage)
		greets(t, c.run(t, bigImage, "direct"))
		if got := f.seen(blobKind).bytes; got < runnable.size {
			t.Fatalf("the front counted %d bytes of an image of %d", got, runnable.size)
		}
		c.forget(t, bigImage)
	})
	t.Run("podman", func(t *testing.T) {
		p := newPodman(t, f.addr, f.addr)
		p.pull(t, bigImage)
		greets(t, p.run(t, bigImage))
	})
}
