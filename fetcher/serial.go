package fetcher

import "sync"

// serial runs functions one after the other, in the order in which they were
// added, in a goroutine that exists only while there are any.
type serial struct {
	spawn func(func()) bool // starts a goroutine; false once the fetcher stops

	mu      sync.Mutex
	waiting []func()
	running bool
}

// add queues fn. Once the fetcher stops it is dropped.
func (s *serial) add(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, fn)
	if !s.running {
		s.running = s.spawn(s.run)
	}
}

func (s *serial) run() {
	for {
		s.mu.Lock()
		if len(s.waiting) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		fn := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		s.mu.Unlock()
		fn()
	}
}
