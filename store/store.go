package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peercache/peercache/chunkindex"
)

// Options are what a store may be told beside its directory. The zero value, and
// a nil *Options, mean the defaults.
type Options struct {
	// MaxBytes is the budget for blobs and chunks, in bytes. 0 means the
	// smaller of 50 GiB and 20 % of the file system.
	MaxBytes int64
	// MinFreeFraction is the part of the file system that is left free, also
	// when others fill it: content is evicted then. 0 means 0.20; a negative
	// value means none.
	MinFreeFraction float64
	// SoleCopyGrace is how much longer a blob is kept of which fewer than two
	// other copies are known: it is evicted as if it had been used that much
	// later. 0 means 7 days; a negative value means none.
	SoleCopyGrace time.Duration
	// ScrubInterval is how old the last proof of a blob may become before Run
	// reads it once more. 0 means 30 days; a negative value means never.
	ScrubInterval time.Duration
	// ProveRate bounds what Run reads to prove blobs that nobody waits for, in
	// bytes a second. 0 means 128 MiB.
	ProveRate int64
	// OnEvict is called after a blob or a partial one was evicted or found
	// corrupt, possibly by several goroutines at once. It must return soon and
	// not call the store: who caused the eviction waits for it.
	OnEvict func(digest.Digest)
	// Logger receives what an operator should know. nil means none.
	Logger *slog.Logger
	// Registerer receives the metrics. nil means none.
	Registerer prometheus.Registerer

	disk disk             // the file system; tests lose writes and inject faults
	now  func() time.Time // the clock
}

const (
	mib = int64(1) << 20
	gib = int64(1) << 30

	defaultMaxBytes      = 50 * gib
	defaultMaxFraction   = 0.20
	defaultMinFree       = 0.20
	defaultSoleCopyGrace = 7 * 24 * time.Hour
	defaultScrubInterval = 30 * 24 * time.Hour
	defaultProveRate     = 128 * mib

	// A memtable is 8 MiB, and less on a small file system: the index may need
	// several times that, in memory and on disk. Larger ones gain nothing at the
	// rates that the index sees (bench_test.go).
	maxMemtable = 8 * mib
	minMemtable = 2 * mib
)

// Store holds blobs, partial blobs and small records in one directory. All
// methods are safe for concurrent use.
type Store struct {
	dir    string
	disk   disk
	log    *slog.Logger
	opts   Options
	now    func() time.Time
	lock   *os.File
	index  *index
	floor  int64 // bytes of the file system to leave free
	counts *metrics

	// ctx ends with Close, and with it the proofs that run in background.
	ctx    context.Context
	cancel context.CancelFunc
	proofs sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	epoch    uint32 // number of unclean stops so far
	entries  map[digest.Digest]*entry
	used     int64                           // bytes of complete blobs and present chunks, and reserved ones
	inflight int64                           // the part of used that is not yet on disk
	claims   map[digest.Digest]chan struct{} // digests whose files are being created or removed
	stale    map[digest.Digest]bool          // removed, but records could not be deleted yet
	unsynced map[string]bool                 // partial files written since the start
}

// entry is what the store knows of one blob. Store.mu guards it.
type entry struct {
	digest   digest.Digest
	size     int64
	kind     Kind
	complete bool
	pinned   bool
	copies   int
	lastUsed time.Time
	proven   time.Time // last time the whole file hashed to the digest
	epoch    uint32    // complete: epoch of that proof; partial: of its last check as a whole

	have       int   // partial: chunks that may be reported
	bytes      int64 // what counts towards the budget
	unverified int   // partial: recorded chunks that await re-hashing
	stuck      bool  // partial: the record of a wrong chunk could not be deleted

	users int      // open Blobs
	owner *Partial // whoever has the partial open
	proof *proof   // running
	gone  bool     // no longer in the store
	dirty bool     // differs from its record

	corrupt *CorruptError // why it is gone
}

