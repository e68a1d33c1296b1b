package store

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// record runs the scenario on a journal, to its clean end.
func record(t *testing.T) (*journal, promises) {
	t.Helper()
	dir := t.TempDir()
	j := newJournal(dir)
	s, err := Open(dir, &Options{disk: j})
	if err != nil {
		t.Fatal(err)
	}
	j.synced() // a new epoch is synced before Open returns
	p := promises{j.position, map[digest.Digest]int{}, map[digest.Digest]int{}}
	scenario(s, j.synced, p, func(step string, err error) { t.Fatalf("%s: %v", step, err) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	j.index = append(j.index, takeSnapshot(filepath.Join(dir, "index")))
	return j, p
}

// TestPowerCut materialises what a power cut may leave after each change to the
// disk, and recovers from it: nothing lost (which is also kill -9), all unsynced
// changes lost, each prefix of them lost, each suffix of them lost; with an index
// that kept everything, and with one that kept only what it had synced. At stake
// are published blobs, which must survive; chunks whose record outlived their
// bytes, which must not be reported; and names that came back.
func TestPowerCut(t *testing.T) {
	t.Parallel() // it mostly waits for the disk
	j, p := record(t)
	clones := 0
	for k := range len(j.ops) + 1 {
		var unsynced []int
		for i, done := range j.durable(k) {
			if o := j.ops[i]; !done && o.kind != opSync && o.kind != opSyncDir {
				unsynced = append(unsynced, i)
			}
		}
		type loss struct {
			what string
			keep func(i int) bool
		}
		losses := []loss{
			{"nothing", func(int) bool { return true }},
			{"all unsynced changes", func(int) bool { return false }},
		}
		for n := 1; n < len(unsynced); n++ {
			kept, cut := unsynced[n:], unsynced[:n]
			losses = append(losses,
				loss{fmt.Sprintf("the first %d of %d unsynced changes", n, len(unsynced)), func(i int) bool { return slices.Contains(kept, i) }},
				loss{fmt.Sprintf("all but the first %d of %d unsynced changes", n, len(unsynced)), func(i int) bool { return slices.Contains(cut, i) }})
		}
		last := "the start"
		if k > 0 {
			last = opNames[j.ops[k-1].kind] + " " + j.ops[k-1].name
		}
		for n, l := range losses {
			if testing.Short() && n > 1 && n%8 != k%8 {
				continue
			}
			clones++
			dir := t.TempDir()
			j.clone(t, dir, k, l.keep, j.index[k])
			verifyClone(t, dir, fmt.Sprintf("change %d (%s), lost: %s", k, last, l.what), p.at(k))
			if n > 1 || k >= j.cleanAt() {
				continue // closing syncs the index
			}
			clones++
			dir = t.TempDir()
			j.clone(t, dir, k, l.keep, j.syncedIndex(k))
			verifyClone(t, dir, fmt.Sprintf("change %d (%s), lost: %s and what the index had not synced", k, last, l.what), p.at(k))
		}
	}
	t.Logf("%d changes, %d clones", len(j.ops), clones)
}

// cleanAt is the number of changes before the clean mark.
func (j *journal) cleanAt() int {
	for i, o := range j.ops {
		if o.kind == opCreate && o.name == "CLEAN" {
			return i
		}
	}
	return math.MaxInt
}

// syncedIndex returns the index as it was last synced before change k.
func (j *journal) syncedIndex(k int) snapshot {
	var s snapshot
	for _, b := range j.base {
		if b.from <= k {
			s = b.snap
		}
	}
	return s
}

// TestTornIndex cuts the unsynced end of the index's log at many places, fills
// holes of a page into it, and damages its other files, in each case on a disk
// that has everything else, and on one that lost all unsynced data. At stake are
// records that no longer match the files beside them, and an index that does not
// open: published blobs must survive both.
func TestTornIndex(t *testing.T) {
	t.Parallel() // it mostly waits for the disk
	j, p := record(t)
	everything, nothing := func(int) bool { return true }, func(int) bool { return false }
	try := func(k int, what string, index snapshot) {
		t.Helper()
		for lost, keep := range map[string]func(int) bool{"": everything, ", and all unsynced data": nothing} {
			dir := t.TempDir()
			j.clone(t, dir, k, keep, index)
			verifyClone(t, dir, fmt.Sprintf("change %d, lost: %s%s", k, what, lost), p.at(k))
		}
	}
	end := j.cleanAt()
	points := []int{end / 3, end / 2, end - 6}
	cuts := 10
	if testing.Short() {
		points, cuts = points[2:], 4
	}
	for _, k := range points {
		index := j.index[k]
		log := index.log()
		from, to := len(j.syncedIndex(k)[log].data), len(index[log].data)
		for i := range cuts {
			at := from + (to-from)*i/cuts
			try(k, fmt.Sprintf("the log from byte %d of %d on, as zeros", at, to),
				index.with(log, func(f snapped) snapped { f.data = f.data[:at]; return f }))
			try(k, fmt.Sprintf("the log from byte %d of %d on, cut off", at, to),
				index.with(log, func(f snapped) snapped { f.data, f.size = f.data[:at], int64(at); return f }))
			try(k, fmt.Sprintf("a page of the log at %d of %d", at, to),
				index.with(log, func(f snapped) snapped { clear(f.data[at:min(at+4096, to)]); return f }))
		}
	}
	k := end - 1
	for name, f := range j.index[k] {
		index := j.index[k]
		gone := index.with(name, func(f snapped) snapped { return f })
		delete(gone, name)
		try(k, name, gone)
		try(k, "the content of "+name, index.with(name, func(snapped) snapped { return snapped{} }))
		try(k, "half of "+name, index.with(name, func(f snapped) snapped {
			f.size /= 2
			f.data = f.data[:min(len(f.data), int(f.size))]
			return f
		}))
		try(k, "all bytes of "+name, index.with(name, func(f snapped) snapped { f.data = nil; return f }))
		if len(f.data) > 0 {
			try(k, "a bit of "+name, index.with(name, func(f snapped) snapped { f.data[len(f.data)/2] ^= 4; return f }))
		}
	}
}

// TestTornTables damages the tables of an index that was closed, one after the
// other. Badger goes on without a table whose checksum is wrong; at stake is that
// the store notices, and takes nothing for proven that the rest says.
func TestTornTables(t *testing.T) {
	j, p := record(t)
	k := len(j.ops)
	for name, f := range j.index[k] {
		for _, at := range []int{0, len(f.data) / 3, len(f.data) - 1} {
			if at < 0 || at >= len(f.data) {
				continue
			}
			dir := t.TempDir()
			j.clone(t, dir, k, func(int) bool { return true }, j.index[k].with(name, func(f snapped) snapped { f.data[at] ^= 0xff; return f }))
			if strings.HasSuffix(name, ".sst") {
				wantSuspicion(t, dir, fmt.Sprintf("byte %d of %s", at, name))
			}
			verifyClone(t, dir, fmt.Sprintf("byte %d of %s", at, name), p.at(k))
		}
	}
}

// wantSuspicion fails unless the store takes none of its blobs for proven.
func wantSuspicion(t *testing.T, dir, lost string) {
	t.Helper()
	s, err := Open(dir, &Options{disk: &faulty{}})
	if err != nil {
		t.Fatalf("%s: %v", lost, err)
	}
	defer s.Close()
	if len(s.entries) == 0 {
		t.Errorf("%s: no blob was found again", lost)
	}
	for d, e := range s.entries {
		if e.complete && e.epoch == s.epoch {
			t.Errorf("%s: blob %s still counts as proven", lost, d)
		}
	}
}
