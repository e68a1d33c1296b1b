package fetcher

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

const (
	// A blob with fewProviders or more is easy to find; manyProviders are more
	// than it takes, and more than are counted; enoughProviders are to be left of
	// them.
	fewProviders    = 16
	enoughProviders = 24
	manyProviders   = 32

	// checkEvery is the least time between two look-ups of the upkeep; the first
	// pass of a node that starts is faster, since what it holds may be missed.
	checkEvery, firstCheckEvery = time.Second, 100 * time.Millisecond
	// meetTimeout is how long the first pass waits for a peer to ask.
	meetTimeout = 10 * time.Second

	// maxDecided bounds the decisions that are remembered of blobs not held.
	maxDecided = 1024
	// maxChunksProvided bounds the chunks that a node announces by themselves.
	maxChunksProvided = 4096
	// maxPartsRecord bounds the record of what is announced beside blobs.
	maxPartsRecord = 240 << 10
)

// chunkGroup is the run of n chunks from chunk on of a blob.
type chunkGroup struct {
	chunk int
	n     int64
}

// key is what a group is announced by: the SHA-256 of the words "peercache
// group", a zero byte, the digest's text, a zero byte, and the group's two
// numbers as unsigned varints.
func (g chunkGroup) key(d digest.Digest) digest.Digest {
	b := append([]byte("peercache group\x00"), d...)
	b = binary.AppendUvarint(append(b, 0), uint64(g.chunk))
	b = binary.AppendUvarint(b, uint64(g.n))
	return digest.FromBytes(b)
}

// parts are what is announced of a blob beside itself.
type parts struct {
	blob   digest.Digest
	groups []chunkGroup
	sums   []chunkindex.Sum // of chunks
}

// announcer announces on the DHT what this node holds: what the core says, for
// AnnounceChunks the chunks of proven blobs, and what its upkeep finds missing.
//
// The transport goes on announcing what it was told, restarts included, until it
// is told otherwise. So that what belongs to a blob can be withdrawn with it, the
// parts are recorded in the store before they are announced. Whether a blob
// itself is announced need not be known: saying so twice, or ending what never
// began, does nothing.
//
// All changes are made one after the other in one goroutine. A withdrawal
// follows an eviction, so what is found complete in the store and announced in
// one step is withdrawn later, if at all.
type announcer struct {
	f    *Fetcher
	work serial
	met  chan struct{} // closed when the first peer is up
	meet sync.Once

	// Of work's goroutine:
	parts   []parts // the oldest first
	chunks  map[chunkindex.Sum]int
	sums    int                    // in parts
	decided map[digest.Digest]bool // blobs that this run announced, or ended announcing
	crowded int                    // how many of them there may be before they are pruned
}

func (a *announcer) begin(f *Fetcher) {
	a.f, a.work.spawn, a.met = f, f.spawn, make(chan struct{})
	a.chunks, a.decided, a.crowded = map[chunkindex.Sum]int{}, map[digest.Digest]bool{}, maxDecided
}

// start sees to it that what is complete in the store is announced.
func (a *announcer) start(complete []digest.Digest) {
	if a.f.cfg.Announce == policy.AnnounceChunks {
		list := slices.Clone(complete)
		a.work.add(func() {
			for _, d := range list {
				if a.sums >= maxChunksProvided || a.f.ctx.Err() != nil {
					break
				}
				a.provideChunks(d, false)
			}
		})
	}
	if a.f.opts.AnnounceCheck < 0 {
		for _, d := range complete {
			a.provide(d, chunkGroup{})
		}
		return
	}
	a.f.spawn(func() { a.upkeep(complete) })
}

// metPeer tells that there is somebody to ask.
func (a *announcer) metPeer() { a.meet.Do(func() { close(a.met) }) }

