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
				w.bytes += int64(int(done)-before) * mib
				w.finished += int(done)/16 - before/16
				widest = max(widest, w.adapt(now, least, limit, mib))
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
// the first third of a second, in which each of them brings four chunks.
func TestWidthStartsFast(t *testing.T) {
	w := width{now: 2}
	var now Time
	done := 0.0
	for w.now < 8 {
		now = now.Add(10 * time.Millisecond)
		before := int(done)
		done += 12 * float64(w.now) / 100
		w.bytes += int64(int(done)-before) * mib
		w.adapt(now, 2, 16, mib)
		if now > Time(333*time.Millisecond) {
			t.Fatalf("only %d stripes after %v", w.now, time.Duration(now))
		}
	}
}

// One or two looks at which twice as many stripes bring no more do not end the doubling,
// since new reads begin late; three in a row do.
func TestWidthIsMeasuredAnew(t *testing.T) {
	for late := range 4 {
		w := width{now: 2}
		var now Time
		for look := 0; !w.found && w.now < 8; now = now.Add(100 * time.Millisecond) {
			chunks := int64(3 * w.now) // 3 for each stripe in 100 ms
			if w.now == 4 {
				if look++; look <= late {
					chunks, now = int64(2*w.now), now.Add(100*time.Millisecond)
				}
			}
			w.bytes = max(w.bytes, chunks*mib)
			w.adapt(now, 2, 16, mib)
		}
		if ended := w.found; ended != (late == 3) {
			t.Errorf("after %d such looks: ended %v, %d stripes", late, ended, w.now)
		}
	}
}

// A first chunk that comes in a burst does not hide that the next doubling is of use.
func TestWidthAfterABurst(t *testing.T) {
	w := width{now: 2, rate: 10 * mib, since: 1}
	w.bytes = 2 * mib
	w.adapt(Time(10*time.Millisecond), 2, 16, mib) // 200 MiB/s
	if w.now != 4 || w.rate != 20*mib {
		t.Fatalf("%d stripes, %d B/s", w.now, w.rate)
	}
	w.bytes = 4 * mib
	if w.adapt(Time(110*time.Millisecond), 2, 16, mib); w.now != 8 { // 40 MiB/s
		t.Errorf("%d stripes", w.now)
	}
}
