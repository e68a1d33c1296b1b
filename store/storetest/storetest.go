// Package storetest is the conformance suite for stores of verified chunks and
// blobs. Whatever claims to behave like package store, a wrapper above all, runs
// it in a few lines:
//
//	storetest.Run(t, func(t *testing.T, dir string) storetest.Store {
//		s, err := store.Open(dir, nil)
//		if err != nil {
//			t.Fatal(err)
//		}
//		return storetest.Wrap(s)
//	})
//
// It tests what callers rely on. What a store must survive (crashes, full and
// failing disks) is tested beside the implementation.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/store"
)

// Store is what the suite tests: see package store for what each method promises.
type Store interface {
	Stat(d digest.Digest) (store.Info, error)
	List(fn func(store.Info) bool) error
	Open(d digest.Digest) (Blob, error)
	Put(ctx context.Context, d digest.Digest, kind store.Kind, data []byte) error
	Partial(d digest.Digest, l chunkindex.Layout, kind store.Kind) (Partial, error)
	SetKind(d digest.Digest, k store.Kind)
	Pin(d digest.Digest, pinned bool) error
	Delete(d digest.Digest) error
	Usage() store.Usage
	PutRecord(space, key string, value []byte) error
	Record(space, key string) ([]byte, error)
	Records(space string, fn func(key string, value []byte) bool) error
	DeleteRecord(space, key string) error
	Close() error
}

// Blob is an open, complete blob.
type Blob interface {
	Size() int64
	File() *os.File
	Prove(ctx context.Context) error
	Sum(i int) (chunkindex.Sum, error)
	Close() error
}

// Partial is a blob that is being fetched.
type Partial interface {
	Chunk(i int) store.ChunkState
	WriteChunk(i int, b *chunkindex.Buffer, lvl chunkindex.Level, c *chunkindex.Claim) error
	Raise(i int, lvl chunkindex.Level, c *chunkindex.Claim) error
	Drop(i int) error
	File() (*os.File, error)
	HashPrefix(ctx context.Context) (int, error)
	Complete(ctx context.Context) error
	Close() error
	Discard() error
}

// Wrap makes a *store.Store a Store.
func Wrap(s *store.Store) Store { return wrapped{s} }

type wrapped struct{ *store.Store }

func (w wrapped) Open(d digest.Digest) (Blob, error) {
	b, err := w.Store.Open(d)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (w wrapped) Partial(d digest.Digest, l chunkindex.Layout, kind store.Kind) (Partial, error) {
	p, err := w.Store.Partial(d, l, kind)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Content is a blob to test with.
type Content struct {
	Digest digest.Digest
	Data   []byte
	Layout chunkindex.Layout
}

// NewContent returns n bytes that depend on seed only.
func NewContent(alg digest.Algorithm, n int, seed uint64) Content {
	data := make([]byte, n)
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, _ = rand.NewChaCha8(key).Read(data) // it never fails
	l, err := chunkindex.LayoutFor(int64(n))
	if err != nil {
		panic(err)
	}
	return Content{Digest: alg.FromBytes(data), Data: data, Layout: l}
}

// Chunk returns the bytes of chunk i.
func (c Content) Chunk(i int) []byte {
	off, n := c.Layout.Chunk(i)
	return c.Data[off : off+n]
}

// Buffer returns a full buffer of data.
func Buffer(data []byte) *chunkindex.Buffer {
	b := chunkindex.NewBuffer(len(data), nil)
	if _, err := b.ReadFrom(bytes.NewReader(data)); err != nil {
		panic(err)
	}
	return b
}

const mib = 1 << 20

// Run tests the stores that open returns. It may close one and open the same
// directory again.
func Run(t *testing.T, open func(t *testing.T, dir string) Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *suite)
	}{
		{"absent", absent},
		{"put", put},
		{"put is verified", putVerifies},
		{"bad digests", badDigests},
		{"chunks become a blob", chunks},
		{"chunk states", states},
		{"the door", door},
		{"hash prefix", hashPrefix},
		{"wrong chunk", wrongChunk},
		{"one owner", oneOwner},
		{"another size", anotherSize},
		{"resume", resume},
		{"discard and delete", discard},
		{"empty blob", empty},
		{"list", list},
		{"records", records},
		{"many at once", concurrent},
		{"closed", closed},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{open: open, dir: t.TempDir()}
			s.Store = open(t, s.dir)
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			test.run(t, s)
		})
	}
}

type suite struct {
	Store
	open func(t *testing.T, dir string) Store
	dir  string
}

