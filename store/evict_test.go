package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/peercache/peercache/chunkindex"
)

// meter is a disk of 256 MiB, most of which others occupy, that knows what the
// store has put on it.
type meter struct {
	osDisk
	dir    string
	others int64
}

const meterTotal = 256 << 20

func (m *meter) Space(string) (free, total int64, err error) {
	var used int64
	for _, sub := range []string{"blobs", "partial"} {
		_ = filepath.WalkDir(filepath.Join(m.dir, sub), func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				if info, err := d.Info(); err == nil {
					used += diskUsage(info)
				}
			}
			return nil
		})
	}
	return meterTotal - m.others - used, meterTotal, nil
}

// clock is moved by hand.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func openMeter(t interface{ Fatal(...any) }, dir string, o Options) (*Store, *meter, *clock) {
	m := &meter{dir: dir}
	c := &clock{time.Unix(1_700_000_000, 0)}
	o.disk, o.now = m, c.Now
	s, err := Open(dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	return s, m, c
}

// TestEvictionOrder fills a budget with blobs of every sort, each used a second
// after the one before, and then takes all of it: who goes first is the contract.
func TestEvictionOrder(t *testing.T) {
	var order []string
	names := map[digest.Digest]string{}
	s, _, c := openMeter(t, t.TempDir(), Options{
		MaxBytes: 4 * mib,
		OnEvict:  func(d digest.Digest) { order = append(order, names[d]) },
	})
	defer s.Close()
	for i, b := range []struct {
		name    string
		kind    Kind
		copies  int
		pinned  bool
		partial bool
		age     time.Duration
	}{
		{name: "manifest", kind: KindManifest, age: 300 * 24 * time.Hour},
		{name: "config", kind: KindConfig, age: 200 * 24 * time.Hour, copies: 5},
		{name: "pinned", pinned: true, age: 400 * 24 * time.Hour},
		{name: "sole, ancient", age: 100 * 24 * time.Hour},
		{name: "sole, old", age: 3 * 24 * time.Hour},
		{name: "partial, old", age: 3*24*time.Hour - time.Second, partial: true},
		{name: "held, old", copies: 2, age: 3 * 24 * time.Hour},
		{name: "held, new", copies: 3, age: time.Hour},
		{name: "one other, new", copies: 1, age: time.Hour},
	} {
		x := newContent(digest.SHA256, 400<<10, byte(10+i))
		names[x.digest] = b.name
		now := c.now
		c.now = now.Add(-b.age)
		if b.partial {
			p, err := s.Partial(x.digest, x.layout, b.kind)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(p.WriteChunk(0, fullBuffer(x.data), chunkindex.Fetched, nil), p.Close()); err != nil {
				t.Fatal(err)
			}
		} else if err := s.Put(context.Background(), x.digest, b.kind, x.data); err != nil {
			t.Fatal(err)
		}
		c.now = now
		s.SetCopies(x.digest, b.copies)
		if err := s.Pin(x.digest, b.pinned); err != nil {
			t.Fatal(err)
		}
	}
	big := newContent(digest.SHA256, int(4*mib-400<<10), 99)
	if err := s.Put(context.Background(), big.digest, KindLayer, big.data); err != nil {
		t.Fatal(err)
	}
	want := []string{"sole, ancient", "held, old", "held, new", "sole, old", "partial, old", "one other, new", "manifest", "config"}
	if fmt.Sprint(order) != fmt.Sprint(want) {
		t.Errorf("evicted in the order\n\t%q, want\n\t%q", order, want)
	}
}

