package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// Keys of the index: one byte for the space, then
//
//	'b' digest               a blob: blobRecord
//	'c' digest chunk(4)      a chunk of a partial blob: chunkRecord
//	's' digest page(4)       SHA-256 of up to 1024 chunks of a complete blob: sumsPage
//	'r' space 0 key          a record of the store's user
//	'd' name 0 key           a datastore
//	'm' name                 the store's own: "epoch"
//
// Numbers are big-endian. Digests are an algorithm byte and the raw sum.
const (
	spaceBlob      = 'b'
	spaceChunk     = 'c'
	spaceSums      = 's'
	spaceRecord    = 'r'
	spaceDatastore = 'd'
	spaceMeta      = 'm'
)

const recordVersion = 1

// chunkVersion is that of what is kept by chunk number. It changes when a number
// comes to mean other bytes: what has another version is of no use then, and a
// start drops it. A partial blob begins anew; a complete one only lacks its sums.
const chunkVersion = 2

// sumsPerPage keeps a page of sums well below what one commit may hold.
const sumsPerPage = 1024

var epochKey = append([]byte{spaceMeta}, "epoch"...)

var errRecord = errors.New("store: malformed record")

func blobKey(d digest.Digest) []byte { return append([]byte{spaceBlob}, digestKey(d)...) }
func chunkPrefix(d digest.Digest) []byte {
	return append([]byte{spaceChunk}, digestKey(d)...)
}
func chunkKey(d digest.Digest, i int) []byte { return be32(chunkPrefix(d), i) }
func sumsPrefix(d digest.Digest) []byte      { return append([]byte{spaceSums}, digestKey(d)...) }
func sumsKey(d digest.Digest, page int) []byte {
	return be32(sumsPrefix(d), page)
}

const (
	flagComplete = 1 << iota
	flagPinned
)

const blobRecordLength = 4 + 8 + 4 + 4 + 8 + 8

// appendBlobRecord encodes what lasts of an entry: version, flags, kind, 0,
// size, epoch, copies, last use and last proof in Unix nanoseconds (0: never).
func appendBlobRecord(dst []byte, e *entry) []byte {
	flags := byte(0)
	if e.complete {
		flags |= flagComplete
	}
	if e.pinned {
		flags |= flagPinned
	}
	dst = append(dst, recordVersion, flags, byte(e.kind), 0)
	dst = binary.BigEndian.AppendUint64(dst, uint64(e.size))
	dst = binary.BigEndian.AppendUint32(dst, e.epoch)
	dst = binary.BigEndian.AppendUint32(dst, uint32(max(0, e.copies)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(unixNano(e.lastUsed)))
	return binary.BigEndian.AppendUint64(dst, uint64(unixNano(e.proven)))
}

func decodeBlobRecord(d digest.Digest, v []byte) (*entry, error) {
	if len(v) != blobRecordLength || v[0] != recordVersion {
		return nil, errRecord
	}
	e := &entry{
		digest: d, complete: v[1]&flagComplete != 0, pinned: v[1]&flagPinned != 0, kind: Kind(v[2]),
		size:     int64(binary.BigEndian.Uint64(v[4:])),
		epoch:    binary.BigEndian.Uint32(v[12:]),
		copies:   int(binary.BigEndian.Uint32(v[16:])),
		lastUsed: fromUnixNano(binary.BigEndian.Uint64(v[20:])),
		proven:   fromUnixNano(binary.BigEndian.Uint64(v[28:])),
	}
	if _, err := chunkindex.LayoutFor(e.size); err != nil {
		return nil, errRecord
	}
	return e, nil
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnixNano(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n))
}

// chunkRecord is what lasts of a chunk of a partial blob.
type chunkRecord struct {
	level chunkindex.Level
	epoch uint32 // epoch in which its bytes were last known to match the sum
	sum   chunkindex.Sum
	claim *chunkindex.Claim
}

const chunkRecordLength = 2 + 4 + len(chunkindex.Sum{})

