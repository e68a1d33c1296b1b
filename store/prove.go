package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// proof is the reading of one whole blob, on behalf of any number of callers.
type proof struct {
	done chan struct{}
	err  error // after done

	urgent chan struct{} // closed: somebody waits
	once   sync.Once
}

// hurry takes the proof out of the background: it goes on without pauses.
func (p *proof) hurry() { p.once.Do(func() { close(p.urgent) }) }

// startProof returns the entry's running proof, or starts one. Callers hold mu
// and know that the store is not closed.
func (s *Store) startProof(e *entry) *proof {
	if e.proof == nil {
		e.proof = &proof{done: make(chan struct{}), urgent: make(chan struct{})}
		s.proofs.Add(1)
		go func() {
			defer s.proofs.Done()
			s.prove(e, e.proof)
		}()
	}
	return e.proof
}

// prove reads the file of a complete blob and records the result.
func (s *Store) prove(e *entry, pr *proof) {
	s.counts.proofs.Inc()
	err := s.readWhole(e, pr)
	var bad *CorruptError
	switch {
	case err == nil:
		s.mu.Lock()
		e.epoch, e.proven, e.dirty = s.epoch, s.now(), true
		s.mu.Unlock()
	case errors.As(err, &bad):
		err = s.corrupt(e, bad.Reason)
	}
	s.mu.Lock()
	e.proof = nil
	s.mu.Unlock()
	pr.err = err
	close(pr.done)
}

// readWhole hashes the blob's file. What the disk does wrong is a [*CorruptError];
// what keeps this process from looking (descriptors, permissions, the end of the
// store) is not.
func (s *Store) readWhole(e *entry, pr *proof) error {
	f, err := s.disk.Open(s.blobPath(e.digest), os.O_RDONLY)
	if isAbsent(err) {
		return &CorruptError{Digest: e.digest, Reason: "file is gone"}
	}
	if err != nil {
		return fmt.Errorf("store: proving %s: %w", e.digest, err)
	}
	defer f.Close()
	h := e.digest.Algorithm().Hash()
	buf := hashBuffers.Get().(*[]byte)
	defer hashBuffers.Put(buf)
	pace := newPace(s.opts.ProveRate)
	off := int64(0)
	for {
		if err := pace.wait(s.ctx, pr.urgent); err != nil {
			return ErrClosed
		}
		n, err := f.ReadAt(*buf, off)
		h.Write((*buf)[:n])
		off += int64(n)
		pace.add(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &CorruptError{Digest: e.digest, Reason: err.Error()}
		}
	}
	if off != e.size {
		return &CorruptError{Digest: e.digest, Reason: fmt.Sprintf("file has %d bytes instead of %d", off, e.size)}
	}
	if got := digest.NewDigest(e.digest.Algorithm(), h); got != e.digest {
		return &CorruptError{Digest: e.digest, Reason: "content hashes to " + got.String()}
	}
	return nil
}

// corrupt removes a blob that the disk no longer has right, and returns the error
// that says so. Readers that have it open get the same error from Prove.
func (s *Store) corrupt(e *entry, reason string) *CorruptError {
	err := &CorruptError{Digest: e.digest, Reason: reason}
	s.claim(e.digest)
	s.mu.Lock()
	if e.corrupt != nil || e.gone {
		if e.corrupt == nil {
			e.corrupt = err
		}
		defer s.mu.Unlock()
		s.unclaimLocked(e.digest)
		return e.corrupt
	}
	e.corrupt = err
	s.forget(e)
	s.mu.Unlock()
	eraseErr := s.erase(e)
	s.unclaim(e.digest)
	s.counts.corrupt.Inc()
	s.log.Error("removed a corrupt blob", "digest", e.digest, "err", reason)
	if eraseErr != nil {
		s.log.Error("a corrupt blob could not be removed", "digest", e.digest, "err", eraseErr)
	}
	if s.opts.OnEvict != nil {
		s.opts.OnEvict(e.digest)
	}
	return err
}

// hashBuffers hold what is read from the page cache to be hashed: small enough
// to stay in the CPU's cache.
var hashBuffers = sync.Pool{New: func() any {
	buf := make([]byte, 256<<10)
	return &buf
}}

// pace spreads reading over time.
type pace struct {
	rate  int64 // bytes a second
	start time.Time
	read  int64
}

func newPace(rate int64) *pace { return &pace{rate: rate, start: time.Now()} }

func (p *pace) add(n int) { p.read += int64(n) }

// wait returns when reading may go on: in time, or at once when urgent is closed.
// It fails when ctx ends.
func (p *pace) wait(ctx context.Context, urgent <-chan struct{}) error {
	ahead := time.Duration(float64(p.read)/float64(p.rate)*float64(time.Second)) - time.Since(p.start)
	if ahead <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(ahead)
	defer t.Stop()
	select {
	case <-t.C:
	case <-urgent:
	case <-ctx.Done():
	}
	return ctx.Err()
}

func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
