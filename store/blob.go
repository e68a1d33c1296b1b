package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Blob is an open, complete blob. While it is open the blob is not evicted. It is
// safe for concurrent use, except that users of File share its file offset.
type Blob struct {
	s    *Store
	e    *entry
	file diskFile
	once sync.Once
}

// Open opens a complete blob, and counts as a use of it. It fails with
// fs.ErrNotExist for what is not here or not complete, and with [*CorruptError],
// removing the blob, if its file is gone or has another length.
//
// What it reads was proven when it was stored, but perhaps not since an unclean
// stop: whoever releases the last byte of the blob calls [Blob.Prove] first.
func (s *Store) Open(d digest.Digest) (*Blob, error) {
	if err := check(d); err != nil {
		return nil, err
	}
	s.mu.Lock()
	e := s.entries[d]
	switch {
	case s.closed:
		s.mu.Unlock()
		return nil, ErrClosed
	case e == nil || !e.complete:
		s.mu.Unlock()
		return nil, fmt.Errorf("store: opening %s: %w", d, fs.ErrNotExist)
	}
	e.users++
	e.lastUsed, e.dirty = s.now(), true
	s.mu.Unlock()

	b := &Blob{s: s, e: e}
	f, err := s.disk.Open(s.blobPath(d), os.O_RDONLY)
	if err == nil {
		b.file = f
		info, statErr := f.Stat()
		if statErr == nil && info.Size() == e.size {
			return b, nil
		}
		err = statErr
		if err == nil {
			err = s.corrupt(e, fmt.Sprintf("file has %d bytes instead of %d", info.Size(), e.size))
		}
	} else if isAbsent(err) {
		s.mu.Lock()
		gone := e.gone // deleted between the look-up and the open
		s.mu.Unlock()
		if !gone {
			err = s.corrupt(e, "file is gone")
		}
	}
	b.Close()
	return nil, fmt.Errorf("store: opening %s: %w", d, err)
}

// Digest is the blob's digest.
func (b *Blob) Digest() digest.Digest { return b.e.digest }

// Size is the blob's size in bytes.
func (b *Blob) Size() int64 { return b.e.size }

// File is the blob's file, open for reading, with a descriptor and an offset of
// this Blob's own: it may be handed to sendfile. It is closed with the Blob.
func (b *Blob) File() *os.File { return b.file.File() }

// Prove returns nil if the blob was proven since the last unclean stop. If it was
// not, the blob is hashed, once for all callers that ask meanwhile; their
// contexts end their own waiting only. Where the disk gives other bytes the blob
// is removed and the error is a [*CorruptError].
func (b *Blob) Prove(ctx context.Context) error {
	s, e := b.s, b.e
	s.mu.Lock()
	if e.corrupt != nil {
		s.mu.Unlock()
		return e.corrupt
	}
	if e.epoch == s.epoch {
		s.mu.Unlock()
		return nil
	}
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	pr := s.startProof(e)
	s.mu.Unlock()
	pr.hurry()
	select {
	case <-pr.done:
		return pr.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sum returns the SHA-256 of chunk i of the blob's layout, with which a node that
// has proven the blob may sign claims. Where it was not kept (an index that was
// lost) the chunk is hashed. Call it on proven blobs.
func (b *Blob) Sum(i int) (chunkindex.Sum, error) {
	var sum chunkindex.Sum
	l := layoutOf(b.e.size)
	if !l.Valid(i) {
		return sum, fmt.Errorf("store: chunk %d of %s: %w", i, b.e.digest, chunkindex.ErrLayout)
	}
	page, err := b.s.index.get(sumsKey(b.e.digest, i/sumsPerPage))
	if err == nil {
		page, err = decodeSumsPage(page)
	}
	if at := i % sumsPerPage * len(sum); err == nil && len(page) >= at+len(sum) {
		copy(sum[:], page[at:])
		return sum, nil
	}
	off, n := l.Chunk(i)
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(b.file, off, n)); err != nil {
		return sum, fmt.Errorf("store: reading %s: %w", b.e.digest, err)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// Close closes the file and lets the blob be evicted again. It may be called
// more than once.
func (b *Blob) Close() error {
	var err error
	b.once.Do(func() {
		if b.file != nil {
			err = b.file.Close()
		}
		b.s.mu.Lock()
		b.e.users--
		b.s.mu.Unlock()
	})
	return err
}
