package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// faulty is a disk whose n-th operation fails, once or from then on, and may have
// been carried out all the same.
type faulty struct {
	osDisk
	err     error
	at      int  // fails at this operation, counted from 1
	persist bool // and at all later ones
	applied bool // the failing operation has its effect

	count int
	what  string // the operation that failed
}

// fails counts an operation, and reports whether it fails.
func (d *faulty) fails(what string) bool {
	d.count++
	if d.at == 0 || d.count < d.at || d.count > d.at && !d.persist {
		return false
	}
	if d.what == "" {
		d.what = what
	}
	return true
}

func (d *faulty) do(what string, fn func() error) error {
	if !d.fails(what) {
		return fn()
	}
	if d.applied {
		_ = fn()
	}
	return d.err
}

func (d *faulty) Space(string) (free, total int64, err error) { return 60 * mib, 64 * mib, nil }

func (d *faulty) Open(name string, flag int) (diskFile, error) {
	what := "open " + filepath.Base(name)
	if flag&os.O_CREATE != 0 {
		what = "create " + filepath.Base(name)
	}
	if d.fails(what) {
		if d.applied && flag&os.O_CREATE != 0 {
			if f, err := d.osDisk.Open(name, flag); err == nil {
				f.Close()
			}
		}
		return nil, d.err
	}
	f, err := d.osDisk.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return faultyFile{f, d}, nil
}

func (d *faulty) Rename(from, to string) error {
	return d.do("rename", func() error { return d.osDisk.Rename(from, to) })
}

func (d *faulty) Remove(name string) error {
	return d.do("remove", func() error { return d.osDisk.Remove(name) })
}

func (d *faulty) MkdirAll(name string) error {
	return d.do("mkdir", func() error { return d.osDisk.MkdirAll(name) })
}

func (d *faulty) SyncDir(name string) error {
	return d.do("syncdir", func() error { return d.osDisk.SyncDir(name) })
}

type faultyFile struct {
	diskFile
	d *faulty
}

func (f faultyFile) WriteAt(b []byte, off int64) (n int, err error) {
	if f.d.fails("write") {
		if f.d.applied { // half of it
			n, _ = f.diskFile.WriteAt(b[:len(b)/2], off)
		}
		return n, f.d.err
	}
	return f.diskFile.WriteAt(b, off)
}

func (f faultyFile) ReadAt(b []byte, off int64) (n int, err error) {
	if f.d.fails("read") {
		return 0, f.d.err
	}
	return f.diskFile.ReadAt(b, off)
}

func (f faultyFile) Sync() error { return f.d.do("sync", f.diskFile.Sync) }

// TestFaults fails each operation of the scenario, in turn, in several ways, and
// then opens the store on a disk that works again. At stake is whatever was
// acknowledged before and after the fault; a full disk must be told apart from a
// broken one.
func TestFaults(t *testing.T) {
	t.Parallel() // it mostly waits for the disk
	run := func(t *testing.T, d *faulty, lost string) int {
		t.Helper()
		dir := t.TempDir()
		p := promises{func() int { return d.count }, map[digest.Digest]int{}, map[digest.Digest]int{}}
		s, err := Open(dir, &Options{disk: d})
		if err == nil {
			scenario(s, nil, p, func(step string, err error) {
				// A full disk shows in what writes.
				what, _, _ := strings.Cut(d.what, " ")
				writes := slices.Contains([]string{"create", "write", "sync", "mkdir", "rename", "syncdir"}, what) && !d.persist
				full := isNoSpace(d.err)
				var corrupt *CorruptError
				if d.what == "" {
					t.Errorf("%s: %s failed before the fault: %v", lost, step, err)
				} else if writes && errors.Is(err, d.err) && full != errors.Is(err, ErrNoSpace) {
					t.Errorf("%s: %s does not say whether the disk is full: %v", lost, step, err)
				} else if errors.As(err, &corrupt) {
					t.Errorf("%s: %s takes a fault for corruption: %v", lost, step, err)
				}
			})
			if err := s.Close(); err != nil && d.what == "" {
				t.Errorf("%s: closing: %v", lost, err)
			}
		} else if d.what == "" {
			t.Fatalf("%s: %v", lost, err)
		}
		verifyClone(t, dir, lost, p.at(1<<30))
		return d.count
	}
	total := run(t, &faulty{}, "no fault")
	if total < 40 {
		t.Fatalf("the scenario has only %d operations", total)
	}
	step := 1
	if testing.Short() {
		step = 5
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		for _, mode := range []struct {
			name             string
			persist, applied bool
		}{{"once", false, false}, {"once, with effect", false, true}, {"for good", true, false}} {
			for at := 1; at <= total; at += step {
				d := &faulty{err: errno, at: at, persist: mode.persist, applied: mode.applied}
				run(t, d, fmt.Sprintf("%v at operation %d, %s", errno, at, mode.name))
			}
		}
	}
}

// TestNothingLostByFullDisk fills the budget's disk in mid-blob: the write fails
// with ErrNoSpace, and every chunk recorded before is still there, readable and
// usable once there is space again.
func TestNothingLostByFullDisk(t *testing.T) {
	d := &faulty{err: syscall.ENOSPC}
	s, err := Open(t.TempDir(), &Options{disk: d})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Partial(whole.digest, whole.layout, KindLayer)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.WriteChunk(0, fullBuffer(whole.chunk(0)), chunkindex.Fetched, nil); err != nil {
		t.Fatal(err)
	}
	before := s.Usage()
	d.at, d.persist = d.count+1, true
	if err := p.WriteChunk(1, fullBuffer(whole.chunk(1)), chunkindex.Fetched, nil); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("error is %v", err)
	}
	if s.Usage() != before {
		t.Errorf("usage is %+v, was %+v", s.Usage(), before)
	}
	if st := p.Chunk(0); st.Level != chunkindex.Fetched {
		t.Errorf("chunk 0 is %s", st.Level)
	}
	d.at = 0
	for i := 1; i < whole.layout.Count(); i++ {
		if err := p.WriteChunk(i, fullBuffer(whole.chunk(i)), chunkindex.Fetched, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Complete(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestFsyncFailure refuses the fsync of a finished blob. The kernel reports that
// once and may drop the pages; a store that tried again would publish a blob that
// a power cut takes away.
func TestFsyncFailure(t *testing.T) {
	d := &faulty{err: syscall.EIO}
	s, err := Open(t.TempDir(), &Options{disk: d})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := s.Partial(small.digest, small.layout, KindLayer)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteChunk(0, fullBuffer(small.data), chunkindex.Fetched, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.HashPrefix(context.Background()); err != nil {
		t.Fatal(err)
	}
	d.at = d.count + 1
	for range 2 {
		if err := p.Complete(context.Background()); !errors.Is(err, syscall.EIO) || d.what != "sync" {
			t.Fatalf("error is %v, at %q", err, d.what)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stat(small.digest); err == nil {
		t.Error("the bytes that could not be synced stay")
	}
	if err := s.Put(context.Background(), small.digest, KindLayer, small.data); err != nil {
		t.Fatal(err)
	}
}
