package fetcher

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
)

// reconnect undoes disconnect.
func (n *fakeNode) reconnect(others ...*fakeNode) {
	n.cut, n.cutOff = context.WithCancel(context.Background())
	n.up.Store(true)
	for _, o := range others {
		n.f.PeerUp(o.id)
		o.f.PeerUp(n.id)
	}
}

// A node that has just started knows no peer, so that it asks nobody who may read a
// repository: the origin's answer to the request itself is to tell. When its peers
// come before that answer, their copy of a private blob must not go out, nor come
// in.
func TestPrivateBlobWhilePeersConnect(t *testing.T) {
	for name, size := range map[string]int{"large": 3 * mib, "small": 5000} {
		for _, slow := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster(t, 2, nil)
					defer c.stop()
					data := random(1, size)
					d := c.o.add(data)
					c.o.locked = true
					with, without := c.nodes[0], c.nodes[1]
					c.logins[with.id].key = true
					with.want(t, blobRef(d), nil, data)
					// The other one starts anew, and the origin is slow to it.
					without.disconnect()
					synctest.Wait()
					login := c.logins[without.id]
					login.hangs.Store(true)
					time.AfterFunc(200*time.Millisecond, func() {
						login.hangs.Store(slow)
						without.reconnect(with)
					})
					got, err := without.get(blobRef(d), nil)
					want := 503
					if !slow {
						want = 401 // the origin's own word, on the second question
					}
					if statusOf(err) != want || len(got) != 0 {
						t.Errorf("a client of a node without credentials got %d bytes of the private blob, %v", len(got), err)
					}
					without.store.mu.Lock()
					if n := len(without.store.blobs); n != 0 || without.store.written != 0 {
						t.Errorf("%d blobs and %d bytes where none should be", n, without.store.written)
					}
					without.store.mu.Unlock()
					without.cutOff()
				})
			})
		}
	}
}

// Peers that connect while a node that may read a blob waits for the origin are
// made use of once it is known that it may.
func TestPeersConnectWhileOriginIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, nil)
		defer c.stop()
		data := random(1, 3*mib)
		d := c.o.add(data)
		a, b := c.nodes[0], c.nodes[1]
		a.want(t, blobRef(d), nil, data)
		b.disconnect()
		synctest.Wait()
		c.logins[b.id].hangs.Store(true)
		time.AfterFunc(200*time.Millisecond, func() { b.reconnect(a) })
		begun := time.Now()
		b.want(t, blobRef(d), nil, data)
		if took, sent := time.Since(begun), c.o.sent.Load(); took > 5*time.Second || sent != int64(len(data)) {
			t.Errorf("took %v, and the origin sent %d bytes", took, sent)
		}
		b.cutOff()
	})
}

// A node alone asks the origin for the content itself and for nothing else, and
// goes on when the client hangs up.
func TestLoneColdPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		defer c.stop()
		n := c.nodes[0]
		data := random(1, 5*mib)
		d := c.o.add(data)
		n.f.hints.put(d, hint{size: int64(len(data))})
		ctx, hangUp := context.WithCancel(t.Context())
		content, err := n.f.Open(ctx, blobRef(d), nil)
		if err != nil {
			t.Fatal(err)
		}
		var first [1]byte
		if _, err := content.Read(first[:]); err != nil || first[0] != data[0] {
			t.Fatalf("%v", err)
		}
		content.Close()
		hangUp()
		for range 100 {
			if info, err := n.store.Stat(d); err == nil && info.Complete {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if got, err := n.get(blobRef(d), nil); err != nil || !bytes.Equal(got, data) {
			t.Error(err)
		}
		if asked, sizes, sent := c.o.asked.Load(), c.o.sizes.Load(), c.o.sent.Load(); asked != 0 || sizes != 0 || sent != int64(len(data)) {
			t.Errorf("%d questions, %d sizes, %d bytes", asked, sizes, sent)
		}
		if len(n.f.alone) != 0 {
			t.Errorf("%d readers are thought to be alone", len(n.f.alone))
		}
	})
}

// Nodes that all send credentials, or all read through mirrors, ask once for the
// cluster about what is public: the first of them finds out that it is.
func TestPublicAlthoughAllHaveCredentials(t *testing.T) {
	for name, known := range map[string]bool{"credentials": true, "mirrors": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 8, nil)
				defer c.stop()
				m := c.o.addManifest("v1", typeIndex, []byte("{}"))
				c.o.addManifest("v2", typeIndex, []byte("{}"))
				blob := c.o.add([]byte("layer"))
				for _, l := range c.logins {
					l.personal, l.known = true, known
				}
				c.wantTag(c.nodes, tagQuery(), m)
				c.asked("tag", 1)
				if tried := c.o.tried.Swap(0); tried != 1 {
					t.Errorf("%d questions on the side", tried)
				}
				c.all(c.nodes, func(n *fakeNode) error { _, err := n.get(blobRef(blob), nil); return err })
				for range 3 {
					time.Sleep(2 * time.Minute)
					c.wantTag(c.nodes, tagQuery(), m)
				}
				c.asked("later", 3)
				if tried := c.o.tried.Load(); tried > 3 {
					t.Errorf("%d questions on the side", tried)
				}
				// The first question may be about a blob.
				time.Sleep(2 * time.Hour)
				c.o.sizes.Store(0)
				c.all(c.nodes, func(n *fakeNode) error { _, err := n.get(blobRef(blob), nil); return err })
				if sizes := c.o.sizes.Load(); sizes != 1 {
					t.Errorf("%d sizes", sizes)
				}
			})
		})
	}
}

// Where credentials are needed, each node asks for itself, and is not given what
// another one was told.
func TestPrivateAlthoughAllHaveCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 4, nil)
		defer c.stop()
		m := c.o.addManifest("v1", typeIndex, []byte("{}"))
		c.o.locked = true
		for _, l := range c.logins {
			l.personal, l.known, l.key = true, true, true
		}
		without := c.nodes[0]
		c.logins[without.id].key = false
		c.wantTag(c.nodes[1:], tagQuery(), m)
		c.asked("tag", 3)
		if _, err := without.f.Resolve(t.Context(), tagQuery()); statusOf(err) != 401 {
			t.Errorf("%v", err)
		}
	})
}

// An answer that says nothing about who may read a repository leaves what is known
// of that as it is, and credentials that were not needed don't count.
func TestWitnessThatKnowsNothing(t *testing.T) {
	o := newFakeOrigin()
	l := &login{fakeOrigin: o, personal: true}
	f := New(newFakeStore(t), nil, l, newKeyring(1), policy.DefaultConfig(newKeyring(1).Self()), nil)
	src := Source{"o", "r"}
	f.witnessed(src, nil)
	if a := f.accessOf(src); a.accepted == 0 || a.public != 0 || a.private != 0 {
		t.Errorf("%+v", a)
	}
	f.learnAccess(src, func(a *access, now stamp) { a.public = now })
	l.known = true
	f.witnessed(src, nil)
	if a := f.accessOf(src); a.public == 0 || a.private != 0 {
		t.Errorf("%+v", a)
	}
	f.learnAccess(src, func(a *access, now stamp) { a.public -= stamp(time.Hour.Milliseconds()) })
	f.witnessed(src, nil)
	if a := f.accessOf(src); a.private == 0 {
		t.Errorf("%+v", a)
	}
}