// Open opens or creates the store in dir, recovers from whatever stopped it the
// last time, and starts nothing; call [Store.Run] for its upkeep. opts may be
// nil. It fails with [ErrLocked] while another process has the directory, and
// with [ErrNoSpace] where the disk is too full even to read the index.
func Open(dir string, opts *Options) (_ *Store, err error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if o.disk == nil {
		o.disk = osDisk{}
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	s := &Store{
		dir: dir, disk: o.disk, log: o.Logger, now: o.now,
		entries:  map[digest.Digest]*entry{},
		claims:   map[digest.Digest]chan struct{}{},
		stale:    map[digest.Digest]bool{},
		unsynced: map[string]bool{},
	}
	for alg := range algorithms {
		for _, sub := range []string{"blobs", "partial"} {
			if err := s.disk.MkdirAll(filepath.Join(dir, sub, alg.String())); err != nil {
				return nil, fmt.Errorf("opening store: %w", spaceError(err))
			}
		}
	}
	if s.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	_, total, err := s.disk.Space(dir)
	if err != nil {
		return nil, fmt.Errorf("opening store: %w", err)
	}
	s.opts = withDefaults(o, total)
	s.floor = max(0, int64(s.opts.MinFreeFraction*float64(total)))
	if err := s.recover(total); err != nil {
		return nil, fmt.Errorf("opening store %s: %w", dir, err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if s.counts, err = newMetrics(s, s.opts.Registerer); err != nil {
		return nil, errors.Join(fmt.Errorf("opening store: %w", err), s.index.close())
	}
	return s, nil
}

func withDefaults(o Options, total int64) Options {
	if o.MaxBytes <= 0 {
		o.MaxBytes = min(defaultMaxBytes, int64(defaultMaxFraction*float64(total)))
	}
	if o.MinFreeFraction == 0 {
		o.MinFreeFraction = defaultMinFree
	}
	if o.SoleCopyGrace == 0 {
		o.SoleCopyGrace = defaultSoleCopyGrace
	}
	if o.ScrubInterval == 0 {
		o.ScrubInterval = defaultScrubInterval
	}
	if o.ProveRate <= 0 {
		o.ProveRate = defaultProveRate
	}
	return o
}

// Close waits for proofs to stop, makes durable what is not, and marks the stop
// as clean. Blobs and partials must be closed before it; Run must have returned.
// After an error the next Open treats the stop as unclean.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	var open []*Partial
	for _, e := range s.entries {
		if e.owner != nil {
			open = append(open, e.owner)
		}
	}
	s.mu.Unlock()
	s.cancel()
	s.proofs.Wait()
	s.counts.unregister()

	var errs []error
	for _, p := range open {
		errs = append(errs, p.Close())
	}
	errs = append(errs, s.flush(), s.syncPartials())
	s.dropReserve() // the flush of the index may need it, and some content too
	if free, _, err := s.disk.Space(s.dir); err == nil && free < s.index.closeNeeds() {
		if err := s.makeSpace(s.index.closeNeeds() - free); err != nil {
			s.log.Warn("making room to close the index", "err", err)
		}
	}
	errs = append(errs, s.index.close())
	err := errors.Join(errs...)
	if err == nil {
		s.keepReserve()
		err = s.markClean()
	}
	return errors.Join(err, s.lock.Close())
}

// Stat describes the blob, or fails with fs.ErrNotExist.
func (s *Store) Stat(d digest.Digest) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[d]
	if e == nil {
		return Info{}, fmt.Errorf("store: blob %s: %w", d, fs.ErrNotExist)
	}
	return e.info(), nil
}

// List calls fn for every blob, in no particular order, until it returns false.
// fn may call the store.
func (s *Store) List(fn func(Info) bool) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	all := make([]Info, 0, len(s.entries))
	for _, e := range s.entries {
		all = append(all, e.info())
	}
	s.mu.Unlock()
	for _, info := range all {
		if !fn(info) {
			break
		}
	}
	return nil
}

func (e *entry) info() Info {
	return Info{
		Digest: e.digest, Size: e.size, Kind: e.kind, Complete: e.complete,
		Have: e.have, Pinned: e.pinned, LastUsed: e.lastUsed,
	}
}

