package policy

import "time"

// width is how many stripes of a blob are read from the origin at once: more, as
// long as more of them bring more bytes a second. One slow connection of many (an
// object store that limits each) is worth widening for, and so is an origin that is
// faster than a node; where the origin's link is what limits, more at once only makes
// each of them end later.
type width struct {
	now int
	// bytes and finished, in stripes, count what came of the grants since the time since.
	bytes    int64
	finished int
	since    Time
	// rate is that of the last window, in bytes a second; raised says that the present
	// window tries one more than that one had.
	rate   int64
	raised bool
	// hold is for how many windows nothing is tried, pause how many that will be
	// the next time.
	hold, pause int
	// found: doubling was of no use any more, see start. looks is how often it has been
	// measured in vain whether the last one was.
	found bool
	looks int
}

const (
	maxWidthPause = 32
	// startRun is how many chunks a run has at most until the width is found: those that
	// were begun in vain are over soon.
	startRun = 8
)

// adapt looks at the window that has ended, if one has, and returns the width.
func (w *width) adapt(now Time, least, most int, unit int64) int {
	if w.since == 0 {
		w.since = max(now, 1)
	}
	if !w.found {
		w.start(now, least, most, unit)
		return w.now
	}
	if w.finished < w.now || now <= w.since {
		return w.now
	}
	rate := w.measure(now)
	switch {
	case w.raised && rate*10 < w.rate*11:
		// It was of no use.
		w.now, w.raised = max(least, w.now-1), false
		w.pause = min(max(2*w.pause, 2), maxWidthPause)
		w.hold = w.pause
	case w.hold > 0:
		w.hold--
		w.rate = rate
	case w.now < most:
		w.now, w.raised, w.rate = w.now+1, true, rate
	default:
		w.raised, w.rate = false, rate
	}
	w.begin(now)
	return w.now
}

// start doubles the width for as long as that brings half as much again, chunk by chunk
// and not stripe by stripe: what comes into a crowd in the first second is what its
// nodes have to trade in the next. So a chunk of each stripe, of the usual length unit, is
// enough where it shows the gain. Where it does not, new reads may have begun late, and their
// nodes got chunks from others as well; and a crowd of thousands that stays with too little
// from the origin has little to trade for seconds. So only two longer looks after that end it.
func (w *width) start(now Time, least, most int, unit int64) {
	window := int64(w.now) * unit
	if w.looks > 0 {
		window *= 2
	}
	if now <= w.since || w.bytes < window {
		return
	}
	rate := w.measure(now)
	switch {
	case w.rate == 0 || rate*2 >= w.rate*3:
		if w.rate > 0 {
			// What came in a burst would hide the next gain.
			rate = min(rate, 2*w.rate)
		}
		w.rate, w.looks = rate, 0
		w.found = w.now >= most
		w.now = min(2*w.now, most)
	case w.looks < 2:
		w.looks++
	default:
		w.now, w.pause, w.hold = max(least, w.now/2), 2, 2
		w.rate, w.found = rate, true
	}
	w.begin(now)
}

// begin opens a window.
func (w *width) begin(now Time) { w.bytes, w.finished, w.since = 0, 0, now }

// measure is the rate of the window that ends now.
func (w *width) measure(now Time) int64 {
	return w.bytes * 1000 / max(int64(now-w.since)/int64(time.Millisecond), 1)
}
