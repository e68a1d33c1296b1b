package fetcher

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// provides reports whether this node announces a digest.
func (n *fakeNode) provides(d digest.Digest) bool {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	return slices.Contains(n.net.providers[d], n.id)
}

func digestOf(sum chunkindex.Sum) digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, sum[:])
}

func TestGroupKey(t *testing.T) {
	d := digest.FromString("x")
	text := append([]byte("peercache group\x00"+d.String()+"\x00"), 0x80, 0x02, 64)
	if got := (chunkGroup{256, 64}).key(d); got != digestOf(sha256.Sum256(text)) {
		t.Errorf("%s", got)
	}
}

func TestGroupsAreAnnouncedAndFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		d := digest.FromString("x")
		g, h := chunkGroup{0, 64}, chunkGroup{64, 64}
		s.do(policy.Effect{Kind: policy.EfProvide, Blob: d},
			policy.Effect{Kind: policy.EfProvide, Blob: d, Chunk: g.chunk, N: g.n},
			policy.Effect{Kind: policy.EfProvide, Blob: d, Chunk: g.chunk, N: g.n},
			policy.Effect{Kind: policy.EfProvide, Blob: d, Chunk: h.chunk, N: h.n})
		synctest.Wait()
		for _, key := range []digest.Digest{d, g.key(d), h.key(d)} {
			if !s.provides(key) {
				t.Errorf("%s is not announced", key)
			}
		}
		if n := s.f.count.provides[providedGroup].Load(); n != 2 {
			t.Errorf("%d groups", n)
		}
		a, b, c := newKeyring(11).Self(), newKeyring(12).Self(), newKeyring(13).Self()
		s.net.mu.Lock()
		s.net.providers[d], s.net.providers[g.key(d)] = []chunkindex.NodeID{s.id, a, b}, []chunkindex.NodeID{b, c}
		s.net.mu.Unlock()
		for n, want := range map[int64][]chunkindex.NodeID{0: {a, b}, g.n: {a, b, c}} {
			s.do(policy.Effect{Kind: policy.EfLookup, Blob: d, N: n})
			if ev, _ := s.until(policy.EvLooked); !reflect.DeepEqual(ev.Providers, want) {
				t.Errorf("N %d: %v", n, ev.Providers)
			}
		}
		s.f.Evicted(d)
		s.do(policy.Effect{Kind: policy.EfWithdraw, Blob: d})
		synctest.Wait()
		if n := s.f.count.withdraws[providedBlob].Load(); n != 1 {
			t.Errorf("withdrawn %d times", n)
		}
		for _, key := range []digest.Digest{d, g.key(d), h.key(d)} {
			if s.provides(key) {
				t.Errorf("%s is still announced", key)
			}
		}
		s.stop(t)
	})
}

// What an earlier run announced of a blob is withdrawn with it, and at once where
// the blob is gone or the operator wants it no more.
func TestPartsOutliveARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, st := newFakeNet(), newFakeStore(t)
		quiet := coreFunc(func(policy.Event) []policy.Effect { return nil })
		run := func(announce policy.Announce, do func(*fakeNode)) {
			n := net.join(t, 1, newFakeOrigin(), st, func(c *policy.Config, o *Options) { c.Announce, o.core = announce, quiet })
			synctest.Wait()
			do(n)
			synctest.Wait()
			n.stop(t)
		}
		g := chunkGroup{0, 64}
		var kept, gone digest.Digest
		run(policy.AnnounceGroups, func(n *fakeNode) {
			kept, gone = n.hold(t, random(1, 2*mib)), n.hold(t, random(2, 2*mib))
			n.f.announcer.provide(kept, g)
			n.f.announcer.provide(gone, g)
		})
		st.evict(gone)
		run(policy.AnnounceGroups, func(n *fakeNode) {
			if !n.provides(g.key(kept)) || n.provides(g.key(gone)) {
				t.Errorf("%v, %v", n.provides(g.key(kept)), n.provides(g.key(gone)))
			}
			n.f.announcer.withdraw(kept)
			synctest.Wait()
			if n.provides(g.key(kept)) {
				t.Error("still announced")
			}
			n.f.announcer.provide(kept, g)
		})
		run(policy.AnnounceBlobs, func(n *fakeNode) {
			if n.provides(g.key(kept)) {
				t.Error("announced although only blobs are to be")
			}
		})
		if data, _ := st.Record(partsSpace, partsKey); len(data) != 0 {
			t.Errorf("%d bytes stay recorded", len(data))
		}
	})
}

