package store

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrLocked says that another process has the directory open.
	ErrLocked = errors.New("store: directory is in use by another process")
	// ErrNoSpace says that a write does not fit: into the byte budget after
	// everything evictable went, above the free space that must be left, or on
	// the disk at all. Nothing that was recorded before is lost by it.
	ErrNoSpace error = noSpace{}
	// ErrBusy says that a partial blob, or a chunk of it, is being written by
	// somebody else.
	ErrBusy = errors.New("store: busy")
	// ErrClosed says that the store, blob or partial was closed.
	ErrClosed = errors.New("store: closed")
	// ErrConflict says that the chunk is recorded already, with another sum.
	// Whoever trusts the new bytes more drops the old chunk first.
	ErrConflict = errors.New("store: chunk is recorded with another sum")
	// ErrIncomplete says that chunks are missing.
	ErrIncomplete = errors.New("store: chunks are missing")
	// ErrTooLarge says that a value is beyond what its method is for.
	ErrTooLarge = errors.New("store: too large")
)

// noSpace has a method by which consumers that do not import this package tell
// it from other errors.
type noSpace struct{}

func (noSpace) Error() string { return "store: no space" }

// NoSpace returns true.
func (noSpace) NoSpace() bool { return true }

// CorruptError says that this node's own disk gave other bytes than were stored.
// The blob has been removed from the store. Nobody else is to blame.
type CorruptError struct {
	Digest digest.Digest
	Reason string
}

// Error names the blob and what was found.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("store: blob %s is corrupt on disk: %s", e.Digest, e.Reason)
}

// DigestError says that bytes do not hash to the digest that they are meant to
// have: a chunk, a claim or the size of the blob is wrong, and whoever vouched
// for it is to blame, not the disk.
type DigestError struct {
	Want, Got digest.Digest
}

// Error names both digests.
func (e *DigestError) Error() string {
	return fmt.Sprintf("store: content hashes to %s, wanted %s", e.Got, e.Want)
}

// DigestMismatch returns true: by it consumers that do not import this package
// tell the error from others.
func (*DigestError) DigestMismatch() bool { return true }

// spaceError turns the kernel's ways to say that a disk is full (space, inodes,
// quota) into [ErrNoSpace], and leaves other errors alone.
func spaceError(err error) error {
	if isNoSpace(err) && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, ErrNoSpace)
}
