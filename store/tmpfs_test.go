package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// mountTmpfs mounts a tmpfs of its own, or skips the test where this process may
// not.
func mountTmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); errors.Is(err, syscall.EPERM) {
		t.Skip("mounting takes root")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// fill takes what is left of the file system, to the last byte.
func fill(t *testing.T, dir string) (filler string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for len(block) > 0 {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	return f.Name()
}

// TestSmallDisk works on a file system of 64 MiB, until others have filled it to
// the last byte. Badger writes through memory maps: what is at stake is not only
// what was stored, but this process, which a write to a page without a block ends.
func TestSmallDisk(t *testing.T) {
	mount := mountTmpfs(t, "size=64m")
	dir := filepath.Join(mount, "store")
	ctx := context.Background()
	opts := &Options{MaxBytes: 64 * mib, MinFreeFraction: -1}
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	if err := s.Put(ctx, small.digest, KindManifest, small.data); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(small.digest, true); err != nil {
		t.Fatal(err)
	}

	// More blobs than fit: the oldest make room.
	for i := range byte(80) {
		c := newContent(digest.SHA256, 1<<20, i)
		p, err := s.Partial(c.digest, c.layout, KindLayer)
		if err != nil {
			t.Fatalf("blob %d: %v", i, err)
		}
		if err := errors.Join(p.WriteChunk(0, fullBuffer(c.data), chunkindex.Fetched, nil), p.Complete(ctx)); err != nil {
			t.Fatalf("blob %d: %v", i, err)
		}
	}
	if u := s.Usage(); u.Blobs < 20 || u.Blobs > 60 {
		t.Errorf("usage is %+v", u)
	}

	// More records than the index may take: they are refused in time.
	var refused int
	ds := s.Datastore("x")
	for i := 0; i < 60000 && refused < 3; i++ {
		err := s.PutRecord("x", fmt.Sprint(i), make([]byte, 1000))
		if errors.Is(err, ErrNoSpace) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("60 MB of records fit beside the blobs")
	}

	// Others fill the rest. A flush or compaction that is under way then is the
	// one thing that the store cannot protect.
	waitQuiet(t, s.index)
	filler := fill(t, mount)
	if u := s.Usage(); u.FreeBytes != 0 {
		t.Fatalf("%d bytes are free", u.FreeBytes)
	}
	if err := s.PutRecord("x", "y", []byte("z")); !errors.Is(err, ErrNoSpace) {
		t.Errorf("record on a full disk: %v", err)
	}
	if err := ds.Put(ctx, datastore.NewKey("y"), []byte("z")); !errors.Is(err, ErrNoSpace) {
		t.Errorf("datastore on a full disk: %v", err)
	}
	before := s.Usage().Blobs
	s.upkeep() // must evict, and gives up the reserve
	if u := s.Usage(); u.Blobs >= before {
		t.Errorf("nothing was evicted: %+v", u)
	}
	wantWhole(t, s, small)
	fill(t, mount)
	if err := s.Close(); err != nil && !errors.Is(err, ErrNoSpace) {
		t.Errorf("closing on a full disk: %v", err)
	}
	fill(t, mount)
	if full, err := Open(dir, opts); err == nil {
		s = full
		wantWhole(t, s, small)
		if err := s.Close(); err != nil && !errors.Is(err, ErrNoSpace) {
			t.Error(err)
		}
	} else if !errors.Is(err, ErrNoSpace) {
		t.Errorf("opening on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, opts); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, s, small)
	if info, err := s.Stat(small.digest); err != nil || !info.Pinned {
		t.Errorf("the pin is lost: %+v, %v", info, err)
	}
	if v, err := s.Record("x", "0"); err != nil || len(v) != 1000 {
		t.Errorf("the first record is lost: %v", err)
	}
	if err := s.Put(ctx, whole.digest, KindLayer, whole.data); err != nil {
		t.Errorf("storing again: %v", err)
	}
}

// TestInodes runs out of inodes instead of bytes: blobs make room for files just
// the same.
func TestInodes(t *testing.T) {
	mount := mountTmpfs(t, "size=64m,nr_inodes=120")
	s, err := Open(filepath.Join(mount, "store"), &Options{MaxBytes: 64 * mib, MinFreeFraction: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stored := 0
	for i := range byte(200) {
		c := newContent(digest.SHA256, 1000, i)
		err := s.Put(context.Background(), c.digest, KindManifest, c.data)
		if err != nil && !errors.Is(err, ErrNoSpace) {
			t.Fatalf("blob %d: %v", i, err)
		}
		if err == nil {
			stored++
		}
	}
	if stored < 150 {
		t.Errorf("%d of 200 small blobs were stored", stored)
	}
	if n := s.Usage().Blobs; n < 15 { // each takes a directory, too
		t.Errorf("%d blobs are left", n)
	}
}

// waitQuiet returns when badger has flushed and compacted what there is.
func waitQuiet(t *testing.T, ix *index) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for quiet := 0; quiet < 20; { // compactions look for work every 50 ms
		logs := 0
		files, err := os.ReadDir(ix.dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if info, err := f.Info(); err == nil && filepath.Ext(f.Name()) == ".mem" && info.Size() > 0 {
				logs++
			}
		}
		quiet++
		if logs > 1 {
			quiet = 0
		}
		for _, l := range ix.db.Levels() {
			if l.Score >= 1 {
				quiet = 0
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("badger does not come to rest")
		}
	}
}

func wantWhole(t *testing.T, s *Store, c content) {
	t.Helper()
	b, err := s.Open(c.digest)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	if err := b.Prove(context.Background()); err != nil {
		t.Error(err)
	}
}