// Usage returns the state of the byte budget.
func (s *Store) Usage() Usage {
	free, _, err := s.disk.Space(s.dir)
	if err != nil {
		free = 0 // a gauge that says full is the cautious answer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{Bytes: s.used, MaxBytes: s.opts.MaxBytes, FreeBytes: free}
	for _, e := range s.entries {
		if e.complete {
			u.Blobs++
		} else {
			u.Partials++
		}
	}
	return u
}

// SetCopies records how many other nodes are known to hold the blob, 0 if that
// is unknown. It does nothing for a blob that is not here.
func (s *Store) SetCopies(d digest.Digest, n int) {
	s.change(d, func(e *entry) { e.copies = n })
}

// SetKind corrects what a blob is for. It does nothing for a blob that is not
// here.
func (s *Store) SetKind(d digest.Digest, k Kind) {
	s.change(d, func(e *entry) { e.kind = k })
}

func (s *Store) change(d digest.Digest, set func(*entry)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[d]; e != nil {
		set(e)
		e.dirty = true
	}
}

// Pin keeps a blob, whole or partial, from being evicted, or lets it go again.
// The pin is durable when Pin returns nil. It fails with fs.ErrNotExist.
func (s *Store) Pin(d digest.Digest, pinned bool) error {
	s.claim(d)
	defer s.unclaim(d)
	s.mu.Lock()
	e := s.entries[d]
	if e == nil {
		s.mu.Unlock()
		return fmt.Errorf("store: pinning %s: %w", d, fs.ErrNotExist)
	}
	e.pinned = pinned
	s.mu.Unlock()
	if err := s.saveBlob(e); err != nil {
		return fmt.Errorf("store: pinning %s: %w", d, err)
	}
	if err := s.index.sync(); err != nil {
		return fmt.Errorf("store: pinning %s: %w", d, err)
	}
	return nil
}

// Delete removes a blob, also a pinned one. Readers that have it open go on
// reading. It fails with fs.ErrNotExist, and with [ErrBusy] for a partial blob
// that somebody has open.
func (s *Store) Delete(d digest.Digest) error {
	s.claim(d)
	defer s.unclaim(d)
	s.mu.Lock()
	e := s.entries[d]
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case e == nil:
		s.mu.Unlock()
		return fmt.Errorf("store: deleting %s: %w", d, fs.ErrNotExist)
	case e.owner != nil:
		s.mu.Unlock()
		return fmt.Errorf("store: deleting %s: %w", d, ErrBusy)
	}
	s.forget(e)
	s.mu.Unlock()
	return s.erase(e)
}

// claim waits until nobody creates or removes files of the digest, and then
// keeps others from it until unclaim. It must not be called with mu held.
func (s *Store) claim(d digest.Digest) {
	for {
		s.mu.Lock()
		wait, taken := s.claims[d]
		if !taken {
			s.claims[d] = make(chan struct{})
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		<-wait
	}
}

func (s *Store) unclaim(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclaimLocked(d)
}

func (s *Store) unclaimLocked(d digest.Digest) {
	close(s.claims[d])
	delete(s.claims, d)
}

// forget takes an entry out of the store's books. Its files and records are
// erased afterwards, by whoever holds the claim. Callers hold mu.
func (s *Store) forget(e *entry) {
	e.gone = true
	s.used -= e.bytes
	delete(s.entries, e.digest)
}

// erase removes what a forgotten entry has on disk: the file first, so that space
// comes free even where the index cannot be written, then the records. Records
// that stay behind are noted and deleted later; a start without their file drops
// them too. Callers hold the claim.
func (s *Store) erase(e *entry) error {
	var err error
	if e.complete {
		name := s.blobPath(e.digest)
		if err = s.disk.Remove(name); err == nil {
			_ = s.disk.Remove(filepath.Dir(name)) // an inode too, if it is empty
		}
	} else {
		err = s.disk.Remove(s.partialPath(e.digest))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		// The file is still there, and the budget must not forget it.
		s.mu.Lock()
		e.gone = false
		s.used += e.bytes
		s.entries[e.digest] = e
		s.mu.Unlock()
		return fmt.Errorf("store: removing %s: %w", e.digest, err)
	}
	s.mu.Lock()
	delete(s.unsynced, s.partialPath(e.digest))
	s.mu.Unlock()
	if err := s.deleteRecords(e.digest); err != nil {
		s.mu.Lock()
		s.stale[e.digest] = true
		s.mu.Unlock()
		s.log.Warn("records of a removed blob stay until there is space", "digest", e.digest, "err", err)
	}
	return nil
}

// settle deletes records that an earlier removal of the digest had to leave, so
// that they cannot mix with new ones. Callers hold the claim.
func (s *Store) settle(d digest.Digest) error {
	s.mu.Lock()
	stale := s.stale[d]
	s.mu.Unlock()
	if !stale {
		return nil
	}
	if err := s.deleteRecords(d); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.stale, d)
	s.mu.Unlock()
	return nil
}

// layoutOf returns the layout of a blob whose size was checked before.
func layoutOf(size int64) chunkindex.Layout {
	l, err := chunkindex.LayoutFor(size)
	if err != nil {
		panic(err)
	}
	return l
}
