package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/store"
)

func chunks(t *testing.T, s *suite) {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		c := NewContent(alg, 3*mib+17, 4)
		p := partial(t, s, c)
		for _, i := range []int{6, 0, 2, 4, 3, 5} {
			write(t, p, c, i)
		}
		wantError(t, p.Complete(context.Background()), store.ErrIncomplete)
		_, err := s.Open(c.Digest)
		wantError(t, err, fs.ErrNotExist) // nothing unproven is visible
		info, err := s.Stat(c.Digest)
		must(t, err)
		if info.Complete || info.Have != 6 || info.Size != 3*mib+17 {
			t.Errorf("info is %+v", info)
		}
		f, err := p.File()
		must(t, err)
		defer f.Close()
		write(t, p, c, 1)
		must(t, p.Complete(context.Background()))
		must(t, p.Close())   // does nothing any more
		must(t, p.Discard()) // and neither does this
		wantBlob(t, s, c)
		got, err := io.ReadAll(f) // opened before completion
		must(t, err)
		if !bytes.Equal(got, c.Data) {
			t.Error("descriptor of the partial reads something else")
		}
		b, err := s.Open(c.Digest)
		must(t, err)
		defer b.Close()
		for i := range c.Layout.Count() {
			sum, err := b.Sum(i)
			must(t, err)
			if want := Buffer(c.Chunk(i)).Sum(); sum != want {
				t.Errorf("sum of chunk %d is %x, want %x", i, sum, want)
			}
		}
		_, err = b.Sum(7)
		wantError(t, err, chunkindex.ErrLayout)
	}
}

func states(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 2*mib, 5)
	p := partial(t, s, c)
	defer p.Close()
	b := Buffer(c.Chunk(0))
	claim := &chunkindex.Claim{Signer: chunkindex.NodeID{1}, Sum: b.Sum()}
	if st := p.Chunk(0); st != (store.ChunkState{}) {
		t.Errorf("state of a missing chunk is %+v", st)
	}
	if st := p.Chunk(-1); st != (store.ChunkState{}) {
		t.Errorf("state of no chunk is %+v", st)
	}
	want := func(lvl chunkindex.Level, c *chunkindex.Claim) {
		t.Helper()
		st := p.Chunk(0)
		if st.Level != lvl || st.Sum != b.Sum() || (st.Claim == nil) != (c == nil) || c != nil && *st.Claim != *c {
			t.Errorf("state is %+v, want level %s, claim %v", st, lvl, c)
		}
	}
	must(t, p.WriteChunk(0, b, chunkindex.Received, nil))
	want(chunkindex.Received, nil)
	must(t, p.WriteChunk(0, b, chunkindex.Attested, claim)) // a second copy confirms
	want(chunkindex.Attested, claim)
	must(t, p.Raise(0, chunkindex.Received, nil)) // never lower
	want(chunkindex.Attested, claim)
	other := &chunkindex.Claim{Signer: chunkindex.NodeID{2}, Sum: b.Sum()}
	must(t, p.Raise(0, chunkindex.Fetched, other))
	want(chunkindex.Fetched, other)
	wantError(t, p.Raise(0, chunkindex.Proven, &chunkindex.Claim{}), chunkindex.ErrClaim)
	wantError(t, p.Raise(1, chunkindex.Fetched, nil), fs.ErrNotExist)
	must(t, p.Drop(0))
	must(t, p.Drop(0))
	if st := p.Chunk(0); st != (store.ChunkState{}) {
		t.Errorf("state of a dropped chunk is %+v", st)
	}
	if u := s.Usage(); u.Bytes != 0 {
		t.Errorf("usage is %+v", u)
	}
}