// TestBudget does random things to a small store on a small disk, and checks after
// each that the books are right, that both bounds hold, that what is pinned or in
// use stays, that a refused write evicted nothing, and that nothing was evicted
// before something that should have gone first.
func TestBudget(t *testing.T) {
	t.Parallel()
	// The interesting states take some steps to get to.
	if err := flag.Set("rapid.steps", "100"); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "budget")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		evicted := map[digest.Digest]bool{}
		var s *Store
		opts := Options{MaxBytes: 3 * mib, MinFreeFraction: 0.25, OnEvict: func(d digest.Digest) { evicted[d] = true }}
		s, m, c := openMeter(t, dir, opts)
		defer func() { s.Close() }()
		var blobs []*Blob
		var partials []*Partial
		defer func() {
			for _, b := range blobs {
				b.Close()
			}
			for _, p := range partials {
				p.Close()
			}
		}()
		var all []content
		for i := range byte(12) {
			all = append(all, newContent(digest.SHA256, 100_000*(1+int(i)), 100+i))
		}
		pick := rapid.SampledFrom(all)

		// before is the state that the next action finds.
		before := map[digest.Digest]entry{}
		look := func() {
			clear(before)
			clear(evicted)
			for d, e := range s.entries {
				before[d] = *e
			}
		}
		check := func(err error) {
			t.Helper()
			var sum int64
			for d, e := range s.entries {
				sum += e.bytes
				if e.complete && e.bytes != e.size {
					t.Fatalf("%s counts %d of %d bytes", d, e.bytes, e.size)
				}
			}
			if sum != s.used || s.inflight != 0 || len(s.claims) != 0 {
				t.Fatalf("used %d, blobs come to %d, in flight %d, claims %d", s.used, sum, s.inflight, len(s.claims))
			}
			var usedBefore int64
			for _, e := range before {
				usedBefore += e.bytes
			}
			if free, _, _ := m.Space(""); s.used > usedBefore && free < meterTotal/4-64<<10 { // files take whole blocks
				t.Fatalf("wrote, and %d bytes are left free", free)
			}
			if s.used > s.opts.MaxBytes {
				t.Fatalf("%d bytes of %d", s.used, s.opts.MaxBytes)
			}
			if err != nil && !errors.Is(err, ErrNoSpace) && !errors.Is(err, ErrBusy) && !errors.Is(err, os.ErrExist) && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			for d := range evicted {
				e := before[d]
				if e.pinned || e.users > 0 || e.owner != nil {
					t.Fatalf("evicted %+v", e)
				}
				for other, o := range before {
					_, gone := evicted[other]
					// Whoever was touched by the action itself is out of the comparison.
					now, here := s.entries[other]
					if here && !gone && o.bytes > 0 && !o.pinned && o.users == 0 && o.owner == nil &&
						now.lastUsed.Equal(o.lastUsed) && now.owner == nil && s.before(&o, &e) < 0 {
						t.Fatalf("evicted %+v before %+v", e, o)
					}
				}
			}
			if errors.Is(err, ErrNoSpace) && len(evicted) > 0 {
				t.Fatalf("refused, and evicted %d all the same", len(evicted))
			}
		}
		put := func(t *rapid.T) {
			x := pick.Draw(t, "blob")
			kind := rapid.SampledFrom([]Kind{KindLayer, KindLayer, KindConfig, KindManifest}).Draw(t, "kind")
			look()
			check(s.Put(context.Background(), x.digest, kind, x.data))
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": put, "put, again": put, "put, a third time": put, // the rest needs something to work on
			"open": func(t *rapid.T) {
				look()
				b, err := s.Open(pick.Draw(t, "blob").digest)
				if err == nil {
					blobs = append(blobs, b)
				}
				check(err)
			},
			"close a blob": func(t *rapid.T) {
				if len(blobs) > 0 {
					look()
					check(blobs[0].Close())
					blobs = blobs[1:]
				}
			},
			"partial": func(t *rapid.T) {
				x := pick.Draw(t, "blob")
				look()
				p, err := s.Partial(x.digest, x.layout, KindLayer)
				if err == nil {
					partials = append(partials, p)
				}
				check(err)
			},
			"write": func(t *rapid.T) {
				if len(partials) > 0 {
					p := rapid.SampledFrom(partials).Draw(t, "partial")
					i := rapid.IntRange(0, p.layout.Count()-1).Draw(t, "chunk")
					for _, x := range all {
						if x.digest == p.e.digest {
							look()
							check(p.WriteChunk(i, fullBuffer(x.chunk(i)), chunkindex.Fetched, nil))
						}
					}
				}
			},
			"drop": func(t *rapid.T) {
				if len(partials) > 0 {
					look()
					check(partials[0].Drop(0))
				}
			},
			"end a partial": func(t *rapid.T) {
				if len(partials) == 0 {
					return
				}
				p := partials[0]
				partials = partials[1:]
				look()
				err := p.Complete(context.Background())
				if errors.Is(err, ErrIncomplete) {
					if rapid.Bool().Draw(t, "discard") {
						err = p.Discard()
					} else {
						err = p.Close()
					}
				}
				check(err)
			},
			"pin": func(t *rapid.T) {
				look()
				check(s.Pin(pick.Draw(t, "blob").digest, rapid.Bool().Draw(t, "pinned")))
			},
			"copies": func(t *rapid.T) { s.SetCopies(pick.Draw(t, "blob").digest, rapid.IntRange(0, 3).Draw(t, "n")) },
			"delete": func(t *rapid.T) {
				look()
				check(s.Delete(pick.Draw(t, "blob").digest))
			},
			"time": func(t *rapid.T) {
				c.now = c.now.Add(time.Duration(rapid.IntRange(1, 10*24*3600).Draw(t, "s")) * time.Second)
			},
			"others": func(t *rapid.T) {
				// Around the floor, which is a quarter of the disk.
				m.others = meterTotal - meterTotal/4 - rapid.Int64Range(-mib, 6*mib).Draw(t, "bytes above the floor")
				look()
				s.upkeep()
				check(nil)
				left, err := s.shortfall(0)
				if err != nil {
					t.Fatal(err)
				}
				for d, e := range s.entries {
					if left > 0 && e.bytes > 0 && s.evictable(e) {
						t.Fatalf("%d bytes short, and %s stays", left, d)
					}
				}
			},
			"restart": func(t *rapid.T) {
				if len(blobs)+len(partials) > 0 {
					return
				}
				look()
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				o := s.opts
				next, err := Open(dir, &o)
				if err != nil {
					t.Fatal(err)
				}
				s = next
				if len(s.entries) != len(before) {
					t.Fatalf("%d blobs after a restart, %d before", len(s.entries), len(before))
				}
				for d, e := range before {
					n := s.entries[d]
					if n == nil || n.bytes != e.bytes || n.have != e.have || n.pinned != e.pinned || n.copies != e.copies || !n.lastUsed.Equal(e.lastUsed) {
						t.Fatalf("%+v became %+v", e, n)
					}
				}
				check(nil)
			},
		})
	})
}

