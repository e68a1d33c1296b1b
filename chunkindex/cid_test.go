package chunkindex_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

func TestCIDIsThatOfTheBytesThemselves(t *testing.T) {
	// CIDs of the raw bytes "hello", as any IPFS tool computes them.
	for d, want := range map[digest.Digest]string{
		digest.SHA256.FromString("hello"): "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq",
		digest.SHA512.FromString("hello"): sha512Raw(t, "hello"),
	} {
		c, err := chunkindex.CID(d)
		if err != nil {
			t.Fatal(err)
		}
		if c.String() != want {
			t.Errorf("CID(%s) = %s, want %s", d, c, want)
		}
		if back, err := chunkindex.Digest(c); err != nil || back != d {
			t.Errorf("Digest(CID(%s)) = %s, %v", d, back, err)
		}
	}
}

func sha512Raw(t *testing.T, s string) string {
	t.Helper()
	mh, err := multihash.Sum([]byte(s), multihash.SHA2_512, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, mh).String()
}

func TestCIDRefusesOtherDigests(t *testing.T) {
	hex64 := strings.Repeat("0123456789abcdef", 4)
	for _, d := range []digest.Digest{
		"", ":", "sha256", "sha256:", "sha256:" + digest.Digest(hex64[1:]), "sha256:" + digest.Digest(hex64) + "0",
		"sha256:" + digest.Digest(strings.ToUpper(hex64)), "sha512:" + digest.Digest(hex64), "md5:" + digest.Digest(hex64[:32]),
		"sha384:" + digest.Digest(hex64+hex64[:32]), "sha256:../../../etc/passwd", "sha256:" + digest.Digest(hex64) + "\n",
	} {
		if c, err := chunkindex.CID(d); !errors.Is(err, chunkindex.ErrDigest) || c.Defined() {
			t.Errorf("CID(%q) = %v, %v, want ErrDigest", d, c, err)
		}
	}
}

func TestDigestRefusesOtherCIDs(t *testing.T) {
	sum := func(code uint64, n int) multihash.Multihash {
		mh, err := multihash.Sum([]byte("hello"), code, n)
		if err != nil {
			t.Fatal(err)
		}
		return mh
	}
	for name, c := range map[string]cid.Cid{
		"undefined":           cid.Undef,
		"version 0":           cid.NewCidV0(sum(multihash.SHA2_256, -1)),
		"another codec":       cid.NewCidV1(cid.DagProtobuf, sum(multihash.SHA2_256, -1)),
		"another hash":        cid.NewCidV1(cid.Raw, sum(multihash.SHA1, -1)),
		"identity":            cid.NewCidV1(cid.Raw, sum(multihash.IDENTITY, -1)),
		"a truncated sha256":  cid.NewCidV1(cid.Raw, sum(multihash.SHA2_256, 20)),
		"a sha512 cut to 32":  cid.NewCidV1(cid.Raw, sum(multihash.SHA2_512, 32)),
		"double sha256 of 32": cid.NewCidV1(cid.Raw, sum(multihash.DBL_SHA2_256, -1)),
	} {
		if d, err := chunkindex.Digest(c); !errors.Is(err, chunkindex.ErrDigest) {
			t.Errorf("%s: Digest(%v) = %q, %v, want ErrDigest", name, c, d, err)
		}
	}
}

func TestCIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		alg := rapid.SampledFrom([]digest.Algorithm{digest.SHA256, digest.SHA512}).Draw(t, "algorithm")
		d := digest.NewDigestFromBytes(alg, rapid.SliceOfN(rapid.Byte(), alg.Size(), alg.Size()).Draw(t, "sum"))
		c, err := chunkindex.CID(d)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := chunkindex.Digest(c); err != nil || back != d {
			t.Fatalf("%s became %s: %v", d, back, err)
		}
	})
}

// FuzzDigest feeds bytes as a peer may send them for a CID: what Digest
// accepts, CID must give back to the byte.
func FuzzDigest(f *testing.F) {
	for _, d := range []digest.Digest{digest.SHA256.FromString("a"), digest.SHA512.FromString("b")} {
		c, err := chunkindex.CID(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.Bytes())
		f.Add(c.Bytes()[:20])
		f.Add(append(c.Bytes(), 0))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := cid.Cast(data)
		if err != nil {
			return
		}
		d, err := chunkindex.Digest(c)
		if err != nil {
			if !errors.Is(err, chunkindex.ErrDigest) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		back, err := chunkindex.CID(d)
		if err != nil {
			t.Fatalf("CID(%s): %v", d, err)
		}
		if !back.Equals(c) {
			t.Fatalf("%x became %s became %x", c.Bytes(), d, back.Bytes())
		}
	})
}
