package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// disk is the little of a file system that the store's data files need. It
// exists so that tests can lose what was not synced and fail what may fail. The
// index is badger's and does not pass through it.
type disk interface {
	// Open opens or creates a file, with the flags of package os.
	Open(name string, flag int) (diskFile, error)
	Rename(from, to string) error
	Remove(name string) error
	MkdirAll(name string) error
	// SyncDir makes creations, renames and removals in a directory durable.
	SyncDir(name string) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// Space returns the bytes free for this process and those of the whole
	// file system that holds name.
	Space(name string) (free, total int64, err error)
}

// diskFile is an open file of a disk.
type diskFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Stat() (fs.FileInfo, error)
	// File is the descriptor itself, for readers that use sendfile. It stays
	// owned by the diskFile.
	File() *os.File
}

// osDisk is the operating system's file system.
type osDisk struct{}

type osHandle = os.File

type osFile struct{ *osHandle }

func (f osFile) File() *os.File { return f.osHandle }

func (osDisk) Open(name string, flag int) (diskFile, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Remove(name string) error     { return os.Remove(name) }
func (osDisk) MkdirAll(name string) error   { return os.MkdirAll(name, 0o700) }

func (osDisk) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osDisk) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osDisk) Stat(name string) (fs.FileInfo, error)      { return os.Stat(name) }

func (osDisk) Space(name string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(name, &st); err != nil {
		return 0, 0, fmt.Errorf("asking %s for its free space: %w", name, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}
