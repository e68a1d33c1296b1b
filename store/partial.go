package store

import (
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Partial is a blob that is being fetched, open for its one owner. Its methods
// are safe for concurrent use.
type Partial struct {
	s      *Store
	e      *entry
	layout chunkindex.Layout
	file   diskFile

	// mu is taken before Store.mu.
	mu       sync.Mutex
	idle     *sync.Cond // on mu: busy or finish changed
	closed   bool
	busy     map[int]bool        // chunks being written or changed
	finish   bool                // Complete is at work
	done     bool                // Complete succeeded
	poisoned error               // the disk refused to make the bytes durable
	present  chunkindex.Bitfield // chunks that may be reported
	suspect  chunkindex.Bitfield // recorded, but not yet re-hashed after an unclean stop
	redo     int                 // lowest chunk dropped since the hash last looked, or the count

	recheckMu sync.Mutex // one reads back at a time; taken before mu

	// hashMu is taken before mu and recheckMu, and held while hashing.
	hashMu sync.Mutex
	hash   hash.Hash
	hashed int64 // bytes that hash has seen
}

// ChunkState is what is recorded of a chunk. Level is Absent, and the rest zero,
// for one that is not here.
type ChunkState struct {
	Level chunkindex.Level
	Sum   chunkindex.Sum
	Claim *chunkindex.Claim // nil if none is known
}

// Partial opens a partial blob, or creates it. It has one owner at a time:
// meanwhile it fails with [ErrBusy], and the blob is not evicted. A partial blob
// of another size than l's is discarded first: whoever asks knows better by now.
// It fails with fs.ErrExist if the blob is complete, and with [ErrNoSpace] if it
// is too large ever to fit.
func (s *Store) Partial(d digest.Digest, l chunkindex.Layout, kind Kind) (_ *Partial, err error) {
	if err := check(d); err != nil {
		return nil, err
	}
	s.claim(d)
	defer s.unclaim(d)
	s.mu.Lock()
	e := s.entries[d]
	switch {
	case s.closed:
		err = ErrClosed
	case e != nil && e.complete:
		err = fs.ErrExist
	case e != nil && e.owner != nil:
		err = ErrBusy
	}
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("store: partial blob %s: %w", d, err)
	}
	if e != nil && e.size != l.Size() {
		if err := s.drop(e); err != nil {
			return nil, err
		}
		e = nil
	}
	missing := l.Size()
	if e != nil {
		missing -= e.bytes
	}
	if err := s.fits(missing); err != nil {
		return nil, fmt.Errorf("store: partial blob %s: %w", d, err)
	}
	if err := s.settle(d); err != nil {
		return nil, fmt.Errorf("store: partial blob %s: %w", d, err)
	}
	p := &Partial{s: s, layout: l, busy: map[int]bool{}, redo: l.Count(), hash: d.Algorithm().Hash()}
	p.idle = sync.NewCond(&p.mu)
	p.present, p.suspect = chunkindex.NewBitfield(l.Count()), chunkindex.NewBitfield(l.Count())
	if e == nil {
		e, err = s.createPartial(d, l, kind)
	}
	if err != nil {
		return nil, fmt.Errorf("store: creating partial blob %s: %w", d, spaceError(err))
	}
	p.e = e
	if p.file, err = s.disk.Open(s.partialPath(d), os.O_RDWR); err != nil {
		return nil, fmt.Errorf("store: opening partial blob %s: %w", d, err)
	}
	if err := p.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("store: opening partial blob %s: %w", d, err), p.file.Close())
	}
	s.mu.Lock()
	e.owner = p
	e.lastUsed, e.kind, e.dirty = s.now(), kind, true
	s.unsynced[s.partialPath(d)] = true
	s.mu.Unlock()
	return p, nil
}