// Chunks are announced when a blob is proven and at the start, and withdrawn with
// it, but for those that another blob has too.
func TestChunksAreAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, st, o := newFakeNet(), newFakeStore(t), newFakeOrigin()
		chunks := func(c *policy.Config, _ *Options) { c.Announce = policy.AnnounceChunks }
		one := random(1, 3*mib)
		other := append(random(2, 2*mib), one[2*mib:]...)
		d, e := o.add(one), o.add(other)
		sums := func(n *fakeNode, d digest.Digest) (keys []digest.Digest) {
			sb, err := n.store.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			defer sb.Close()
			l, _ := chunkindex.LayoutFor(sb.Size())
			for i := range l.Count() {
				sum, _ := sb.Sum(i)
				keys = append(keys, digestOf(sum))
			}
			return keys
		}
		n := net.join(t, 1, o, st, chunks)
		n.want(t, blobRef(d), nil, one)
		n.want(t, blobRef(e), nil, other)
		synctest.Wait()
		ofD, ofE := sums(n, d), sums(n, e)
		check := func(n *fakeNode, keys []digest.Digest, want bool) {
			t.Helper()
			for i, key := range keys {
				if n.provides(key) != want {
					t.Errorf("chunk %d of %d: %v", i, len(keys), !want)
				}
			}
		}
		check(n, ofD, true)
		check(n, ofE, true)
		n.stop(t)
		net.mu.Lock()
		clear(net.providers)
		net.mu.Unlock()
		clear(st.records)
		n = net.join(t, 1, o, st, chunks)
		synctest.Wait()
		check(n, ofD, true)
		check(n, ofE, true)
		st.evict(d)
		n.f.Evicted(d)
		synctest.Wait()
		check(n, ofD[:len(ofD)-1], false)
		check(n, ofE, true)
		n.f.announcer.withdraw(e)
		synctest.Wait()
		check(n, ofE, false)
		if len(n.f.announcer.chunks) != 0 || n.f.announcer.sums != 0 {
			t.Errorf("%d, %d", len(n.f.announcer.chunks), n.f.announcer.sums)
		}
		n.stop(t)
	})
}

// The newest chunks are announced, as many as a node may, in a record that fits.
func TestChunksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, func(c *policy.Config, _ *Options) { c.Announce = policy.AnnounceChunks })
		a := &s.f.announcer
		synctest.Wait() // what an earlier run announced comes first
		sum := func(blob, i int) (sum chunkindex.Sum) {
			binary.BigEndian.PutUint64(sum[:], uint64(blob)<<32|uint64(i)+1)
			return sum
		}
		const each, blobs = 100, 60
		a.work.add(func() {
			for blob := range blobs {
				p := parts{blob: digest.FromString(fmt.Sprint(blob))}
				for i := range each {
					p.sums = append(p.sums, sum(blob, i))
				}
				a.put(p, len(a.parts))
				a.trim(maxChunksProvided)
				a.record()
				for _, sum := range p.sums {
					a.tell(digestOf(sum), providedChunk, true)
				}
			}
		})
		synctest.Wait()
		for blob := range blobs {
			for i := range each {
				newest := (blobs-blob)*each-i <= maxChunksProvided
				if !newest && s.provides(digestOf(sum(blob, i))) {
					t.Fatalf("chunk %d of blob %d of %d is announced", i, blob, blobs)
				}
			}
		}
		if !s.provides(digestOf(sum(blobs-1, each-1))) {
			t.Error("the newest chunk is not announced")
		}
		a.work.add(func() {
			// Groups without end push out what is older.
			for i := range 40_000 {
				p := a.partsOf(digest.FromString("large"))
				p.groups = append(p.groups, chunkGroup{1 << 20, 1 << 20})
				if a.put(p, len(a.parts)); i%10_000 == 0 {
					a.record()
				}
			}
			a.record()
		})
		synctest.Wait()
		data, err := s.store.Record(partsSpace, partsKey)
		if err != nil || len(data) > maxPartsRecord {
			t.Errorf("a record of %d bytes, %v", len(data), err)
		}
		s.stop(t)
	})
}

