package simulation

import (
	"math/rand/v2"
	"testing"
)

// The queue gives what a single heap gives, whatever the distances: within an instant, a
// tick, a turn, beyond the wheels, and with nothing for hours.
func TestQueueIsInOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	spans := []int64{1, 1 << 10, 1 << tickShift, 1 << 20, 1 << turnShift, 1 << 34, 1 << 40, 1 << 50}
	var q queue
	var all heap
	now := int64(0)
	check := func() {
		if at, more := q.next(); !more || at != all[0].at {
			t.Fatalf("next is at %d, %v, want %d", at, more, all[0].at)
		}
		if rng.IntN(2) == 0 {
			// What is planned after a look ahead may still come first.
			plan(&q, &all, now, rng.Int64N(1<<12))
		}
		got, want := q.pop(), all.pop()
		if got != want || got.at < now {
			t.Fatalf("%+v at %d, want %+v", got, now, want)
		}
		now = got.at
	}
	for range 200_000 {
		if len(all) == 0 || rng.IntN(2) == 0 {
			for range rng.IntN(4) {
				plan(&q, &all, now, rng.Int64N(spans[rng.IntN(len(spans)-rng.IntN(len(spans)))]))
			}
		} else {
			check()
		}
	}
	for len(all) > 0 {
		check()
	}
	if _, more := q.next(); more || q.n != 0 {
		t.Errorf("%d items are left", q.n)
	}
}

func plan(q *queue, all *heap, now, wait int64) {
	q.push(now+wait, evTimer, 1, 2, 3)
	all.push(&item{at: now + wait, key: q.seq<<8 | uint64(evTimer), arg: 3, node: 1, life: 2})
}

// BenchmarkQueue takes the nearest item and plans another, as a crowd does: mostly
// messages, some flows and a few timers.
func BenchmarkQueue(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		rng := rand.New(rand.NewPCG(1, 0))
		waits := make([]int64, 1<<16)
		for i := range waits {
			switch k := rng.IntN(50); {
			case k < 40:
				waits[i] = 500_000
			case k < 48:
				waits[i] = rng.Int64N(80_000_000)
			default:
				waits[i] = rng.Int64N(5_000_000_000)
			}
		}
		b.Run(map[int]string{1_000: "1000", 100_000: "100000"}[n], func(b *testing.B) {
			var q queue
			for i := range n {
				q.push(waits[i&(len(waits)-1)], evTimer, 0, 0, 0)
			}
			for i := range b.N {
				x := q.pop()
				q.push(x.at+waits[i&(len(waits)-1)], evTimer, 0, 0, 0)
			}
		})
		b.Run(map[int]string{1_000: "1000/heap", 100_000: "100000/heap"}[n], func(b *testing.B) {
			var q queue
			for i := range n {
				q.near.push(&item{at: waits[i&(len(waits)-1)], key: uint64(i)})
			}
			for i := range b.N {
				x := q.near.pop()
				q.near.push(&item{at: x.at + waits[i&(len(waits)-1)], key: uint64(n + i)})
			}
		})
	}
}
