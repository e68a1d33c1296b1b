package store

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Eviction keeps two bounds: the byte budget, and the free space of the file
// system that must remain. It goes by time of last use, the oldest first, with
// two corrections. Manifests and configs go after all layers: they are small,
// and the layers are of no use without them. A blob of which fewer than two
// other copies are known counts as used SoleCopyGrace later than it was; strict
// precedence would let copies that nobody else has, and nobody wants, crowd out
// whatever is popular.

// before orders entries by how soon they are evicted.
func (s *Store) before(a, b *entry) int {
	rank := func(e *entry) (int, time.Time) {
		class, used := 0, e.lastUsed
		if e.kind != KindLayer {
			class = 1
		}
		if e.copies < 2 && s.opts.SoleCopyGrace > 0 {
			used = used.Add(s.opts.SoleCopyGrace)
		}
		return class, used
	}
	aClass, aUsed := rank(a)
	bClass, bUsed := rank(b)
	return cmp.Or(cmp.Compare(aClass, bClass), aUsed.Compare(bUsed), cmp.Compare(a.digest, b.digest))
}

// evictable reports whether an entry may go. Callers hold mu.
func (s *Store) evictable(e *entry) bool {
	return !e.pinned && e.users == 0 && e.owner == nil && s.claims[e.digest] == nil
}

// shortfall is the number of bytes that must go before n more fit. Callers hold
// mu.
func (s *Store) shortfall(n int64) (int64, error) {
	free, _, err := s.disk.Space(s.dir)
	if err != nil {
		return 0, err
	}
	// What the index needs is never content's to take.
	floor := max(s.floor, s.index.need()+mib)
	return max(s.used+n-s.opts.MaxBytes, floor+s.inflight+n-free), nil
}

// take reserves n bytes that are about to be written, evicting what must go. It
// fails with [ErrNoSpace], and evicts nothing, where that would not suffice.
func (s *Store) take(n int64) error {
	for range 8 { // others may take what was freed; that many times is enough
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return ErrClosed
		}
		short, err := s.shortfall(n)
		if err != nil {
			s.mu.Unlock()
			return err
		}
		if short <= 0 {
			s.used += n
			s.inflight += n
			s.mu.Unlock()
			return nil
		}
		victims := s.victims(short, false)
		s.mu.Unlock()
		if len(victims) == 0 {
			break
		}
		if err := s.evict(victims); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w for %d bytes", ErrNoSpace, n)
}

// landed says that n bytes that were taken are on disk now.
func (s *Store) landed(n int64) {
	s.mu.Lock()
	s.inflight -= n
	s.mu.Unlock()
}

// giveBack returns n bytes that were taken but not written.
func (s *Store) giveBack(n int64) {
	s.mu.Lock()
	s.inflight -= n
	s.used -= n
	s.mu.Unlock()
}

// victims chooses what to evict for short bytes, forgets it and claims it. If all
// that may go does not suffice, it chooses nothing, or with partly everything.
// Callers hold mu, and evict the result.
func (s *Store) victims(short int64, partly bool) []*entry {
	var all []*entry
	var sum int64
	for _, e := range s.entries {
		if s.evictable(e) && (e.bytes > 0 || partly) {
			all = append(all, e)
			sum += e.bytes
		}
	}
	if sum < short && !partly {
		return nil
	}
	slices.SortFunc(all, s.before)
	var chosen []*entry
	for _, e := range all {
		if short <= 0 {
			break
		}
		short -= e.bytes
		s.forget(e)
		s.claims[e.digest] = make(chan struct{})
		chosen = append(chosen, e)
	}
	return chosen
}

// evict erases what victims chose, and tells.
func (s *Store) evict(victims []*entry) error {
	var first error
	var gone []digest.Digest
	for _, e := range victims {
		err := s.erase(e)
		s.unclaim(e.digest)
		if err != nil {
			first = cmp.Or(first, err)
			continue
		}
		s.counts.evictions.Inc()
		s.log.Debug("evicted", "digest", e.digest, "bytes", e.bytes, "complete", e.complete)
		gone = append(gone, e.digest)
	}
	if s.opts.OnEvict != nil {
		for _, d := range gone {
			s.opts.OnEvict(d)
		}
	}
	return first
}

// inodeBatch is how many files go when a disk that has bytes left is full.
const inodeBatch = 16

// makeSpace evicts so that n more bytes fit, or as much as may go. It is for the
// disk that is full although the books say otherwise. Where bytes are free it must
// be inodes that are not: then a few files go.
func (s *Store) makeSpace(n int64) error {
	s.mu.Lock()
	free, _, err := s.disk.Space(s.dir)
	var victims []*entry
	if err == nil && free >= n {
		for range inodeBatch {
			victims = append(victims, s.victims(1, true)...)
		}
	} else {
		victims = s.victims(n, true)
	}
	s.mu.Unlock()
	if len(victims) == 0 {
		return ErrNoSpace
	}
	return s.evict(victims)
}

// fits fails with [ErrNoSpace] if a blob that lacks n more bytes can never be
// held, whatever is evicted: so that nothing is evicted in vain. Callers hold the
// claim on the blob, which keeps it out of the sum.
func (s *Store) fits(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	short, err := s.shortfall(n)
	if err != nil {
		return err
	}
	for _, e := range s.entries {
		if s.evictable(e) {
			short -= e.bytes
		}
	}
	if short > 0 {
		return fmt.Errorf("%w for a blob that needs %d more bytes", ErrNoSpace, n)
	}
	return nil
}
