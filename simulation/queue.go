package simulation

import "math/bits"

// item is one thing that will happen. Two of one instant happen in the order in
// which they were planned.
type item struct {
	at   int64
	key  uint64 // order of planning, then kind
	arg  uint64
	node int32
	life uint32 // the life of the node that it is meant for
}

func (i *item) kind() eventKind { return eventKind(i.key) }

func before(a, b *item) bool { return a.at < b.at || a.at == b.at && a.key < b.key }

const (
	// A tick is 16 us, a turn of wheel a turn of tickBits of them: 67 ms; the wheel
	// of turns goes round in 275 s.
	tickShift = 14
	wheelBits = 12
	wheelSize = 1 << wheelBits
	turnShift = tickShift + wheelBits
)

// queue is what will happen: a heap of what is in the present tick, and two timing
// wheels for what is later (Varghese and Lauck, Hashed and hierarchical timing wheels,
// 1987), the hands of which jump over what is empty. Items are only put in order when
// their tick has come, in a heap that fits into a cache: with many nodes that is
// several times as fast as one heap of all.
type queue struct {
	near  heap // what is before the end of tick now
	far   heap // what is beyond the wheels
	now   int64
	ticks wheel
	turns wheel
	cells []cell
	free  int32 // the first free cell, plus one
	seq   uint64
	n     int
	// floor: nothing is planned for before it.
	floor int64
}

// cell holds an item of a wheel.
type cell struct {
	item
	next int32 // in the same slot, plus one; or the next that is free
}

// wheel has a list of cells for each of its slots.
type wheel struct {
	first []int32 // plus one
	used  [wheelSize / 64]uint64
	any   uint64 // which of used are not 0
}

// push plans something, for floor if that is later. It returns for when.
func (q *queue) push(at int64, kind eventKind, node int32, life uint32, arg uint64) int64 {
	at = max(at, q.floor)
	q.seq++
	q.n++
	q.put(&item{at: at, key: q.seq<<8 | uint64(kind), arg: arg, node: node, life: life})
	return at
}

func (q *queue) put(x *item) {
	tick := x.at >> tickShift
	switch {
	case tick <= q.now:
		q.near.push(x)
	case tick-q.now < wheelSize:
		q.file(&q.ticks, tick, x)
	case tick>>wheelBits-q.now>>wheelBits < wheelSize:
		q.file(&q.turns, tick>>wheelBits, x)
	default:
		q.far.push(x)
	}
}

func (q *queue) file(w *wheel, slot int64, x *item) {
	if w.first == nil {
		w.first = make([]int32, wheelSize)
	}
	i := q.free
	if i == 0 {
		q.cells = append(q.cells, cell{})
		i = int32(len(q.cells))
	} else {
		q.free = q.cells[i-1].next
	}
	s := slot & (wheelSize - 1)
	q.cells[i-1] = cell{*x, w.first[s]}
	w.first[s] = i
	w.used[s>>6] |= 1 << (s & 63)
	w.any |= 1 << (s >> 6)
}

// empty has put take all items of a slot anew.
func (q *queue) empty(w *wheel, slot int64) {
	s := slot & (wheelSize - 1)
	if w.used[s>>6]&(1<<(s&63)) == 0 {
		return
	}
	if w.used[s>>6] &^= 1 << (s & 63); w.used[s>>6] == 0 {
		w.any &^= 1 << (s >> 6)
	}
	i := w.first[s]
	w.first[s] = 0
	for i != 0 {
		c := &q.cells[i-1]
		x, next := c.item, c.next
		c.next = q.free
		q.free = i
		q.put(&x)
		i = next
	}
}

// after returns the first slot from a given one on, at most wheelSize-1 later, that
// holds something, or -1.
func (w *wheel) after(slot int64) int64 {
	s := slot & (wheelSize - 1)
	if u := w.used[s>>6] >> (s & 63); u != 0 {
		return slot + int64(bits.TrailingZeros64(u))
	}
	if w.any == 0 {
		return -1
	}
	word := (s>>6 + 1) & (wheelSize/64 - 1)
	ahead := bits.TrailingZeros64(bits.RotateLeft64(w.any, -int(word)))
	k := (word + int64(ahead)) & (wheelSize/64 - 1)
	found := k<<6 + int64(bits.TrailingZeros64(w.used[k]))
	return slot + (found-s)&(wheelSize-1)
}

// next is when the next thing happens, false if there is nothing.
func (q *queue) next() (int64, bool) {
	if len(q.near) > 0 {
		return q.near[0].at, true
	}
	if q.n == 0 {
		return 0, false
	}
	for len(q.near) == 0 {
		q.turn()
	}
	return q.near[0].at, true
}

// turn moves the hands to the next tick or turn that holds something.
func (q *queue) turn() {
	tick, turn := q.ticks.after(q.now+1), q.now>>wheelBits
	if tick >= 0 && tick>>wheelBits == turn {
		q.now = tick
		q.empty(&q.ticks, tick)
		return
	}
	// What is in ticks of the next turn comes with that turn.
	next := q.turns.after(turn + 1)
	if tick >= 0 && (next < 0 || tick>>wheelBits < next) {
		next = tick >> wheelBits
	}
	if len(q.far) > 0 {
		if t := q.far[0].at >> turnShift; next < 0 || t < next {
			next = t
		}
	}
	q.now = next << wheelBits
	for len(q.far) > 0 && q.far[0].at>>turnShift <= next {
		x := q.far.pop()
		q.put(&x)
	}
	q.empty(&q.turns, next)
	q.empty(&q.ticks, q.now)
}

// pop takes what happens next. There must be something.
func (q *queue) pop() item {
	q.next()
	q.n--
	return q.near.pop()
}

// heap has four children a node: shallow, and kind to caches.
type heap []item

func (h *heap) push(x *item) {
	*h = append(*h, *x)
	s := *h
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !before(x, &s[up]) {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = *x
}

func (h *heap) pop() item {
	s := *h
	top := s[0]
	last := len(s) - 1
	x := s[last]
	s = s[:last]
	*h = s
	if last == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= last {
			break
		}
		least := first
		for k := first + 1; k < min(first+4, last); k++ {
			if before(&s[k], &s[least]) {
				least = k
			}
		}
		if !before(&s[least], &x) {
			break
		}
		s[i] = s[least]
		i = least
	}
	s[i] = x
	return top
}
