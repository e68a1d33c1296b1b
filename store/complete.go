package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// HashPrefix advances the hash of the whole blob over the chunks that are here
// without a gap, and returns how many of them it has seen. It reads them from the
// file, in most cases from the page cache. Calling it again costs only what has
// come since; it may run beside every other method. What ctx interrupts goes on
// with the next call.
func (p *Partial) HashPrefix(ctx context.Context) (chunks int, err error) {
	p.hashMu.Lock()
	defer p.hashMu.Unlock()
	return p.hashPrefix(ctx)
}

// hashPrefix does it. Callers hold hashMu.
//
// A chunk may be dropped, and even written anew, while it is being hashed. Drop
// notes the lowest such number in redo, and the hash looks at it before it takes
// the next chunk and before it ends; it starts over if it had seen that chunk.
func (p *Partial) hashPrefix(ctx context.Context) (chunks int, err error) {
	buf := hashBuffers.Get().(*[]byte)
	defer hashBuffers.Put(buf)
	for {
		p.mu.Lock()
		if p.closed && !p.finish {
			p.mu.Unlock()
			return 0, ErrClosed
		}
		if p.hashed > 0 && p.redo <= p.layout.At(p.hashed-1) {
			p.hash.Reset()
			p.hashed = 0
		}
		p.redo = p.layout.Count()
		chunks = p.layout.At(p.hashed)
		if p.hashed == p.layout.Size() {
			chunks = p.layout.Count()
		}
		suspect, here := p.suspect.Has(chunks), p.present.Has(chunks)
		p.mu.Unlock()
		switch {
		case suspect:
			p.recheck(chunks)
			continue
		case !here:
			return chunks, nil
		}
		// Whoever waits for a chunk comes before the hash of those that are here.
		runtime.Gosched()
		off, n := p.layout.Chunk(chunks)
		for end := off + n; p.hashed < end; {
			if err := ctx.Err(); err != nil {
				return chunks, err
			}
			part := (*buf)[:min(int64(len(*buf)), end-p.hashed)]
			if _, err := p.file.ReadAt(part, p.hashed); err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return chunks, fmt.Errorf("store: reading chunk %d of %s: %w", chunks, p.e.digest, err)
			}
			p.hash.Write(part)
			p.hashed += int64(len(part))
		}
	}
}

// Complete proves the blob and publishes it: the hash of the whole file is
// finished and compared with the digest, the file made durable and moved among
// the complete blobs. When it returns nil the Partial is closed, and the blob can
// be opened; it outlasts a power cut.
//
// It fails with [ErrIncomplete] while chunks are missing, and with [*DigestError]
// if the chunks are not those of the blob: they all stay, for the caller to drop
// the wrong ones, and the hash starts over. It fails with [ErrBusy] while chunks
// are being written; meanwhile writers get the same from it.
//
// If the disk refuses to make the bytes durable they cannot be trusted any more,
// whatever it says later: the Partial then refuses all work, and Close discards
// it.
func (p *Partial) Complete(ctx context.Context) error {
	p.mu.Lock()
	err := p.beginComplete()
	p.mu.Unlock()
	if err == nil {
		err = p.complete(ctx)
		p.mu.Lock()
		p.finish = false
		p.idle.Broadcast()
		p.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("store: completing %s: %w", p.e.digest, err)
	}
	return nil
}

// beginComplete keeps writers out. Callers hold mu.
func (p *Partial) beginComplete() error {
	switch {
	case p.closed:
		return ErrClosed
	case p.poisoned != nil:
		return p.poisoned
	case p.finish || len(p.busy) > 0:
		return ErrBusy
	}
	p.finish = true
	return nil
}

func (p *Partial) complete(ctx context.Context) error {
	s, e := p.s, p.e
	p.hashMu.Lock()
	defer p.hashMu.Unlock()
	chunks, err := p.hashPrefix(ctx)
	if err != nil {
		return err
	}
	if chunks < p.layout.Count() {
		return fmt.Errorf("%w: chunk %d of %d", ErrIncomplete, chunks, p.layout.Count())
	}
	if got := digest.NewDigest(e.digest.Algorithm(), p.hash); got != e.digest {
		p.hash.Reset()
		p.hashed = 0
		return &DigestError{Want: e.digest, Got: got}
	}
	sums, err := p.sums()
	if err != nil {
		return err
	}

	s.claim(e.digest)
	defer s.unclaim(e.digest)
	if err := p.file.Sync(); err != nil {
		// The kernel may by now take the pages for clean (fsync reports an
		// error once), so that a second try would prove nothing.
		p.mu.Lock()
		p.poisoned = err
		p.mu.Unlock()
		return spaceError(err)
	}
	err = s.publish(s.partialPath(e.digest), e.digest)
	if isNoSpace(err) && s.makeSpace(mib) == nil { // a directory needs a block
		err = s.publish(s.partialPath(e.digest), e.digest)
	}
	if err != nil {
		return spaceError(err)
	}
	s.mu.Lock()
	e.complete, e.owner = true, nil
	e.epoch, e.proven, e.lastUsed, e.dirty = s.epoch, s.now(), s.now(), true
	delete(s.unsynced, s.partialPath(e.digest))
	s.mu.Unlock()
	s.recordComplete(e, sums)
	p.mu.Lock()
	p.closed, p.done = true, true
	p.mu.Unlock()
	p.recheckMu.Lock()
	defer p.recheckMu.Unlock()
	if err := p.file.Close(); err != nil {
		s.log.Warn("closing a completed blob", "digest", e.digest, "err", err)
	}
	return nil
}

// sums collects the sums of all chunks, in order.
func (p *Partial) sums() ([]byte, error) {
	sums := make([]byte, 0, p.layout.Count()*len(chunkindex.Sum{}))
	err := p.s.index.scan(chunkPrefix(p.e.digest), func(_, value []byte) (bool, error) {
		r, err := decodeChunkRecord(value)
		sums = append(sums, r.sum[:]...)
		return true, err
	})
	if err == nil && len(sums) != p.layout.Count()*len(chunkindex.Sum{}) {
		err = errors.New("the index lacks chunks")
	}
	return sums, err
}
