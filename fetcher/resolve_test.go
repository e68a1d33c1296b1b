package fetcher

import (
	"bytes"
	"context"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

const typeIndex = "application/vnd.oci.image.index.v1+json"

func tagQuery(accept ...string) Query {
	return Query{Source: testSource, Kind: QueryTag, Reference: "v1", Accept: accept}
}

func TestTagIsAskedOnceALifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, net := newFakeOrigin(), newFakeNet()
		d := o.addManifest("v1", typeIndex, []byte("{}"))
		n := net.join(t, 1, o, newFakeStore(t), nil)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				a, err := n.f.Resolve(t.Context(), tagQuery(typeIndex+", b;q=0.5"))
				if err != nil || a.Digest != d || a.Descriptor.Size != 2 || a.Descriptor.MediaType != typeIndex || a.Stale {
					t.Errorf("%+v, %v", a, err)
				}
			})
		}
		wg.Wait()
		// The same types in another order are the same question.
		time.Sleep(59 * time.Second)
		if a, err := n.f.Resolve(t.Context(), tagQuery("B", typeIndex)); err != nil || a.Age != 59*time.Second {
			t.Errorf("%+v, %v", a, err)
		}
		if got := o.asked.Load(); got != 1 {
			t.Errorf("the origin was asked %d times", got)
		}
		time.Sleep(2 * time.Second)
		d2 := o.addManifest("v1", typeIndex, []byte("{ }"))
		if a, err := n.f.Resolve(t.Context(), tagQuery(typeIndex, "b")); err != nil || a.Digest != d2 {
			t.Errorf("%+v, %v", a, err)
		}
		n.stop(t)
	})
}

func TestRefusalsPassThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, net := newFakeOrigin(), newFakeNet()
		n := net.join(t, 1, o, newFakeStore(t), nil)
		o.addManifest("v1", typeIndex, []byte("{}"))
		if _, err := n.f.Resolve(t.Context(), tagQuery()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		for _, status := range []int{401, 403, 404} {
			o.set(func() { o.status = status })
			asked := o.asked.Load()
			for range 3 {
				if _, err := n.f.Resolve(t.Context(), tagQuery()); statusOf(err) != status {
					t.Errorf("%d: %v", status, err)
				}
			}
			if got := o.asked.Load() - asked; got != 1 {
				t.Errorf("%d: asked %d times", status, got)
			}
			time.Sleep(1100 * time.Millisecond)
		}
		if _, err := n.f.Resolve(t.Context(), Query{Source: testSource, Kind: "odd"}); statusOf(err) != 400 {
			t.Errorf("%v", err)
		}
		n.stop(t)
	})
}

// A silent origin: what is known is answered within 2 s, then within 100 ms, by
// this node or any other, and the origin's return is noticed.
func TestSilentOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, net := newFakeOrigin(), newFakeNet()
		d := o.addManifest("v1", typeIndex, []byte("{}"))
		a := net.join(t, 1, o, newFakeStore(t), nil)
		b := net.join(t, 2, o, newFakeStore(t), nil)
		dead := net.join(t, 3, o, newFakeStore(t), nil)
		if _, err := a.f.Resolve(t.Context(), tagQuery(typeIndex)); err != nil {
			t.Fatal(err)
		}
		dead.silent.Store(true)
		time.Sleep(5 * time.Minute)
		o.set(func() { o.hang = true })
		for _, n := range []*fakeNode{a, b} {
			for i, limit := range []time.Duration{2 * time.Second, 100 * time.Millisecond, 100 * time.Millisecond} {
				start := time.Now()
				got, err := n.f.Resolve(t.Context(), tagQuery(typeIndex))
				took := time.Since(start)
				if err != nil || got.Digest != d || !got.Stale || took > limit {
					t.Errorf("%d: %+v, %v after %v", i, got, err, took)
				}
				if got.Age < 5*time.Minute || got.Age > 5*time.Minute+10*time.Second {
					t.Errorf("%d: age %v", i, got.Age)
				}
			}
		}
		if a.f.Status().Stale != 3 {
			t.Errorf("%+v", a.f.Status())
		}
		// Another client accepts other types: an index is no use to it.
		if _, err := b.f.Resolve(t.Context(), tagQuery("application/x")); err == nil {
			t.Error("an answer of a type that is not accepted")
		}
		o.set(func() { o.hang = false })
		time.Sleep(time.Minute)
		d2 := o.addManifest("v1", typeIndex, []byte("{  }"))
		for _, n := range []*fakeNode{a, b} {
			if _, err := n.f.Resolve(t.Context(), tagQuery(typeIndex)); err != nil {
				t.Error(err)
			}
			if got, err := n.f.Resolve(t.Context(), tagQuery(typeIndex)); err != nil || got.Stale || got.Digest != d2 {
				t.Errorf("%+v, %v", got, err)
			}
		}
		for _, n := range []*fakeNode{a, b, dead} {
			n.stop(t)
		}
	})
}

func TestFailingOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, net := newFakeOrigin(), newFakeNet()
		o.addManifest("v1", typeIndex, []byte("{}"))
		a := net.join(t, 1, o, newFakeStore(t), nil)
		b := net.join(t, 2, o, newFakeStore(t), nil)
		list := Query{Source: testSource, Kind: QueryTags, Params: url.Values{"n": {"5"}}}
		for _, q := range []Query{tagQuery(), list} {
			if _, err := a.f.Resolve(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		// b knows an older answer than a.
		old := o.addManifest("v1", typeIndex, []byte("{ }"))
		time.Sleep(2 * time.Minute)
		if got, err := b.f.Resolve(t.Context(), tagQuery()); err != nil || got.Digest != old {
			t.Fatal(err)
		}
		d := o.addManifest("v1", typeIndex, []byte("{  }"))
		time.Sleep(2 * time.Minute)
		if _, err := a.f.Resolve(t.Context(), tagQuery()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		for _, down := range []bool{false, true} {
			o.set(func() { o.status, o.down = 503, down })
			got, err := b.f.Resolve(t.Context(), tagQuery())
			if err != nil || got.Digest != d || !got.Stale {
				t.Errorf("%+v, %v", got, err)
			}
			l, err := b.f.Resolve(t.Context(), list)
			if err != nil || !bytes.Contains(l.Body, []byte("v1")) || !l.Stale || l.Link != "</next>" {
				t.Errorf("%+v, %v", l, err)
			}
		}
		// Nobody knows: the origin's own failure.
		q := tagQuery()
		q.Reference = "other"
		if _, err := b.f.Resolve(t.Context(), q); statusOf(err) != 503 {
			t.Errorf("%v", err)
		}
		time.Sleep(8 * 24 * time.Hour)
		if got, err := b.f.Resolve(t.Context(), tagQuery()); err == nil {
			t.Errorf("an answer %v old", got.Age)
		}
		a.stop(t)
		b.stop(t)
	})
}

// The one who asked may go away: the request goes on for the others.
func TestResolveOutlivesItsFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, net := newFakeOrigin(), newFakeNet()
		o.set(func() { o.hang = true })
		n := net.join(t, 1, o, newFakeStore(t), nil)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := n.f.Resolve(ctx, tagQuery()); err == nil {
			t.Error("no error")
		}
		start := time.Now()
		if _, err := n.f.Resolve(t.Context(), tagQuery()); statusOf(err) != 504 || time.Since(start) > 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if o.asked.Load() != 1 {
			t.Errorf("asked %d times", o.asked.Load())
		}
		n.stop(t)
	})
}

func TestStatAsksPeersLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, net := newFakeOrigin(), newFakeNet()
		data := random(1, 2*mib)
		d := o.add(data)
		m := o.addManifest("v1", typeIndex, []byte(`{"manifests":[]}`))
		a := net.join(t, 1, o, newFakeStore(t), nil)
		b := net.join(t, 2, o, newFakeStore(t), nil)
		if info, err := b.f.Stat(t.Context(), blobRef(d)); err != nil || info.Size != 2*mib {
			t.Errorf("%+v, %v", info, err)
		}
		a.want(t, blobRef(d), nil, data)
		a.want(t, Ref{testSource, m, true}, nil, []byte(`{"manifests":[]}`))
		o.set(func() { o.hang = true })
		c := net.join(t, 3, o, newFakeStore(t), nil)
		start := time.Now()
		if info, err := c.f.Stat(t.Context(), blobRef(d)); err != nil || info.Size != 2*mib || time.Since(start) > 2*time.Second {
			t.Errorf("%+v, %v after %v", info, err, time.Since(start))
		}
		start = time.Now()
		if info, err := c.f.Stat(t.Context(), Ref{testSource, m, true}); err != nil || info.MediaType != typeIndex || time.Since(start) > 100*time.Millisecond {
			t.Errorf("%+v, %v after %v", info, err, time.Since(start))
		}
		o.set(func() { o.hang, o.status = false, 404 })
		if _, err := c.f.Stat(t.Context(), blobRef(digest.FromString("no"))); statusOf(err) != 404 {
			t.Errorf("%v", err)
		}
		if sent := o.sent.Load(); sent != 2*mib {
			t.Errorf("%d bytes", sent)
		}
		for _, n := range []*fakeNode{a, b, c} {
			n.stop(t)
		}
	})
}

func sample() record {
	r := record{question: canonical(tagQuery("b", "A")), digest: digest.FromString("x"), size: 5, mediaType: "a", date: 1700000000}
	r.sign(newKeyring(1))
	return r
}

