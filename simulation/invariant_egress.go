package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// egress bounds what the origin sends: while a copy of a chunk is reachable in the
// cluster, nobody asks the origin for it.
//
// It is checked for each chunk of each read, when the read is asked for. The read is
// of use if the reader lacks the chunk and no copy counts: one that a node in the
// reader's component holds, that is up and well, and has been long enough for
// everybody to know (see reach.counts). So the bound holds for each component
// and for each interval between two faults, and is at once tight: the unique bytes
// that are wanted in a component and that no reachable node holds, once. Beyond
// these the origin may send
//
//   - what is counted: hedges, strict reads and probes, which the core counts in the
//     step in which it reads, and the hedges of a coordinator that grants
//     again what somebody says to hold and does not serve;
//   - of a blob that was refuted somewhere, once more all of it for each epoch that
//     any node has come to; and all to a node to which it was refuted three times, since
//     that trusts the origin alone;
//   - of a chunk of which a read was cut, what had come of it: by a crash or the
//     origin as often as that happens, by the reader's own will once a component, since
//     reads end early when the rest has come from peers;
//   - to nodes whose stores refuse, everything: they serve through memory;
//   - what was granted by a node that something befell, for as long as others take to
//     find out: in a large cluster, who reads what is known to who granted it, and
//     the next coordinator asks those next in rank and the providers alone;
//   - where views differ, each blob once more for each node beyond the first that
//     grants stripes of it: for whoever sees none that ranks before it grants as if it
//     was the first. With views that miss a part e of the others these are, all in all,
//     1/(1-e) copies. Views also differ after nodes came, went or fell silent, for as
//     long as a look-up is kept (see viewTime).
//
// Limits.Egress bounds the sum over all, if it is not 0.
type egress struct {
	tally
	reach *reach
	open  []*asked
	// epochs are those above 0 that nodes have seen of blobs, again what was read
	// under them.
	epochs map[nodeBlob]int
	again  map[blobChunk][]reread
	latest []int // the highest epoch of a blob
	// granters are the nodes that granted a chunk, one to the other where they relay.
	granters map[blobChunk][]int32
	// cuts holds where a chunk's read was cut by the reader's will.
	cuts map[blobChunk][]int32
	// needless are the bytes beyond the bound, by blob; sentBytes all.
	needless  []int64
	sentBytes int64
	// coordinators are the nodes that granted stripes of a blob, to others or to
	// themselves.
	coordinators [][]int32
}

type nodeBlob struct {
	node int32
	blob digest.Digest
}

type blobChunk struct {
	blob  int32
	chunk int
}

type reread struct {
	node  int32
	epoch int
}

// asked is a read from the origin that is under way.
type asked struct {
	node       int32
	life       uint32
	id         policy.ID
	blob       int32
	first, end int
	next       int // the first chunk that has not come
	epoch      int
	// excused: it is counted as one that may be needless.
	excused bool
	// needless says of each chunk why it need not have been read, "" if it had to be.
	needless []string
	ending   bool // by the reader's will
	// for oneFetch: the origin has answered; it is over; those that read the same
	answered, over bool
	rivals         []*asked
}

// excuse follows the counters within a step: a hedge covers the reads of a stripe
// that follow it, a strict read and a probe the one read.
type excuse struct {
	hedge, one bool
	grants     int  // given in this step and not sent to others
	hedged     bool // stripe is the one
	blob       digest.Digest
	stripe     int64
}

func (x *excuse) count(m policy.Metric) {
	switch m {
	case policy.CountHedge:
		x.hedge, x.hedged = true, false
	case policy.CountGrant:
		x.grants++
	case policy.CountStrict, policy.CountProbe:
		x.one = true
	}
}

func (x *excuse) covers(e *policy.Effect) bool {
	if x.one {
		x.one = false
		return true
	}
	stripe := e.Off / chunkindex.StripeLength
	if x.hedge {
		x.hedge, x.hedged, x.blob, x.stripe = false, true, e.Blob, stripe
	}
	return x.hedged && x.blob == e.Blob && x.stripe == stripe
}

