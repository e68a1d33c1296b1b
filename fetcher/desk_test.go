package fetcher

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// cluster is some nodes that all reach one origin, each with a login of its own.
type cluster struct {
	*testing.T
	o      *fakeOrigin
	net    *fakeNet
	nodes  []*fakeNode
	logins map[chunkindex.NodeID]*login
}

func newCluster(t *testing.T, size int, change func(*Options)) *cluster {
	c := &cluster{t, newFakeOrigin(), newFakeNet(), nil, map[chunkindex.NodeID]*login{}}
	c.o.delay = 50 * time.Millisecond
	for i := range size {
		c.join(byte(i+1), newFakeStore(t), change)
	}
	return c
}

func (c *cluster) join(n byte, st *fakeStore, change func(*Options)) *fakeNode {
	l := &login{fakeOrigin: c.o}
	node := c.net.join(c.T, n, l, st, func(_ *policy.Config, o *Options) {
		if change != nil {
			change(o)
		}
	})
	c.nodes = append(c.nodes, node)
	c.logins[node.id] = l
	return node
}

func (c *cluster) stop() {
	for _, n := range c.nodes {
		n.stop(c.T)
	}
}

// ranked is the nodes in the order in which they lead a question.
func (c *cluster) ranked(q Query) []*fakeNode {
	var ids []chunkindex.NodeID
	for _, n := range c.nodes {
		ids = append(ids, n.id)
	}
	var nodes []*fakeNode
	for _, id := range policy.Rank(string(canonical(q).announced()), ids) {
		nodes = append(nodes, c.net.nodes[id])
	}
	return nodes
}

// all does the same on all nodes at once, and says how long the slowest took.
func (c *cluster) all(nodes []*fakeNode, do func(n *fakeNode) error) time.Duration {
	c.Helper()
	start := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			if err := do(n); err != nil {
				mu.Lock()
				defer mu.Unlock()
				c.Errorf("node %d after %v: %v", i, time.Since(start), err)
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

// wantTag resolves q on all nodes at once to d.
func (c *cluster) wantTag(nodes []*fakeNode, q Query, d digest.Digest) time.Duration {
	c.Helper()
	return c.all(nodes, func(n *fakeNode) error {
		a, err := n.f.Resolve(c.Context(), q)
		if err == nil && (a.Digest != d || a.Stale) {
			err = fmt.Errorf("resolved to %s, stale %v", a.Digest, a.Stale)
		}
		return err
	})
}

func (c *cluster) asked(what string, want int64) {
	c.Helper()
	if got := c.o.asked.Swap(0); got != want {
		c.Errorf("%s: the origin was asked %d times, not %d", what, got, want)
	}
}

func TestOneRequestATagForTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 16, nil)
		defer c.stop()
		body := []byte(`{"manifests":[]}`)
		d := c.o.addManifest("v1", typeIndex, body)
		if took := c.wantTag(c.nodes, tagQuery(typeIndex), d); took > 100*time.Millisecond {
			t.Errorf("took %v", took)
		}
		c.asked("all at once", 1)
		c.all(c.nodes, func(n *fakeNode) error {
			got, err := n.get(Ref{testSource, d, true}, nil)
			if err == nil && !bytes.Equal(got, body) {
				err = errors.New("wrong bytes")
			}
			return err
		})
		if gets, sizes := c.o.gets.Load(), c.o.sizes.Load(); gets != 1 || sizes != 0 {
			t.Errorf("%d manifests, %d sizes", gets, sizes)
		}
		c.asked("manifest", 0)
		// One after the other, and again within the lifetime.
		for _, n := range c.nodes {
			time.Sleep(3 * time.Second)
			c.wantTag([]*fakeNode{n}, tagQuery(typeIndex), d)
		}
		c.asked("within the lifetime", 0)
		time.Sleep(time.Minute)
		d = c.o.addManifest("v1", typeIndex, []byte(`{"manifests":[] }`))
		for i, n := range c.nodes {
			if i < 8 {
				time.Sleep(time.Second)
			}
			c.wantTag([]*fakeNode{n}, tagQuery(typeIndex), d)
		}
		c.asked("staggered", 1)
		// Lists and other types are other questions.
		c.all(c.nodes, func(n *fakeNode) error {
			a, err := n.f.Resolve(t.Context(), Query{Source: testSource, Kind: QueryTags})
			if err == nil && (len(a.Body) == 0 || a.Link != "</next>") {
				err = fmt.Errorf("%+v", a)
			}
			return err
		})
		c.asked("list", 1)
		c.wantTag(c.nodes, tagQuery("b"), d)
		c.asked("other types", 1)
		// What no other node would read is asked alone, and nobody is to blame.
		c.wantTag(c.nodes, tagQuery(strings.Repeat("x", maxField+1)), d)
		c.asked("too long", 16)
		c.wantTag(c.nodes, tagQuery("c"), d)
		c.asked("after that", 1)
	})
}

