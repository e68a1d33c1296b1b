//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestKilledInMidPullResumes: a node that is killed and started again goes on
// with what it had verified. Otherwise a node that runs out of memory in a 10 GB
// pull never ends it.
func TestKilledInMidPullResumes(t *testing.T) {
	f := startFront(t, sharedRegistry(t).addr, "")
	layer := largest(t, runnableImage(t))
	digest := layer.Digest.String()
	n := startNode(t, f.url(), nil)
	f.limit(20 * mib)
	broken := make(chan reply, 1)
	go func() { broken <- fetch(t, time.Minute, "GET", n.at("app/big", "blobs/"+digest)) }()
	eventually(t, 30*time.Second, "a part of the layer has come", func() error {
		if got := f.bytesOf(digest); got < layer.Size/2 {
			return fmt.Errorf("%d of %d bytes", got, layer.Size)
		}
		return nil
	})
	n.kill()
	(<-broken).wantNotWrong(t, "the interrupted answer", digest)
	before := f.bytesOf(digest)
	if before >= layer.Size {
		t.Fatalf("the node was killed too late: %d of %d bytes had gone out", before, layer.Size)
	}
	f.limit(0)
	n.start(t)
	fetch(t, time.Minute, "GET", n.at("app/big", "blobs/"+digest)).wantWhole(t, "the layer after the restart", digest)
	// In flight may be: one chunk on each of four connections, what sockets
	// hold, and what was verified but not yet recorded.
	const inFlight = 8 * mib
	total := f.bytesOf(digest)
	t.Logf("%d bytes before the kill, %d in all for a blob of %d: %d twice", before, total, layer.Size, total-layer.Size)
	if total > layer.Size+inFlight {
		t.Error("verified chunks were fetched again")
	}
	n.healthy(t)
}

// TestFullDiskPassesThrough: a cache that can't keep an image must still hand it
// on.
func TestFullDiskPassesThrough(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	f := startFront(t, sharedRegistry(t).addr, "")
	n := startNode(t, f.url(), nil, "--data", dir)
	client := startContainerd(t, "", "")
	// No way round the node: the fallback goes nowhere.
	client.mirror(t, n.url(), "http://127.0.0.1:1")
	client.pull(t, bigImage)
	greets(t, client.run(t, bigImage, "full"))
	n.healthy(t)
	if used := diskUse(t, dir); used > 64*mib {
		t.Errorf("%d bytes on a disk of 64 MiB", used)
	}
	// And it is a cache again for what fits.
	small := largest(t, shared.amd64)
	for range 2 {
		fetch(t, 20*time.Second, "GET", n.at("app/multi", "blobs/"+small.Digest.String())).wantWhole(t, "a small layer", small.Digest.String())
	}
	if got := n.status(t); got.Served.Origin == 0 {
		t.Errorf("a full node says that it served nothing from the origin: %+v", got.Served)
	}
}

// TestOneDataDirectoryOneNode: two nodes on one directory would ruin it; the
// second must say so in words to act on.
func TestOneDataDirectoryOneNode(t *testing.T) {
	o := startOrigin(t)
	n := startNode(t, o.url(), nil)
	_, err := try(t, 15*time.Second, nil, peercache(t), "serve", "--data", n.dir,
		"--listen", "127.0.0.1:"+freePort(t), "--admin", "127.0.0.1:"+freePort(t), "--p2p-listen", "/ip4/127.0.0.1/tcp/"+freePort(t))
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Fatalf("a second node on %s: %v, want exit code 4", n.dir, err)
	}
	if !strings.Contains(err.Error(), n.dir) || !strings.Contains(err.Error(), "another") {
		t.Errorf("it doesn't say which directory, or that another process has it: %v", err)
	}
	n.healthy(t)
	// A node that was killed leaves no lock behind.
	n.kill()
	n.start(t)
	n.healthy(t)
}
