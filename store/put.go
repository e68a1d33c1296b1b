package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// MaxPut is the largest object that [Store.Put] takes, in bytes.
const MaxPut = 16 * mib

// Put stores a small object as a whole: a manifest, a config, a blob of at most a
// few chunks. When it returns nil the object is complete, proven and durable.
// data that does not hash to d is a [*DigestError] and nothing is stored. An
// object that is here already is left as it is, but counts as used. A partial
// blob of the same digest is replaced, unless somebody has it open ([ErrBusy]).
// It fails with [ErrNoSpace] where the object does not fit.
func (s *Store) Put(ctx context.Context, d digest.Digest, kind Kind, data []byte) error {
	if err := check(d); err != nil {
		return err
	}
	if int64(len(data)) > MaxPut {
		return fmt.Errorf("storing %s of %d bytes: %w", d, len(data), ErrTooLarge)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return &DigestError{Want: d, Got: got}
	}
	s.claim(d)
	defer s.unclaim(d)
	s.mu.Lock()
	old := s.entries[d]
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case old != nil && old.complete:
		old.lastUsed, old.kind, old.dirty = s.now(), kind, true
		s.mu.Unlock()
		return nil
	case old != nil && old.owner != nil:
		s.mu.Unlock()
		return fmt.Errorf("storing %s: %w", d, ErrBusy)
	}
	if old != nil {
		s.forget(old)
	}
	s.mu.Unlock()
	if old != nil {
		if err := s.erase(old); err != nil {
			return err
		}
	}
	if err := s.settle(d); err != nil {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	if err := s.fits(int64(len(data))); err != nil {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	n := int64(len(data))
	if err := s.take(n); err != nil {
		return fmt.Errorf("storing %s: %w", d, err)
	}
	err := s.writeNew(d, data)
	if isNoSpace(err) && s.makeSpace(max(n, mib)) == nil {
		err = s.writeNew(d, data)
	}
	if err != nil {
		s.giveBack(n)
		return fmt.Errorf("storing %s: %w", d, spaceError(err))
	}
	s.landed(n)

	s.mu.Lock()
	e := &entry{
		digest: d, size: n, bytes: n, kind: kind, complete: true, have: layoutOf(n).Count(),
		lastUsed: s.now(), proven: s.now(), epoch: s.epoch, dirty: true,
	}
	s.entries[d] = e
	s.mu.Unlock()
	// From here on the object is durable: its record would be made anew from
	// its file. So a full index is no failure of Put.
	s.recordComplete(e, sumsOf(data))
	return nil
}

// writeNew makes a complete, durable file of a small object.
func (s *Store) writeNew(d digest.Digest, data []byte) (err error) {
	tmp := s.putPath(d)
	f, err := s.disk.Open(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = s.disk.Remove(tmp)
		}
	}()
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return s.publish(tmp, d)
}

// publish moves a file that is synced and known to be right among the complete
// blobs, durably.
func (s *Store) publish(from string, d digest.Digest) error {
	to := s.blobPath(d)
	dir := filepath.Dir(to)
	err := s.disk.Rename(from, to)
	for try := 0; isAbsent(err) && try < 8; try++ {
		// The directory is new, or went with the last blob in it, perhaps
		// just now.
		if err := s.disk.MkdirAll(dir); err != nil {
			return err
		}
		if err := s.disk.SyncDir(filepath.Dir(dir)); err != nil {
			return err
		}
		err = s.disk.Rename(from, to)
	}
	if err != nil {
		return err
	}
	if err := s.disk.SyncDir(dir); err != nil {
		// It may or may not outlast a power cut. Move it back, so that it is
		// not taken for complete by a start that finds it.
		return errors.Join(err, s.disk.Rename(to, from))
	}
	// The old name may come back after a power cut, which costs nothing: a
	// start prefers the complete file and removes the other.
	return nil
}

// sumsOf returns the sums of all chunks of data, concatenated.
func sumsOf(data []byte) []byte {
	l := layoutOf(int64(len(data)))
	sums := make([]byte, 0, l.Count()*len(chunkindex.Sum{}))
	for i := range l.Count() {
		off, n := l.Chunk(i)
		sum := sha256.Sum256(data[off : off+n])
		sums = append(sums, sum[:]...)
	}
	return sums
}

// recordComplete writes the records of a blob that has just been published: first
// its sums, then the blob, and then it deletes its chunks. A crash in between
// leaves sums or chunk records too many, which the next start drops. If the index
// cannot be written now the record follows later; without sums.
func (s *Store) recordComplete(e *entry, sums []byte) {
	s.mu.Lock()
	value := appendBlobRecord(nil, e)
	e.dirty = false
	s.mu.Unlock()
	var chunks [][]byte
	err := s.index.scan(chunkPrefix(e.digest), func(key, _ []byte) (bool, error) {
		chunks = append(chunks, append([]byte(nil), key...))
		return true, nil
	})
	if err == nil {
		err = s.index.batch(func(set func(key, value []byte) error) error {
			const page = sumsPerPage * len(chunkindex.Sum{})
			for i := 0; i*page < len(sums); i++ {
				if err := set(sumsKey(e.digest, i), sumsPage(sums[i*page:min(len(sums), (i+1)*page)])); err != nil {
					return err
				}
			}
			if err := set(blobKey(e.digest), value); err != nil {
				return err
			}
			for _, key := range chunks {
				if err := set(key, nil); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil {
		s.mu.Lock()
		e.dirty = true
		s.mu.Unlock()
		s.log.Warn("a blob's record waits for space", "digest", e.digest, "err", err)
	}
}
