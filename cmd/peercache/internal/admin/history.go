package admin

import "slices"

// rateWindow is the time over which rates are averaged, in seconds.
const rateWindow = 3

// History is the latest snapshots of a node, from which rates follow.
type History struct {
	lives []Live // oldest first
}

// Add takes in a snapshot. One of another process, or from before the last, starts
// the history anew.
func (h *History) Add(l Live) {
	if n := len(h.lives); n > 0 && (h.lives[n-1].ID != l.ID || h.lives[n-1].AtSeconds > l.AtSeconds) {
		h.lives = nil
	}
	h.lives = append(h.lives, l)
	// One that is older than the window is kept, so that the rest spans it.
	for len(h.lives) > 2 && h.lives[1].AtSeconds <= l.AtSeconds-rateWindow {
		h.lives = slices.Delete(h.lives, 0, 1)
	}
}

// Latest returns the last snapshot that was added, nil if none was.
func (h *History) Latest() *Live {
	if len(h.lives) == 0 {
		return nil
	}
	return &h.lives[len(h.lives)-1]
}

// rate is how fast a count grows, in bytes a second, since the oldest snapshot that
// has it. count gives 0 where it is not there: a count that is new grew from 0.
func (h *History) rate(count func(l *Live) (n int64, ok bool)) float64 {
	last := h.Latest()
	if last == nil {
		return 0
	}
	now, ok := count(last)
	if !ok {
		return 0
	}
	var then int64
	var at float64
	for i := range h.lives[:len(h.lives)-1] {
		then, ok = count(&h.lives[i])
		at = h.lives[i].AtSeconds
		if ok {
			break
		}
	}
	if len(h.lives) < 2 || last.AtSeconds <= at {
		return 0
	}
	return max(0, float64(now-then)/(last.AtSeconds-at))
}

// blobRate is rate for a count of one blob.
func (h *History) blobRate(digest string, count func(b *ActiveBlob) int64) float64 {
	return h.rate(func(l *Live) (int64, bool) {
		b := l.blob(digest)
		if b == nil {
			return 0, false
		}
		return count(b), true
	})
}

// peerRate is rate for what came of a blob from one neighbour.
func (h *History) peerRate(digest, id string) float64 {
	return h.rate(func(l *Live) (int64, bool) {
		b := l.blob(digest)
		if b == nil {
			return 0, false
		}
		i := slices.IndexFunc(b.Neighbours, func(n Neighbour) bool { return n.ID == id })
		if i < 0 {
			return 0, false
		}
		return b.Neighbours[i].Bytes, true
	})
}

func (l *Live) blob(digest string) *ActiveBlob {
	for i := range l.Blobs {
		if l.Blobs[i].Digest == digest {
			return &l.Blobs[i]
		}
	}
	return nil
}
