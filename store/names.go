package store

import (
	_ "crypto/sha256" // digest algorithms that a digest may name
	_ "crypto/sha512"
	"encoding/hex"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// algorithms numbers the digest algorithms in keys of the index. Both the
// numbers and the directory names are on-disk format.
var algorithms = map[digest.Algorithm]byte{digest.SHA256: 1, digest.SHA512: 2}

// check returns [chunkindex.ErrDigest] for digests that cannot be stored. A
// valid digest is hexadecimal, so that it is also a safe file name.
func check(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: %w", chunkindex.ErrDigest, err)
	}
	if algorithms[d.Algorithm()] == 0 {
		return fmt.Errorf("%w: algorithm %s", chunkindex.ErrDigest, d.Algorithm())
	}
	return nil
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}

func (s *Store) partialPath(d digest.Digest) string {
	return filepath.Join(s.dir, "partial", d.Algorithm().String(), d.Encoded())
}

func (s *Store) putPath(d digest.Digest) string { return s.partialPath(d) + ".put" }

// digestKey is d's binary form: algorithm, then the raw sum.
func digestKey(d digest.Digest) []byte {
	sum, err := hex.DecodeString(d.Encoded())
	if err != nil {
		panic("store: digest was not checked: " + string(d))
	}
	return append([]byte{algorithms[d.Algorithm()]}, sum...)
}

// digestOfKey reads a digestKey from the front of key and returns the rest.
func digestOfKey(key []byte) (d digest.Digest, rest []byte, ok bool) {
	if len(key) == 0 {
		return "", nil, false
	}
	for alg, number := range algorithms {
		if number == key[0] && len(key) >= 1+alg.Size() {
			n := 1 + alg.Size()
			return digest.NewDigestFromBytes(alg, key[1:n]), key[n:], true
		}
	}
	return "", nil, false
}