// provide announces a blob or, where g has chunks, a group of it. It does not
// block.
func (a *announcer) provide(d digest.Digest, g chunkGroup) {
	a.work.add(func() {
		if g.n <= 0 {
			a.decide(d, true)
			return
		}
		p := a.partsOf(d)
		for _, have := range p.groups {
			if have == g {
				return
			}
		}
		p.groups = append(p.groups, g)
		a.put(p, len(a.parts))
		a.record()
		a.tell(g.key(d), providedGroup, true)
	})
}

// withdraw ends the announcing of a blob and of all its parts. It does not block.
func (a *announcer) withdraw(d digest.Digest) {
	a.work.add(func() {
		if provides, known := a.decided[d]; provides || !known {
			a.decide(d, false)
		}
		if a.withdrawParts(d, true, true) {
			a.record()
		}
		if len(a.decided) > a.crowded {
			a.prune()
		}
	})
}

// proven announces the chunks of a blob that is complete now, where that is
// wanted. It does not block.
func (a *announcer) proven(d digest.Digest) {
	if a.f.cfg.Announce == policy.AnnounceChunks {
		a.work.add(func() { a.provideChunks(d, true) })
	}
}

// decide announces a blob itself, or stops.
func (a *announcer) decide(d digest.Digest, provide bool) {
	if !provide {
		if sum, ok := sumOf(d); ok && a.chunks[sum] > 0 {
			return // it is somebody's chunk too
		}
	}
	a.decided[d] = provide
	a.tell(d, providedBlob, provide)
}

// sumOf returns the digest as that of a chunk.
func sumOf(d digest.Digest) (sum chunkindex.Sum, ok bool) {
	if d.Algorithm() != digest.SHA256 {
		return sum, false
	}
	return sum, copy(sum[:], rawDigest(d)) == len(sum)
}

func (a *announcer) tell(key digest.Digest, what provided, provide bool) {
	change, count, doing := a.f.peers.Provide, a.f.count.provided, "announcing"
	if !provide {
		change, count, doing = a.f.peers.Withdraw, a.f.count.withdrawn, "withdrawing"
	}
	if err := change(key); err != nil {
		a.f.log.Warn(doing+" a "+providedNames[what], "digest", key, "err", err)
		return
	}
	count(what)
}

// provideChunks announces the chunks of a blob at rest by themselves: at most
// maxChunksProvided of them, for which those of the blobs that were proven
// longest ago make room; or, where newest is false, as many as there is room
// for. A chunk's sum is announced by this node's own record: it vouches for
// nothing.
func (a *announcer) provideChunks(d digest.Digest, newest bool) {
	p := a.partsOf(d)
	if len(p.sums) > 0 {
		return
	}
	sb, err := a.f.store.Open(d) // it is not evicted before it is closed
	if err != nil {
		return
	}
	defer closeQuietly(sb)
	l, err := chunkindex.LayoutFor(sb.Size())
	if err != nil || l.Count() == 1 && d.Algorithm() == digest.SHA256 {
		return // the one chunk is the blob
	}
	n := min(l.Count(), maxChunksProvided)
	at := len(a.parts)
	if !newest {
		n, at = min(n, maxChunksProvided-a.sums), 0
	}
	for i := range n {
		sum, err := sb.Sum(i)
		if err != nil {
			break
		}
		p.sums = append(p.sums, sum)
	}
	a.put(p, at)
	a.trim(maxChunksProvided)
	a.record()
	for _, sum := range a.partsOf(d).sums {
		a.tell(digest.NewDigestFromBytes(digest.SHA256, sum[:]), providedChunk, true)
	}
}

// partsOf returns what is recorded of a blob.
func (a *announcer) partsOf(d digest.Digest) parts {
	for _, p := range a.parts {
		if p.blob == d {
			return p
		}
	}
	return parts{blob: d}
}

// put replaces what is recorded of a blob; a new one becomes that at.
func (a *announcer) put(p parts, at int) {
	for i := range a.parts {
		if a.parts[i].blob == p.blob {
			a.count(a.parts[i].sums, -1)
			a.count(p.sums, 1)
			a.parts[i] = p
			return
		}
	}
	a.count(p.sums, 1)
	a.parts = append(a.parts, parts{})
	copy(a.parts[at+1:], a.parts[at:])
	a.parts[at] = p
}

