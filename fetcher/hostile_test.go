package fetcher

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// What no correct peer sends is refused, and what may be ignored is ignored; the
// core hears of neither.
func TestFrames(t *testing.T) {
	ping := policy.AppendMessage(nil, &policy.Message{Kind: policy.MsgPing, Blob: digest.FromString("x"), Size: -1})
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"unknown, may be ignored", []byte{255, 0, 1, 2, 3}, nil},
		{"unknown", []byte{100, 0, 1, 2, 3}, policy.ErrMessage},
		{"no kind", []byte{0, 0}, policy.ErrMessage},
		{"nothing but a kind", []byte{byte(policy.MsgPing)}, policy.ErrMessage},
		{"unknown flags", append([]byte{ping[0], 0x80}, ping[2:]...), policy.ErrMessage},
		{"cut short", ping[:len(ping)-1], policy.ErrMessage},
		{"too long", append(ping[:len(ping):len(ping)], 0), policy.ErrMessage},
		{"about no digest", policy.AppendMessage(nil, &policy.Message{Kind: policy.MsgPing, Blob: "../../etc/passwd", Size: -1}), policy.ErrMessage},
		{"larger than any blob", policy.AppendMessage(nil, &policy.Message{Kind: policy.MsgPing, Blob: digest.FromString("x"), Size: chunkindex.MaxBlobSize + 1}), policy.ErrMessage},
		{"too many peers", policy.AppendMessage(nil, &policy.Message{Kind: policy.MsgPeers, Blob: digest.FromString("x"), Size: -1,
			Peers: make([]chunkindex.NodeID, policy.MaxPeers+1)}), policy.ErrMessage},
		{"too many sums", policy.AppendMessage(nil, &policy.Message{Kind: policy.MsgSums, Blob: digest.FromString("x"), Size: -1,
			Sums: make([]chunkindex.Sum, policy.MaxSums+1)}), policy.ErrMessage},
		{"waits for ever", policy.AppendMessage(nil, &policy.Message{Kind: policy.MsgCooldown, Blob: digest.FromString("x"), Size: -1, Wait: 1 << 62}), policy.ErrMessage},
		{"addresses, cut short", []byte{frameAddresses, 1, 2, 3}, errAddresses},
		{"addresses of too many", []byte{frameAddresses, maxAddressNodes + 1}, errAddresses},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, nil)
				if err := s.f.Frame(newKeyring(9).Self(), c.frame); !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
				synctest.Wait()
				for len(s.s.heard) > 0 {
					if ev := <-s.s.heard; ev.Kind == policy.EvMessage {
						t.Errorf("the core heard %+v", ev.Msg)
					}
				}
				s.stop(t)
			})
		})
	}
}

