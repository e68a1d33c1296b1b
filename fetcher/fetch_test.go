package fetcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/fetcher/policy"
)

const mib = 1 << 20

func both(t *testing.T, fn func(t *testing.T, change func(*policy.Config, *Options))) {
	for name, v := range map[string]policy.Verify{"member": policy.VerifyMember, "strict": policy.VerifyStrict} {
		t.Run(name, func(t *testing.T) {
			fn(t, func(c *policy.Config, _ *Options) { c.Verify = v })
		})
	}
}

// unhurried waits long enough for others that a machine with much to do does not make
// a node turn to the origin by itself.
func unhurried(change func(*policy.Config, *Options)) func(*policy.Config, *Options) {
	return func(c *policy.Config, o *Options) {
		change(c, o)
		c.AskTimeout, c.SettleTimeout = 20*time.Second, 20*time.Second
		c.TransferStall, c.Standstill, c.Patience = 20*time.Second, 25*time.Second, 25*time.Second
	}
}

// Everybody pulls at once: right bytes, and one copy from the origin.
func TestColdPulls(t *testing.T) {
	both(t, func(t *testing.T, change func(*policy.Config, *Options)) {
		change = unhurried(change)
		for _, n := range []int{1, 2, 3} {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				data := random(1, 20*mib+12345)
				o, net := newFakeOrigin(), newFakeNet()
				d := o.add(data)
				var nodes []*fakeNode
				for i := range n {
					nodes = append(nodes, net.join(t, byte(i+1), o, newFakeStore(t), change))
				}
				var wg sync.WaitGroup
				for _, node := range nodes {
					wg.Go(func() {
						if got, err := node.get(blobRef(d), nil); err != nil || !bytes.Equal(got, data) {
							t.Errorf("%d bytes, %v", len(got), err)
						}
					})
				}
				wg.Wait()
				if sent := o.sent.Load(); sent != int64(len(data)) {
					t.Errorf("the origin sent %d bytes of %d", sent, len(data))
				}
				var received Sources
				for _, node := range nodes {
					s := node.f.Status()
					received.Peer += s.Received.Peer
					received.Origin += s.Received.Origin
					if all := s.Served.Store + s.Served.Peer + s.Served.Origin; all != int64(len(data)) {
						t.Errorf("served %+v", s.Served)
					}
				}
				if received.Origin != int64(len(data)) || received.Peer < int64((n-1)*len(data)) {
					t.Errorf("received %+v", received)
				}
			})
		}
	})
}

