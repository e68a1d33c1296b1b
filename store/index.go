package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// index is the badger database that holds everything but the bytes.
//
// All writes go through one mutex. Badger has one writer goroutine anyway, and
// with one commit at a time at most one log file fills up during a commit, which
// is what the preallocation relies on (prealloc.go).
type index struct {
	dir    string
	memory int64 // bytes of a memtable
	space  func() (free, total int64, err error)
	log    *slog.Logger

	extra  atomic.Int64 // bytes that must be free beside what a commit needs
	forced atomic.Bool  // commits start regardless of free space

	mu     sync.Mutex // serialises writers; guards what follows
	db     *badger.DB
	closed bool
	ready  bool // this log and the next are allocated
	next   int  // number of the log file that badger will create next
	dirty  bool // written since the last sync
	damage bool // a table could not be read when the index was opened
}

// badgerOptions are tuned for a small resident set: no compression and no block
// cache, so that tables are read through the page cache; memtables are the only
// large thing on the heap. Values never reach the value log, which therefore
// stays empty and needs no garbage collection.
func badgerOptions(dir string, memory int64, log badger.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(log).
		WithMemTableSize(memory).
		WithNumMemtables(2).
		WithNumLevelZeroTables(3).
		WithNumLevelZeroTablesStall(8).
		WithBaseTableSize(2 << 20).
		WithNumCompactors(2).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithValueThreshold(min(memory*15/100, 1<<20)).
		WithValueLogFileSize(1 << 20).
		WithChecksumVerificationMode(options.OnTableRead).
		WithDetectConflicts(false).
		WithMetricsEnabled(true).
		WithBypassLockGuard(true) // the store's own LOCK covers it
}

// openIndex opens or creates the index in dir.
func openIndex(dir string, memory int64, space func() (int64, int64, error), log *slog.Logger) (*index, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	logs, err := tidyIndex(dir)
	if err != nil {
		return nil, err
	}
	ix := &index{dir: dir, memory: memory, space: space, log: log}
	// Opening flushes what the logs hold, and touches a page in each of three
	// new files, all through memory maps.
	need := logs + 1<<20
	if free, _, err := space(); err != nil {
		return nil, err
	} else if free < need {
		return nil, fmt.Errorf("%w: %d bytes are free in %s, opening the index takes %d", ErrNoSpace, free, dir, need)
	}
	ix.db, err = badger.Open(badgerOptions(dir, memory, badgerLog{log}))
	if err != nil {
		return nil, err
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil {
		return nil, errors.Join(err, ix.db.Close())
	}
	// Badger goes on without a table whose checksum is wrong.
	ix.damage = len(ix.db.Tables()) < len(tables) && ix.tablesMissing(tables)
	_ = ix.preallocate() // what it could not allocate, the first write asks for again
	return ix, nil
}

// tablesMissing reports whether one of the table files that was there before is
// still there, but not in use. A flush or compaction may be changing both sides
// while this looks, so only a file that stays unknown counts.
func (ix *index) tablesMissing(files []string) bool {
	for _, name := range files {
		id, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".sst"), 10, 64)
		if err != nil {
			continue
		}
		known := func() bool {
			return slices.ContainsFunc(ix.db.Tables(), func(t badger.TableInfo) bool { return t.ID == id })
		}
		if _, err := os.Stat(name); err == nil && !known() {
			if _, err := os.Stat(name); err == nil && !known() {
				return true
			}
		}
	}
	return false
}

// tidyIndex removes what keeps badger from opening after a crash: log files of
// length zero, which it leaves when it dies between creating and extending one
// or between truncating and removing one (and which preallocation makes), and
// the value log, which never holds a value here. It returns the bytes in logs.
func tidyIndex(dir string) (logs int64, err error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		isLog := strings.HasSuffix(f.Name(), ".mem")
		if isLog && info.Size() == 0 || strings.HasSuffix(f.Name(), ".vlog") || f.Name() == "DISCARD" {
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return 0, err
			}
		} else if isLog {
			logs += diskUsage(info)
		}
	}
	return logs, nil
}

// update runs fn in a read-write transaction and commits it. It fails with
// [ErrNoSpace] where the disk is too full for an index to grow on.
func (ix *index) update(fn func(*badger.Txn) error) error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if err := ix.admit(); err != nil {
		return err
	}
	ix.dirty = true
	return ix.db.Update(fn)
}

