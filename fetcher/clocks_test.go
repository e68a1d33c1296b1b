package fetcher

import (
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// A node whose wall clock was years ahead, or years behind, and was then set right,
// neither takes what it kept for fresh until the clock has caught up again, nor
// the origin's permission for good.
func TestClockThatWasSet(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, by := range []time.Duration{-30 * year, -2 * time.Minute, 0, 2 * time.Minute, 10 * year} {
		t.Run(fmt.Sprint(by), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1, nil)
				data := random(1, 2*mib)
				d, m := c.o.add(data), c.o.addManifest("v1", typeIndex, []byte("{}"))
				n := c.nodes[0]
				c.wantTag(c.nodes, tagQuery(), m)
				n.want(t, blobRef(d), nil, data)
				n.stop(t)
				n.store.mu.Lock()
				for key, value := range n.store.records {
					stamps := value[:8]
					if len(key) > len(spaceAccess) && key[:len(spaceAccess)] == spaceAccess {
						stamps = value
					}
					for at := 0; at < len(stamps); at += 8 {
						if s := binary.BigEndian.Uint64(stamps[at:]); s != 0 {
							binary.BigEndian.PutUint64(stamps[at:], s+uint64(by.Milliseconds()))
						}
					}
				}
				n.store.mu.Unlock()
				delete(c.net.nodes, n.id)
				before, sizes := c.o.asked.Load(), c.o.sizes.Load()
				n = c.join(1, n.store, nil)
				n.want(t, blobRef(d), nil, data)
				// Whoever may read a blob is asked with a HEAD for it.
				if got, want := c.o.sizes.Load()-sizes, int64(min(by.Abs(), 1)); got != want {
					t.Errorf("the origin was asked %d times who may read, want %d", got, want)
				}
				c.wantTag([]*fakeNode{n}, tagQuery(), m)
				if got, want := c.o.asked.Load()-before, int64(min(by.Abs(), 1)); got != want {
					t.Errorf("the origin was asked for the tag %d times, want %d", got, want)
				}
				c.wantTag([]*fakeNode{n}, tagQuery(), m)
				if got, want := c.o.asked.Load()-before, int64(min(by.Abs(), 1)); got != want {
					t.Errorf("the origin was asked for the tag %d times after that, want %d", got, want)
				}
				n.stop(t)
			})
		})
	}
}

// An origin whose clock is years away from the nodes', and one whose clock is set
// back, are asked once a lifetime as any other.
func TestOriginsClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.stop()
		for i, date := range []time.Time{time.Unix(1, 0), time.Now().AddDate(80, 0, 0), time.Now(), time.Now().AddDate(-30, 0, 0), {}} {
			m := c.o.addManifest("v1", typeIndex, fmt.Appendf(nil, `{"schemaVersion":%d}`, i))
			c.o.set(func() { c.o.date = date })
			c.wantTag(c.nodes, tagQuery(), m)
			for range 3 {
				c.wantTag(c.nodes, tagQuery(), m)
			}
			// A node that knows a record of a later date asks for itself, once.
			if got := c.o.asked.Swap(0); got < 1 || got > int64(len(c.nodes)) {
				t.Errorf("date %v: the origin was asked %d times", date, got)
			}
			time.Sleep(2 * time.Minute)
		}
	})
}

// A record whose date is far in the future does not outlive its lifetime with a
// node that believed it.
func TestRecordFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, nil)
		defer c.stop()
		m := c.o.addManifest("v1", typeIndex, []byte("{}"))
		c.o.set(func() { c.o.date = time.Now() })
		n, q := c.nodes[0], canonical(tagQuery())
		r := aged{record: record{question: q, digest: m[:len(m)-1] + "0", size: 1, date: 1 << 40, public: true}}
		r.sign(newKeyring(9))
		n.f.keep(r)
		time.Sleep(2 * time.Minute)
		for range 5 {
			c.wantTag([]*fakeNode{n}, tagQuery(), m)
		}
		if got := c.o.asked.Load(); got > 2 {
			t.Errorf("the origin was asked %d times", got)
		}
	})
}

// What a node tells another is an age, which the other counts on from: the same
// answer is as old at a node whose wall clock says another year.
func TestAgesTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, nil)
		m := c.o.addManifest("v1", typeIndex, []byte("{}"))
		c.wantTag(c.nodes, tagQuery(), m)
		time.Sleep(40 * time.Second)
		answer, err := c.nodes[0].f.Call(t.Context(), chunkindex.NodeID{9}, canonical(tagQuery()).request())
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[0].stop(t)
		time.Sleep(20 * 365 * 24 * time.Hour)
		rs, err := decodeAged(answer)
		if err != nil || len(rs) != 1 || rs[0].age < 40*time.Second || rs[0].age > 41*time.Second {
			t.Errorf("%+v, %v", rs, err)
		}
	})
}