// createPartial makes the empty file and then its record.
func (s *Store) createPartial(d digest.Digest, l chunkindex.Layout, kind Kind) (*entry, error) {
	create := func() error {
		f, err := s.disk.Open(s.partialPath(d), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
		if err != nil {
			return err
		}
		return f.Close()
	}
	err := create()
	if isNoSpace(err) && s.makeSpace(mib) == nil { // inodes run out too
		err = create()
	}
	if err != nil {
		return nil, err
	}
	e := &entry{digest: d, size: l.Size(), kind: kind, lastUsed: s.now(), epoch: s.epoch}
	if err := s.saveBlob(e); err != nil {
		return nil, errors.Join(err, s.disk.Remove(s.partialPath(d)))
	}
	s.mu.Lock()
	s.entries[d] = e
	s.mu.Unlock()
	return e, nil
}

// drop removes an entry, file and records. Callers hold the claim.
func (s *Store) drop(e *entry) error {
	s.mu.Lock()
	s.forget(e)
	s.mu.Unlock()
	return s.erase(e)
}

// load reads which chunks are recorded.
func (p *Partial) load() error {
	p.s.mu.Lock()
	trusted := p.e.epoch == p.s.epoch
	p.s.mu.Unlock()
	return p.s.index.scan(chunkPrefix(p.e.digest), func(key, value []byte) (bool, error) {
		_, i, ok := chunkOfKey(key)
		r, err := decodeChunkRecord(value)
		if !ok || err != nil || !p.layout.Valid(i) {
			return true, nil //nolint:nilerr // a start drops what is malformed
		}
		if trusted || r.epoch == p.s.epoch {
			p.present.Set(i)
		} else {
			p.suspect.Set(i)
		}
		return true, nil
	})
}

// Digest is the blob's digest.
func (p *Partial) Digest() digest.Digest { return p.e.digest }

// Layout is the layout that the partial was opened with.
func (p *Partial) Layout() chunkindex.Layout { return p.layout }

// Chunk returns what is recorded of chunk i. After an unclean stop it first reads
// the chunk back, once, which takes up to some 10 ms; one that does not match its
// recorded sum is forgotten. It returns the zero state for a chunk that is not
// here, that is no chunk of the blob, or once the partial is closed.
func (p *Partial) Chunk(i int) ChunkState {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return ChunkState{}
	}
	if p.suspect.Has(i) {
		p.mu.Unlock()
		p.recheck(i)
		p.mu.Lock()
	}
	here := p.present.Has(i)
	p.mu.Unlock()
	if !here {
		return ChunkState{}
	}
	r, err := p.record(i)
	if err != nil {
		return ChunkState{}
	}
	return ChunkState{Level: r.level, Sum: r.sum, Claim: r.claim}
}

func (p *Partial) record(i int) (chunkRecord, error) { return p.s.chunkRecord(p.e.digest, i) }

func (s *Store) chunkRecord(d digest.Digest, i int) (chunkRecord, error) {
	v, err := s.index.get(chunkKey(d, i))
	if err != nil {
		return chunkRecord{}, err
	}
	return decodeChunkRecord(v)
}

func (p *Partial) setRecord(i int, r chunkRecord) error { return p.s.setChunkRecord(p.e.digest, i, r) }

func (s *Store) setChunkRecord(d digest.Digest, i int, r chunkRecord) error {
	return s.index.update(func(txn *badger.Txn) error { return txn.Set(chunkKey(d, i), r.append(nil)) })
}

func (s *Store) deleteChunkRecord(d digest.Digest, i int) error {
	return s.index.update(func(txn *badger.Txn) error { return txn.Delete(chunkKey(d, i)) })
}

// begin marks chunk i as being changed, or fails.
func (p *Partial) begin(i int) error {
	if p.suspect.Has(i) {
		p.mu.Unlock()
		p.recheck(i)
		p.mu.Lock()
	}
	switch {
	case p.closed:
		return ErrClosed
	case p.poisoned != nil:
		return p.poisoned
	case !p.layout.Valid(i):
		return chunkindex.ErrLayout
	case p.finish || p.busy[i]:
		return ErrBusy
	}
	p.busy[i] = true
	return nil
}

// locked runs fn as the only one that changes chunk i.
func (p *Partial) locked(what string, i int, fn func() error) error {
	p.mu.Lock()
	err := p.begin(i)
	p.mu.Unlock()
	if err == nil {
		err = fn()
		p.mu.Lock()
		delete(p.busy, i)
		p.idle.Broadcast()
		p.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("store: %s chunk %d of %s: %w", what, i, p.e.digest, err)
	}
	return nil
}

// WriteChunk stores the bytes of chunk i and then records them: this is the one
// door for content. The buffer must be full and as long as the chunk, which a
// [chunkindex.Buffer] makes the same as being verified against its own sum; a
// claim must be over that sum. It is the caller's to verify the claim's signature,
// and lvl.
//
// Storing a chunk again that is here with the same sum raises its level if lvl is
// higher, and adds a claim where there was none. With another sum it fails with
// [ErrConflict]. It fails with [ErrBusy] while the same chunk is written by
// another call, and with [ErrNoSpace], losing nothing, where it does not fit.
func (p *Partial) WriteChunk(i int, b *chunkindex.Buffer, lvl chunkindex.Level, c *chunkindex.Claim) error {
	return p.locked("writing", i, func() error {
		off, n := p.layout.Chunk(i)
		if !b.Full() || int64(b.Len()) != n {
			return fmt.Errorf("%w: buffer holds %d of %d bytes", chunkindex.ErrLayout, b.Len(), n)
		}
		if !lvl.Valid() || lvl == chunkindex.Absent {
			return fmt.Errorf("%w: level %s", chunkindex.ErrLayout, lvl)
		}
		sum := b.Sum()
		if c != nil && c.Sum != sum {
			return fmt.Errorf("%w: of another sum", chunkindex.ErrClaim)
		}
		if p.has(i) {
			return p.merge(i, sum, lvl, c)
		}
		if err := p.s.take(n); err != nil {
			return err
		}
		_, err := p.file.WriteAt(b.Bytes(), off)
		if isNoSpace(err) && p.s.makeSpace(n) == nil {
			_, err = p.file.WriteAt(b.Bytes(), off)
		}
		if err == nil {
			err = p.setRecord(i, chunkRecord{level: lvl, epoch: p.s.epoch, sum: sum, claim: c})
		}
		if err != nil {
			p.s.giveBack(n)
			return spaceError(err)
		}
		p.s.landed(n)
		p.mu.Lock()
		p.present.Set(i)
		p.mu.Unlock()
		p.s.mu.Lock()
		p.e.have++
		p.e.bytes += n
		p.s.mu.Unlock()
		return nil
	})
}

