package origin

import (
	"container/list"
	"sync"
)

// lru is a map of bounded size that forgets what was used longest ago. Names in
// it come from clients, so each map of them is bounded. It is safe for
// concurrent use.
type lru[V any] struct {
	mu    sync.Mutex
	max   int
	order list.List // of *lruEntry[V], most recently used first
	byKey map[string]*list.Element
}

type lruEntry[V any] struct {
	key   string
	value V
}

func newLRU[V any](limit int) *lru[V] {
	return &lru[V]{max: limit, byKey: make(map[string]*list.Element)}
}

// get returns the value of a key; if there is none, and create is not nil,
// it stores and returns what create returns.
func (l *lru[V]) get(key string, create func() V) (v V, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[key]; ok {
		l.order.MoveToFront(e)
		return e.Value.(*lruEntry[V]).value, true
	}
	if create == nil {
		return v, false
	}
	v = create()
	l.insert(key, v)
	return v, false
}

func (l *lru[V]) insert(key string, v V) {
	l.byKey[key] = l.order.PushFront(&lruEntry[V]{key, v})
	if l.order.Len() > l.max {
		oldest := l.order.Back()
		delete(l.byKey, oldest.Value.(*lruEntry[V]).key)
		l.order.Remove(oldest)
	}
}

func (l *lru[V]) set(key string, v V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.byKey[key]; ok {
		e.Value.(*lruEntry[V]).value = v
		l.order.MoveToFront(e)
		return
	}
	l.insert(key, v)
}

// values returns all values, most recently used first.
func (l *lru[V]) values() []V {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]V, 0, l.order.Len())
	for e := l.order.Front(); e != nil; e = e.Next() {
		out = append(out, e.Value.(*lruEntry[V]).value)
	}
	return out
}
