package simulation

// eventKind says what is to happen; the comments say what arg is.
type eventKind uint8

const (
	evTimer      eventKind = iota
	evMessage              // slot of the message
	evPost                 // slot of a policy event for the node
	evUpload               // transfer: the request is at its peer
	evFlowStart            // transfer: the answer is at the asker
	evFlow                 // flow: a milestone
	evRefused              // transfer: it failed
	evAsked                // origin read: the request is at the origin
	evOrigin               // origin read: the answer is at the asker
	evNothing              // origin read: no answer will come, or one that helps nobody
	evAgain                // origin read: the next attempt
	evIdle                 // origin read: no byte may have come for long
	evStored               // blob and chunk
	evWritten              // nothing: the disk may be done with a chunk
	evTaken                // nothing: the CPU may be done with a message
	evProve                // blob, and what was found
	evConsumed             // reader
	evPull                 // number of the pull
	evClients              // nothing: the node's clients ask anew
	evRetry                // blob, and how often the client has tried
	evHangUp               // reader
	evServed               // reader
	evJoin                 // nothing
	evPeerDown             // the other node
	evConnect              // the other node
	evRedial               // the other node
	evUploaded             // upload
	evCancelled            // transfer ID
	evFault                // number of the fault
	evLeave                // number of the fault: its nodes' time is up
	evSilence              // number of a partition that may last for too long
	evHeal                 // number of the fault
	evLooked               // slot of a question to the DHT
	evOriginStop           // origin read ID
	evSample               // nothing
)

// slots is a pool of values that are named by small numbers.
type slots[T any] struct {
	all  []T
	free []int32
}

// add returns a slot with a zero value.
func (s *slots[T]) add() int32 {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return i
	}
	var zero T
	s.all = append(s.all, zero)
	return int32(len(s.all) - 1)
}

func (s *slots[T]) put(x T) int32 {
	i := s.add()
	s.all[i] = x
	return i
}

// drop frees a slot.
func (s *slots[T]) drop(i int32) {
	var zero T
	s.all[i] = zero
	s.free = append(s.free, i)
}

func (s *slots[T]) take(i int32) T {
	x := s.all[i]
	s.drop(i)
	return x
}

// trace is a running hash of what happened.
type trace uint64

func (t *trace) mix(xs ...uint64) {
	h := uint64(*t)
	for _, x := range xs {
		h = (h ^ x) * 0x9E3779B97F4A7C15
		h ^= h >> 29
	}
	*t = trace(h)
}