func (v *egress) init(w *reach) {
	v.Name = "egress"
	v.Rule = "while a copy is reachable, nobody reads the same bytes from the origin, save what is counted"
	v.reach, v.epochs, v.again, v.cuts = w, map[nodeBlob]int{}, map[blobChunk][]reread{}, map[blobChunk][]int32{}
	v.granters = map[blobChunk][]int32{}
	v.needless = make([]int64, len(v.c.blobs))
	v.coordinators, v.latest = make([][]int32, len(v.c.blobs)), make([]int, len(v.c.blobs))
}

// aloneAfter is up to how many refutations of a blob a node asks others, as in package policy; after
// one more it trusts the origin alone.
const aloneAfter = 2

// epoch notes that a node asks for, or is granted, chunks of a blob under an epoch.
func (v *egress) epoch(n *node, blob digest.Digest, epoch int) {
	k := nodeBlob{n.index, blob}
	v.epochs[k] = max(v.epochs[k], epoch)
	if i, ok := v.c.byDigest[blob]; ok {
		v.latest[i] = max(v.latest[i], min(epoch, aloneAfter+1))
	}
}

// granted notes that a node grants chunks of a blob to another.
func (v *egress) granted(n *node, m *policy.Message) {
	k, ok := v.c.byDigest[m.Blob]
	if !ok {
		return
	}
	v.coordinates(n, k)
	for i := m.Chunk; i < min(m.Chunk+m.N, v.c.blobs[k].n); i++ {
		if at := (blobChunk{k, i}); !slices.Contains(v.granters[at], n.index) {
			v.granters[at] = append(v.granters[at], n.index)
		}
	}
}

func (v *egress) coordinates(n *node, blob int32) {
	if !slices.Contains(v.coordinators[blob], n.index) {
		v.coordinators[blob] = append(v.coordinators[blob], n.index)
	}
}

// isKnown reports whether who granted a chunk was well for long enough for others to
// know who has it.
func (v *egress) isKnown(at blobChunk) bool {
	for _, g := range v.granters[at] {
		if v.c.now < v.reach.nodes[g].since+knownAfter+int64(v.c.run.DHT.Publish) {
			return false
		}
	}
	return true
}

// asked judges a read that begins.
func (v *egress) asked(n *node, e *policy.Effect, x *excuse) *asked {
	k := v.c.byDigest[e.Blob]
	b := v.c.blobs[k]
	a := &asked{node: n.index, life: n.life, id: e.ID, blob: k, first: e.Chunk, end: b.n, epoch: v.epochs[nodeBlob{n.index, e.Blob}]}
	if !b.small {
		a.first, a.end = b.layout.Span(e.Off, e.N)
	}
	a.next = a.first
	a.excused = x.covers(e) || a.epoch > aloneAfter
	if x.grants > 0 {
		v.coordinates(n, k)
	}
	if !a.excused {
		for i := a.first; i < a.end; i++ {
			v.Checks++
			if why := v.copyOf(n, a, i); why != "" {
				if a.needless == nil {
					a.needless = make([]string, a.end-a.first)
				}
				a.needless[i-a.first] = why
			}
		}
	}
	return a
}

// copyOf says where there is a copy of chunk i that counts, "" if there is none.
func (v *egress) copyOf(n *node, a *asked, i int) string {
	if a.epoch > 0 {
		for _, r := range v.again[blobChunk{a.blob, i}] {
			if o := v.c.nodes[r.node]; r.epoch >= a.epoch && o != n && v.reach.counts(n, o) && holds(o, a.blob, i) {
				return fmt.Sprintf("node %d has read it again since it was doubted", r.node)
			}
		}
		return ""
	}
	if holds(n, a.blob, i) && !v.reach.nodes[n.index].liar {
		return "it holds it itself"
	}
	if !v.isKnown(blobChunk{a.blob, i}) {
		return ""
	}
	for _, o := range v.c.nodes {
		if o != n && holds(o, a.blob, i) && v.reach.counts(n, o) {
			return fmt.Sprintf("node %d holds it", o.index)
		}
	}
	return ""
}

