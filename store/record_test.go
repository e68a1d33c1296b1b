package store

import (
	"bytes"
	"testing"
	"time"

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