func (s *suite) reopen(t *testing.T) {
	t.Helper()
	must(t, s.Close())
	s.Store = s.open(t, s.dir)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

// wantBlob fails unless the store holds the content, whole and proven.
func wantBlob(t testing.TB, s Store, c Content) {
	t.Helper()
	b, err := s.Open(c.Digest)
	must(t, err)
	defer b.Close()
	must(t, b.Prove(context.Background()))
	if b.Size() != int64(len(c.Data)) {
		t.Fatalf("size %d, want %d", b.Size(), len(c.Data))
	}
	got, err := io.ReadAll(b.File())
	must(t, err)
	if !bytes.Equal(got, c.Data) {
		t.Fatalf("content of %s differs", c.Digest)
	}
}

func partial(t testing.TB, s Store, c Content) Partial {
	t.Helper()
	p, err := s.Partial(c.Digest, c.Layout, store.KindLayer)
	must(t, err)
	return p
}

func write(t testing.TB, p Partial, c Content, i int) {
	t.Helper()
	must(t, p.WriteChunk(i, Buffer(c.Chunk(i)), chunkindex.Fetched, nil))
}

func absent(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 10, 1)
	_, err := s.Stat(c.Digest)
	wantError(t, err, fs.ErrNotExist)
	_, err = s.Open(c.Digest)
	wantError(t, err, fs.ErrNotExist)
	wantError(t, s.Pin(c.Digest, true), fs.ErrNotExist)
	wantError(t, s.Delete(c.Digest), fs.ErrNotExist)
	_, err = s.Record("tags", "x")
	wantError(t, err, fs.ErrNotExist)
	s.SetKind(c.Digest, store.KindManifest)
	if _, err := s.Stat(c.Digest); err == nil {
		t.Error("SetKind made a blob")
	}
}

func put(t *testing.T, s *suite) {
	for _, c := range []Content{
		NewContent(digest.SHA256, 1000, 1), NewContent(digest.SHA512, 1000, 2), NewContent(digest.SHA256, mib+1, 3),
	} {
		must(t, s.Put(context.Background(), c.Digest, store.KindManifest, c.Data))
		must(t, s.Put(context.Background(), c.Digest, store.KindManifest, c.Data)) // again is fine
		wantBlob(t, s, c)
		info, err := s.Stat(c.Digest)
		must(t, err)
		if !info.Complete || info.Size != int64(len(c.Data)) || info.Kind != store.KindManifest || info.Have != c.Layout.Count() {
			t.Errorf("info is %+v", info)
		}
		_, err = s.Partial(c.Digest, c.Layout, store.KindLayer)
		wantError(t, err, fs.ErrExist)
	}
	if u := s.Usage(); u.Bytes != 2000+mib+1 || u.Blobs != 3 || u.Partials != 0 {
		t.Errorf("usage is %+v", u)
	}
	s.reopen(t)
	wantBlob(t, s, NewContent(digest.SHA512, 1000, 2))
	wantBlob(t, s, NewContent(digest.SHA256, mib+1, 3))
}

func putVerifies(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 100, 1)
	err := s.Put(context.Background(), c.Digest, store.KindConfig, c.Data[1:])
	var mismatch interface{ DigestMismatch() bool }
	if !errors.As(err, &mismatch) || !mismatch.DigestMismatch() {
		t.Errorf("error is %v", err)
	}
	_, err = s.Stat(c.Digest)
	wantError(t, err, fs.ErrNotExist)
	if u := s.Usage(); u.Bytes != 0 {
		t.Errorf("usage is %+v", u)
	}
}

func badDigests(t *testing.T, s *suite) {
	l, err := chunkindex.LayoutFor(10)
	must(t, err)
	for _, d := range []digest.Digest{"", "sha256", "sha256:", "sha256:../../../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e",
		digest.Digest("sha384:" + string(bytes.Repeat([]byte("a"), 96))), "sha256:AA" + digest.Digest(bytes.Repeat([]byte("a"), 62))} {
		wantError(t, s.Put(context.Background(), d, store.KindLayer, nil), chunkindex.ErrDigest)
		_, err := s.Open(d)
		wantError(t, err, chunkindex.ErrDigest)
		_, err = s.Partial(d, l, store.KindLayer)
		wantError(t, err, chunkindex.ErrDigest)
		_, err = s.Stat(d)
		wantError(t, err, fs.ErrNotExist)
	}
}

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

func empty(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 0, 13)
	p := partial(t, s, c)
	must(t, p.Complete(context.Background()))
	wantBlob(t, s, c)
	must(t, s.Delete(c.Digest))
	must(t, s.Put(context.Background(), c.Digest, store.KindConfig, nil))
	s.reopen(t)
	wantBlob(t, s, c)
}

