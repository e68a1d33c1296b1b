package fetcher

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// The small questions that nodes put to each other. A request is a byte that
// says which, and the fields of the question; a response is the answer's fields.
const (
	callAnswer = 1 // question -> records with their ages
	callInfo   = 2 // digest -> known (1) or not (0), size, media type
	// Who is to put a question to the origin: see desk.go.
	callConsult = 3 // settle (1) or not (0), hold in ms, question -> verdict; record with its age, or node
	callTell    = 4 // outcome, question, record with its age where there is one -> 1
)

// maxAsked bounds the peers that are asked at once.
const maxAsked = 32

func (q question) request() []byte { return q.append([]byte{callAnswer}) }

func (q question) append(dst []byte) []byte {
	for _, s := range []string{string(q.kind), q.origin, q.repository, q.reference, q.params, q.accept} {
		dst = appendBytes(dst, s)
	}
	return dst
}

func (s *scanner) question() (q question) {
	var kind string
	for _, at := range []*string{&kind, &q.origin, &q.repository, &q.reference, &q.params, &q.accept} {
		*at = string(s.bytes(maxField))
	}
	q.kind = QueryKind(kind)
	return q
}

func consultRequest(q question, hold time.Duration, settle bool) []byte {
	dst := []byte{callConsult, 0}
	if settle {
		dst[1] = 1
	}
	return q.append(binary.AppendUvarint(dst, uint64(hold.Milliseconds())))
}

func appendVerdict(dst []byte, v verdict, r *aged, better chunkindex.NodeID) []byte {
	dst = append(dst, byte(v))
	switch v {
	case verdictRecord:
		return appendAged(dst, []aged{*r})
	case verdictRedirect:
		return append(dst, better[:]...)
	}
	return dst
}

func decodeVerdict(data []byte) (v verdict, r *aged, better chunkindex.NodeID, ok bool) {
	s := &scanner{data: data}
	switch v = verdict(s.byte()); v {
	case verdictRecord:
		r = s.only()
	case verdictRedirect:
		better = s.node()
	case verdictAsk, verdictWait:
	default:
		s.fail()
	}
	return v, r, better, !s.bad && len(s.data) == 0
}

func tellRequest(q question, o outcome, r *aged) []byte {
	dst := q.append([]byte{callTell, byte(o)})
	if o == outcomeRecord {
		dst = appendAged(dst, []aged{*r})
	}
	return dst
}

// only reads records of which there must be one.
func (s *scanner) only() *aged {
	rs := s.aged()
	if len(rs) != 1 {
		s.fail()
		return nil
	}
	return &rs[0]
}

func infoRequest(d digest.Digest) []byte { return appendBytes([]byte{callInfo}, string(d)) }

