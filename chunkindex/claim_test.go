package chunkindex_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

func keyFromSeed(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func TestClaimHoldsForNothingElse(t *testing.T) {
	blob, other := digest.FromString("blob"), digest.FromString("another blob")
	l, longer := layoutFor(t, 3*mib), layoutFor(t, 3*mib+1)
	sum := chunkindex.Sum(sha256.Sum256([]byte("chunk")))
	good := chunkindex.Sign(keyFromSeed(1), blob, l, 1, sum)
	if err := good.Verify(blob, l, 1); err != nil {
		t.Fatalf("a claim doesn't hold for what was signed: %v", err)
	}
	change := func(f func(*chunkindex.Claim)) chunkindex.Claim {
		c := good
		f(&c)
		return c
	}
	for _, tt := range []struct {
		name  string
		claim chunkindex.Claim
		blob  digest.Digest
		l     chunkindex.Layout
		chunk int
	}{
		{"another blob", good, other, l, 1},
		{"the same digest by another algorithm", good, digest.SHA512.FromString("blob"), l, 1},
		{"another size", good, blob, longer, 1},
		{"another chunk", good, blob, l, 2},
		{"a chunk outside of the blob", good, blob, l, l.Count()},
		{"a negative chunk", good, blob, l, -1},
		{"another sum", change(func(c *chunkindex.Claim) { c.Sum[0] ^= 1 }), blob, l, 1},
		{"another signer", change(func(c *chunkindex.Claim) { c.Signer[0] ^= 1 }), blob, l, 1},
		{"a signer that is no key", change(func(c *chunkindex.Claim) { c.Signer = chunkindex.NodeID{} }), blob, l, 1},
		{"a broken signature", change(func(c *chunkindex.Claim) { c.Signature[63] ^= 1 }), blob, l, 1},
		{"the zero claim", chunkindex.Claim{}, blob, l, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.claim.Verify(tt.blob, tt.l, tt.chunk); !errors.Is(err, chunkindex.ErrClaim) {
				t.Fatalf("got %v, want ErrClaim", err)
			}
		})
	}
}

func TestClaimRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := layoutFor(t, rapid.Int64Range(1, chunkindex.MaxBlobSize).Draw(t, "size"))
		chunk := rapid.IntRange(0, l.Count()-1).Draw(t, "chunk")
		blob := digest.FromBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "blob"))
		var sum chunkindex.Sum
		copy(sum[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "sum"))
		key := keyFromSeed(rapid.Byte().Draw(t, "seed"))

		c := chunkindex.Sign(key, blob, l, chunk, sum)
		if err := c.Verify(blob, l, chunk); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(c.Signer[:], key.Public().(ed25519.PublicKey)) || c.Sum != sum {
			t.Fatal("the claim names another signer or sum")
		}
		tail := rapid.SliceOf(rapid.Byte()).Draw(t, "tail")
		data := append(c.Append([]byte("head")), tail...)
		back, rest, err := chunkindex.DecodeClaim(data[4:])
		if err != nil || back != c || !bytes.Equal(rest, tail) {
			t.Fatalf("round trip: %v", err)
		}
	})
}

func TestDecodeClaimTooShort(t *testing.T) {
	data := chunkindex.Claim{}.Append(nil)
	if len(data) != chunkindex.ClaimLength {
		t.Fatalf("encoded in %d bytes, want %d", len(data), chunkindex.ClaimLength)
	}
	for n := range len(data) {
		_, rest, err := chunkindex.DecodeClaim(data[:n])
		if !errors.Is(err, chunkindex.ErrClaim) || len(rest) != n {
			t.Fatalf("%d bytes: error %v, %d bytes left", n, err, len(rest))
		}
	}
}

func FuzzDecodeClaim(f *testing.F) {
	l, err := chunkindex.LayoutFor(5 * mib)
	if err != nil {
		f.Fatal(err)
	}
	blob := digest.FromString("blob")
	c := chunkindex.Sign(keyFromSeed(7), blob, l, 4, chunkindex.Sum{1, 2, 3})
	f.Add(c.Append(nil))
	f.Add(append(c.Append(nil), "rest"...))
	f.Add(c.Append(nil)[:100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, rest, err := chunkindex.DecodeClaim(data)
		if err != nil {
			if !errors.Is(err, chunkindex.ErrClaim) || len(data) >= chunkindex.ClaimLength {
				t.Fatalf("%d bytes: %v", len(data), err)
			}
			return
		}
		if !bytes.Equal(got.Append(nil), data[:chunkindex.ClaimLength]) || !bytes.Equal(rest, data[chunkindex.ClaimLength:]) {
			t.Fatal("the round trip changed the claim")
		}
		if got.Verify(blob, l, 4) == nil && got != c {
			t.Fatal("forged a claim")
		}
	})
}