func TestForgedRecords(t *testing.T) {
	r := sample()
	if !r.genuine() {
		t.Fatal("not genuine")
	}
	for name, change := range map[string]func(*record){
		"digest":    func(r *record) { r.digest = digest.FromString("y") },
		"reference": func(r *record) { r.reference = "v2" },
		"date":      func(r *record) { r.date++ },
		"signer":    func(r *record) { r.signer = newKeyring(2).Self() },
		"size":      func(r *record) { r.size++ },
	} {
		f := r
		change(&f)
		if f.genuine() {
			t.Error(name)
		}
	}
	if best(canonical(tagQuery("x")), []aged{{record: r}}) != nil {
		t.Error("a type that is not accepted")
	}
	other := tagQuery("a")
	other.Repository = "b"
	if best(canonical(other), []aged{{record: r}}) != nil {
		t.Error("another repository")
	}
}

func TestNewest(t *testing.T) {
	at := func(date int64, age time.Duration) aged { return aged{record{date: date}, age} }
	for _, c := range []struct {
		a, b aged
		want bool
	}{
		{at(0, 1), at(0, 2), true},
		{at(0, 2), at(0, 1), false},
		{at(20, 9), at(10, 1), true},
		{at(10, 1), at(20, 9), false},
		{at(10, 1), at(0, 9), true},
	} {
		if got := c.a.newer(&c.b); got != c.want {
			t.Errorf("%v %v: %v", c.a.age, c.b.age, got)
		}
	}
}

func FuzzAged(f *testing.F) {
	r := sample()
	l := record{question: question{kind: QueryTags, origin: "o"}, size: -1, body: []byte("[]"), link: "l"}
	f.Add(appendAged(nil, []aged{{r, time.Hour}, {l, 0}}))
	f.Add(appendAged(nil, nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		rs, err := decodeAged(data)
		if err != nil {
			return
		}
		if again := appendAged(nil, rs); !bytes.Equal(again, data) {
			t.Errorf("%x became %x", data, again)
		}
	})
}

func FuzzCall(f *testing.F) {
	f.Add(sample().request())
	f.Add(infoRequest(digest.FromString("x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		st := &fakeStore{t: t, blobs: map[digest.Digest]*fakeBlob{}, records: map[string][]byte{}}
		n := &fakeNode{net: newFakeNet(), store: st}
		fetcher := New(st, n, newFakeOrigin(), newKeyring(1), policyConfig(), nil)
		res, err := fetcher.Call(t.Context(), chunkindex.NodeID{}, data)
		if (err == nil) != (len(res) > 0) {
			t.Errorf("%x, %v", res, err)
		}
		if info, ok := decodeInfo(data); ok {
			if again := appendInfo(nil, info, true); !bytes.Equal(again, data) {
				t.Errorf("%x became %x", data, again)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0},"layers":[]}`))
	f.Add([]byte(`{"manifests":[{"digest":"x","size":-1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, d := range parseManifest(data).descriptors {
			if d.Size < 0 || d.Digest.Validate() != nil {
				t.Errorf("%+v", d)
			}
		}
	})
}

func TestParseManifest(t *testing.T) {
	const dg = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for name, c := range map[string]struct {
		body, mediaType string
		kinds           []Kind
	}{
		"oci":     {`{"schemaVersion":2,"config":{"digest":"` + dg + `","size":1},"layers":[{"digest":"` + dg + `","size":2}]}`, typeOCIManifest, []Kind{KindConfig, KindLayer}},
		"index":   {`{"schemaVersion":2,"manifests":[{"digest":"` + dg + `","size":3,"mediaType":"m"}]}`, typeOCIIndex, []Kind{KindManifest}},
		"schema2": {`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"digest":"` + dg + `","size":1}}`, "application/vnd.docker.distribution.manifest.v2+json", []Kind{KindConfig}},
		"schema1": {`{"schemaVersion":1,"fsLayers":[]}`, typeSchema1, nil},
		"junk":    {`[]`, "", nil},
	} {
		m := parseManifest([]byte(c.body))
		if m.mediaType != c.mediaType || len(m.descriptors) != len(c.kinds) {
			t.Errorf("%s: %+v", name, m)
			continue
		}
		for i, k := range c.kinds {
			if m.descriptors[i].kind != k {
				t.Errorf("%s: %+v", name, m.descriptors[i])
			}
		}
	}
}

func TestHints(t *testing.T) {
	h := newHints(2)
	a, b, c := digest.FromString("a"), digest.FromString("b"), digest.FromString("c")
	h.put(a, hint{size: 1})
	h.put(b, hint{size: 2, kind: KindConfig})
	h.put(a, hint{size: -1, mediaType: "m"})
	if got, ok := h.get(a); !ok || got.size != 1 || got.mediaType != "m" {
		t.Errorf("%+v", got)
	}
	h.put(c, hint{size: 3})
	if _, ok := h.get(b); ok {
		t.Error("the least recently used is still there")
	}
	h.put(a, hint{size: 7})
	h.put(a, hint{size: 1})
	if got, _ := h.get(a); got.size != -1 {
		t.Errorf("two who differ leave %d", got.size)
	}
	h.forget(c)
	if got, _ := h.get(c); got.size != -1 {
		t.Errorf("%+v", got)
	}
}
