package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// recover opens the index and makes it agree with the files: see the package
// comment for what may be found and how it is mended. Nobody else has s yet.
func (s *Store) recover(total int64) error {
	memory := min(max(total/32, minMemtable), maxMemtable)
	clean, err := s.takeCleanMark()
	if err != nil {
		return err
	}
	if err := s.openIndex(memory, &clean); err != nil {
		return err
	}
	if err := s.loadRecords(clean); err != nil {
		return errors.Join(err, s.index.close())
	}
	s.keepReserve()
	return nil
}

func (s *Store) cleanPath() string { return filepath.Join(s.dir, "CLEAN") }

// takeCleanMark reports whether the last stop was clean, and removes the mark
// durably before anything else changes.
func (s *Store) takeCleanMark() (clean bool, err error) {
	err = s.disk.Remove(s.cleanPath())
	if isAbsent(err) {
		return false, nil
	}
	if err == nil {
		err = s.disk.SyncDir(s.dir)
	}
	if err != nil {
		return false, fmt.Errorf("removing the clean mark: %w", err)
	}
	return true, nil
}

// markClean is the last thing that happens in a store.
func (s *Store) markClean() error {
	f, err := s.disk.Open(s.cleanPath(), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("store: marking the stop as clean: %w", spaceError(err))
	}
	err = errors.Join(f.Sync(), f.Close(), s.disk.SyncDir(s.dir))
	if err != nil {
		return fmt.Errorf("store: marking the stop as clean: %w", spaceError(err))
	}
	return nil
}

// openingAttempts is how many times in a row a process may die while it opens the
// index before the index is taken for broken. Badger ends the process on some
// kinds of damage, and nobody should have to find out which directory to delete.
const openingAttempts = 4

// openIndex opens the index. One that does not open is set aside and replaced by
// an empty one: the blobs are found again by their files.
func (s *Store) openIndex(memory int64, clean *bool) error {
	dir := filepath.Join(s.dir, "index")
	attempts := filepath.Join(s.dir, "OPENING")
	open := func() error {
		// On a full disk the attempt goes uncounted, which is what it should.
		if f, err := os.OpenFile(attempts, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
			_, _ = f.Write([]byte{'.'})
			f.Close()
		}
		var err error
		s.index, err = openIndex(dir, memory, func() (int64, int64, error) { return s.disk.Space(s.dir) }, s.log)
		if err := os.Remove(attempts); err != nil && !isAbsent(err) {
			s.log.Warn("removing OPENING", "err", err)
		}
		return err
	}
	var err error
	if info, statErr := os.Stat(attempts); statErr == nil && info.Size() >= openingAttempts {
		err = fmt.Errorf("%d processes died while they opened it", info.Size())
	} else {
		err = open()
	}
	if isNoSpace(err) {
		s.dropReserve()
		err = open()
	}
	if err == nil {
		if s.index.damage {
			*clean = false
		}
		return nil
	}
	if environmental(err) {
		return err
	}
	*clean = false
	broken := filepath.Join(s.dir, "index.broken")
	s.log.Error("the index is broken; it is set aside and built anew from the blobs", "dir", broken, "err", err)
	if err := os.RemoveAll(broken); err != nil {
		return err
	}
	if err := os.Rename(dir, broken); err != nil && !isAbsent(err) {
		return err
	}
	return open()
}

// environmental reports whether an error of badger's comes from the machine (its
// limits, permissions, disk) rather than from what is in the files. Badger keeps
// only the text of many errors.
func environmental(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM,
		syscall.EACCES, syscall.EPERM, syscall.EROFS, syscall.EIO,
	} {
		if errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error()) {
			return true
		}
	}
	return isNoSpace(err)
}

