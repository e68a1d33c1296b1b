package store

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The reserve is a file of blocks that the store holds for its index: opening and
// closing it, and a flush or compaction that is under way, must work on a disk
// that others have filled to the last byte. It is given up when free space runs
// out, and taken back once there is plenty. While it is missing, the index
// admits no writes on the space that it would occupy.

func (s *Store) reservePath() string { return filepath.Join(s.dir, "RESERVE") }

func (s *Store) reserveLength() int64 { return 3 * s.index.memory }

// keepReserve makes the reserve if there is room for it beside what the index
// needs to go on.
func (s *Store) keepReserve() {
	n := s.reserveLength()
	ok := func() bool {
		if info, err := os.Stat(s.reservePath()); err == nil && info.Size() == n {
			return true
		}
		free, _, err := s.disk.Space(s.dir)
		if err != nil || free < 2*n {
			return false
		}
		f, err := os.OpenFile(s.reservePath(), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return false
		}
		defer f.Close()
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			_ = os.Remove(s.reservePath())
			return false
		}
		return true
	}()
	s.setReserve(ok)
}

// dropReserve gives the reserve up.
func (s *Store) dropReserve() {
	if err := os.Remove(s.reservePath()); err != nil && !isAbsent(err) {
		s.log.Warn("giving up the reserve", "err", err)
	}
	if s.index != nil {
		s.setReserve(false)
	}
}

func (s *Store) setReserve(there bool) {
	if there {
		s.index.extra.Store(0)
	} else {
		s.index.extra.Store(s.reserveLength())
	}
}
