package policy

import "time"

// width is how many stripes of a blob are read from the origin at once: more, as
// long as more of them bring more bytes a second. One slow connection of many (an
// object store that limits each) is worth widening for; where the origin's link is
// what limits, more at once only makes each of them end later.
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
}

const maxWidthPause = 32

// adapt looks at the window that has ended, if one has, and returns the width.
func (w *width) adapt(now Time, least, most int) int {
	if w.since == 0 {
		w.since = max(now, 1)
	}
	if w.finished < w.now || now <= w.since {
		return w.now
	}
	rate := int64(w.chunks) * 1000 * int64(time.Second) / int64(now-w.since)
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
	w.chunks, w.finished, w.since = 0, 0, now
	return w.now
}
