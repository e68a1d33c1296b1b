package chunkindex

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"
)

// ErrDigest says that a digest is malformed or of an algorithm that is not
// supported (sha256 and sha512 are).
var ErrDigest = errors.New("chunkindex: invalid digest")

var hashCodes = map[digest.Algorithm]uint64{
	digest.SHA256: multihash.SHA2_256,
	digest.SHA512: multihash.SHA2_512,
}

// CID returns the content identifier under which a digest is provided on the
// DHT: version 1, codec raw, the digest's own bytes as multihash. It fails with
// [ErrDigest].
func CID(d digest.Digest) (cid.Cid, error) {
	if err := d.Validate(); err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", ErrDigest, err)
	}
	code, ok := hashCodes[d.Algorithm()]
	if !ok {
		return cid.Undef, fmt.Errorf("%w: algorithm %s", ErrDigest, d.Algorithm())
	}
	sum, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", ErrDigest, err)
	}
	mh, err := multihash.Encode(sum, code)
	if err != nil {
		return cid.Undef, fmt.Errorf("%w: %w", ErrDigest, err)
	}
	return cid.NewCidV1(cid.Raw, mh), nil
}

// Digest is the inverse of [CID]. It fails with [ErrDigest] for a CID that
// [CID] does not return.
func Digest(c cid.Cid) (digest.Digest, error) {
	if !c.Defined() || c.Version() != 1 || c.Type() != cid.Raw {
		return "", fmt.Errorf("%w: not a raw CIDv1", ErrDigest)
	}
	mh, err := multihash.Decode(c.Hash())
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrDigest, err)
	}
	for alg, code := range hashCodes {
		if code == mh.Code && alg.Size() == mh.Length {
			return digest.NewDigestFromBytes(alg, mh.Digest), nil
		}
	}
	return "", fmt.Errorf("%w: multihash code %#x", ErrDigest, mh.Code)
}