// Clients that come with a digest ask for access once for all, and a manifest
// that is only described is asked for once.
func TestOneRequestADigestForTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 16, nil)
		defer c.stop()
		body := []byte(`{"manifests":[]}`)
		d := c.o.addManifest("v1", typeIndex, body)
		blob := c.o.add([]byte("layer"))
		c.all(c.nodes, func(n *fakeNode) error {
			info, err := n.f.Stat(t.Context(), Ref{testSource, d, true})
			if err == nil && (info.Size != int64(len(body)) || info.MediaType != typeIndex) {
				err = fmt.Errorf("%+v", info)
			}
			return err
		})
		// For access, and for the size.
		c.asked("stat", 2)
		c.all(c.nodes, func(n *fakeNode) error { _, err := n.get(Ref{testSource, d, true}, nil); return err })
		c.all(c.nodes, func(n *fakeNode) error { _, err := n.get(blobRef(blob), nil); return err })
		if gets, sent := c.o.gets.Load(), c.o.sent.Load(); gets != 1 || sent != 5 {
			t.Errorf("%d manifests, %d bytes", gets, sent)
		}
		c.asked("get", 0)
		// A blob that is not there is that, also to who asks beside others.
		missing := blobRef(digest.FromString("no"))
		time.Sleep(2 * time.Minute)
		c.all(c.nodes, func(n *fakeNode) error {
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() {
				if _, err := n.get(missing, nil); statusOf(err) != 404 {
					t.Errorf("%v", err)
				}
			})
			_, err := n.get(blobRef(blob), nil)
			return err
		})
	})
}

func TestLeaderAndAskerFail(t *testing.T) {
	for name, c := range map[string]struct {
		// fail makes something go wrong just before, or 20 ms after, all ask.
		before, during func(c *cluster, ranked []*fakeNode)
		delay          time.Duration
		within         time.Duration
		most           int64
	}{
		"the leader is silent": {
			before: func(_ *cluster, r []*fakeNode) { r[0].silent.Store(true) },
			within: 700 * time.Millisecond, most: 2, // it asks for itself
		},
		"three are silent": {
			before: func(_ *cluster, r []*fakeNode) {
				for _, n := range r[:3] {
					n.silent.Store(true)
				}
			},
			within: 1700 * time.Millisecond, most: 4,
		},
		"the leader dies meanwhile": {
			during: func(_ *cluster, r []*fakeNode) { r[0].disconnect() },
			delay:  time.Second, within: 2200 * time.Millisecond, most: 3,
		},
		"the asker dies meanwhile": {
			during: func(c *cluster, _ []*fakeNode) {
				for id, l := range c.logins {
					if l.hangs.Load() {
						l.hangs.Store(false)
						c.net.nodes[id].disconnect()
					}
				}
			},
			before: func(c *cluster, r []*fakeNode) { c.first(r[5]) },
			within: 200 * time.Millisecond, most: 3,
		},
		"the asker's way to the origin hangs": {
			before: func(c *cluster, r []*fakeNode) { c.first(r[5]) },
			// It has itself to thank for what comes later: its own answer.
			within: 1700 * time.Millisecond, most: 2,
		},
		"the asker's way to the origin is broken": {
			before: func(c *cluster, r []*fakeNode) {
				c.logins[r[5].id].answers.Store(502)
				c.begin(r[5])
			},
			within: 200 * time.Millisecond, most: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(t, 16, nil)
				defer k.stop()
				if c.delay > 0 {
					k.o.delay = c.delay
				}
				d := k.o.addManifest("v1", typeIndex, []byte("{}"))
				r := k.ranked(tagQuery())
				if c.before != nil {
					c.before(k, r)
				}
				if c.during != nil {
					time.AfterFunc(20*time.Millisecond, func() { c.during(k, r) })
				}
				rest := slices.Concat(r[:5], r[6:])
				if took := k.wantTag(rest, tagQuery(), d); took > c.within {
					t.Errorf("took %v", took)
				}
				if got := k.o.asked.Load(); got > c.most {
					t.Errorf("asked %d times", got)
				}
				for _, n := range k.nodes {
					n.silent.Store(false)
				}
			})
		})
	}
}