// With the origin gone, what one node has the others get.
func TestWarmPeer(t *testing.T) {
	both(t, func(t *testing.T, change func(*policy.Config, *Options)) {
		data := random(2, 5*mib+1)
		o, net := newFakeOrigin(), newFakeNet()
		d := o.add(data)
		a := net.join(t, 1, o, newFakeStore(t), change)
		a.want(t, blobRef(d), nil, data)
		o.set(func() { o.status = 503 })
		b := net.join(t, 2, o, newFakeStore(t), change)
		b.want(t, blobRef(d), nil, data)
		b.want(t, blobRef(d), nil, data)
		b.store.mu.Lock()
		if got := b.store.copies[d]; got != 1 {
			t.Errorf("%d other copies are known", got)
		}
		b.store.mu.Unlock()
		if s := b.f.Status(); s.Served.Peer != int64(len(data)) || s.Served.Store != int64(len(data)) || s.Received.Origin != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestSmallAndManifest(t *testing.T) {
	o, net := newFakeOrigin(), newFakeNet()
	layer, config := random(3, 3*mib), random(4, 2000)
	dl, dc := o.add(layer), o.add(config)
	body := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"c","digest":%q,"size":%d},"layers":[{"digest":%q,"size":%d}]}`,
		dc, len(config), dl, len(layer))
	dm := o.addManifest("v1", "application/vnd.oci.image.manifest.v1+json", body)
	a := net.join(t, 1, o, newFakeStore(t), nil)
	b := net.join(t, 2, o, newFakeStore(t), nil)
	for _, n := range []*fakeNode{a, b} {
		ref := Ref{testSource, dm, true}
		c, err := n.f.Open(t.Context(), ref, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.MediaType() != "application/vnd.oci.image.manifest.v1+json" || c.Size() != int64(len(body)) {
			t.Errorf("%q, %d", c.MediaType(), c.Size())
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%q, %v", got, err)
		}
		c.Close()
		n.want(t, blobRef(dc), nil, config)
		n.want(t, blobRef(dl), nil, layer)
		for _, d := range []digest.Digest{dc, dl} {
			info, err := n.f.Stat(t.Context(), blobRef(d))
			if err != nil || info.Size == 0 {
				t.Errorf("%+v, %v", info, err)
			}
		}
	}
	if o.sizes.Load() != 0 {
		t.Errorf("%d sizes were asked for that the manifest tells", o.sizes.Load())
	}
	if sent := o.sent.Load(); sent != int64(len(layer)+len(config)) {
		t.Errorf("the origin sent %d bytes", sent)
	}
	if st, err := a.store.Stat(dc); err != nil || st.Kind != KindConfig {
		t.Errorf("%+v, %v", st, err)
	}
	// After a restart the type of a stored manifest is read from it.
	a.stop(t)
	again := net.join(t, 3, o, a.store, nil)
	info, err := again.f.Stat(t.Context(), Ref{testSource, dm, true})
	if err != nil || info.MediaType == "" || info.Size != int64(len(body)) {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestRangesAndBadInput(t *testing.T) {
	data := random(5, 4*mib+77)
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(data)
	n := net.join(t, 1, o, newFakeStore(t), nil)
	for _, when := range []string{"cold", "warm"} {
		for _, c := range []struct {
			r        Range
			from, to int
		}{
			{Range{Start: 3, End: 10}, 3, 10},
			{Range{Start: 2*mib - 1, End: 2*mib + 1}, 2*mib - 1, 2*mib + 1},
			{Range{Suffix: 5}, len(data) - 5, len(data)},
			{Range{Start: mib, End: -1}, mib, len(data)},
			{Range{Start: 4 * mib, End: 100 * mib}, 4 * mib, len(data)},
			{Range{Suffix: 1 << 40}, 0, len(data)},
		} {
			t.Run(fmt.Sprint(when, c.r), func(t *testing.T) { n.want(t, blobRef(d), &c.r, data[c.from:c.to]) })
		}
	}
	for _, c := range []struct {
		ref    Ref
		r      *Range
		status int
	}{
		{blobRef(d), &Range{Start: int64(len(data)), End: -1}, 416},
		{blobRef("sha256:xyz"), nil, 400},
		{blobRef("md5:d41d8cd98f00b204e9800998ecf8427e"), nil, 400},
		{blobRef(digest.FromString("nobody has it")), nil, 404},
		{blobRef(digest.FromString("")), &Range{Start: 0, End: 1}, 416},
	} {
		_, err := n.get(c.ref, c.r)
		if statusOf(err) != c.status {
			t.Errorf("%v %v: %v", c.ref.Digest, c.r, err)
		}
	}
	n.want(t, blobRef(digest.FromString("")), nil, nil)
	if o.sent.Load() != int64(len(data)) {
		t.Errorf("the origin sent %d bytes of %d", o.sent.Load(), len(data))
	}
	// A range beyond the end of a blob whose size nobody knew before.
	d2 := o.add(random(6, 2*mib))
	if _, err := n.get(blobRef(d2), &Range{Start: 9 * mib, End: -1}); statusOf(err) != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("%v", err)
	}
}

func TestSHA512(t *testing.T) {
	for _, size := range []int{1000, 3 * mib} {
		data := random(7, size)
		d := digest.SHA512.FromBytes(data)
		o, net := newFakeOrigin(), newFakeNet()
		o.set(func() { o.blobs[d] = data })
		a := net.join(t, 1, o, newFakeStore(t), nil)
		b := net.join(t, 2, o, newFakeStore(t), nil)
		a.want(t, blobRef(d), nil, data)
		b.want(t, blobRef(d), nil, data)
		if o.sent.Load() != int64(size) {
			t.Errorf("the origin sent %d of %d", o.sent.Load(), size)
		}
	}
}

// A peer that serves wrong bytes spoils nobody's pull.
func TestCorruptPeer(t *testing.T) {
	for _, size := range []int{5 * mib, 900} {
		both(t, func(t *testing.T, change func(*policy.Config, *Options)) {
			data := random(8, size)
			o, net := newFakeOrigin(), newFakeNet()
			d := o.add(data)
			a := net.join(t, 1, o, newFakeStore(t), change)
			a.want(t, blobRef(d), nil, data)
			a.corrupt.Store(true)
			b := net.join(t, 2, o, newFakeStore(t), change)
			b.want(t, blobRef(d), nil, data)
			if a.sent.Load() == 0 {
				t.Error("the peer was not asked")
			}
		})
	}
}

// A peer that stands still, and one that dies in mid-transfer, are replaced.
func TestFailingPeer(t *testing.T) {
	for name, fault := range map[string]func(*fakeNode){
		"stalls": func(n *fakeNode) { n.stall.Store(true) },
		"dies":   func(n *fakeNode) { n.dieAt.Store(300 << 10) },
	} {
		t.Run(name, func(t *testing.T) {
			data := random(9, 6*mib)
			o, net := newFakeOrigin(), newFakeNet()
			d := o.add(data)
			fast := func(c *policy.Config, _ *Options) {
				c.Verify, c.TransferStall, c.AskTimeout = policy.VerifyMember, 300*time.Millisecond, 200*time.Millisecond
			}
			a := net.join(t, 1, o, newFakeStore(t), fast)
			a.want(t, blobRef(d), nil, data)
			fault(a)
			b := net.join(t, 2, o, newFakeStore(t), fast)
			start := time.Now()
			b.want(t, blobRef(d), nil, data)
			t.Logf("%v", time.Since(start))
		})
	}
}

func TestOriginFaults(t *testing.T) {
	data := random(10, 5*mib)
	for name, c := range map[string]struct {
		fault  func(*fakeOrigin)
		status int // 0: the pull succeeds
	}{
		"no ranges":    {func(o *fakeOrigin) { o.noRange = true }, 0},
		"no size":      {func(o *fakeOrigin) { o.noRange, o.noSize = true, true }, 0},
		"unauthorized": {func(o *fakeOrigin) { o.status = 401 }, 401},
		"forbidden":    {func(o *fakeOrigin) { o.status = 403 }, 403},
		"not found":    {func(o *fakeOrigin) { o.status = 404 }, 404},
		"failing":      {func(o *fakeOrigin) { o.status = 500 }, 500},
		"hangs":        {func(o *fakeOrigin) { o.hang = true }, 504},
		"corrupt":      {func(o *fakeOrigin) { o.corrupt = true }, 502},
	} {
		t.Run(name, func(t *testing.T) {
			o, net := newFakeOrigin(), newFakeNet()
			d := o.add(data)
			c.fault(o)
			n := net.join(t, 1, o, newFakeStore(t), func(cfg *policy.Config, _ *Options) {
				cfg.ReaderTimeout, cfg.RetryOrigin = 2*time.Second, 10*time.Millisecond
			})
			got, err := n.get(blobRef(d), nil)
			switch {
			case c.status == 0 && (err != nil || !bytes.Equal(got, data)):
				t.Errorf("%d bytes, %v", len(got), err)
			case c.status != 0 && err == nil:
				t.Error("no error")
			case c.status != 0 && statusOf(err) != c.status && statusOf(err) != 503:
				t.Errorf("%v", err)
			}
			if len(got) == len(data) && !bytes.Equal(got, data) {
				t.Error("wrong bytes were served whole")
			}
		})
	}
}

// An origin that breaks off (which its client reports once its own attempts have
// failed) may end a request, but what came is kept for the next.
func TestOriginResets(t *testing.T) {
	data := random(10, 5*mib)
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(data)
	o.set(func() { o.resets, o.resetAt = 2, mib+1000 })
	n := net.join(t, 1, o, newFakeStore(t), func(cfg *policy.Config, _ *Options) { cfg.RetryOrigin = time.Millisecond })
	for range 4 {
		got, err := n.get(blobRef(d), nil)
		if err == nil {
			if !bytes.Equal(got, data) {
				t.Fatal("wrong bytes")
			}
			break
		}
	}
	n.want(t, blobRef(d), nil, data)
	if sent := o.sent.Load(); sent > int64(len(data))+2000 {
		t.Errorf("the origin sent %d bytes of %d", sent, len(data))
	}
}

// containerd 2: parallel open-ended ranges, each hung up on after its piece.
func TestParallelRangesWithHangUps(t *testing.T) {
	data := random(11, 24*mib+5)
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(data)
	n := net.join(t, 1, o, newFakeStore(t), nil)
	const piece = 4 * mib
	var wg sync.WaitGroup
	for off := 0; off < len(data); off += piece {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			c, err := n.f.Open(ctx, blobRef(d), &Range{Start: int64(off), End: -1})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			got := make([]byte, min(piece, len(data)-off))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data[off:off+len(got)]) {
				t.Errorf("at %d: %v", off, err)
			}
		})
	}
	wg.Wait()
	if sent := o.sent.Load(); sent > int64(len(data)) {
		t.Errorf("the origin sent %d bytes of %d", sent, len(data))
	}
}

// One reader's hang-up leaves the others alone.
func TestCancelledReader(t *testing.T) {
	data := random(12, 6*mib)
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(data)
	gate := make(chan struct{})
	o.set(func() { o.gate = gate })
	n := net.join(t, 1, o, newFakeStore(t), nil)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := n.f.Open(ctx, blobRef(d), nil)
		failed <- err
	}()
	got := make(chan error, 1)
	go func() {
		data2, err := n.get(blobRef(d), nil)
		if err == nil && !bytes.Equal(data, data2) {
			err = errors.New("wrong bytes")
		}
		got <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(gate)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// A full disk: the client gets its bytes all the same, and no wrong ones.
func TestFullDisk(t *testing.T) {
	data := random(13, 6*mib+9)
	small := random(14, 3000)
	for _, limit := range []int64{1, 3 * mib} {
		for _, r := range []*Range{nil, {Start: mib + 5, End: -1}, {Start: 4 * mib, End: 5 * mib}} {
			for _, noRange := range []bool{false, true} {
				t.Run(fmt.Sprint(limit, r, noRange), func(t *testing.T) {
					o, net := newFakeOrigin(), newFakeNet()
					d, ds := o.add(data), o.add(small)
					st := newFakeStore(t)
					st.limit = limit
					o.set(func() { o.noRange = noRange })
					n := net.join(t, 1, o, st, nil)
					want := data
					if r != nil {
						off, end, _ := resolve(r, int64(len(data)))
						want = data[off:end]
					}
					n.want(t, blobRef(d), r, want)
					n.want(t, blobRef(ds), nil, small)
				})
			}
		}
	}
	t.Run("corrupt", func(t *testing.T) {
		for _, r := range []*Range{nil, {Start: 2 * mib, End: -1}} {
			o, net := newFakeOrigin(), newFakeNet()
			d := o.add(data)
			o.set(func() { o.corrupt = true })
			st := newFakeStore(t)
			st.limit = 1
			n := net.join(t, 1, o, st, nil)
			got, err := n.get(blobRef(d), r)
			off := 0
			if r != nil {
				off = int(r.Start)
			}
			if err == nil || off+len(got) >= len(data) {
				t.Errorf("%d bytes and %v", len(got), err)
			}
		}
	})
	t.Run("manifest", func(t *testing.T) {
		o, net := newFakeOrigin(), newFakeNet()
		body := []byte(`{"schemaVersion":2,"manifests":[]}`)
		d := o.addManifest("v1", "", body)
		st := newFakeStore(t)
		st.limit = 1
		n := net.join(t, 1, o, st, nil)
		n.want(t, Ref{testSource, d, true}, nil, body)
	})
}

// A node that stops in mid-pull goes on where it was.
func TestRestartResumes(t *testing.T) {
	data := random(15, 8*mib)
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(data)
	st := newFakeStore(t)
	a := net.join(t, 1, o, st, nil)
	c, err := a.f.Open(t.Context(), blobRef(d), &Range{Start: 0, End: 2 * mib})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	a.stop(t)
	before, kept := o.sent.Load(), st.written
	if kept < 2*mib {
		t.Fatalf("%d bytes were kept", kept)
	}
	b := net.join(t, 2, o, st, nil)
	b.want(t, blobRef(d), nil, data)
	if again := o.sent.Load() - before; again > int64(len(data))-kept {
		t.Errorf("%d bytes came again though %d were there", again, kept)
	}
	if s := b.f.Status(); s.Served.Store != kept {
		t.Errorf("%+v with %d bytes in the store", s.Served, kept)
	}
}

// A blob that the store drops between two requests is fetched again.
func TestEvicted(t *testing.T) {
	for _, size := range []int{500, 3 * mib} {
		for _, told := range []bool{true, false} {
			data := random(16, size)
			o, net := newFakeOrigin(), newFakeNet()
			d := o.add(data)
			n := net.join(t, 1, o, newFakeStore(t), nil)
			n.want(t, blobRef(d), nil, data)
			n.store.evict(d)
			if told {
				n.f.Evicted(d)
			}
			n.want(t, blobRef(d), nil, data)
		}
	}
}

// A stored blob that turns out wrong is fetched again if no byte of it has gone
// out, and cut off before its last byte otherwise.
func TestUncleanStop(t *testing.T) {
	for _, size := range []int{700, 3 * mib} {
		data := random(17, size)
		o, net := newFakeOrigin(), newFakeNet()
		d := o.add(data)
		n := net.join(t, 1, o, newFakeStore(t), nil)
		n.want(t, blobRef(d), nil, data)
		n.store.mu.Lock()
		n.store.proof = func(d digest.Digest) error {
			n.store.proof = nil
			n.store.evict(d)
			return mismatchError{}
		}
		n.store.mu.Unlock()
		got, err := n.get(blobRef(d), nil)
		if size < mib {
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		} else if err == nil || len(got) >= size {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		n.want(t, blobRef(d), nil, data)
	}
}

// A size that a manifest lied about is found out and not held against the next.
func TestWrongSizeHint(t *testing.T) {
	for _, lie := range []int64{100, 9 * mib} {
		data := random(18, 3*mib)
		o, net := newFakeOrigin(), newFakeNet()
		d := o.add(data)
		n := net.join(t, 1, o, newFakeStore(t), func(c *policy.Config, _ *Options) {
			c.RetryOrigin, c.Linger = time.Millisecond, time.Millisecond
		})
		n.f.hints.put(d, hint{size: lie})
		if got, err := n.get(blobRef(d), nil); err == nil && !bytes.Equal(got, data) {
			t.Errorf("wrong bytes of a blob said to have %d", lie)
		}
		deadline := time.Now().Add(10 * time.Second)
		for {
			got, err := n.get(blobRef(d), nil)
			if err == nil && bytes.Equal(got, data) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("lie %d: %d bytes, %v", lie, len(got), err)
			}
		}
	}
}
