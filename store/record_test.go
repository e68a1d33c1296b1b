package store

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// FuzzRecords decodes arbitrary values as records: what is accepted encodes to the
// same bytes again, and nothing panics.
func FuzzRecords(f *testing.F) {
	claim := &chunkindex.Claim{Signer: chunkindex.NodeID{1}}
	f.Add(appendBlobRecord(nil, &entry{size: 5, complete: true, pinned: true, copies: 3, lastUsed: time.Unix(1, 2), epoch: 7}))
	f.Add(chunkRecord{level: chunkindex.Fetched, epoch: 9, sum: chunkindex.Sum{4}}.append(nil))
	f.Add(chunkRecord{level: chunkindex.Attested, claim: claim}.append(nil))
	f.Add(sumsPage(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, v []byte) {
		if e, err := decodeBlobRecord(small.digest, v); err == nil {
			again, err := decodeBlobRecord(small.digest, appendBlobRecord(nil, e))
			if err != nil || *again != *e {
				t.Errorf("%+v became %+v, %v", e, again, err)
			}
		}
		if r, err := decodeChunkRecord(v); err == nil && !bytes.Equal(r.append(nil), v) {
			t.Errorf("%x became %x", v, r.append(nil))
		}
		if sums, err := decodeSumsPage(v); err == nil && !bytes.Equal(sumsPage(sums), v) {
			t.Errorf("%x became %x", v, sumsPage(sums))
		}
	})
}

// FuzzKeys reads arbitrary keys as those of chunks.
func FuzzKeys(f *testing.F) {
	f.Add(chunkKey(small.digest, 7))
	f.Add(chunkKey(deleted.digest, 1<<20))
	f.Fuzz(func(t *testing.T, key []byte) {
		if len(key) == 0 || key[0] != spaceChunk {
			return
		}
		if d, i, ok := chunkOfKey(key); ok && !bytes.Equal(chunkKey(d, i), key) {
			t.Errorf("%x is chunk %d of %s", key, i, d)
		}
	})
}

// TestOlderChunkVersion opens a store whose chunk records and sums were kept when
// a chunk number meant other bytes: a start drops them, and nothing else.
func TestOlderChunkVersion(t *testing.T) {
	dir := t.TempDir()
	uncleanly(t, dir)
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := chunkRecord{level: chunkindex.Fetched, epoch: s.epoch, sum: chunkindex.Sum{1}}.append(nil)
	old[0] = 1
	page := bytes.Repeat([]byte{chunkVersion}, 3*len(chunkindex.Sum{})) // it had no version
	err = s.index.update(func(txn *badger.Txn) error {
		return errors.Join(txn.Set(chunkKey(unended.digest, 0), old), txn.Set(chunkKey(unended.digest, 1), old),
			txn.Set(sumsKey(whole.digest, 0), page))
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}

	if s, err = Open(dir, nil); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, key := range [][]byte{chunkKey(unended.digest, 0), chunkKey(unended.digest, 1), sumsKey(whole.digest, 0)} {
		if v, err := s.index.get(key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q stays: %x, %v", key[:1], v, err)
		}
	}
	if u := s.Usage(); u.Bytes != int64(len(whole.data)) || u.Blobs != 1 || u.Partials != 1 {
		t.Errorf("usage is %+v", u)
	}
	b, err := s.Open(whole.digest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Prove(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := range whole.layout.Count() {
		if sum, err := b.Sum(i); err != nil || sum != fullBuffer(whole.chunk(i)).Sum() {
			t.Errorf("sum of chunk %d is %x, %v", i, sum, err)
		}
	}
	p, err := s.Partial(unended.digest, unended.layout, KindLayer)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for i := range unended.layout.Count() {
		if st := p.Chunk(i); st != (ChunkState{}) {
			t.Errorf("chunk %d is %+v", i, st)
		}
		if err := p.WriteChunk(i, fullBuffer(unended.chunk(i)), chunkindex.Fetched, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Complete(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestKeys keeps the keys of one blob apart from those of every other.
func TestKeys(t *testing.T) {
	for _, d := range []digest.Digest{small.digest, deleted.digest} {
		got, i, ok := chunkOfKey(chunkKey(d, 65535))
		if got != d || i != 65535 || !ok {
			t.Errorf("%s became %s, %d", d, got, i)
		}
	}
	if bytes.HasPrefix(chunkKey(deleted.digest, 0), chunkPrefix(small.digest)) {
		t.Error("one blob's chunks are under another's prefix")
	}
}
