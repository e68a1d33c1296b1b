package store

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// upkeepInterval is how often Run looks at the free space, and how much of
	// what was recorded a power cut may take, published blobs excepted.
	upkeepInterval = 2 * time.Second
	// scrubLook is how often Run looks for blobs whose last proof is too old.
	scrubLook = time.Minute
)

// Run keeps the store in shape until ctx ends, and then returns nil: it evicts
// when others fill the disk, makes the index durable, proves after an unclean
// stop what nobody has asked for yet, and re-reads each blob once every
// ScrubInterval. A store works without it, but only within what its callers do.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return every(ctx, upkeepInterval, s.upkeep) })
	g.Go(func() error {
		s.recheckPartials(ctx)
		return every(ctx, scrubLook, func() { s.scrub(ctx) })
	})
	return g.Wait()
}

// every calls fn now and then once an interval.
func every(ctx context.Context, interval time.Duration, fn func()) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		fn()
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// upkeep restores the two bounds, and the durability of the index.
func (s *Store) upkeep() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	short, err := s.shortfall(0)
	var victims []*entry
	if err == nil && short > 0 {
		victims = s.victims(short, true)
	}
	s.mu.Unlock()
	if err == nil {
		err = s.evict(victims)
	}
	if err != nil {
		s.log.Warn("keeping space free", "err", err)
	}
	if free, _, err := s.disk.Space(s.dir); err == nil && free < s.index.memory {
		s.dropReserve()
	} else if err == nil {
		s.keepReserve()
	}
	if err := s.flush(); err != nil && !isNoSpace(err) && !errors.Is(err, ErrClosed) {
		s.log.Warn("recording what changed", "err", err)
	}
	if err := s.index.sync(); err != nil && !errors.Is(err, ErrClosed) {
		s.log.Warn("syncing the index", "err", err)
	}
}

// scrub proves, one after the other, the blobs that were not proven since an
// unclean stop, and then those whose last proof is too old.
func (s *Store) scrub(ctx context.Context) {
	tried := map[*entry]bool{}
	for ctx.Err() == nil {
		s.mu.Lock()
		var next *entry
		for _, e := range s.entries {
			if tried[e] || !s.wantsProof(e) {
				continue
			}
			if next == nil || e.proven.Before(next.proven) {
				next = e
			}
		}
		if next == nil || s.closed {
			s.mu.Unlock()
			return
		}
		tried[next] = true
		pr := s.startProof(next)
		s.mu.Unlock()
		select {
		case <-pr.done:
		case <-ctx.Done():
			return
		}
		var corrupt *CorruptError
		if pr.err != nil && !errors.As(pr.err, &corrupt) && !errors.Is(pr.err, ErrClosed) {
			s.log.Warn("proving a blob", "digest", next.digest, "err", pr.err)
		}
	}
}

// wantsProof reports whether a blob should be read in background. Callers hold
// mu.
func (s *Store) wantsProof(e *entry) bool {
	if !e.complete {
		return false
	}
	old := s.opts.ScrubInterval > 0 && s.now().Sub(e.proven) > s.opts.ScrubInterval
	return e.epoch != s.epoch || old
}