func (p *Partial) has(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.present.Has(i)
}

// merge records what is new about a chunk that is here.
func (p *Partial) merge(i int, sum chunkindex.Sum, lvl chunkindex.Level, c *chunkindex.Claim) error {
	r, err := p.record(i)
	if err != nil {
		return err
	}
	if r.sum != sum {
		return ErrConflict
	}
	if lvl <= r.level && (c == nil || r.claim != nil) {
		return nil
	}
	r.level = max(r.level, lvl)
	if r.claim == nil {
		r.claim = c
	}
	return p.setRecord(i, r)
}

// Raise records that chunk i is known to be right to a higher level, and the
// claim that says so. It never lowers a level; a claim that is given replaces the
// old one and must be over the chunk's sum. It fails with fs.ErrNotExist for a
// chunk that is not here.
func (p *Partial) Raise(i int, lvl chunkindex.Level, c *chunkindex.Claim) error {
	return p.locked("raising", i, func() error {
		if !p.has(i) {
			return fs.ErrNotExist
		}
		r, err := p.record(i)
		if err != nil {
			return err
		}
		if c != nil && c.Sum != r.sum {
			return fmt.Errorf("%w: of another sum", chunkindex.ErrClaim)
		}
		if !lvl.Valid() {
			return fmt.Errorf("%w: level %s", chunkindex.ErrLayout, lvl)
		}
		if lvl <= r.level && c == nil {
			return nil
		}
		r.level = max(r.level, lvl)
		if c != nil {
			r.claim = c
		}
		return p.setRecord(i, r)
	})
}

// Drop forgets chunk i, so that it can be fetched anew. It does nothing for one
// that is not here. The bytes stay where they are until they are overwritten:
// somebody may be reading them, and zeros would be worse.
func (p *Partial) Drop(i int) error {
	return p.locked("dropping", i, func() error {
		if !p.has(i) {
			return nil
		}
		if err := p.s.deleteChunkRecord(p.e.digest, i); err != nil {
			return err
		}
		_, n := p.layout.Chunk(i)
		p.mu.Lock()
		p.present.Clear(i)
		p.redo = min(p.redo, i)
		p.mu.Unlock()
		p.s.mu.Lock()
		p.e.have--
		p.e.bytes -= n
		p.s.used -= n
		p.s.mu.Unlock()
		return nil
	})
}

// File opens the file of the partial blob for reading, with a descriptor and an
// offset of its own, which the caller closes. It stays valid when the blob is
// completed, discarded or evicted. Only chunks that Chunk reports are worth
// reading.
func (p *Partial) File() (*os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	// Through the descriptor, since the name changes on completion. A
	// duplicated descriptor would share its offset, which sendfile moves.
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(p.file.File().Fd())))
	if isAbsent(err) {
		f, err = os.Open(p.s.partialPath(p.e.digest))
	}
	if err != nil {
		return nil, fmt.Errorf("store: opening partial blob %s: %w", p.e.digest, err)
	}
	return f, nil
}

// Close gives the partial up and keeps what is recorded. Calls at work end first
// or fail with [ErrClosed]. It may be called more than once.
func (p *Partial) Close() error {
	first, err := p.shut()
	if !first {
		return nil
	}
	if p.poisoned != nil {
		return errors.Join(err, p.disown(true))
	}
	return errors.Join(err, p.disown(false))
}

// Discard gives the partial up and removes all of it.
func (p *Partial) Discard() error {
	first, err := p.shut()
	if !first {
		return nil
	}
	return errors.Join(err, p.disown(true))
}

// shut closes the door, waits for those inside, and closes the file. It reports
// whether this call was the first to do so, and Complete did not come before.
func (p *Partial) shut() (first bool, err error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false, nil
	}
	p.closed = true
	for p.finish || len(p.busy) > 0 {
		p.idle.Wait()
	}
	done := p.done
	p.mu.Unlock()
	if done {
		return false, nil
	}
	p.hashMu.Lock()
	defer p.hashMu.Unlock()
	p.recheckMu.Lock() // a chunk must not look corrupt because its file is closed
	defer p.recheckMu.Unlock()
	return true, p.file.Close()
}

// disown gives the entry back to the store, or removes it.
func (p *Partial) disown(remove bool) error {
	p.s.claim(p.e.digest)
	defer p.s.unclaim(p.e.digest)
	p.s.mu.Lock()
	p.e.owner = nil
	p.e.lastUsed, p.e.dirty = p.s.now(), true
	p.s.mu.Unlock()
	if remove {
		return p.s.drop(p.e)
	}
	return nil
}
