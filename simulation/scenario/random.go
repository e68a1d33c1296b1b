package scenario

import (
	"hash/fnv"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"sync"
	"time"
)

// stream is a source of randomness of its own for each purpose, so that one more
// fault changes neither who has which link nor who pulls when.
func stream(seed uint64, purpose string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(purpose))
	return rand.New(rand.NewPCG(seed, h.Sum64())) // reproducible, not secret
}

// The logarithm and the power below are in fixed point with 32 bits behind the
// point. Functions of floats are not the same to the last bit on every machine; these
// are.
const point = 32

// ln2 is the natural logarithm of 2.
const ln2 = 0xB17217F7

// log2 is the binary logarithm of v, which is at least 1: its integer part is the length of v, and each
// bit behind the point comes from a squaring.
func log2(v uint64) int64 {
	length := bits.Len64(v) - 1
	m := v << (63 - length) // 1 to below 2, with 63 bits behind the point
	l := int64(length)
	for range point {
		hi, _ := bits.Mul64(m, m) // 62 bits behind it
		l <<= 1
		if hi>>63 == 1 {
			l |= 1
			m = hi
		} else {
			m = hi << 1
		}
	}
	return l
}

// roots are 2 to the power of -1/2, -1/4, -1/8 and so on, with 64 bits behind the point.
var roots = sync.OnceValue(func() (r [point]uint64) {
	one := new(big.Int).Lsh(big.NewInt(1), 128)
	root := new(big.Int).Rsh(one, 1) // 1/2 with 128 bits behind the point
	for i := range r {
		root = new(big.Int).Sqrt(new(big.Int).Lsh(root, 128))
		r[i] = new(big.Int).Rsh(root, 64).Uint64()
	}
	return r
})

// exp2 is 2 to the power of -x, for x of at least 0, with 62 bits behind the point.
func exp2(x int64) uint64 {
	v := uint64(1) << 62
	for i, r := range roots() {
		if x>>(point-1-i)&1 == 1 {
			v, _ = bits.Mul64(v, r)
		}
	}
	return v >> min(x>>point, 63)
}

// exponential draws from the exponential distribution with a mean: -ln(u) times it.
func exponential(rng *rand.Rand, mean time.Duration) time.Duration {
	u := rng.Uint64N(1<<point) + 1 // over 2^32: above 0, up to 1
	bitsOf := point<<point - log2(u)
	hi, lo := bits.Mul64(uint64(bitsOf), ln2)
	natural := hi<<(64-point) | lo>>point
	hi, lo = bits.Mul64(natural, uint64(mean))
	return time.Duration(hi<<(64-point) | lo>>point) // at most 23 times the mean
}

// zipf draws from 0 to n-1, the k-th in proportion to (k+1) to the power of -s
// millionths.
type zipf struct{ sums []uint64 }

func newZipf(n int, s exponent) *zipf {
	z := &zipf{sums: make([]uint64, n)}
	sum := uint64(0)
	for k := range n {
		x := mulDiv(log2(uint64(k+1)), int64(s), whole)
		sum += max(exp2(x)>>22, 1) // 40 bits: a million of them fit
		z.sums[k] = sum
	}
	return z
}

func (z *zipf) draw(rng *rand.Rand) int {
	if len(z.sums) == 1 {
		return 0
	}
	v := rng.Uint64N(z.sums[len(z.sums)-1])
	lo, hi := 0, len(z.sums)-1
	for lo < hi {
		if mid := (lo + hi) / 2; z.sums[mid] > v {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// mulDiv is a * b / c, of which none is negative, for a product that may not fit.
func mulDiv(a, b, c int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q) // callers see to it that the result fits
}

// mulExceeds says whether a * b is more than c; none is negative.
func mulExceeds(a, b, c int64) bool {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return hi > 0 || lo > uint64(c)
}
