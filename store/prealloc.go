package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Badger's log (NNNNN.mem) is a sparse file, written through a memory map: where
// the disk has no block left for a page of it, the write is a SIGBUS in a
// goroutine of badger's, which ends the process. So the blocks are allocated
// beforehand: those of the current log, and those of the next one, as an empty
// file with blocks beyond its end (badger opens an empty file as if it had just
// created it). The manifest is appended to by write(2), and a torn append would
// be read as the end of the manifest; it gets blocks beyond its end too.
//
// File systems without fallocate ignore all of this; they keep the margin that
// admit demands.

// logLength is the most that one log comes to: badger turns to the next one at
// the first commit after it holds a memtable's worth, and a commit is at most
// 15 % of a memtable, plus some 30 bytes for each entry's header.
func (ix *index) logLength() int64 { return ix.memory * 3 / 2 }

// manifestAhead is how much of the manifest is allocated beyond its end. It
// grows by some 30 bytes for each table that a flush or compaction makes.
const manifestAhead = 64 << 10

func (ix *index) logPath(n int) string { return filepath.Join(ix.dir, fmt.Sprintf("%05d.mem", n)) }

// admit returns nil if a commit may start: blocks are there for the log, and
// free space for the flush that it may cause and a compaction after that.
// Callers hold ix.mu.
func (ix *index) admit() error {
	if ix.closed {
		return ErrClosed
	}
	free, _, err := ix.space()
	if err != nil {
		return err
	}
	if need := ix.need(); free < need && !ix.forced.Load() {
		return fmt.Errorf("%w: %d bytes are free, the index needs %d to go on", ErrNoSpace, free, need)
	}
	if info, err := os.Stat(ix.logPath(ix.next)); err != nil || info.Size() > 0 || !ix.ready {
		return ix.preallocate() // badger has turned to the next log
	}
	return nil
}

// need is the free space below which the index takes no writes: a flush and a
// compaction of everything, and what the reserve would hold while it is missing.
func (ix *index) need() int64 {
	tables, _ := ix.db.Size()
	return 2*ix.memory + tables + ix.extra.Load()
}

// preallocate finds the log in use and allocates it and the next. Failing for
// want of space it returns [ErrNoSpace]; other failures are file systems that
// cannot, and are ignored. Callers hold ix.mu, or nobody else has ix yet.
func (ix *index) preallocate() error {
	files, err := os.ReadDir(ix.dir)
	if err != nil {
		return err
	}
	current := -1
	for _, f := range files {
		name, isLog := strings.CutSuffix(f.Name(), ".mem")
		n, err := strconv.Atoi(name)
		if !isLog || err != nil {
			continue
		}
		if info, err := f.Info(); err == nil && info.Size() > 0 {
			current = max(current, n)
		}
	}
	if current < 0 {
		return fmt.Errorf("no log file in %s", ix.dir)
	}
	ix.next = current + 1
	err = errors.Join(
		allocate(ix.logPath(current), false, ix.logLength()),
		allocate(ix.logPath(ix.next), false, ix.logLength()),
		allocate(filepath.Join(ix.dir, "MANIFEST"), true, manifestAhead),
	)
	ix.ready = err == nil
	return spaceError(err)
}

// allocate gives the file blocks for n bytes, from its beginning or from its end
// on, and does not change its size. It creates a file that does not exist.
func allocate(name string, fromEnd bool, n int64) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	off := int64(0)
	if fromEnd {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		off = info.Size()
	}
	for {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if isNoSpace(err) {
		return err
	}
	return nil
}

// diskUsage is the number of bytes that a file occupies, which for a sparse one
// is less than its size.
func diskUsage(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
