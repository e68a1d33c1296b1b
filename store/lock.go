package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockDir takes the directory for this process, or fails with [ErrLocked] and
// names who has it. The kernel drops the lock with the process, however it ends,
// so that a LOCK file which was left behind means nothing.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", dir, err)
		}
		if pid, err := io.ReadAll(io.LimitReader(f, 32)); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(pid))); err == nil {
				return nil, fmt.Errorf("%w: %s (pid %d)", ErrLocked, dir, n)
			}
		}
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	// The pid only makes the message better: a full disk must not keep the
	// store from opening.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}