func TestPartsCodec(t *testing.T) {
	list := []parts{
		{digest.FromString("a"), []chunkGroup{{0, 64}, {64, 64}}, nil},
		{digest.SHA512.FromString("b"), nil, []chunkindex.Sum{{1}, {2}}},
	}
	data := appendParts(nil, list)
	if got, err := decodeParts(data); err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("%v, %v", got, err)
	}
	for n := range data {
		if got, err := decodeParts(data[:n]); err == nil && n > 0 && len(got) != 1 {
			t.Errorf("cut to %d: %v", n, got)
		}
	}
	if _, err := decodeParts([]byte("\x01a\x00\x00")); !errors.Is(err, errParts) {
		t.Errorf("%v", err)
	}
}

func FuzzParts(f *testing.F) {
	f.Add(appendParts(nil, []parts{{digest.FromString("a"), []chunkGroup{{0, 64}}, []chunkindex.Sum{{1}}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := decodeParts(data)
		if err != nil {
			return
		}
		if again := appendParts(nil, list); string(again) != string(data) {
			t.Errorf("%x is read as %x", data, again)
		}
	})
}

// crowd is a net of nodes that all hold a blob.
type crowd struct {
	*fakeNet
	nodes []*fakeNode
	blob  digest.Digest
}

func newCrowd(t *testing.T, n int, announced bool) *crowd {
	c := &crowd{fakeNet: newFakeNet()}
	data := random(1, 1000)
	quiet := coreFunc(func(policy.Event) []policy.Effect { return nil })
	for i := range n {
		st := newFakeStore(t)
		c.blob = digest.FromBytes(data)
		if err := st.Put(context.Background(), c.blob, KindLayer, data); err != nil {
			t.Fatal(err)
		}
		if announced {
			id := newKeyring(byte(i + 1)).Self()
			c.providers[c.blob] = append(c.providers[c.blob], id)
		}
		c.nodes = append(c.nodes, c.join(t, byte(i+1), newFakeOrigin(), st, func(_ *policy.Config, o *Options) { o.core = quiet }))
	}
	return c
}

func (c *crowd) count() int {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.providers[c.blob])
}

// die stops all nodes but some, whose records then expire.
func (c *crowd) die(t *testing.T, but int) {
	for _, n := range c.nodes[but:] {
		n.stop(t)
		n.Withdraw(c.blob)
	}
	c.nodes = c.nodes[:but]
}

func (c *crowd) stop(t *testing.T) { c.die(t, 0) }

// However many nodes hold a blob, and however many announced it, 16 to 32 come to
// do; and again after two thirds of them have died.
func TestProvidersConverge(t *testing.T) {
	for name, announced := range map[string]bool{"everybody announced": true, "nobody announced": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, 100, announced)
				settled := func(what string, passes int) {
					t.Helper()
					for range passes {
						time.Sleep(50 * time.Minute)
					}
					for range 5 {
						if n := c.count(); n < fewProviders || n > manyProviders {
							t.Errorf("%s: %d providers", what, n)
						}
						time.Sleep(40 * time.Minute)
					}
				}
				settled("at the start", 8)
				c.die(t, 33)
				settled("after most have died", 2)
				c.stop(t)
			})
		})
	}
}

