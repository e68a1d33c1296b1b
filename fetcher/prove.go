package fetcher

import (
	"context"
	"errors"
	"sync"

	"github.com/peercache/peercache/fetcher/policy"
)

// hasher advances the hash of a whole blob in the background while its chunks
// arrive, so that the proof at the end costs little.
type hasher struct {
	spawn func(func()) bool

	mu      sync.Mutex
	ctx     context.Context
	cancel  context.CancelFunc
	partial Partial
	dirty   bool
	running bool
	idle    *sync.Cond
}

// begin makes p the partial to hash.
func (h *hasher) begin(ctx context.Context, p Partial) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle == nil {
		h.idle = sync.NewCond(&h.mu)
	}
	h.ctx, h.cancel = context.WithCancel(ctx)
	h.partial, h.dirty = p, false
}

// kick tells that there are new chunks.
func (h *hasher) kick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.partial == nil {
		return
	}
	h.dirty = true
	if !h.running {
		h.running = h.spawn(h.run)
	}
}

func (h *hasher) run() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.dirty && h.partial != nil {
		h.dirty = false
		p, ctx := h.partial, h.ctx
		h.mu.Unlock()
		// An error is not lost: the proof meets it again.
		_, _ = p.HashPrefix(ctx)
		h.mu.Lock()
	}
	h.running = false
	h.idle.Broadcast()
}

// wait returns when nothing is being hashed.
func (h *hasher) wait() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dirty = false
	for h.running {
		h.idle.Wait()
	}
}

// stop ends the hashing and lets go of the partial.
func (h *hasher) stop() {
	h.mu.Lock()
	if h.cancel != nil {
		h.cancel()
	}
	h.partial = nil
	h.mu.Unlock()
	h.wait()
}

// proveBlob proves a blob of which every chunk is stored.
func (f *Fetcher) proveBlob(e *policy.Effect) {
	b := f.blob(e.Blob)
	b.disk.add(func() {
		p := b.partialNow()
		if p == nil {
			kind := policy.EvStoreFailed
			b.mu.Lock()
			if b.stored != nil {
				kind = policy.EvProven
			}
			b.mu.Unlock()
			f.post(policy.Event{Kind: kind, Blob: b.digest})
			return
		}
		done := make(chan struct{})
		defer close(done)
		b.mu.Lock()
		b.finishing = done
		b.mu.Unlock()
		b.hash.wait()
		err := p.Complete(f.ctx)
		var mismatch interface{ DigestMismatch() bool }
		switch {
		case err == nil:
			f.completed(b, p)
			f.post(policy.Event{Kind: policy.EvProven, Blob: b.digest})
			b.mu.Lock()
			size := b.size
			b.mu.Unlock()
			f.post(policy.Event{Kind: policy.EvHeld, Blob: b.digest, Size: size, Whole: true})
			f.announcer.proven(b.digest)
		case errors.As(err, &mismatch) && mismatch.DigestMismatch():
			f.log.Warn("a blob does not match its digest", "digest", b.digest, "err", err)
			f.hints.forget(b.digest)
			f.post(policy.Event{Kind: policy.EvRefuted, Blob: b.digest})
		case f.ctx.Err() != nil:
		default:
			f.log.Error("proving a blob", "digest", b.digest, "err", err)
			f.post(policy.Event{Kind: policy.EvStoreFailed, Blob: b.digest})
		}
	})
}

// completed moves b from its partial to the complete blob. Descriptors of the
// partial that readers hold stay good: it is the same file under another name.
func (f *Fetcher) completed(b *blob, p Partial) {
	b.hash.stop()
	sb, err := f.store.Open(b.digest)
	if err != nil {
		f.log.Error("opening a blob just proven", "digest", b.digest, "err", err)
	}
	b.mu.Lock()
	b.partial = nil
	b.mu.Unlock()
	if err == nil {
		f.adopt(b, sb)
	}
	closeQuietly(p)
}