// begin has a node ask before all others, and first has its request hang.
func (c *cluster) begin(n *fakeNode) {
	ctx, cancel := context.WithCancel(c.Context())
	c.Cleanup(cancel)
	go func() { _, _ = n.f.Resolve(ctx, tagQuery()) }()
	synctest.Wait()
}

func (c *cluster) first(n *fakeNode) {
	c.logins[n.id].hangs.Store(true)
	c.begin(n)
}

// Those whom the origin refuses get its refusal and keep nothing; those with a
// key share one copy.
func TestPrivateRepository(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 16, nil)
		defer c.stop()
		data, manifest := random(1, 3*mib), []byte(`{"layers":[]}`)
		d, m := c.o.add(data), c.o.addManifest("v1", typeOCIManifest, manifest)
		c.o.locked = true
		with, without := c.nodes[6:10], slices.Concat(c.nodes[:6], c.nodes[10:])
		for _, n := range with {
			c.logins[n.id].key = true
		}
		denied := func(err error) error {
			if statusOf(err) != 401 {
				return fmt.Errorf("not refused: %w", err)
			}
			return nil
		}
		pull := func(n *fakeNode) error {
			if slices.Contains(with, n) {
				if a, err := n.f.Resolve(t.Context(), tagQuery()); err != nil || a.Digest != m {
					return fmt.Errorf("%+v, %w", a, err)
				}
				for _, ref := range []Ref{{testSource, m, true}, blobRef(d)} {
					if got, err := n.get(ref, nil); err != nil || digest.FromBytes(got) != ref.Digest {
						return fmt.Errorf("%d bytes, %w", len(got), err)
					}
				}
				return nil
			}
			_, err := n.f.Resolve(t.Context(), tagQuery())
			if err := denied(err); err != nil {
				return fmt.Errorf("tag: %w", err)
			}
			for _, ref := range []Ref{{testSource, m, true}, blobRef(d)} {
				_, err := n.get(ref, nil)
				if err := denied(err); err != nil {
					return err
				}
				_, err = n.f.Stat(t.Context(), ref)
				if err := denied(err); err != nil {
					return fmt.Errorf("stat: %w", err)
				}
			}
			return nil
		}
		if took := c.all(c.nodes, pull); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		// Now that it is all there, and later, by digest alone.
		for range 3 {
			c.all(without, pull)
			time.Sleep(2 * time.Minute)
		}
		if sent, gets := c.o.sent.Load(), c.o.gets.Load(); sent != int64(len(data)) || gets != 1 {
			t.Errorf("%d bytes, %d manifests", sent, gets)
		}
		for _, n := range without {
			if len(n.store.blobs) != 0 {
				t.Errorf("%d blobs where none should be", len(n.store.blobs))
			}
		}
		// One proof a node and lifetime.
		time.Sleep(2 * time.Minute)
		before := c.o.requests.Load()
		for range 3 {
			c.all(with, func(n *fakeNode) error { _, err := n.get(blobRef(d), nil); return err })
		}
		if got := c.o.requests.Load() - before; got != 4 {
			t.Errorf("%d requests", got)
		}
		// The key is taken away.
		time.Sleep(2 * time.Minute)
		c.logins[with[0].id].key = false
		_, err := with[0].get(blobRef(d), nil)
		if err := denied(err); err != nil {
			t.Error(err)
		}
		// The origin goes away: who was let in stays in, who was not stays out.
		c.o.set(func() { c.o.status = 503 })
		time.Sleep(2 * time.Minute)
		if _, err := with[1].get(blobRef(d), nil); err != nil {
			t.Error(err)
		}
		for _, n := range []*fakeNode{with[0], without[0]} {
			if _, err := n.get(blobRef(d), nil); statusOf(err) != 503 {
				t.Errorf("%v", err)
			}
			if _, err := n.f.Resolve(t.Context(), tagQuery()); statusOf(err) != 503 {
				t.Errorf("%v", err)
			}
		}
		if a, err := with[2].f.Resolve(t.Context(), tagQuery()); err != nil || !a.Stale || a.Digest != m {
			t.Errorf("%+v, %v", a, err)
		}
		// Who joins now hears that it is private.
		n := c.join(17, newFakeStore(t), nil)
		if _, err := n.get(blobRef(d), nil); statusOf(err) != 503 {
			t.Errorf("%v", err)
		}
	})
}