// With few holders all of them announce.
func TestFewHoldersAllAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 5, false)
		time.Sleep(time.Hour)
		if n := c.count(); n != 5 {
			t.Errorf("%d of 5", n)
		}
		c.stop(t)
	})
}

// asking counts look-ups, and fails some.
type asking struct {
	*fakeNode
	mu    sync.Mutex
	asked []time.Time
	fail  bool
}

func (a *asking) Providers(ctx context.Context, d digest.Digest, most int) ([]chunkindex.NodeID, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, time.Now())
	if a.fail {
		return nil, errors.New("no peer to ask")
	}
	return a.fakeNode.Providers(ctx, d, most)
}

func (a *asking) set(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// The upkeep is slow, asks about complete blobs alone, and does not announce for
// a failed look-up but at the start.
func TestUpkeepIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore(t)
		const blobs = 50
		var ds []digest.Digest
		for i := range blobs {
			data := random(uint64(i), 100)
			ds = append(ds, digest.FromBytes(data))
			st.Put(t.Context(), ds[i], KindLayer, data)
		}
		node := &fakeNode{net: newFakeNet(), id: newKeyring(1).Self(), store: st, done: make(chan error, 1)}
		peers := &asking{fakeNode: node, fail: true}
		quiet := coreFunc(func(policy.Event) []policy.Effect { return nil })
		node.f = New(st, peers, newFakeOrigin(), newKeyring(1), policyConfig(), &Options{core: quiet})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { node.done <- node.f.Run(ctx) }()
		start := time.Now()
		time.Sleep(25 * time.Minute)
		synctest.Wait()
		if len(peers.asked) != blobs || peers.asked[0].Sub(start) < meetTimeout || peers.asked[blobs-1].Sub(start) > 2*meetTimeout {
			t.Errorf("%d look-ups at the start, from %v on", len(peers.asked), peers.asked[0].Sub(start))
		}
		if !node.provides(ds[0]) || !node.provides(ds[blobs-1]) {
			t.Error("not announced where nobody could be asked")
		}
		node.net.mu.Lock()
		clear(node.net.providers)
		node.net.mu.Unlock()
		node.f.announcer.work.add(func() { clear(node.f.announcer.decided) }) // as an earlier run leaves it
		st.evict(ds[0])
		peers.set(func() { peers.asked = nil })
		time.Sleep(40 * time.Minute)
		synctest.Wait()
		if took := peers.asked[len(peers.asked)-1].Sub(peers.asked[0]); len(peers.asked) != blobs-1 || took < (blobs-10)*checkEvery {
			t.Errorf("%d look-ups in %v", len(peers.asked), took)
		}
		if node.provides(ds[1]) {
			t.Error("announced for a look-up that failed")
		}
		peers.set(func() { peers.fail = false })
		time.Sleep(60 * time.Minute)
		synctest.Wait()
		if node.provides(ds[0]) || !node.provides(ds[1]) {
			t.Errorf("%v, %v", node.provides(ds[0]), node.provides(ds[1]))
		}
		cancel()
		if err := <-node.done; err != nil {
			t.Error(err)
		}
	})
}

// Without the upkeep, a node that starts announces all that it holds.
func TestAnnounceWithoutUpkeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := newFakeStore(t)
		data := random(1, 100)
		st.Put(t.Context(), digest.FromBytes(data), KindLayer, data)
		n := newFakeNet().join(t, 1, newFakeOrigin(), st, func(_ *policy.Config, o *Options) {
			o.AnnounceCheck = -1
			o.core = coreFunc(func(policy.Event) []policy.Effect { return nil })
		})
		synctest.Wait()
		if !n.provides(digest.FromBytes(data)) {
			t.Error("not announced")
		}
		n.stop(t)
	})
}