// loadRecords reads the index and the directories, and writes to the index what
// makes it agree with them.
func (s *Store) loadRecords(clean bool) error {
	value, err := s.index.get(epochKey)
	if err != nil && !isAbsent(err) {
		return err
	}
	if len(value) == 4 {
		s.epoch = binary.BigEndian.Uint32(value)
	}
	if !clean || s.epoch == 0 {
		if err := s.nextEpoch(); err != nil {
			return err
		}
	}
	var wrong [][]byte // keys that belong to nothing
	err = s.index.scan([]byte{spaceBlob}, func(key, value []byte) (bool, error) {
		d, rest, ok := digestOfKey(key[1:])
		e, err := decodeBlobRecord(d, value)
		if !ok || len(rest) > 0 || err != nil {
			wrong = append(wrong, append([]byte(nil), key...))
			return true, nil //nolint:nilerr // what is malformed is dropped, not fatal
		}
		s.entries[d] = e
		return true, nil
	})
	if err != nil {
		return err
	}
	files, err := s.listFiles()
	if err != nil {
		return err
	}
	s.matchFiles(files)
	if wrong, err = s.loadChunks(wrong); err != nil {
		return err
	}
	for _, e := range s.entries {
		if e.complete {
			e.bytes, e.have = e.size, layoutOf(e.size).Count()
		} else if e.unverified == 0 && e.epoch != s.epoch {
			e.epoch, e.dirty = s.epoch, true
		}
		s.used += e.bytes
	}
	err = s.index.batch(func(set func(key, value []byte) error) error {
		for _, key := range wrong {
			if err := set(key, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !isNoSpace(err) { // what is wrong now is still wrong at the next start
		return err
	}
	if err := s.flush(); err != nil && !isNoSpace(err) {
		return err
	}
	return nil
}

// nextEpoch makes everything that was recorded until now unproven. On a disk that
// is too full for that it may not go on: what is recorded would count as proven.
func (s *Store) nextEpoch() error {
	s.epoch++
	write := func() error {
		return s.index.update(func(txn *badger.Txn) error {
			return txn.Set(epochKey, binary.BigEndian.AppendUint32(nil, s.epoch))
		})
	}
	err := write()
	if isNoSpace(err) {
		s.dropReserve()
		err = s.index.force(write)
	}
	if err == nil {
		err = s.index.sync()
	}
	return err
}

// found says what there is of a blob on disk.
type found struct{ blob, partial bool }

// listFiles lists the data files by digest. It removes small objects that were
// not published, and leaves alone what it does not know.
func (s *Store) listFiles() (map[digest.Digest]found, error) {
	files := map[digest.Digest]found{}
	for alg := range algorithms {
		dir := filepath.Join(s.dir, "partial", alg.String())
		names, err := s.disk.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range names {
			if strings.HasSuffix(f.Name(), ".put") {
				if err := s.disk.Remove(filepath.Join(dir, f.Name())); err != nil {
					return nil, err
				}
			} else if d := digest.NewDigestFromEncoded(alg, f.Name()); check(d) == nil {
				files[d] = found{partial: true}
			}
		}
		dir = filepath.Join(s.dir, "blobs", alg.String())
		shards, err := s.disk.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, shard := range shards {
			names, err := s.disk.ReadDir(filepath.Join(dir, shard.Name()))
			if errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			if err != nil {
				return nil, err
			}
			for _, f := range names {
				if d := digest.NewDigestFromEncoded(alg, f.Name()); check(d) == nil && f.Name()[:2] == shard.Name() {
					files[d] = found{blob: true, partial: files[d].partial}
				}
			}
		}
	}
	return files, nil
}

// matchFiles makes the entries agree with the files.
//
//	blob file, no record or that of a partial   adopted: it was renamed, so it had
//	                                            been hashed and synced
//	partial file without a partial's record     removed: nothing in it is known
//	record without its file                     dropped
func (s *Store) matchFiles(files map[digest.Digest]found) {
	for d, f := range files {
		e := s.entries[d]
		if f.partial && (e == nil || e.complete || f.blob) {
			if err := s.disk.Remove(s.partialPath(d)); err != nil {
				s.log.Warn("removing a stray partial blob", "digest", d, "err", err)
			}
		}
		if f.blob && (e == nil || !e.complete) {
			info, err := s.disk.Stat(s.blobPath(d))
			if err != nil || info.Size() > chunkindex.MaxBlobSize {
				s.log.Warn("adopting a blob", "digest", d, "err", err)
				continue
			}
			if e == nil {
				e = &entry{digest: d, lastUsed: info.ModTime()}
				s.entries[d] = e
			}
			e.size, e.complete, e.epoch, e.dirty = info.Size(), true, 0, true
		}
	}
	for d, e := range s.entries {
		if f := files[d]; e.complete && !f.blob || !e.complete && !f.partial {
			delete(s.entries, d)
			s.stale[d] = true
		}
	}
}

// loadChunks counts the chunks of partial blobs, and adds to wrong the keys of
// chunks and sums that belong to none.
func (s *Store) loadChunks(wrong [][]byte) ([][]byte, error) {
	err := s.index.scan([]byte{spaceChunk}, func(key, value []byte) (bool, error) {
		d, i, ok := chunkOfKey(key)
		e := s.entries[d]
		r, err := decodeChunkRecord(value)
		if !ok || err != nil || e == nil || e.complete || !layoutOf(e.size).Valid(i) {
			wrong = append(wrong, append([]byte(nil), key...))
			return true, nil //nolint:nilerr // what is malformed is dropped, not fatal
		}
		_, n := layoutOf(e.size).Chunk(i)
		e.bytes += n
		if e.epoch == s.epoch || r.epoch == s.epoch {
			e.have++
		} else {
			e.unverified++
		}
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	err = s.index.scan([]byte{spaceSums}, func(key, value []byte) (bool, error) {
		d, _, ok := chunkOfKey(key)
		_, err := decodeSumsPage(value)
		if e := s.entries[d]; !ok || err != nil || e == nil || !e.complete {
			wrong = append(wrong, append([]byte(nil), key...))
		}
		return true, nil
	})
	return wrong, err
}

// syncPartials fsyncs every partial file that was opened since the start, as the
// clean mark promises.
func (s *Store) syncPartials() error {
	var errs []error
	for name := range s.unsynced {
		f, err := s.disk.Open(name, os.O_RDWR)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("store: syncing %s: %w", name, err))
		}
	}
	for alg := range algorithms {
		errs = append(errs, s.disk.SyncDir(filepath.Join(s.dir, "partial", alg.String())))
	}
	return errors.Join(errs...)
}