// A repository that a node without credentials can read is public, whoever else
// uses some.
func TestPublicWhateverTheCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4, nil)
		defer c.stop()
		data := random(1, 2*mib)
		d, m := c.o.add(data), c.o.addManifest("v1", typeIndex, []byte("{}"))
		c.wantTag(c.nodes, tagQuery(), m)
		c.nodes[0].want(t, blobRef(d), nil, data)
		// The origin is gone, and a node comes that knows nothing.
		c.o.set(func() { c.o.hang = true })
		time.Sleep(time.Hour)
		n := c.join(5, newFakeStore(t), nil)
		n.want(t, blobRef(d), nil, data)
		// Where nobody knows anything, what is there is given.
		other := Ref{Source{"registry.test", "unheard"}, d, false}
		n.want(t, other, nil, data)
	})
}

func TestAccessSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		data := random(1, 2*mib)
		d, m := c.o.add(data), c.o.addManifest("v1", typeIndex, []byte("{}"))
		n := c.nodes[0]
		c.wantTag(c.nodes, tagQuery(), m)
		n.want(t, blobRef(d), nil, data)
		before := c.o.requests.Load()
		n.stop(t)
		delete(c.net.nodes, n.id)
		n = c.join(1, n.store, nil)
		c.wantTag([]*fakeNode{n}, tagQuery(), m)
		n.want(t, blobRef(d), nil, data)
		if got := c.o.requests.Load() - before; got != 0 {
			t.Errorf("%d requests", got)
		}
		time.Sleep(2 * time.Minute)
		n.want(t, blobRef(d), nil, data)
		if got := c.o.requests.Load() - before; got != 1 {
			t.Errorf("%d requests", got)
		}
		n.stop(t)
	})
}

// Modes in which other nodes are believed less.
func TestTagsFromPeers(t *testing.T) {
	for mode, c := range map[FromPeers]struct {
		asked int64
		stale bool
	}{
		FromPeersAlways:     {1, true},
		FromPeersOriginDown: {4, true},
		FromPeersNever:      {4, false},
	} {
		t.Run(string(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(t, 4, func(o *Options) { o.TagsFromPeers = mode })
				defer k.stop()
				d := k.o.addManifest("v1", typeIndex, []byte("{}"))
				k.wantTag(k.nodes, tagQuery(), d)
				k.asked("all", c.asked)
				k.o.set(func() { k.o.status = 503 })
				n := k.join(5, newFakeStore(t), func(o *Options) { o.TagsFromPeers = mode })
				time.Sleep(2 * time.Minute)
				a, err := n.f.Resolve(t.Context(), tagQuery())
				if (err == nil) != c.stale || err == nil && (!a.Stale || a.Digest != d) {
					t.Errorf("%+v, %v", a, err)
				}
			})
		})
	}
}