func door(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 2*mib+5, 6)
	p := partial(t, s, c)
	defer p.Close()
	part := chunkindex.NewBuffer(len(c.Chunk(0)), nil)
	_, err := part.ReadFrom(bytes.NewReader(c.Chunk(0)[1:]))
	wantError(t, err, io.ErrUnexpectedEOF)
	wantError(t, p.WriteChunk(0, part, chunkindex.Fetched, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(0, Buffer(c.Data[:5]), chunkindex.Fetched, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(0, Buffer(c.Chunk(4)), chunkindex.Fetched, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(4, Buffer(c.Chunk(0)), chunkindex.Fetched, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(5, Buffer(c.Chunk(0)), chunkindex.Fetched, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(6, Buffer(c.Chunk(0)), chunkindex.Fetched, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(-1, Buffer(c.Chunk(0)), chunkindex.Fetched, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(0, Buffer(c.Chunk(0)), chunkindex.Absent, nil), chunkindex.ErrLayout)
	wantError(t, p.WriteChunk(0, Buffer(c.Chunk(0)), chunkindex.Attested, &chunkindex.Claim{}), chunkindex.ErrClaim)
	if u := s.Usage(); u.Bytes != 0 {
		t.Errorf("a refused chunk counts: %+v", u)
	}
	write(t, p, c, 0)
	wantError(t, p.WriteChunk(0, Buffer(c.Chunk(1)), chunkindex.Fetched, nil), store.ErrConflict)
	f, err := p.File()
	must(t, err)
	defer f.Close()
	got := make([]byte, len(c.Chunk(0)))
	_, err = f.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, c.Chunk(0)) {
		t.Error("a refused chunk changed the file")
	}
}

func hashPrefix(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 4*mib, 7)
	p := partial(t, s, c)
	defer p.Close()
	want := func(n int) {
		t.Helper()
		got, err := p.HashPrefix(context.Background())
		if err != nil || got != n {
			t.Fatalf("prefix is %d (%v), want %d", got, err, n)
		}
	}
	want(0)
	write(t, p, c, 1)
	want(0)
	write(t, p, c, 0)
	want(2)
	want(2)
	must(t, p.Drop(0)) // seen already: start over
	want(0)
	write(t, p, c, 0)
	want(2)
	write(t, p, c, 3)
	must(t, p.Drop(3)) // not seen yet
	want(2)
	write(t, p, c, 2)
	write(t, p, c, 3)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := p.HashPrefix(ctx); !errors.Is(err, context.Canceled) || n != 2 {
		t.Fatalf("cancelled prefix is %d, %v", n, err)
	}
	want(4)
	write(t, p, c, 5)
	write(t, p, c, 4) // a longer one
	want(6)
	write(t, p, c, 6)
	must(t, p.Drop(5)) // seen already, behind chunks of other lengths
	want(5)
	write(t, p, c, 5)
	must(t, p.Complete(context.Background()))
	wantBlob(t, s, c)
}

func wrongChunk(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 3*mib, 8)
	p := partial(t, s, c)
	defer p.Close()
	write(t, p, c, 0)
	must(t, p.WriteChunk(1, Buffer(bytes.Repeat([]byte{7}, len(c.Chunk(1)))), chunkindex.Attested, nil))
	for i := 2; i < c.Layout.Count(); i++ {
		write(t, p, c, i)
	}
	for range 2 {
		err := p.Complete(context.Background())
		var mismatch interface{ DigestMismatch() bool }
		if !errors.As(err, &mismatch) || !mismatch.DigestMismatch() {
			t.Fatalf("error is %v", err)
		}
	}
	_, err := s.Open(c.Digest)
	wantError(t, err, fs.ErrNotExist)
	if st := p.Chunk(2); st.Level != chunkindex.Fetched {
		t.Errorf("chunk 2 is %v after the mismatch", st.Level)
	}
	must(t, p.Drop(1))
	write(t, p, c, 1)
	must(t, p.Complete(context.Background()))
	wantBlob(t, s, c)
}

func oneOwner(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 10, 9)
	p := partial(t, s, c)
	_, err := s.Partial(c.Digest, c.Layout, store.KindLayer)
	wantError(t, err, store.ErrBusy)
	wantError(t, s.Put(context.Background(), c.Digest, store.KindLayer, c.Data), store.ErrBusy)
	wantError(t, s.Delete(c.Digest), store.ErrBusy)
	must(t, p.Close())
	wantError(t, p.WriteChunk(0, Buffer(c.Data), chunkindex.Fetched, nil), store.ErrClosed)
	must(t, partial(t, s, c).Close())
	must(t, s.Put(context.Background(), c.Digest, store.KindLayer, c.Data))
	wantBlob(t, s, c)
}

func anotherSize(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 2*mib, 10)
	wrong, err := chunkindex.LayoutFor(3 * mib)
	must(t, err)
	p, err := s.Partial(c.Digest, wrong, store.KindLayer)
	must(t, err)
	must(t, p.WriteChunk(2, Buffer(c.Chunk(0)), chunkindex.Attested, nil))
	must(t, p.Close())
	p = partial(t, s, c)
	defer p.Close()
	if u := s.Usage(); u.Bytes != 0 || u.Partials != 1 {
		t.Errorf("usage is %+v", u)
	}
	for i := range c.Layout.Count() {
		write(t, p, c, i)
	}
	must(t, p.Complete(context.Background()))
	wantBlob(t, s, c)
}

func resume(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 3*mib, 11)
	p := partial(t, s, c)
	write(t, p, c, 4)
	claim := &chunkindex.Claim{Signer: chunkindex.NodeID{1}, Sum: Buffer(c.Chunk(0)).Sum()}
	must(t, p.WriteChunk(0, Buffer(c.Chunk(0)), chunkindex.Attested, claim))
	must(t, p.Close())
	s.reopen(t)
	if u := s.Usage(); u.Bytes != mib/4+mib {
		t.Errorf("usage is %+v", u)
	}
	p = partial(t, s, c)
	for i, want := range []chunkindex.Level{0: chunkindex.Attested, 4: chunkindex.Fetched, 5: chunkindex.Absent} {
		if st := p.Chunk(i); st.Level != want {
			t.Errorf("chunk %d is %s, want %s", i, st.Level, want)
		}
	}
	if st := p.Chunk(0); st.Claim == nil || *st.Claim != *claim {
		t.Errorf("claim is %v", st.Claim)
	}
	for _, i := range []int{1, 2, 3, 5} {
		write(t, p, c, i)
	}
	must(t, p.Complete(context.Background()))
	s.reopen(t)
	wantBlob(t, s, c)
}

func discard(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 2*mib, 12)
	p := partial(t, s, c)
	write(t, p, c, 1)
	must(t, p.Discard())
	_, err := s.Stat(c.Digest)
	wantError(t, err, fs.ErrNotExist)
	p = partial(t, s, c)
	if st := p.Chunk(1); st.Level != chunkindex.Absent {
		t.Error("a discarded chunk came back")
	}
	for i := range c.Layout.Count() {
		write(t, p, c, i)
	}
	must(t, p.Complete(context.Background()))
	b, err := s.Open(c.Digest)
	must(t, err)
	defer b.Close()
	must(t, s.Delete(c.Digest))
	_, err = s.Open(c.Digest)
	wantError(t, err, fs.ErrNotExist)
	got, err := io.ReadAll(b.File()) // who has it open goes on
	must(t, err)
	if !bytes.Equal(got, c.Data) {
		t.Error("content of a deleted, open blob differs")
	}
	if u := s.Usage(); u.Bytes != 0 || u.Blobs != 0 || u.Partials != 0 {
		t.Errorf("usage is %+v", u)
	}
	must(t, s.Put(context.Background(), c.Digest, store.KindLayer, c.Data))
	wantBlob(t, s, c)
}
