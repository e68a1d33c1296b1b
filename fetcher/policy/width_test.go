package policy

import (
	"testing"
	"time"
)

// A width that is used against an origin which gives each connection each megabyte a
// second, and all of them most: it grows to what the origin can do within a second or
// two, and comes back from more. One that stayed at two stripes would have a crowd wait for
// an origin that idles, one that stayed wide would have each chunk of a slow one come late.
func TestWidthFollowsTheOrigin(t *testing.T) {
	const least, limit = 2, 16
	for _, tt := range []struct {
		name       string
		each, most float64 // chunks a second
		wide       int     // the least that is to be seen
		ends       int     // the most that is left in the end
	}{
		{"as fast as a node", 12, 12, least, 3},
		{"slower than a node", 12, 3, least, 3},
		{"ten times as fast", 12, 120, 8, limit},
		{"without a bound", 12, 1e9, limit, limit},
		{"slow connections", 1, 1e9, limit, limit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := width{now: least}
			var now Time
			done, widest := 0.0, 0
			for range 4 * 60 * 100 {
				now = now.Add(10 * time.Millisecond)
				before := int(done)
				done += min(tt.each*float64(w.now), tt.most) / 100
				w.chunks += int(done) - before
				w.finished += int(done)/16 - before/16
				widest = max(widest, w.adapt(now, least, limit))
				if w.now < least || w.now > limit {
					t.Fatalf("a width of %d at %v", w.now, time.Duration(now))
				}
				if !w.found && now > Time(60*time.Second) {
					t.Fatalf("still doubling after %v", time.Duration(now))
				}
			}
			if widest < tt.wide || w.now > tt.ends {
				t.Errorf("at most %d, %d in the end; want at least %d, and at most %d in the end", widest, w.now, tt.wide, tt.ends)
			}
		})
	}
}

// Against an origin that is ten times as fast as a node, eight stripes are read within
// the first second and a half.
func TestWidthStartsFast(t *testing.T) {
	w := width{now: 2}
	var now Time
	done := 0.0
	for w.now < 8 {
		now = now.Add(10 * time.Millisecond)
		before := int(done)
		done += 12 * float64(w.now) / 100
		w.chunks += int(done) - before
		w.adapt(now, 2, 16)
		if now > Time(1500*time.Millisecond) {
			t.Fatalf("only %d stripes after %v", w.now, time.Duration(now))
		}
	}
}

// One window in which twice as many stripes bring no more does not end the doubling, since
// new reads begin late; two in a row do.
func TestWidthIsMeasuredTwice(t *testing.T) {
	for _, late := range []int{1, 2} {
		w := width{now: 2}
		var now Time
		for window := 0; !w.found && w.now < 8; now = now.Add(100 * time.Millisecond) {
			chunks := 3 * w.now // 3 for each stripe in 100 ms
			if w.warm && w.now == 4 {
				if window++; window <= late {
					chunks, now = 2*w.now, now.Add(100*time.Millisecond)
				}
			}
			w.chunks = max(w.chunks, chunks)
			w.adapt(now, 2, 16)
		}
		if ended := w.found; ended != (late == 2) {
			t.Errorf("after %d such windows: ended %v, %d stripes", late, ended, w.now)
		}
	}
}
