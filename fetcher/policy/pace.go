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
	each [15]int64 // nanoseconds a MiB
	next int
	// middle is the median of those that are known, 0 if it must be found anew.
	middle int64
}

// leastTimed is the least number of bytes whose time says anything of a chunk's.
const leastTimed = 64 << 10

func (t *times) add(d Time, n int64) {
	if n < leastTimed {
		return
	}
	t.each[t.next] = max(int64(d)>>10*(1<<20)/n<<10, 1)
	t.next, t.middle = (t.next+1)%len(t.each), 0
}

// median is how long n bytes usually take, 0 if nothing is remembered.
func (t *times) median(n int64) time.Duration {
	if t.middle == 0 {
		sorted := t.each
		slices.Sort(sorted[:])
		first := slices.IndexFunc(sorted[:], func(d int64) bool { return d > 0 })
		if first < 0 {
			return 0
		}
		known := sorted[first:]
		t.middle = known[len(known)/2]
	}
	return time.Duration(t.middle >> 10 * (n >> 10))
}
