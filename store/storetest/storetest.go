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
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/store"
)

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
