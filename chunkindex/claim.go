package chunkindex

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"

	"github.com/opencontainers/go-digest"
)

// ErrClaim says that a claim is malformed or not signed by its signer.
var ErrClaim = errors.New("chunkindex: invalid claim")

// ClaimLength is the length in bytes of an encoded [Claim].
const ClaimLength = len(NodeID{}) + len(Sum{}) + ed25519.SignatureSize

// Sum is the SHA-256 of one chunk.
type Sum [32]byte

// Claim is a node's signed word that a chunk of a blob has a certain SHA-256.
// A node signs a claim only for a chunk that it read from the origin itself, or
// that belongs to a blob it has proven. The blob, its size, the chunk length
// and the chunk number are part of what is signed, but not of the encoding:
// they are known wherever a claim travels.
type Claim struct {
	Signer    NodeID
	Sum       Sum
	Signature [ed25519.SignatureSize]byte
}

// claimContext separates these signatures from every other use of a node's key.
// Its version changes whenever a chunk number comes to mean other bytes.
const claimContext = "peercache-chunk-claim-v2\x00"

func claimMessage(blob digest.Digest, l Layout, chunk int, sum Sum) []byte {
	msg := make([]byte, 0, len(claimContext)+len(blob)+1+3*8+len(sum))
	msg = append(msg, claimContext...)
	msg = append(msg, blob...)
	msg = append(msg, 0)
	msg = binary.BigEndian.AppendUint64(msg, uint64(l.Size()))
	msg = binary.BigEndian.AppendUint64(msg, uint64(l.ChunkLength()))
	msg = binary.BigEndian.AppendUint64(msg, uint64(chunk))
	return append(msg, sum[:]...)
}

// Sign returns key's claim that the chunk has the given sum. The caller vouches
// for it: see [Claim].
func Sign(key ed25519.PrivateKey, blob digest.Digest, l Layout, chunk int, sum Sum) Claim {
	c := Claim{Sum: sum}
	copy(c.Signer[:], key.Public().(ed25519.PublicKey))
	copy(c.Signature[:], ed25519.Sign(key, claimMessage(blob, l, chunk, sum)))
	return c
}

// Verify returns nil if the claim's signer signed it for this chunk of this
// blob, and [ErrClaim] otherwise. That the signer may join the cluster, and is
// right, is for the caller to know.
func (c Claim) Verify(blob digest.Digest, l Layout, chunk int) error {
	if !l.Valid(chunk) || !ed25519.Verify(c.Signer[:], claimMessage(blob, l, chunk, c.Sum), c.Signature[:]) {
		return ErrClaim
	}
	return nil
}

// Append appends the encoding of c to dst: signer, sum, signature.
func (c Claim) Append(dst []byte) []byte {
	dst = append(dst, c.Signer[:]...)
	dst = append(dst, c.Sum[:]...)
	return append(dst, c.Signature[:]...)
}

// DecodeClaim reads a claim from the front of data and returns the rest. It
// does not verify the signature.
func DecodeClaim(data []byte) (c Claim, rest []byte, err error) {
	if len(data) < ClaimLength {
		return Claim{}, data, ErrClaim
	}
	n := copy(c.Signer[:], data)
	n += copy(c.Sum[:], data[n:])
	n += copy(c.Signature[:], data[n:])
	return c, data[n:], nil
}
