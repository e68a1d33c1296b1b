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
	largest int64           // of the flights, since nothing was under way
	writing int64           // bytes
	writes  map[written]int // how often each is being written
}

type flight struct {
	id    policy.ID
	read  bool
	bytes int64
}

// written is a chunk that is.
type written struct {
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
	if m.writes == nil {
		m.writes = map[written]int{}
	}
	m.writes[written{e.Blob, e.Chunk}]++
	m.writing += v.lengthOf(e.Blob, e.Chunk)
}

func (v *memory) written(n *node, ev *policy.Event) {
	m := &v.nodes[n.index]
	k := written{ev.Blob, ev.Chunk}
	switch m.writes[k] {
	case 0:
		return
	case 1:
		delete(m.writes, k)
	default:
		m.writes[k]--
	}
	m.writing -= v.lengthOf(ev.Blob, ev.Chunk)
}

func (v *memory) lengthOf(blob digest.Digest, chunk int) int64 {
	return v.c.lengthOf(int(v.c.byDigest[blob]), chunk)
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