// batch applies any number of changes, in several transactions where they do not
// fit into one: a crash may leave a part of them, always a prefix.
func (ix *index) batch(changes func(set func(key, value []byte) error) error) error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if err := ix.admit(); err != nil {
		return err
	}
	ix.dirty = true
	txn := ix.db.NewTransaction(true)
	defer func() { txn.Discard() }()
	err := changes(func(key, value []byte) error {
		apply := func() error {
			if value == nil {
				return txn.Delete(key)
			}
			return txn.Set(key, value)
		}
		err := apply()
		if !errors.Is(err, badger.ErrTxnTooBig) {
			return err
		}
		if err := txn.Commit(); err != nil {
			return err
		}
		if err := ix.admit(); err != nil {
			return err
		}
		txn = ix.db.NewTransaction(true)
		return apply()
	})
	if err != nil {
		return err
	}
	return txn.Commit()
}

// force runs fn, whose commits start however little space is free: for the one
// write without which nothing may go on, into a log that is allocated already.
func (ix *index) force(fn func() error) error {
	ix.forced.Store(true)
	defer ix.forced.Store(false)
	return fn()
}

// get returns a copy of the value at key, or fs.ErrNotExist.
func (ix *index) get(key []byte) (value []byte, err error) {
	err = ix.view(func(txn *badger.Txn) error {
		item, err := txn.Get(key)
		if err != nil {
			return err
		}
		value, err = item.ValueCopy(nil)
		return err
	})
	return value, err
}

// view runs fn in a read-only transaction. A missing key becomes fs.ErrNotExist.
func (ix *index) view(fn func(*badger.Txn) error) error {
	if ix.db.IsClosed() {
		return ErrClosed
	}
	err := ix.db.View(fn)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return fs.ErrNotExist
	}
	if errors.Is(err, badger.ErrDBClosed) {
		return ErrClosed
	}
	return err
}

// scan calls fn for each key with the prefix, in order, until it returns false.
// Key and value are valid during the call only.
func (ix *index) scan(prefix []byte, fn func(key, value []byte) (bool, error)) error {
	return ix.view(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.IteratorOptions{Prefix: prefix, PrefetchValues: false})
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			more := true
			err := it.Item().Value(func(v []byte) (err error) {
				more, err = fn(it.Item().Key(), v)
				return err
			})
			if err != nil || !more {
				return err
			}
		}
		return nil
	})
}

// sync makes everything that was committed durable against a power cut.
func (ix *index) sync() error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.closed {
		return ErrClosed
	}
	if !ix.dirty {
		return nil
	}
	if err := ix.db.Sync(); err != nil {
		return fmt.Errorf("syncing the index: %w", err)
	}
	ix.dirty = false
	return nil
}

// closeNeeds is the free space that a flush of what is in memory may take.
func (ix *index) closeNeeds() int64 { return 2 * ix.memory }

// close flushes and closes the database. Where the disk has no room for the
// flush it leaves the log to the next start instead, which loses nothing.
func (ix *index) close() error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.closed {
		return nil
	}
	if free, _, err := ix.space(); err == nil && free < ix.closeNeeds() {
		if err := ix.db.Sync(); err != nil {
			return fmt.Errorf("syncing the index: %w", err)
		}
		ix.closed = true
		return fmt.Errorf("%w: the index was synced but not flushed", ErrNoSpace)
	}
	ix.closed = true
	err := ix.db.Close()
	_, tidyErr := tidyIndex(ix.dir)
	return errors.Join(err, tidyErr)
}

// badgerLog passes badger's warnings on. Its own chatter is debug output.
type badgerLog struct{ log *slog.Logger }

func (l badgerLog) Errorf(f string, a ...any) {
	l.log.Error("index", "err", strings.TrimSpace(fmt.Sprintf(f, a...)))
}

func (l badgerLog) Warningf(f string, a ...any) {
	l.log.Warn("index", "err", strings.TrimSpace(fmt.Sprintf(f, a...)))
}
func (badgerLog) Infof(string, ...any)  {}
func (badgerLog) Debugf(string, ...any) {}

func be32(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }
