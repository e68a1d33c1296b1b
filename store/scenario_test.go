package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// content is a blob of a scenario.
type content struct {
	digest digest.Digest
	data   []byte
	layout chunkindex.Layout
}

func newContent(alg digest.Algorithm, n int, seed byte) content {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return content{alg.FromBytes(data), data, layoutOf(int64(n))}
}

func (c content) chunk(i int) []byte {
	off, n := c.layout.Chunk(i)
	return c.data[off : off+n]
}

func fullBuffer(data []byte) *chunkindex.Buffer {
	b := chunkindex.NewBuffer(len(data), nil)
	if _, err := b.ReadFrom(bytes.NewReader(data)); err != nil {
		panic(err)
	}
	return b
}

// The blobs of the scenario. Of each it is known what they are, so that whatever
// a store shows after a crash can be compared.
var (
	small     = newContent(digest.SHA256, 700, 1)
	deleted   = newContent(digest.SHA512, 900, 2)
	whole     = newContent(digest.SHA256, 1<<20+5, 3)
	unended   = newContent(digest.SHA512, 3<<20, 4)
	discarded = newContent(digest.SHA256, 1<<20, 5)
	contents  = map[digest.Digest]content{}
)

func init() {
	for _, c := range []content{small, deleted, whole, unended, discarded} {
		contents[c.digest] = c
	}
}

// promises is what a store has acknowledged, as numbers of changes to the disk.
type promises struct {
	position func() int
	kept     map[digest.Digest]int // published before this
	released map[digest.Digest]int // deletion asked for after this
}

// at returns the blobs which must be there after k changes.
func (p promises) at(k int) (must []digest.Digest) {
	for d, from := range p.kept {
		if end, ok := p.released[d]; k >= from && (!ok || k <= end) {
			must = append(must, d)
		}
	}
	return must
}

// scenario does a bit of everything to the store. A step that fails is reported
// to failed, and the scenario goes on with what does not depend on it.
func scenario(s *Store, synced func(), p promises, failed func(step string, err error)) {
	ctx := context.Background()
	try := func(step string, err error) bool {
		if err != nil {
			failed(step, err)
		}
		return err == nil
	}
	keep := func(step string, c content, err error) {
		if try(step, err) {
			p.kept[c.digest] = p.position()
		}
	}
	write := func(part *Partial, c content, i int) {
		try(fmt.Sprint("write ", i), part.WriteChunk(i, fullBuffer(c.chunk(i)), chunkindex.Fetched, nil))
	}
	keep("put", deleted, s.Put(ctx, deleted.digest, KindConfig, deleted.data))
	if part, err := s.Partial(whole.digest, whole.layout, KindLayer); try("partial", err) {
		last := whole.layout.Count() - 1
		for i := range last { // not in order
			write(part, whole, i^1)
		}
		_, err := part.HashPrefix(ctx)
		try("hash", err)
		// A chunk that is wrong, dropped, and written anew.
		try("write the last", part.WriteChunk(last, fullBuffer([]byte("wrong")), chunkindex.Received, nil))
		var mismatch *DigestError
		if err := part.Complete(ctx); !errors.As(err, &mismatch) {
			try("complete with a wrong chunk", fmt.Errorf("not refused: %w", err))
		}
		try("drop", part.Drop(last))
		write(part, whole, last)
		keep("complete", whole, part.Complete(ctx))
		try("close", part.Close())
	}
	if try("pin", s.Pin(whole.digest, true)) && synced != nil {
		synced()
	}
	if part, err := s.Partial(unended.digest, unended.layout, KindLayer); try("partial", err) {
		write(part, unended, 0)
		write(part, unended, 4)
		try("close", part.Close())
	}
	if part, err := s.Partial(discarded.digest, discarded.layout, KindLayer); try("partial", err) {
		write(part, discarded, 0)
		try("discard", part.Discard())
	}
	keep("put", small, s.Put(ctx, small.digest, KindManifest, small.data))
	p.released[deleted.digest] = p.position()
	try("delete", s.Delete(deleted.digest))
}

// verify opens the store in dir and fails the test unless what the store says it
// holds, it holds; what must be there is; and the work can go on. lost says what
// the crash took, for the message.
func verify(t *testing.T, dir, lost string, must []digest.Digest) {
	t.Helper()
	s, err := Open(dir, &Options{disk: &faulty{}})
	if err != nil {
		t.Fatalf("%s: the store does not open: %v", lost, err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("%s: closing: %v", lost, err)
		}
	}()
	ctx := context.Background()
	promised := map[digest.Digest]bool{}
	for _, d := range must {
		promised[d] = true
		if info, err := s.Stat(d); err != nil || !info.Complete {
			t.Fatalf("%s: a published blob is gone: %+v, %v", lost, info, err)
		}
	}
	var infos []Info
	if err := s.List(func(i Info) bool { infos = append(infos, i); return true }); err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		c, known := contents[info.Digest]
		switch {
		case !known:
			t.Fatalf("%s: the store made up a blob: %+v", lost, info)
		case info.Complete:
			b, err := s.Open(c.digest)
			var corrupt *CorruptError
			if err == nil {
				err = b.Prove(ctx)
			}
			if errors.As(err, &corrupt) && !promised[c.digest] {
				if _, err := s.Stat(c.digest); !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("%s: a corrupt blob stays: %v", lost, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%s: blob %s: %v", lost, c.digest, err)
			}
			got := make([]byte, len(c.data))
			if _, err := b.File().ReadAt(got, 0); err != nil || !bytes.Equal(got, c.data) {
				t.Fatalf("%s: a proven blob reads wrong (%v)", lost, err)
			}
			b.Close()
		default:
			p, err := s.Partial(c.digest, c.layout, info.Kind)
			if err != nil {
				t.Fatalf("%s: partial: %v", lost, err)
			}
			f, err := p.File()
			if err != nil {
				t.Fatal(err)
			}
			for i := range c.layout.Count() {
				st := p.Chunk(i)
				off, n := c.layout.Chunk(i)
				got := make([]byte, n)
				_, err := f.ReadAt(got, off)
				wrong := string(got[:min(n, 5)]) == "wrong" // what the scenario wrote as the last chunk
				if st.Level == chunkindex.Absent {
					if err := p.WriteChunk(i, fullBuffer(c.chunk(i)), chunkindex.Fetched, nil); err != nil {
						t.Fatalf("%s: going on: %v", lost, err)
					}
				} else if err != nil || fullBuffer(got).Sum() != st.Sum {
					t.Fatalf("%s: chunk %d is reported and not there (%v)", lost, i, err)
				} else if wrong {
					if err := errors.Join(p.Drop(i), p.WriteChunk(i, fullBuffer(c.chunk(i)), chunkindex.Fetched, nil)); err != nil {
						t.Fatalf("%s: going on: %v", lost, err)
					}
				} else if !bytes.Equal(got, c.chunk(i)) {
					t.Fatalf("%s: chunk %d reads wrong", lost, i)
				}
			}
			f.Close()
			if err := p.Complete(ctx); err != nil {
				t.Fatalf("%s: going on: %v", lost, err)
			}
		}
	}
	var sum int64
	if err := s.List(func(i Info) bool { sum += i.Size; return true }); err != nil {
		t.Fatal(err)
	}
	if u := s.Usage(); u.Bytes != sum || u.Partials != 0 {
		t.Fatalf("%s: the books say %+v, the blobs come to %d", lost, u, sum)
	}
}

// verifyClone is verify, and removes the directory: there are hundreds.
func verifyClone(t *testing.T, dir, lost string, must []digest.Digest) {
	t.Helper()
	verify(t, dir, lost, must)
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