// holds reports whether a node holds a chunk, the right bytes and at a level that it
// may serve.
func holds(n *node, blob int32, i int) bool {
	h := n.held[blob]
	return h != nil && h.bytes[i] == 0 && (h.proven || h.level[i].Shareable())
}

func (v *egress) find(n *node, id policy.ID) *asked {
	for _, a := range v.open {
		if a.id == id && a.node == n.index && a.life == n.life {
			return a
		}
	}
	return nil
}

// sent takes in bytes that the origin wrote.
func (v *egress) sent(n *node, blob int32, chunk int, bytes int64, whole bool) {
	v.sentBytes += bytes
	var a *asked
	for _, o := range v.open {
		if o.node == n.index && o.blob == blob && o.next == chunk && chunk < o.end && (a == nil || o.ending && !whole) {
			a = o
		}
	}
	if a == nil {
		return // through memory, since the store refuses
	}
	at := blobChunk{blob, chunk}
	switch {
	case whole:
		a.next = chunk + 1
		if a.epoch > 0 {
			v.again[at] = append(v.again[at], reread{n.index, a.epoch})
		}
		if a.needless != nil && a.needless[chunk-a.first] != "" {
			v.exceeds(n, blob, bytes, fmt.Sprintf("it read chunk %d from the origin although %s", chunk, a.needless[chunk-a.first]))
		}
	case a.ending && !a.excused && bytes > 0 && v.reach.nodes[n.index].sick == 0:
		component := v.reach.nodes[n.index].component
		if slices.Contains(v.cuts[at], component) && v.c.now >= v.reach.nodes[n.index].since+knownAfter {
			v.exceeds(n, blob, bytes, fmt.Sprintf("it gave up reading chunk %d half-way, and not as the first", chunk))
		}
		v.cuts[at] = append(v.cuts[at], component)
	}
}

// exceeds notes bytes beyond the bound, and whether errors of views explain them.
func (v *egress) exceeds(n *node, blob int32, bytes int64, what string) {
	v.needless[blob] += bytes
	if v.needless[blob] > v.allowance(blob) {
		v.broken(n, blob, "%s", what)
	}
}

// viewTime is how long after a node came, went or fell silent others may see another
// committee: they keep what they looked up (Config.CommitteeTTL).
const viewTime = int64(30 * time.Second)

// extra is how many more copies of a blob refutations and differing views may cost
// now.
func (v *egress) extra(blob int32) int64 {
	more := v.latest[blob]
	if v.c.run.DHT.Misses > 0 || v.c.now < v.reach.changed+viewTime {
		more += max(len(v.coordinators[blob])-1, 0)
	}
	return int64(more)
}

// allowance is the same in bytes.
func (v *egress) allowance(blob int32) int64 { return v.extra(blob) * v.c.blobs[blob].size }

func (v *egress) cancelled(n *node, id policy.ID) {
	if a := v.find(n, id); a != nil {
		a.ending = true
	}
}

func (v *egress) ended(n *node, id policy.ID) {
	if a := v.find(n, id); a != nil {
		a.over = true
		i := slices.Index(v.open, a)
		v.open = slices.Delete(v.open, i, i+1)
	}
}

// died forgets what a node was reading.
func (v *egress) died(n *node) {
	v.open = slices.DeleteFunc(v.open, func(a *asked) bool {
		a.over = a.over || a.node == n.index
		return a.over
	})
}

func (v *egress) finish() {
	limit := v.c.run.Limits.Egress
	if limit == 0 {
		return
	}
	wanted := make([]bool, len(v.c.blobs))
	for _, p := range v.c.run.Pulls {
		image := &v.c.run.Images[p.Image]
		if image.Manifest >= 0 {
			wanted[image.Manifest] = true
		}
		for _, k := range image.Layers {
			wanted[k] = true
		}
	}
	var unique int64
	for k, b := range v.c.blobs {
		if wanted[k] {
			unique += b.size
		}
	}
	v.Checks++
	if most := mulDiv(unique, limit, 1_000_000); v.sentBytes > most {
		v.broken(nil, -1, "the origin sent %d bytes, the scenario allows %d", v.sentBytes, most)
	}
}