// A leader that lies or stalls costs time: nobody gets a wrong answer that its own
// signature, and the mode, do not let pass.
func TestMaliciousLeader(t *testing.T) {
	evil := newKeyring(99)
	forge := func(q question, change func(*aged)) []byte {
		r := aged{record: record{question: q, digest: digest.FromString("evil"), size: 4, public: true}}
		r.sign(evil)
		change(&r)
		return appendVerdict(nil, verdictRecord, &r, chunkindex.NodeID{})
	}
	for name, lie := range map[string]func(q question) ([]byte, error){
		"nonsense":        func(question) ([]byte, error) { return []byte{77, 1}, nil },
		"nothing":         func(question) ([]byte, error) { return nil, nil },
		"an error":        func(question) ([]byte, error) { return nil, errors.New("no") },
		"ask, all of you": func(question) ([]byte, error) { return []byte{byte(verdictAsk)}, nil },
		"wait for ever":   func(question) ([]byte, error) { return []byte{byte(verdictWait)}, nil },
		"busy for ever":   func(question) ([]byte, error) { return nil, BusyError{} },
		"ask somebody":    func(question) ([]byte, error) { return appendVerdict(nil, verdictRedirect, nil, evil.Self()), nil },
		"ask me":          func(question) ([]byte, error) { return nil, nil },
		"another question": func(q question) ([]byte, error) {
			return forge(q, func(r *aged) { r.reference = "v2"; r.sign(evil) }), nil
		},
		"a forged one": func(q question) ([]byte, error) { return forge(q, func(r *aged) { r.size = 5 }), nil },
		"a private one": func(q question) ([]byte, error) {
			return forge(q, func(r *aged) { r.public = false; r.sign(evil) }), nil
		},
		"a stale one": func(q question) ([]byte, error) { return forge(q, func(r *aged) { r.age = time.Hour }), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 8, nil)
				defer c.stop()
				d := c.o.addManifest("v1", typeIndex, []byte("{}"))
				r := c.ranked(tagQuery())
				do := func(_ chunkindex.NodeID, req []byte) ([]byte, error) {
					if req[0] != callConsult {
						return nil, errRecord
					}
					s := &scanner{data: req[2:]}
					s.uvarint(1 << 20)
					if name == "ask me" {
						return appendVerdict(nil, verdictRedirect, nil, r[0].id), nil
					}
					return lie(s.question())
				}
				r[0].lie.Store(&do)
				if took := c.wantTag(r[1:], tagQuery(), d); took > 3200*time.Millisecond {
					t.Errorf("took %v", took)
				}
				// Not again and again.
				q := tagQuery()
				if name == "wait for ever" || name == "busy for ever" {
					q.Accept = []string{"c"}
					if took := c.wantTag(r[1:], q, d); took > 100*time.Millisecond {
						t.Errorf("took %v the second time", took)
					}
				}
			})
		})
	}
}

// A record that is older by the origin's clock than one that is known is not
// believed, whatever age its bearer gives it.
func TestNoRollback(t *testing.T) {
	f := New(&fakeStore{t: t, records: map[string][]byte{}}, nil, newFakeOrigin(), newKeyring(1), policyConfig(), nil)
	q := canonical(tagQuery())
	at := func(date int64) aged {
		r := aged{record: record{question: q, digest: digest.FromString("x"), size: 1, date: date, public: true}}
		r.sign(newKeyring(2))
		return r
	}
	f.keep(at(1000))
	for date, want := range map[int64]bool{999: false, 1000: true, 1001: true, 0: true} {
		r := at(date)
		if got := f.credible(q, &r); got != want {
			t.Errorf("%d: %v", date, got)
		}
	}
}

