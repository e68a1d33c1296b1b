package simulation

import "github.com/peercache/peercache/fetcher/policy"

// clock is a node's own, where that is wrong: at real time since it showed base, and
// from then on it runs fast parts in a million too fast.
type clock struct {
	since, base int64
	fast        int64
	shown       int64 // the latest that it showed: time does not go back
}

const million = 1_000_000

// skew sets a node's clock off, or, at the end of that, has it run right again. What it
// is off by then stays: a clock that counts from the start of a process is never set
// right. One that was set back stands still until it has caught up.
func (c *cluster) skew(f *fault, n *node, begin bool) {
	now := c.clockOf(n)
	k := &clock{since: c.now, base: now, shown: now}
	if n.clock != nil {
		k.base, k.fast = n.clock.at(c.now), n.clock.fast
	}
	if begin {
		k.base += int64(f.Delay)
		k.fast += int64(f.Part)
	} else {
		k.fast -= int64(f.Part)
	}
	n.clock = k
	if n.timerAt != 0 {
		c.setTimer(n, n.timerWant)
	}
}

// at is what the clock would show if it could go back.
func (k *clock) at(now int64) int64 {
	d := now - k.since
	return k.base + d + d/million*k.fast + d%million*k.fast/million
}

// clockOf is what a node's clock shows.
func (c *cluster) clockOf(n *node) int64 { return n.clockAt(c.now) }

func (n *node) clockAt(now int64) int64 {
	if n.clock == nil {
		return now
	}
	n.clock.shown = max(n.clock.shown, n.clock.at(now))
	return n.clock.shown
}

// realTime is when a node's clock will show t.
func (c *cluster) realTime(n *node, t int64) int64 {
	k := n.clock
	if k == nil {
		return t
	}
	d := t - k.base
	if d <= 0 {
		return k.since
	}
	at := k.since + mulDiv(d, million, million+k.fast)
	for k.at(at) < t {
		at++
	}
	return at
}

// setTimer has a node's core woken when its clock shows t, 0 never.
func (c *cluster) setTimer(n *node, t policy.Time) {
	n.timerAt, n.timerWant = 0, t
	if t == 0 {
		return
	}
	n.timerAt = max(c.realTime(n, int64(t)), c.now)
	if n.timerDue == 0 || n.timerAt < n.timerDue {
		n.timerDue = c.q.push(n.timerAt, evTimer, n.index, n.life, 0)
	}
}