func (a *announcer) count(sums []chunkindex.Sum, by int) {
	a.sums += by * len(sums)
	for _, sum := range sums {
		if a.chunks[sum] += by; a.chunks[sum] == 0 {
			delete(a.chunks, sum)
		}
	}
}

// trim withdraws the oldest chunks until no more than most are announced.
func (a *announcer) trim(most int) {
	for i := 0; i < len(a.parts) && a.sums > most; i++ {
		p := &a.parts[i]
		n := min(len(p.sums), a.sums-most)
		old := p.sums[:n]
		p.sums = p.sums[n:]
		a.withdrawSums(old)
	}
}

// withdrawSums ends the announcing of chunks, but for those that are announced
// for something else too.
func (a *announcer) withdrawSums(sums []chunkindex.Sum) {
	a.count(sums, -1)
	for _, sum := range sums {
		key := digest.NewDigestFromBytes(digest.SHA256, sum[:])
		if a.chunks[sum] == 0 && !a.decided[key] {
			a.tell(key, providedChunk, false)
		}
	}
}

// withdrawParts ends the announcing of a blob's groups and chunks, and reports
// whether there were any.
func (a *announcer) withdrawParts(d digest.Digest, groups, sums bool) (changed bool) {
	for i := range a.parts {
		p := &a.parts[i]
		if p.blob != d {
			continue
		}
		if groups && len(p.groups) > 0 {
			for _, g := range p.groups {
				a.tell(g.key(d), providedGroup, false)
			}
			p.groups, changed = nil, true
		}
		if sums && len(p.sums) > 0 {
			old := p.sums
			p.sums, changed = nil, true
			a.withdrawSums(old)
		}
	}
	return changed
}

// restore takes up the parts of an earlier run, and ends the announcing of those
// that are not wanted any more or whose blobs are gone.
func (a *announcer) restore() {
	data, err := a.f.store.Record(partsSpace, partsKey)
	if err != nil && !absent(err) {
		a.f.log.Error("reading what was announced", "err", err)
	}
	recorded, err := decodeParts(data)
	if err != nil {
		a.f.log.Error("reading what was announced", "err", err)
	}
	changed := false
	for _, p := range recorded {
		a.put(p, len(a.parts))
		_, err := a.f.store.Stat(p.blob)
		gone := absent(err)
		if a.withdrawParts(p.blob, gone || a.f.cfg.Announce == policy.AnnounceBlobs, gone || a.f.cfg.Announce != policy.AnnounceChunks) {
			changed = true
		}
	}
	if changed {
		a.record()
	}
}

// Where the parts are recorded.
const (
	partsSpace = "announced"
	partsKey   = "parts"
)

// record writes the parts down, less of them where they don't fit.
func (a *announcer) record() {
	kept := a.parts[:0]
	for _, p := range a.parts {
		if len(p.groups)+len(p.sums) > 0 {
			kept = append(kept, p)
		}
	}
	clear(a.parts[len(kept):])
	a.parts = kept
	data := appendParts(nil, a.parts)
	for len(data) > maxPartsRecord && len(a.parts) > 0 {
		a.withdrawParts(a.parts[0].blob, true, true)
		a.parts = a.parts[1:]
		data = appendParts(nil, a.parts)
	}
	if err := a.f.store.PutRecord(partsSpace, partsKey, data); err != nil {
		a.f.log.Warn("recording what is announced", "err", err)
	}
}

// appendParts writes, for each blob: its digest, the number of its groups and
// the two numbers of each, the number of its chunks and the sum of each.
func appendParts(dst []byte, list []parts) []byte {
	for _, p := range list {
		dst = appendBytes(dst, string(p.blob))
		dst = binary.AppendUvarint(dst, uint64(len(p.groups)))
		for _, g := range p.groups {
			dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(g.chunk)), uint64(g.n))
		}
		dst = binary.AppendUvarint(dst, uint64(len(p.sums)))
		for _, sum := range p.sums {
			dst = append(dst, sum[:]...)
		}
	}
	return dst
}