func TestTrusted(t *testing.T) {
	at := func(content string, age time.Duration) aged {
		return aged{record{digest: digest.FromString(content)}, age}
	}
	a, b, x := at("a", 10), at("b", 5), at("x", 1)
	for name, c := range map[string]struct {
		own   *aged
		peers []aged
		want  string
	}{
		"nobody":                      {nil, nil, ""},
		"only this one":               {&a, nil, "a"},
		"one peer":                    {nil, []aged{b}, "b"},
		"one newer peer":              {&a, []aged{b}, "b"},
		"one older peer":              {&b, []aged{a}, "b"},
		"two that agree":              {&a, []aged{b, b}, "b"},
		"two that disagree":           {nil, []aged{b, a}, ""},
		"two that disagree, and this": {&a, []aged{b, x}, "a"},
		"one with this":               {&b, []aged{at("b", 1), x}, "b"},
		"a liar among many":           {nil, []aged{x, a, b, b}, "b"},
		"too old":                     {nil, []aged{at("a", time.Hour)}, ""},
	} {
		got := ""
		if r := trusted(c.own, c.peers, time.Minute); r != nil {
			got = map[digest.Digest]string{a.digest: "a", b.digest: "b", x.digest: "x"}[r.digest]
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestDesk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := map[chunkindex.NodeID]bool{}
		d := newDesk(1500*time.Millisecond, func(id chunkindex.NodeID) bool { return !down[id] })
		a, b, c := newKeyring(1).Self(), newKeyring(2).Self(), newKeyring(3).Self()
		want := func(who chunkindex.NodeID, want verdict) *aged {
			t.Helper()
			v, r, _, _ := d.decide(who, "q", time.Minute)
			if v != want {
				t.Fatalf("verdict %d, want %d", v, want)
			}
			return r
		}
		public := &aged{record{public: true}, time.Second}
		want(a, verdictAsk)
		want(a, verdictAsk) // it forgot
		want(b, verdictWait)
		d.tell(b, "q", time.Minute, outcomeRefused, nil) // not its turn
		want(c, verdictWait)
		d.tell(a, "q", time.Minute, outcomeFailed, nil)
		want(c, verdictAsk)
		d.gone(a)
		want(b, verdictWait)
		d.gone(c)
		want(b, verdictAsk)
		time.Sleep(1500 * time.Millisecond)
		want(a, verdictAsk) // b takes too long
		d.tell(a, "q", time.Minute, outcomeRefused, nil)
		want(a, verdictAsk)
		want(b, verdictAsk)
		want(c, verdictAsk)
		time.Sleep(time.Second)
		want(a, verdictAsk)
		want(b, verdictWait)
		d.tell(b, "q", time.Minute, outcomeRecord, public) // late, and welcome
		time.Sleep(time.Second)
		if r := want(c, verdictRecord); r.age != 2*time.Second {
			t.Errorf("age %v", r.age)
		}
		time.Sleep(58 * time.Second)
		want(c, verdictAsk)
		d.tell(c, "q", time.Minute, outcomeRecord, &aged{})
		want(a, verdictAsk)
		want(b, verdictAsk)

		// Who waits is told at once, and not for longer than it wants.
		start := time.Now()
		v, _ := d.consult(t.Context(), a, "p", time.Minute, time.Second)
		if v != verdictAsk {
			t.Error(v)
		}
		v, _ = d.consult(t.Context(), b, "p", time.Minute, time.Second)
		if v != verdictWait || time.Since(start) != time.Second {
			t.Errorf("%v after %v", v, time.Since(start))
		}
		time.AfterFunc(100*time.Millisecond, func() { d.tell(a, "p", time.Minute, outcomeRecord, public) })
		v, _ = d.consult(t.Context(), b, "p", time.Minute, time.Second)
		if v != verdictRecord || time.Since(start) != 1100*time.Millisecond {
			t.Errorf("%v after %v", v, time.Since(start))
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		d.consult(t.Context(), a, "r", time.Minute, time.Second)
		time.AfterFunc(100*time.Millisecond, cancel)
		start = time.Now()
		if v, _ = d.consult(ctx, b, "r", time.Minute, time.Second); v != verdictWait || time.Since(start) > 100*time.Millisecond {
			t.Errorf("%v after %v", v, time.Since(start))
		}
		// Who is gone gets no turn, though its call may still be here.
		down[b] = true
		d.gone(a)
		d.decide(b, "r", time.Minute)
		if v, _ = d.consult(t.Context(), c, "r", time.Minute, 0); v != verdictAsk {
			t.Error("the turn went to one that is gone")
		}
	})
}

func TestDeskIsBounded(t *testing.T) {
	d := newDesk(time.Second, func(chunkindex.NodeID) bool { return true })
	a := newKeyring(1).Self()
	var key [8]byte
	for i := range 3 * maxErrands {
		binary.BigEndian.PutUint64(key[:], uint64(i))
		d.decide(a, string(key[:]), time.Minute)
	}
	if len(d.errands) != maxErrands || d.used.Len() != maxErrands {
		t.Errorf("%d, %d", len(d.errands), d.used.Len())
	}
	body := make([]byte, maxListBody)
	for i := range 20 {
		binary.BigEndian.PutUint64(key[:], uint64(i))
		d.decide(a, string(key[:]), time.Minute)
		d.tell(a, string(key[:]), time.Minute, outcomeRecord, &aged{record: record{body: body, public: true}})
	}
	if d.bytes > maxErrandBytes || d.bytes < maxErrandBytes/2 {
		t.Errorf("%d bytes", d.bytes)
	}
	d.tell(a, "unknown", time.Minute, outcomeRecord, &aged{})
	if d.errands["unknown"] != nil {
		t.Error("an answer that nobody asked for is kept")
	}
	for range maxHeld {
		if !d.hold() {
			t.Error("not held")
		}
	}
	if d.hold() {
		t.Error("held")
	}
	d.unhold()
	if !d.hold() {
		t.Error("not held")
	}
}

func TestAccessBookIsBounded(t *testing.T) {
	f := New(&fakeStore{t: t, records: map[string][]byte{}}, nil, newFakeOrigin(), newKeyring(1), policyConfig(), nil)
	for i := range 2 * maxAccess {
		f.witnessed(Source{"o", fmt.Sprint(i)}, nil)
	}
	if len(f.access.by) != maxAccess || f.access.used.Len() != maxAccess {
		t.Errorf("%d, %d", len(f.access.by), f.access.used.Len())
	}
	if !f.accessOf(Source{"o", "0"}).open(time.Minute) {
		t.Error("what memory forgot is not in the store")
	}
	f.witnessed(Source{"o", "0"}, statusError(404))
	f.witnessed(Source{"o", "0"}, statusError(503))
	if !f.accessOf(Source{"o", "0"}).open(time.Minute) {
		t.Error("taken away by what is no refusal")
	}
	f.witnessed(Source{"o", "0"}, statusError(403))
	if f.accessOf(Source{"o", "0"}).open(time.Minute) {
		t.Error("a refusal counts for nothing")
	}
}

func FuzzVerdict(f *testing.F) {
	r := aged{sample(), time.Second}
	f.Add(appendVerdict(nil, verdictRecord, &r, chunkindex.NodeID{}))
	f.Add(appendVerdict(nil, verdictRedirect, nil, chunkindex.NodeID{1}))
	f.Add([]byte{byte(verdictWait)})
	f.Fuzz(func(t *testing.T, data []byte) {
		v, r, better, ok := decodeVerdict(data)
		if !ok {
			return
		}
		if again := appendVerdict(nil, v, r, better); !bytes.Equal(again, data) {
			t.Errorf("%x became %x", data, again)
		}
	})
}
