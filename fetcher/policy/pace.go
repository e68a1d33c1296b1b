package policy

import (
	"slices"
	"time"
)

// pace measures how many bytes a second pass, as an average over the last
// seconds. The zero pace has measured nothing.
type pace struct {
	rate  int64 // bytes a second, 0 unknown
	bytes int64
	since Time
}

const (
	paceWindow = 200 * time.Millisecond
	paceIdle   = 2 * time.Second
)

func (p *pace) add(now Time, n int64) {
	if p.since == 0 || now > p.since.Add(paceIdle) {
		// A pause says nothing about the rate.
		p.since, p.bytes = max(now, 1), 0
		return
	}
	p.bytes += n
	d := int64(now - p.since)
	if d < int64(paceWindow) {
		return
	}
	// Both factors fit: at most 2 s of at most 1 TB/s, in units of 1 KiB.
	rate := (p.bytes >> 10) * int64(time.Second) / d << 10
	if p.rate == 0 {
		p.rate = rate
	} else {
		p.rate = (p.rate + rate) / 2
	}
	p.since, p.bytes = now, 0
}

// ahead is how many chunks pass in the time d, doubled: so many must be on their
// way for the link never to wait for the next request.
func (p *pace) ahead(d time.Duration, length int64) int {
	return int(2 * (p.rate >> 10) * int64(d) / int64(time.Second) << 10 / length)
}

// pipeline is the time between a chunk's end and the first byte of the one that
// is asked for next, beside the network's: the loop, the peer's loop, both disks.
const pipeline = 10 * time.Millisecond

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
