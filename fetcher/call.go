package fetcher

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// The small questions that nodes put to each other. A request is a byte that
// says which, and the fields of the question; a response is the answer's fields.
const (
	callAnswer = 1 // question -> records with their ages
	callInfo   = 2 // digest -> known (1) or not (0), size, media type
)

// maxAsked bounds the peers that are asked at once.
const maxAsked = 32

func (q question) request() []byte {
	dst := []byte{callAnswer}
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
// else. It fails on what it cannot read.
func (f *Fetcher) Call(_ context.Context, from chunkindex.NodeID, request []byte) ([]byte, error) {
	if f.isBanned(from) {
		return nil, errRecord
	}
	s := &scanner{data: request}
	switch s.byte() {
	case callAnswer:
		q := s.question()
		if s.bad || len(s.data) != 0 {
			return nil, errRecord
		}
		if r := best(q, f.recall(q)); r != nil && r.age <= f.opts.MaxStale {
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

// askPeers asks peers what the origin last answered to q.
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