func appendInfo(dst []byte, info Info, ok bool) []byte {
	if !ok {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(append(dst, 1), uint64(info.Size))
	return appendBytes(dst, info.MediaType)
}

func decodeInfo(data []byte) (info Info, ok bool) {
	s := &scanner{data: data}
	if s.byte() != 1 {
		return info, false
	}
	info = Info{Size: int64(s.uvarint(uint64(chunkindex.MaxBlobSize))), MediaType: string(s.bytes(maxField))}
	return info, !s.bad && len(s.data) == 0
}

// Call answers a peer's small question from what this node knows: it asks nobody
// else, but may wait for half a second. It fails on what it cannot read.
func (f *Fetcher) Call(ctx context.Context, from chunkindex.NodeID, request []byte) ([]byte, error) {
	if f.isBanned(from) {
		return nil, errRecord
	}
	f.tags.silence.heard(from)
	s := &scanner{data: request}
	switch s.byte() {
	case callConsult:
		settle := s.uvarint(1) == 1
		hold := time.Duration(s.uvarint(uint64(holdFor.Milliseconds()))) * time.Millisecond
		q := s.question()
		if s.bad || len(s.data) != 0 {
			return nil, errRecord
		}
		v, r, better := f.preside(ctx, from, q, hold, settle)
		return appendVerdict(nil, v, r, better), nil
	case callTell:
		o := outcome(s.byte())
		q := s.question()
		var r *aged
		if o == outcomeRecord {
			r = s.only()
		}
		if s.bad || len(s.data) != 0 || o < outcomeRecord || o > outcomeFailed {
			return nil, errRecord
		}
		f.heardOutcome(from, q, o, r)
		return []byte{1}, nil
	case callAnswer:
		q := s.question()
		if s.bad || len(s.data) != 0 {
			return nil, errRecord
		}
		if r := f.bestAnswer(q); r != nil && r.age <= f.opts.MaxStale {
			return appendAged(nil, []aged{*r}), nil
		}
		return appendAged(nil, nil), nil
	case callInfo:
		d := digest.Digest(s.bytes(maxField))
		if _, err := chunkindex.CID(d); err != nil || s.bad || len(s.data) != 0 {
			return nil, errRecord
		}
		info, ok := f.knownInfo(d)
		return appendInfo(nil, info, ok), nil
	}
	return nil, errRecord
}

// poll asks peers the same question at once and hands on what they answer, until
// all have, ctx ends, or use returns false. The peers are those connected, and
// those that the DHT names for announced.
func (f *Fetcher) poll(ctx context.Context, announced digest.Digest, request []byte, use func(from chunkindex.NodeID, response []byte) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type response struct {
		from chunkindex.NodeID
		data []byte
	}
	var (
		mu        sync.Mutex
		asked     = map[chunkindex.NodeID]bool{f.keys.Self(): true}
		asking    sync.WaitGroup
		responses = make(chan response)
	)
	ask := func(ids []chunkindex.NodeID) {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			if asked[id] || len(asked) > maxAsked || f.isBanned(id) {
				continue
			}
			asked[id] = true
			asking.Go(func() {
				data, err := f.peers.Call(ctx, id, request)
				if err != nil {
					return
				}
				select {
				case responses <- response{id, data}:
				case <-ctx.Done():
				}
			})
		}
	}
	ask(f.connected(maxAsked))
	asking.Go(func() {
		ids, err := f.peers.Providers(ctx, announced, maxAsked)
		if err == nil {
			ask(ids)
		}
	})
	// A peer that does not notice that ctx ended keeps only this goroutine.
	if !f.spawn(func() { asking.Wait(); close(responses) }) {
		cancel()
		asking.Wait()
		return
	}
	for {
		select {
		case r, ok := <-responses:
			if !ok || !use(r.from, r.data) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// bestAnswer is the newest answer that this node has for whoever asks q, nil for
// none.
func (f *Fetcher) bestAnswer(q question) *aged {
	if q.kind == kindAccess {
		return f.accessRecord(q)
	}
	return best(q, f.recall(q))
}

// askPeers asks peers what the origin last answered to q: one answer a peer.
func (f *Fetcher) askPeers(ctx context.Context, q question) []aged {
	var found []aged
	f.poll(ctx, q.announced(), q.request(), func(from chunkindex.NodeID, data []byte) bool {
		rs, err := decodeAged(data)
		if err != nil {
			f.log.Debug("malformed answer", "peer", from, "err", err)
			return true
		}
		for i := range rs {
			if r := &rs[i]; best(q, rs[i:i+1]) != nil && r.genuine() && !f.isBanned(r.signer) {
				found = append(found, *r)
				break
			}
		}
		return true
	})
	return found
}

// askInfo asks peers for a blob's size.
func (f *Fetcher) askInfo(ctx context.Context, d digest.Digest) (found Info, ok bool) {
	f.poll(ctx, d, infoRequest(d), func(_ chunkindex.NodeID, data []byte) bool {
		found, ok = decodeInfo(data)
		return !ok
	})
	return found, ok
}
