package policy

import "time"

// width is how many stripes of a blob are read from the origin at once: more, as
// long as more of them bring more bytes a second. One slow connection of many (an
// object store that limits each) is worth widening for, and so is an origin that is
// faster than a node; where the origin's link is what limits, more at once only makes
// each of them end later.
type width struct {
	now int
	// chunks and finished count what came of the grants since the time since.
	chunks, finished int
	since            Time
	// rate is that of the last window, in chunks a second times 1000; raised says
	// that the present window tries one more than that one had.
	rate   int64
	raised bool
	// hold is for how many windows nothing is tried, pause how many that will be
	// the next time.
	hold, pause int
	// found: doubling was of no use any more, see start. warm: the reads that the last
	// doubling added have had the time to begin. twice: it is measured once more whether it
	// was of use.
	found, warm, twice bool
}

const (
	maxWidthPause = 32
	// startRun is how many chunks a run has at most until the width is found: those that
	// were begun in vain are over soon.
	startRun = 8
)

// adapt looks at the window that has ended, if one has, and returns the width.
func (w *width) adapt(now Time, least, most int) int {
	if w.since == 0 {
		w.since = max(now, 1)
	}
	if !w.found {
		w.start(now, least, most)
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
// nodes have to trade in the next. One window of a few chunks may mislead, since new reads
// begin late and their nodes also get chunks from others; and a crowd of thousands that stays
// with too little from the origin has little to trade for seconds. So only two in a row
// end it.
func (w *width) start(now Time, least, most int) {
	switch {
	case now <= w.since:
		return
	case !w.warm:
		if w.chunks >= w.now {
			w.warm = true
			w.begin(now)
		}
		return
	case w.chunks < 2*w.now:
		return
	}
	rate := w.measure(now)
	switch {
	case w.rate > 0 && rate*2 < w.rate*3 && !w.twice:
		w.twice = true
		w.begin(now)
		return
	case w.rate > 0 && rate*2 < w.rate*3:
		w.now, w.pause, w.hold = max(least, w.now/2), 2, 2
		w.found = true
	case w.now >= most:
		w.found = true
	default:
		w.now = min(2*w.now, most)
	}
	w.rate, w.warm, w.twice = rate, false, false
	w.begin(now)
}

// begin opens a window.
func (w *width) begin(now Time) { w.chunks, w.finished, w.since = 0, 0, now }

// measure is the rate of the window that ends now.
func (w *width) measure(now Time) int64 {
	return int64(w.chunks) * 1000 * int64(time.Second) / int64(now-w.since)
}