var errParts = errors.New("fetcher: malformed record of what is announced")

func decodeParts(data []byte) (list []parts, err error) {
	s := &scanner{data: data}
	for len(s.data) > 0 {
		p := parts{blob: digest.Digest(s.bytes(maxField))}
		for range s.uvarint(uint64(len(s.data))) {
			p.groups = append(p.groups, chunkGroup{int(s.uvarint(uint64(chunkindex.MaxBlobSize))), int64(s.uvarint(uint64(chunkindex.MaxBlobSize)))})
		}
		for range s.uvarint(uint64(len(s.data))) {
			var sum chunkindex.Sum
			copy(sum[:], s.take(len(sum)))
			p.sums = append(p.sums, sum)
		}
		if s.bad || p.blob.Validate() != nil {
			return nil, errParts
		}
		list = append(list, p)
	}
	if s.bad {
		return nil, errParts
	}
	return list, nil
}

// upkeep goes over the complete blobs again and again, so that providers that
// die are replaced and crowds thin out.
func (a *announcer) upkeep(complete []digest.Digest) {
	ctx := a.f.ctx
	random := rand.New(rand.NewPCG(a.f.cfg.Seed, binary.BigEndian.Uint64(a.f.cfg.Self[:]))) //nolint:gosec // no secret
	select {
	case <-a.met:
	case <-time.After(meetTimeout):
	case <-ctx.Done():
	}
	every := firstCheckEvery
	for {
		random.Shuffle(len(complete), func(i, j int) { complete[i], complete[j] = complete[j], complete[i] })
		for _, d := range complete {
			if !rest(ctx, time.Duration((0.5+random.Float64())*float64(every))) {
				return
			}
			a.check(ctx, d, random.Float64(), every == firstCheckEvery)
		}
		if !rest(ctx, time.Duration((0.75+0.5*random.Float64())*float64(a.f.opts.AnnounceCheck))) {
			return
		}
		every = checkEvery
		a.work.add(a.prune)
		complete = complete[:0]
		err := a.f.store.List(func(d digest.Digest, info StoreInfo) bool {
			if info.Complete {
				complete = append(complete, d)
			}
			return ctx.Err() == nil
		})
		if err != nil {
			a.f.log.Error("listing the store", "err", err)
		}
	}
}

// prune forgets decisions about blobs that are not held, be it any more or yet.
func (a *announcer) prune() {
	for d := range a.decided {
		if _, err := a.f.store.Stat(d); absent(err) {
			delete(a.decided, d)
		}
	}
	a.crowded = 2*len(a.decided) + maxDecided
}

// check counts the others that announce a blob. Where they are few, this node
// announces it too. Where they are many, this node stops if draw, out of [0, 1),
// says so: by a chance that leaves enoughProviders of them and it on average.
// Look-ups find no more than manyProviders, so that a large crowd takes several
// passes; each reduces it by a quarter. The first pass of a run does not know
// whether the blob is announced, and announces it too where nobody can be asked.
func (a *announcer) check(ctx context.Context, d digest.Digest, draw float64, first bool) {
	wait, cancel := context.WithTimeout(ctx, a.f.opts.LookupTimeout)
	defer cancel()
	others, err := a.f.peers.Providers(wait, d, manyProviders)
	if err != nil && (!first || ctx.Err() != nil) {
		a.f.log.Debug("looking up providers", "digest", d, "err", err)
		return
	}
	n := len(others)
	a.work.add(func() {
		provides, known := a.decided[d]
		switch {
		case n < fewProviders && !provides:
			if info, err := a.f.store.Stat(d); err == nil && info.Complete {
				a.decide(d, true)
			}
		case n >= manyProviders && (provides || !known) && draw >= enoughProviders/float64(n+1):
			a.decide(d, false)
		}
	})
}

// rest waits, and reports false if ctx ends first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
