package policy

import "github.com/peercache/peercache/chunkindex"

// What is announced on the DHT. Providers are how a node finds a blob that its
// neighbours don't have; some tens of them do as well as thousands, and each
// announcement costs some fifty messages. So everybody who is told to read from
// the origin announces at once, and of the others so many, at random, that
// about providersWanted are left. Within a swarm, the nodes' states say the rest.

// providersWanted is how many providers of a key are aimed at. The driver's upkeep
// mends what chance, and nodes that leave, make of it.
const providersWanted = 24

// announceStart announces a blob of which this node begins to read a part from the
// origin.
func (c *Core) announceStart(b *blob) {
	if !b.provided {
		b.provided = true
		c.emit(Effect{Kind: EfProvide, Blob: b.id})
	}
}

// announce announces a blob that is complete, if it is this node's lot.
func (c *Core) announce(b *blob) {
	if !b.provided && c.lot(b) {
		b.provided = true
		c.emit(Effect{Kind: EfProvide, Blob: b.id})
	}
	for i := 0; i >= 0 && i < b.n && !b.small; {
		c.announceGroup(b, i)
		_, i = b.group(i)
		if i == 0 {
			break
		}
	}
}

// announceGroup announces the group of chunk i of a large blob once it is complete
// here.
func (c *Core) announceGroup(b *blob, i int) {
	first, end := b.group(i)
	if end == 0 || c.cfg.Announce == AnnounceBlobs || b.groups[first] {
		return
	}
	if next := b.share.NextClear(first); next >= 0 && next < end {
		return
	}
	if b.groups == nil {
		b.groups = map[int]bool{}
	}
	b.groups[first] = true
	if c.lot(b) {
		c.emit(Effect{Kind: EfProvide, Blob: b.id, Chunk: first, N: int64(end - first)})
	}
}

// lot draws whether this node announces: with a probability that leaves about
// providersWanted of those that hold the blob.
func (c *Core) lot(b *blob) bool {
	crowd := max(b.providers, len(b.neighbours)+1)
	if c.crowded() {
		crowd = max(crowd, b.crowd)
	}
	return c.rng.IntN(crowd) < providersWanted
}

// group is the run of chunks that are announced together with chunk i; none (0, 0)
// for a blob that is not announced in groups.
func (b *blob) group(i int) (first, end int) {
	if i < 0 || b.small || !b.layoutSet() || b.size <= GroupedSize {
		return 0, 0
	}
	off := b.offset(i) / GroupLength * GroupLength
	return b.layout.Span(off, GroupLength)
}

// lowestWanted is the first chunk that is wanted and not here, -1 if there is none
// or the size is not known.
func (b *blob) lowestWanted() int {
	if !b.layoutSet() {
		return -1
	}
	for i := b.have.NextClear(0); i >= 0; i = b.have.NextClear(i + 1) {
		if b.wanted(i, chunkindex.StripeLength) {
			return i
		}
	}
	return -1
}