func list(t *testing.T, s *suite) {
	a, b := NewContent(digest.SHA256, 10, 14), NewContent(digest.SHA256, 2*mib, 15)
	must(t, s.Put(context.Background(), a.Digest, store.KindConfig, a.Data))
	p := partial(t, s, b)
	write(t, p, b, 1)
	must(t, p.Close())
	s.SetKind(b.Digest, store.KindManifest)
	must(t, s.Pin(b.Digest, true))
	for range 2 {
		seen := map[digest.Digest]store.Info{}
		must(t, s.List(func(i store.Info) bool { seen[i.Digest] = i; return true }))
		if len(seen) != 2 || !seen[a.Digest].Complete || seen[a.Digest].Pinned {
			t.Errorf("list is %+v", seen)
		}
		if i := seen[b.Digest]; i.Complete || !i.Pinned || i.Have != 1 || i.Kind != store.KindManifest || i.LastUsed.IsZero() {
			t.Errorf("partial is %+v", i)
		}
		n := 0
		must(t, s.List(func(store.Info) bool { n++; return false }))
		if n != 1 {
			t.Errorf("List went on after false: %d calls", n)
		}
		s.reopen(t)
	}
}

func records(t *testing.T, s *suite) {
	must(t, s.PutRecord("tags", "b", []byte("2")))
	must(t, s.PutRecord("tags", "a", []byte("1")))
	must(t, s.PutRecord("tags", "a", []byte("3")))
	must(t, s.PutRecord("tag", "sa", []byte("other space")))
	must(t, s.PutRecord("tags", "gone", nil))
	must(t, s.DeleteRecord("tags", "gone"))
	must(t, s.DeleteRecord("tags", "gone"))
	for range 2 {
		var got []string
		must(t, s.Records("tags", func(k string, v []byte) bool {
			got = append(got, k+"="+string(v))
			return true
		}))
		if len(got) != 2 || got[0] != "a=3" || got[1] != "b=2" {
			t.Errorf("records are %q", got)
		}
		v, err := s.Record("tag", "sa")
		if err != nil || string(v) != "other space" {
			t.Errorf("record is %q, %v", v, err)
		}
		s.reopen(t)
	}
	wantError(t, s.PutRecord("tags", "big", make([]byte, store.MaxRecord+1)), store.ErrTooLarge)
	must(t, s.PutRecord("tags", "large", make([]byte, store.MaxRecord)))
}

// concurrent has several writers, a hasher and readers at one partial, and other
// work beside it. It is of most use with the race detector.
func concurrent(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 16*mib, 16)
	p := partial(t, s, c)
	defer p.Close()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := w; i < c.Layout.Count(); i += 2 { // each chunk by two writers
				err := p.WriteChunk(i, Buffer(c.Chunk(i)), chunkindex.Attested, nil)
				if err != nil && !errors.Is(err, store.ErrBusy) {
					t.Error(err)
				}
				st := p.Chunk(i)
				f, err := p.File()
				if err != nil {
					t.Error(err)
					return
				}
				off, n := c.Layout.Chunk(i)
				got := make([]byte, n)
				_, err = f.ReadAt(got, off)
				f.Close()
				if st.Level != chunkindex.Absent && (err != nil || Buffer(got).Sum() != st.Sum) {
					t.Errorf("chunk %d reads back wrong (%v)", i, err)
				}
			}
		})
	}
	wg.Go(func() {
		for n := 0; n < c.Layout.Count(); {
			var err error
			if n, err = p.HashPrefix(context.Background()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Go(func() {
		for i := range 20 {
			small := NewContent(digest.SHA256, 100+i, uint64(i))
			err := s.Put(context.Background(), small.Digest, store.KindManifest, small.Data)
			if err == nil {
				err = s.PutRecord("x", small.Digest.String(), []byte("y"))
			}
			if info, statErr := s.Stat(small.Digest); err != nil || statErr != nil || !info.Complete {
				t.Errorf("putting beside a download: %v, %v, %+v", err, statErr, info)
			}
			s.Usage()
		}
	})
	wg.Wait()
	must(t, p.Complete(context.Background()))
	wantBlob(t, s, c)
}

func closed(t *testing.T, s *suite) {
	c := NewContent(digest.SHA256, 10, 17)
	p := partial(t, s, c)
	must(t, s.Close())
	must(t, s.Close())
	wantError(t, p.WriteChunk(0, Buffer(c.Data), chunkindex.Fetched, nil), store.ErrClosed)
	wantError(t, s.Put(context.Background(), c.Digest, store.KindLayer, c.Data), store.ErrClosed)
	_, err := s.Open(c.Digest)
	wantError(t, err, store.ErrClosed)
	_, err = s.Partial(c.Digest, c.Layout, store.KindLayer)
	wantError(t, err, store.ErrClosed)
	wantError(t, s.PutRecord("x", "y", nil), store.ErrClosed)
	_, err = s.Record("x", "y")
	wantError(t, err, store.ErrClosed)
	wantError(t, s.List(func(store.Info) bool { return true }), store.ErrClosed)
}
