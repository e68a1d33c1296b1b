package simulation

import (
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/fetcher/policy"
)

// memory bounds the chunks that a node has in memory. Each transfer counts with its
// chunk and each read from the origin with one, from when it is asked for until it
// is over, and so do bytes that have come until the core says what becomes of
// them. All that together is at most Config.InFlightBytes, or one chunk where a chunk
// is larger than that; for small blobs whose size is not known, what they are reckoned
// at is not what they take, and they count with nothing. With Limits.NodeMemory,
// what is being written counts too, and that is the bound.
type memory struct {
	tally
	nodes []inMemory
}

type inMemory struct {
	most    int64 // Config.InFlightBytes
	flights []flight
	sum     int64
	largest int64 // of the flights, since nothing was under way
	writing int64
	reading map[writeKey]int64
}

type flight struct {
	id    policy.ID
	read  bool
	bytes int64
}

type writeKey struct {
	blob  digest.Digest
	chunk int
}

func (v *memory) init() {
	v.Name = "memory"
	v.Rule = "the chunks that a node has in memory are within its budget"
	v.nodes = make([]inMemory, len(v.c.nodes))
}

func (v *memory) booted(n *node, cfg *policy.Config) {
	v.nodes[n.index] = inMemory{most: cfg.InFlightBytes}
}

func (v *memory) died(n *node) {
	m := &v.nodes[n.index]
	*m = inMemory{most: m.most}
}

func (v *memory) began(n *node, e *policy.Effect, read bool) {
	m := &v.nodes[n.index]
	bytes := e.N
	if read && !e.Small {
		bytes = v.c.blobs[v.c.byDigest[e.Blob]].layout.ChunkLength()
	}
	if e.Small {
		bytes = max(e.Size, 0)
	}
	m.flights = append(m.flights, flight{e.ID, read, bytes})
	m.sum += bytes
	m.largest = max(m.largest, bytes)
}

func (v *memory) ended(n *node, id policy.ID, read bool) {
	m := &v.nodes[n.index]
	for i := range m.flights {
		if f := &m.flights[i]; f.id == id && f.read == read {
			m.sum -= f.bytes
			m.flights[i] = m.flights[len(m.flights)-1]
			m.flights = m.flights[:len(m.flights)-1]
			break
		}
	}
	if len(m.flights) == 0 {
		m.largest = 0
	}
}

func (v *memory) stores(n *node, e *policy.Effect) {
	if v.c.run.Limits.NodeMemory == 0 {
		return
	}
	m := &v.nodes[n.index]
	if m.reading == nil {
		m.reading = map[writeKey]int64{}
	}
	_, bytes := v.c.blobs[v.c.byDigest[e.Blob]].chunk(e.Chunk)
	m.reading[writeKey{e.Blob, e.Chunk}] = bytes
	m.writing += bytes
}

func (v *memory) written(n *node, ev *policy.Event) {
	m := &v.nodes[n.index]
	k := writeKey{ev.Blob, ev.Chunk}
	if bytes, ok := m.reading[k]; ok {
		delete(m.reading, k)
		m.writing -= bytes
	}
}

// check is called after each step of a node.
func (v *memory) check(n *node) {
	v.Checks++
	m := &v.nodes[n.index]
	if m.sum > max(m.most, m.largest) {
		v.broken(n, -1, "%d bytes of chunks are in flight, its budget is %d", m.sum, m.most)
	}
	if most := v.c.run.Limits.NodeMemory; most > 0 && m.sum+m.writing > most {
		v.broken(n, -1, "%d bytes of chunks are in memory, the scenario allows %d", m.sum+m.writing, most)
	}
}
