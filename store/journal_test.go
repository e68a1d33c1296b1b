package store

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// journal is a disk that remembers every change in order, so that a test can say
// what a power cut would have left of it: see clone. It also keeps a copy of the
// index, which does not pass through it, from before each change.
type journal struct {
	osDisk
	dir string // the store's

	mu     sync.Mutex
	ops    []op
	inodes map[string]int // by name
	last   int
	index  []snapshot // index[k]: after the first k changes, right before the next
	base   []based    // what the index has synced
}

// op is one change. Names are relative to the store's directory.
type op struct {
	kind  opKind
	inode int
	name  string // created, removed, renamed from, directory synced
	to    string // renamed to
	off   int64
	data  []byte
}

type opKind int

const (
	opCreate opKind = iota
	opWrite
	opSync
	opRename
	opRemove
	opSyncDir
)

var opNames = map[opKind]string{
	opCreate: "create", opWrite: "write", opSync: "sync", opRename: "rename", opRemove: "remove", opSyncDir: "syncdir",
}

// snapshot is a directory's files, without the zeros at their ends, which logs
// that are allocated ahead have many of.
type snapshot map[string]snapped

type snapped struct {
	data []byte
	size int64
}

type based struct {
	from int
	snap snapshot
}

func newJournal(dir string) *journal { return &journal{dir: dir, inodes: map[string]int{}} }

// Space describes a file system of 64 MiB, so that the index chooses small logs.
func (j *journal) Space(string) (free, total int64, err error) { return 60 * mib, 64 * mib, nil }

func (j *journal) rel(name string) string {
	rel, err := filepath.Rel(j.dir, name)
	if err != nil {
		panic(err)
	}
	return rel
}

// note records a change that is about to be made.
func (j *journal) note(o op) {
	j.index = append(j.index, takeSnapshot(filepath.Join(j.dir, "index")))
	j.ops = append(j.ops, o)
}

// synced says that the index is durable as it is now.
func (j *journal) synced() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.base = append(j.base, based{len(j.ops), takeSnapshot(filepath.Join(j.dir, "index"))})
}

func (j *journal) position() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.ops)
}

func (j *journal) Open(name string, flag int) (diskFile, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	rel := j.rel(name)
	id, there := j.inodes[rel]
	if flag&os.O_CREATE != 0 && !there {
		j.last++
		id = j.last
		j.note(op{kind: opCreate, inode: id, name: rel})
		j.inodes[rel] = id
	}
	f, err := j.osDisk.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return &journalFile{f, j, id}, nil
}

func (j *journal) Rename(from, to string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.osDisk.Rename(from, to); err != nil {
		return err
	}
	f, t := j.rel(from), j.rel(to)
	j.note(op{kind: opRename, inode: j.inodes[f], name: f, to: t})
	j.inodes[t] = j.inodes[f]
	delete(j.inodes, f)
	return nil
}

func (j *journal) Remove(name string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	info, err := os.Stat(name)
	if err == nil {
		err = j.osDisk.Remove(name)
	}
	if err == nil && !info.IsDir() { // directories are there again when they are needed
		j.note(op{kind: opRemove, inode: j.inodes[j.rel(name)], name: j.rel(name)})
		delete(j.inodes, j.rel(name))
	}
	return err
}

func (j *journal) SyncDir(name string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.note(op{kind: opSyncDir, name: j.rel(name)})
	return j.osDisk.SyncDir(name)
}

type journalFile struct {
	diskFile
	j     *journal
	inode int
}

func (f *journalFile) WriteAt(b []byte, off int64) (int, error) {
	f.j.mu.Lock()
	defer f.j.mu.Unlock()
	f.j.note(op{kind: opWrite, inode: f.inode, off: off, data: append([]byte(nil), b...)})
	return f.diskFile.WriteAt(b, off)
}

func (f *journalFile) Sync() error {
	f.j.mu.Lock()
	defer f.j.mu.Unlock()
	f.j.note(op{kind: opSync, inode: f.inode})
	return f.diskFile.Sync()
}

// durable reports, for each of the first k changes, whether it was synced by then:
// writes by an fsync of their file, changes of names by one of their directory.
func (j *journal) durable(k int) []bool {
	done := make([]bool, k)
	for at, o := range j.ops[:k] {
		for i, before := range j.ops[:at] {
			switch {
			case o.kind == opSync && before.kind == opWrite && before.inode == o.inode:
				done[i] = true
			case o.kind == opSyncDir && (before.kind == opCreate || before.kind == opRemove):
				done[i] = done[i] || filepath.Dir(before.name) == o.name
			case o.kind == opSyncDir && before.kind == opRename:
				// The new name counts; the old one may come back.
				done[i] = done[i] || filepath.Dir(before.to) == o.name
			}
		}
	}
	return done
}

// clone writes what is left of the first k changes into dir if, of those that
// were not synced, only the ones which keep allows reached the disk.
func (j *journal) clone(t testing.TB, dir string, k int, keep func(i int) bool, index snapshot) {
	t.Helper()
	content := map[int][]byte{}
	names := map[string]int{}
	done := j.durable(k)
	for i, o := range j.ops[:k] {
		if !done[i] && !keep(i) {
			continue
		}
		switch o.kind {
		case opCreate:
			names[o.name] = o.inode
		case opWrite:
			c := content[o.inode]
			if end := int(o.off) + len(o.data); end > len(c) {
				c = append(c, make([]byte, end-len(c))...)
			}
			copy(c[o.off:], o.data)
			content[o.inode] = c
		case opRename:
			names[o.to] = o.inode
			if keep(i) {
				delete(names, o.name)
			}
		case opRemove:
			delete(names, o.name)
		}
	}
	for name, inode := range names {
		writeFile(t, filepath.Join(dir, name), content[inode])
	}
	index.write(t, filepath.Join(dir, "index"))
}

func writeFile(t testing.TB, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// takeSnapshot copies a directory while others write to it; what vanishes
// meanwhile is left out.
func takeSnapshot(dir string) snapshot {
	s := snapshot{}
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return nil
		}
		size := int64(len(data))
		end := len(data)
		for end > 0 && data[end-1] == 0 {
			end--
		}
		s[filepath.Base(name)] = snapped{data[:end:end], size}
		return nil
	})
	return s
}

func (s snapshot) write(t testing.TB, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, f := range s {
		writeFile(t, filepath.Join(dir, name), f.data)
		if err := os.Truncate(filepath.Join(dir, name), f.size); err != nil {
			t.Fatal(err)
		}
	}
}

// log returns the name of the newest log of the index.
func (s snapshot) log() string {
	newest := ""
	for name, f := range s {
		if strings.HasSuffix(name, ".mem") && f.size > 0 {
			newest = max(newest, name)
		}
	}
	return newest
}

// with returns a copy of s in which a file is changed.
func (s snapshot) with(name string, change func(snapped) snapped) snapshot {
	c := snapshot{}
	for n, f := range s {
		c[n] = f
	}
	f := c[name]
	f.data = append([]byte(nil), f.data...)
	c[name] = change(f)
	return c
}
