package policy

import (
	"slices"
	"time"
)

// pipeline is the time between a chunk's end and the first byte of the one that
// is asked for next, beside the network's: the loop, the peer's loop, both disks.
const pipeline = 10 * time.Millisecond

// ahead is how many more chunks than otherwise must be on their way for a link not to
// wait for the next request, by the link's time for a chunk and by how long a peer takes
// to answer: between two chunks lie up to two such times, one for what is said (MsgFree)
// or asked in vain (BUSY), one for the request.
//
// What counts is the link's time for a chunk, not a measured rate: nodes that have too
// little on its way see a low rate, which would keep them there. And it is one number for
// both directions: where nodes ask for more than nodes send, most is asked in vain.
func (c *Core) ahead(length int64) int {
	in, out := int64(c.received.median(length)), int64(c.sent.median(length))
	unit := min(in, out)
	if unit == 0 {
		unit = max(in, out)
	}
	if unit == 0 {
		return 0
	}
	return int((5*int64(pipeline+2*time.Duration(c.rtt))/4 + unit/2) / unit)
}

// plenty is from how many chunks on, of those that neighbours have and this node has
// not, it keeps one more under way, in and out. With fewer to choose from what counts is
// how soon a chunk can be passed on, and that is when it is whole; with many, that no
// link stands idle between two chunks. With less than scarce each of them is waited for.
const plenty, scarce = 32, 8

// choice is how many chunks this node can choose from.
func (b *blob) choice() int {
	if b == nil || b.small {
		return 0
	}
	return b.offered.CountBeyond(b.taken)
}

// hasPlenty reports whether there is so much of the blob to be had.
func (b *blob) hasPlenty() bool { return b.choice() >= plenty }

// times remembers how long the latest chunks took. The zero times remembers none.
type times struct {
	// each is nanoseconds a MiB, the shortest first, of the n that are known; came says when
	// each of them was added.
	each [maxTimes]int64
	came [maxTimes]uint8
	n    uint8
	next uint8
}

// maxTimes is how many chunks' times are remembered.
const maxTimes = 15

// leastTimed is the least number of bytes whose time says anything of a chunk's.
const leastTimed = 64 << 10

func (t *times) add(d Time, n int64) {
	if n < leastTimed {
		return
	}
	took := max(int64(d)>>10*(1<<20)/n<<10, 1)
	i := int(t.n)
	if i < maxTimes {
		t.n++
	} else {
		i = slices.Index(t.came[:], t.next) // the oldest
	}
	for ; i+1 < int(t.n) && t.each[i+1] < took; i++ {
		t.each[i], t.came[i] = t.each[i+1], t.came[i+1]
	}
	for ; i > 0 && t.each[i-1] > took; i-- {
		t.each[i], t.came[i] = t.each[i-1], t.came[i-1]
	}
	t.each[i], t.came[i] = took, t.next
	t.next = (t.next + 1) % maxTimes
}

// median is how long n bytes usually take, 0 if nothing is remembered.
func (t *times) median(n int64) time.Duration {
	return time.Duration(t.each[t.n/2%maxTimes] >> 10 * (n >> 10))
}