// A member that sends one absurd message after the other, about the blob that is
// pulled and about others, names strangers by the hundred and asks for ranges
// that are not there, takes nobody down: the pull ends as it should, and all that
// it caused is gone at the end, goroutines too.
func TestHostileMember(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				c := newCluster(t, 3, nil)
				defer c.stop()
				data := random(seed, 20*mib)
				d := c.o.add(data)
				for _, n := range c.nodes {
					n.f.hints.put(d, hint{size: int64(len(data))}) // as from a manifest
				}
				evil := c.nodes[2]
				count := 0
				frame := func() []byte {
					count++
					n := []int{0, 1, 23, 24, 25, 100, chunkindex.MaxChunks}[rng.IntN(7)]
					m := policy.Message{
						Kind: policy.MessageKind(1 + rng.IntN(int(policy.MsgFree))), Blob: d,
						Size:  []int64{-1, 0, 1, 20 * mib, 20*mib + 1, chunkindex.MaxBlobSize}[rng.IntN(6)],
						Small: rng.IntN(4) == 0, Want: rng.IntN(2) == 0, Reply: rng.IntN(2) == 0,
						Chunk: []int{0, 5, 22, 23, 24, 1 << 20}[rng.IntN(6)], N: []int{0, 1, 23, 24, 1 << 20}[rng.IntN(5)],
						Epoch:  []int{0, 1, 2, 1 << 20}[rng.IntN(4)],
						Status: []int{0, 200, 401, 404, 429, 503, 999}[rng.IntN(7)], Wait: time.Duration(rng.Int64N(int64(24 * time.Hour))),
						Bits: chunkindex.FullBitfield(n), InFlight: chunkindex.NewBitfield(n),
					}
					if n > 1 && rng.IntN(2) == 0 {
						m.Bits.Clear(rng.IntN(n))
					}
					if rng.IntN(3) == 0 {
						m.Blob = digest.FromString(fmt.Sprint("other ", rng.IntN(1000)))
					}
					for range rng.IntN(policy.MaxPeers + 1) {
						m.Peers = append(m.Peers, chunkindex.NodeID{7, byte(rng.IntN(256)), byte(rng.IntN(256))})
					}
					m.Sums = make([]chunkindex.Sum, rng.IntN(policy.MaxSums+1))
					return policy.AppendMessage(nil, &m)
				}
				said := make(chan struct{})
				go func() {
					defer close(said)
					for range 100 {
						time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
						for _, n := range c.nodes[:2] {
							for range 10 {
								if err := n.f.Frame(evil.id, frame()); err != nil {
									t.Errorf("the test sends what is no message: %v", err)
								}
							}
							off, length := rng.Int64()-rng.Int64(), rng.Int64()-rng.Int64()
							if src, err := n.f.OpenRange(t.Context(), evil.id, RangeRequest{d, off, length}); err == nil {
								src.Body.Close()
							}
						}
					}
				}()
				c.all(c.nodes[:2], func(n *fakeNode) error {
					got, err := n.get(blobRef(d), nil)
					if err == nil && digest.FromBytes(got) != d {
						err = errors.New("wrong bytes")
					}
					return err
				})
				<-said
				for i, n := range c.nodes[:2] {
					if n.f.isBanned(c.nodes[1-i].id) {
						t.Error("an honest node is banned")
					}
				}
				t.Logf("%d messages; the origin sent %.2f copies", count, float64(c.o.sent.Load())/float64(len(data)))
				time.Sleep(10 * time.Minute)
				for _, n := range c.nodes[:2] {
					if st := n.f.Status(); len(st.Blobs) != 0 {
						t.Errorf("%d blobs are left", len(st.Blobs))
					}
				}
			})
		})
	}
}

// An origin that asks to be left alone for years is, but not for so long, and the
// nodes that tell one another of it still understand each other.
func TestRetryAfterYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, nil)
		defer c.stop()
		data := random(3, 20*mib)
		d := c.o.add(data)
		c.o.set(func() { c.o.status, c.o.retry = 503, 60*365*24*time.Hour })
		c.all(c.nodes, func(n *fakeNode) error {
			if _, err := n.get(blobRef(d), nil); err == nil {
				return errors.New("it succeeded")
			}
			return nil
		})
		c.o.set(func() { c.o.status, c.o.retry = 0, 0 })
		time.Sleep(2 * time.Minute)
		c.all(c.nodes, func(n *fakeNode) error {
			_, err := n.get(blobRef(d), nil)
			return err
		})
	})
}

// What the origin asks for is told to peers, what a node's own breaker says is not:
// one that cannot reach the origin must not keep the others from it.
func TestBreakerIsNoCooldown(t *testing.T) {
	asked := throttledError{503, time.Minute}
	if got := wishOf(fmt.Errorf("wrapped: %w", asked)); got != time.Minute {
		t.Errorf("the origin's wish is %v", got)
	}
	if got := wishOf(fmt.Errorf("wrapped: %w", breakerError{asked})); got != 0 {
		t.Errorf("a breaker's pause is the origin's wish of %v", got)
	}
	if got := wishOf(throttledError{503, 60 * 365 * 24 * time.Hour}); got != maxRetry {
		t.Errorf("a wish of years is %v", got)
	}
}