// TestTooLarge asks for a blob that can never fit. Evicting for it would empty the
// store in vain.
func TestTooLarge(t *testing.T) {
	s, _, _ := openMeter(t, t.TempDir(), Options{MaxBytes: 2 * mib})
	defer s.Close()
	if err := s.Put(context.Background(), small.digest, KindLayer, small.data); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Partial(unended.digest, unended.layout, KindLayer); !errors.Is(err, ErrNoSpace) {
		t.Errorf("error is %v", err)
	}
	if _, err := s.Stat(small.digest); err != nil {
		t.Errorf("evicted in vain: %v", err)
	}
	if _, err := s.Stat(unended.digest); err == nil {
		t.Error("the refused blob left a trace")
	}
}

// TestRefusalEvictsNothing writes a chunk that would not fit even if everything
// else went. What is there must not be evicted in vain.
func TestRefusalEvictsNothing(t *testing.T) {
	s, m, _ := openMeter(t, t.TempDir(), Options{MaxBytes: 100 * mib})
	defer s.Close()
	if err := s.Put(context.Background(), small.digest, KindLayer, small.data); err != nil {
		t.Fatal(err)
	}
	p, err := s.Partial(unended.digest, unended.layout, KindLayer)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	m.others = meterTotal - s.floor
	if err := p.WriteChunk(0, fullBuffer(unended.chunk(0)), chunkindex.Fetched, nil); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("error is %v", err)
	}
	if _, err := s.Stat(small.digest); err != nil {
		t.Errorf("evicted in vain: %v", err)
	}
	m.others = 0
	if err := p.WriteChunk(0, fullBuffer(unended.chunk(0)), chunkindex.Fetched, nil); err != nil {
		t.Fatal(err)
	}
}