// append encodes version, level, epoch, sum and, if there is one, the claim.
func (r chunkRecord) append(dst []byte) []byte {
	dst = append(dst, chunkVersion, byte(r.level))
	dst = binary.BigEndian.AppendUint32(dst, r.epoch)
	dst = append(dst, r.sum[:]...)
	if r.claim != nil {
		dst = r.claim.Append(dst)
	}
	return dst
}

func decodeChunkRecord(v []byte) (r chunkRecord, err error) {
	if len(v) < chunkRecordLength || v[0] != chunkVersion || !chunkindex.Level(v[1]).Valid() || v[1] == 0 {
		return r, errRecord
	}
	r.level = chunkindex.Level(v[1])
	r.epoch = binary.BigEndian.Uint32(v[2:])
	rest := v[6+copy(r.sum[:], v[6:]):]
	if len(rest) == 0 {
		return r, nil
	}
	claim, rest, err := chunkindex.DecodeClaim(rest)
	if err != nil || len(rest) > 0 {
		return r, errRecord
	}
	r.claim = &claim
	return r, nil
}

// sumsPage encodes version and sums.
func sumsPage(sums []byte) []byte { return append([]byte{chunkVersion}, sums...) }

// decodeSumsPage returns the sums of a page, concatenated.
func decodeSumsPage(v []byte) ([]byte, error) {
	const most = 1 + sumsPerPage*len(chunkindex.Sum{})
	if len(v) < 1 || len(v) > most || v[0] != chunkVersion || (len(v)-1)%len(chunkindex.Sum{}) != 0 {
		return nil, errRecord
	}
	return v[1:], nil
}

// chunkOfKey returns the digest and the number in a key of a chunk or a page.
func chunkOfKey(key []byte) (d digest.Digest, i int, ok bool) {
	d, rest, ok := digestOfKey(key[1:])
	if !ok || len(rest) != 4 {
		return "", 0, false
	}
	return d, int(binary.BigEndian.Uint32(rest)), true
}

// deleteRecords deletes everything in the index about one blob.
func (s *Store) deleteRecords(d digest.Digest) error {
	keys := [][]byte{blobKey(d)}
	for _, prefix := range [][]byte{chunkPrefix(d), sumsPrefix(d)} {
		err := s.index.scan(prefix, func(key, _ []byte) (bool, error) {
			keys = append(keys, append([]byte(nil), key...))
			return true, nil
		})
		if err != nil {
			return fmt.Errorf("store: reading records of %s: %w", d, err)
		}
	}
	err := s.index.batch(func(set func(key, value []byte) error) error {
		for _, key := range keys {
			if err := set(key, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store: deleting records of %s: %w", d, err)
	}
	return nil
}

// saveBlob writes an entry's record as it is now.
func (s *Store) saveBlob(e *entry) error {
	s.mu.Lock()
	value := appendBlobRecord(nil, e)
	e.dirty = false
	s.mu.Unlock()
	err := s.index.update(func(txn *badger.Txn) error { return txn.Set(blobKey(e.digest), value) })
	if err != nil {
		s.mu.Lock()
		e.dirty = true
		s.mu.Unlock()
		return fmt.Errorf("store: recording %s: %w", e.digest, err)
	}
	return nil
}

// flush writes the records of all entries that changed, recency among them, and
// deletes those that could not be deleted before.
func (s *Store) flush() error {
	s.mu.Lock()
	var dirty []*entry
	for _, e := range s.entries {
		if e.dirty && s.claims[e.digest] == nil {
			dirty = append(dirty, e)
		}
	}
	var stale []digest.Digest
	for d := range s.stale {
		stale = append(stale, d)
	}
	s.mu.Unlock()

	var errs []error
	for _, d := range stale {
		s.claim(d)
		errs = append(errs, s.settle(d))
		s.unclaim(d)
	}
	for _, e := range dirty {
		// A claim keeps the record from being written after its deletion.
		s.claim(e.digest)
		s.mu.Lock()
		write := !e.gone && e.dirty
		s.mu.Unlock()
		if write {
			errs = append(errs, s.saveBlob(e))
		}
		s.unclaim(e.digest)
	}
	return errors.Join(errs...)
}
