package fetcher

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// script is a core that does what the test says and shows what it hears.
type script struct {
	mu    sync.Mutex
	next  []policy.Effect
	heard chan policy.Event
}

func (s *script) Step(_ policy.Time, ev policy.Event, dst []policy.Effect) []policy.Effect {
	s.mu.Lock()
	dst = append(dst, s.next...)
	s.next = nil
	s.mu.Unlock()
	s.heard <- ev
	return dst
}

// scripted is a fetcher with a script for a core.
type scripted struct {
	*fakeNode
	s *script
	o *fakeOrigin
}

func newScripted(t *testing.T, change func(*policy.Config, *Options)) *scripted {
	s := &script{heard: make(chan policy.Event, 10000)}
	o := newFakeOrigin()
	n := newFakeNet().join(t, 1, o, newFakeStore(t), func(c *policy.Config, opts *Options) {
		opts.core = s
		if change != nil {
			change(c, opts)
		}
	})
	return &scripted{n, s, o}
}

// do has the effects carried out.
func (s *scripted) do(effects ...policy.Effect) {
	s.s.mu.Lock()
	s.s.next = append(s.s.next, effects...)
	s.s.mu.Unlock()
	s.f.post(policy.Event{})
}

// until returns the next event of a kind, and those before it.
func (s *scripted) until(kind policy.EventKind) (policy.Event, []policy.Event) {
	var before []policy.Event
	for ev := range s.s.heard {
		if ev.Kind == kind {
			return ev, before
		}
		before = append(before, ev)
	}
	return policy.Event{}, before
}

func TestOriginReadEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		data := random(1, 3*mib+10)
		d := s.o.add(data)
		s.o.set(func() { s.o.noRange = true })
		size := int64(len(data))
		s.do(policy.Effect{Kind: policy.EfOpen, Blob: d, Size: size})
		if ev, _ := s.until(policy.EvOpened); ev.Blob != d || ev.Levels != nil {
			t.Errorf("%+v", ev)
		}
		l, _ := chunkindex.LayoutFor(size)
		last := l.Count() - 1
		off, n := l.Chunk(last - 1)
		s.do(policy.Effect{Kind: policy.EfOriginRead, ID: 7, Blob: d, Chunk: last - 1, Off: off, N: n, Size: size})
		_, before := s.until(policy.EvOriginDone)
		var progress int64
		var chunks []int
		for _, ev := range before {
			switch ev.Kind {
			case policy.EvOriginHeaders:
				if ev.Ranged || ev.Size != size || ev.ID != 7 {
					t.Errorf("%+v", ev)
				}
			case policy.EvOriginProgress:
				progress += ev.N
			case policy.EvOriginChunk:
				if off, n := l.Chunk(ev.Chunk); ev.N != n || ev.Sum != sha256.Sum256(data[off:off+n]) {
					t.Errorf("chunk %d has a wrong sum", ev.Chunk)
				}
				chunks = append(chunks, ev.Chunk)
			}
		}
		if progress != size || len(chunks) != l.Count() || chunks[0] != 0 {
			t.Errorf("%d bytes, chunks %v", progress, chunks)
		}
		s.do(policy.Effect{Kind: policy.EfStore, ID: 7, Blob: d, Chunk: 0, Level: chunkindex.Fetched},
			policy.Effect{Kind: policy.EfStore, ID: 7, Blob: d, Chunk: last, Level: chunkindex.Fetched},
			policy.Effect{Kind: policy.EfDiscard, ID: 7, Blob: d, Chunk: 1})
		for _, want := range []int{0, last} {
			if ev, _ := s.until(policy.EvStored); ev.Chunk != want {
				t.Errorf("%+v", ev)
			}
		}
		// What is neither stored nor discarded goes with the blob.
		s.do(policy.Effect{Kind: policy.EfClose, Blob: d})
		synctest.Wait()
		if st := s.f.Status(); st.Wasted.Origin != 3*mib-chunkindex.HeadChunkLength || len(st.Blobs) != 0 {
			t.Errorf("%+v", st)
		}
		s.stop(t)
	})
}

// Reads wait for memory rather than take more than there is.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, func(c *policy.Config, _ *Options) { c.InFlightBytes = 2 * mib })
		data := random(2, 4*mib)
		d := s.o.add(data)
		s.do(policy.Effect{Kind: policy.EfOpen, Blob: d, Size: 4 * mib},
			policy.Effect{Kind: policy.EfOriginRead, ID: 1, Blob: d, N: 4 * mib, Size: 4 * mib})
		synctest.Wait()
		if sent := s.o.sent.Load(); sent != 2*mib {
			t.Errorf("%d bytes were read", sent)
		}
		l, _ := chunkindex.LayoutFor(4 * mib)
		for i := range l.Count() {
			s.do(policy.Effect{Kind: policy.EfStore, ID: 1, Blob: d, Chunk: i, Level: chunkindex.Fetched})
			synctest.Wait()
		}
		s.until(policy.EvOriginDone)
		s.do(policy.Effect{Kind: policy.EfProve, Blob: d})
		s.until(policy.EvProven)
		if !s.store.has(d) {
			t.Error("not in the store")
		}
		s.do(policy.Effect{Kind: policy.EfClose, Blob: d})
		synctest.Wait()
		s.stop(t)
	})
}

// A transfer that waits for memory does not look like a peer that stands still.
func TestWaitingForMemoryIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, func(c *policy.Config, _ *Options) { c.InFlightBytes = mib })
		data := random(2, 2*mib)
		d := digest.FromBytes(data)
		s.f.peers = readerOf{s.fakeNode, func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data[mib:])), 2 * mib, mib, nil}, nil
		}}
		s.do(policy.Effect{Kind: policy.EfOpen, Blob: d, Size: 2 * mib},
			policy.Effect{Kind: policy.EfTransfer, ID: 1, Blob: d, Chunk: 4, Off: mib, N: mib, Size: 2 * mib})
		s.until(policy.EvTransferDone)
		s.do(policy.Effect{Kind: policy.EfTransfer, ID: 2, Blob: d, Chunk: 4, Off: mib, N: mib, Size: 2 * mib})
		time.Sleep(10 * s.f.cfg.TransferStall)
		s.do(policy.Effect{Kind: policy.EfDiscard, ID: 1, Blob: d, Chunk: 4})
		ev, before := s.until(policy.EvTransferDone)
		alive := 0
		for _, ev := range before {
			if ev.Kind == policy.EvTransferProgress && ev.N == 0 {
				alive++
			}
		}
		if ev.ID != 2 || alive < 30 {
			t.Errorf("%+v after %d signs of life", ev.Kind, alive)
		}
		s.do(policy.Effect{Kind: policy.EfDiscard, ID: 2, Blob: d, Chunk: 4}, policy.Effect{Kind: policy.EfClose, Blob: d})
		synctest.Wait()
		s.stop(t)
	})
}

// A transfer that brings little is none that brings nothing: the core hears of it before
// it takes it for one that stands still.
func TestSlowTransferIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		data := random(2, 2*mib)
		d := digest.FromBytes(data)
		const step = 50_000
		pause := s.f.cfg.TransferStall / 2
		s.f.peers = readerOf{s.fakeNode, func(context.Context) (*PeerBody, error) {
			r, w := io.Pipe()
			go func() {
				for rest := data[mib:]; len(rest) > 0; rest = rest[min(len(rest), step):] {
					time.Sleep(pause)
					_, _ = w.Write(rest[:min(len(rest), step)])
				}
				_ = w.Close()
			}()
			return &PeerBody{r, 2 * mib, mib, nil}, nil
		}}
		last, sum := time.Now(), int64(0)
		s.do(policy.Effect{Kind: policy.EfTransfer, ID: 1, Blob: d, Chunk: 4, Off: mib, N: mib, Size: 2 * mib})
		for done := false; !done; {
			ev := <-s.s.heard
			switch ev.Kind {
			case policy.EvTransferFailed:
				t.Fatalf("%+v", ev)
			case policy.EvTransferDone:
				done = true
				fallthrough
			case policy.EvTransferProgress:
				if silent := time.Since(last); silent >= s.f.cfg.TransferStall {
					t.Errorf("nothing was heard for %v, after %d bytes", silent, sum)
				}
				last = time.Now()
			}
			if ev.Kind == policy.EvTransferProgress {
				sum += ev.N
			}
		}
		if sum > mib || sum < mib-step {
			t.Errorf("%d bytes were told of", sum)
		}
		s.do(policy.Effect{Kind: policy.EfDiscard, ID: 1, Blob: d, Chunk: 4})
		synctest.Wait()
		s.stop(t)
	})
}

func TestEffectsEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		d := s.o.add(random(3, 2*mib))
		s.o.set(func() { s.o.hang = true })
		s.do(policy.Effect{Kind: policy.EfOpen, Blob: d, Size: 2 * mib},
			policy.Effect{Kind: policy.EfOriginRead, ID: 1, Blob: d, N: mib, Size: 2 * mib},
			policy.Effect{Kind: policy.EfOriginSize, ID: 2, Blob: d},
			policy.Effect{Kind: policy.EfTransfer, ID: 3, Blob: d, Peer: newKeyring(9).Self(), Chunk: 4, Off: mib, N: mib, Size: 2 * mib})
		if ev, _ := s.until(policy.EvTransferFailed); ev.ID != 3 || ev.Fault != policy.FaultBroken {
			t.Errorf("%+v", ev)
		}
		s.do(policy.Effect{Kind: policy.EfCancelOrigin, ID: 1}, policy.Effect{Kind: policy.EfCancelOrigin, ID: 2},
			policy.Effect{Kind: policy.EfCancelOrigin, ID: 1}, policy.Effect{Kind: policy.EfCancelTransfer, ID: 3})
		ends := map[policy.ID]int{}
		for range 2 {
			ev, _ := s.until(policy.EvOriginFailed)
			if ev.Status != statusCancelled {
				t.Errorf("%+v", ev)
			}
			ends[ev.ID]++
		}
		synctest.Wait()
		s.do(policy.Effect{Kind: policy.EfTimer, At: s.f.now().Add(time.Hour)})
		s.do(policy.Effect{Kind: policy.EfTimer, At: s.f.now().Add(time.Minute)})
		start := time.Now()
		_, before := s.until(policy.EvTimer)
		if since := time.Since(start); since != time.Minute {
			t.Errorf("the timer came after %v", since)
		}
		for _, ev := range before {
			if ev.ID != 0 {
				t.Errorf("after its end: %+v", ev)
			}
		}
		if len(ends) != 2 {
			t.Errorf("%v", ends)
		}
		s.do(policy.Effect{Kind: policy.EfClose, Blob: d})
		synctest.Wait()
		s.stop(t)
	})
}

// Faults of a transfer, as the core hears of them.
func TestTransferFaults(t *testing.T) {
	data := random(4, 2*mib+5)
	small := random(5, 100)
	d, ds := digest.FromBytes(data), digest.FromBytes(small)
	for name, c := range map[string]struct {
		body  func(ctx context.Context) (*PeerBody, error)
		small bool
		want  policy.Fault // 0: done
	}{
		"right": {func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data[mib : 2*mib])), int64(len(data)), mib, nil}, nil
		}, false, 0},
		"absent": {func(context.Context) (*PeerBody, error) { return nil, errAbsent }, false, policy.FaultGone},
		"busy":   {func(context.Context) (*PeerBody, error) { return nil, BusyError{} }, false, policy.FaultBusy},
		"size": {func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data)), 7 * mib, mib, nil}, nil
		}, false, policy.FaultBroken},
		"length": {func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data)), int64(len(data)), 3, nil}, nil
		}, false, policy.FaultBroken},
		"short": {func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data[:1000])), int64(len(data)), mib, nil}, nil
		}, false, policy.FaultBroken},
		"silent": {func(ctx context.Context) (*PeerBody, error) { <-ctx.Done(); return nil, ctx.Err() }, false, policy.FaultStalled},
		"stalls": {func(ctx context.Context) (*PeerBody, error) {
			r, w := io.Pipe()
			go w.Write(data[:1000])
			return &PeerBody{r, int64(len(data)), mib, nil}, nil
		}, false, policy.FaultStalled},
		"small": {func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(small)), 100, 100, nil}, nil
		}, true, 0},
		"small and wrong": {func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data[:100])), 100, 100, nil}, nil
		}, true, policy.FaultCorrupt},
		"too large": {func(context.Context) (*PeerBody, error) {
			return &PeerBody{io.NopCloser(bytes.NewReader(data)), maxSmall + 1, maxSmall + 1, nil}, nil
		}, true, policy.FaultBroken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScripted(t, nil)
				s.f.peers = readerOf{s.fakeNode, c.body}
				e := policy.Effect{Kind: policy.EfTransfer, ID: 3, Blob: d, Chunk: 4, Off: mib, N: mib, Size: int64(len(data))}
				if c.small {
					e.Blob, e.Chunk, e.Off, e.N, e.Size, e.Small = ds, 0, 0, -1, 100, true
				}
				start := time.Now()
				s.do(e)
				for {
					ev := <-s.s.heard
					if ev.Kind == policy.EvTransferDone && c.want == 0 {
						if ev.Sum != sha256.Sum256(data[mib:2*mib]) && ev.Sum != sha256.Sum256(small) {
							t.Error("wrong sum")
						}
						break
					}
					if ev.Kind == policy.EvTransferFailed || ev.Kind == policy.EvTransferDone {
						if ev.Fault != c.want {
							t.Errorf("%+v", ev)
						}
						break
					}
				}
				if c.want == policy.FaultStalled && time.Since(start) != s.f.cfg.TransferStall {
					t.Errorf("after %v", time.Since(start))
				}
				synctest.Wait()
				s.stop(t)
			})
		})
	}
}

var errAbsent = absentError{}

type absentError struct{}

func (absentError) Error() string        { return "absent" }
func (absentError) Is(target error) bool { return target.Error() == "file does not exist" }

// readerOf is a Peers whose Read the test gives.
type readerOf struct {
	*fakeNode
	read func(context.Context) (*PeerBody, error)
}

func (r readerOf) Read(ctx context.Context, _ chunkindex.NodeID, _ digest.Digest, _, _ int64) (*PeerBody, error) {
	return r.read(ctx)
}

func TestClaimsAreChecked(t *testing.T) {
	data := random(6, 2*mib)
	d := digest.FromBytes(data)
	l, _ := chunkindex.LayoutFor(2 * mib)
	sum := chunkindex.Sum(sha256.Sum256(data[:chunkindex.HeadChunkLength]))
	good := newKeyring(1).Sign(d, l, 0, sum)
	other := newKeyring(2).Sign(d, l, 1, sum)
	forged := good
	forged.Signer = newKeyring(3).Self()
	got := validClaims(&policy.Effect{Blob: d, Size: 2 * mib, Chunk: 0}, []chunkindex.Claim{other, forged, good, good})
	if len(got) != 1 || got[0] != good {
		t.Errorf("%d claims", len(got))
	}
}

// A reader whom nobody serves is told so in time, whatever the core does.
func TestReaderTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		s.o.add([]byte("x"))
		start := time.Now()
		_, err := s.f.Open(t.Context(), blobRef(digest.FromString("x")), nil)
		if statusOf(err) != 504 || time.Since(start) > 32*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if ev, _ := s.until(policy.EvCancel); ev.Reader == 0 {
			t.Errorf("%+v", ev)
		}
		// Stopping fails those who wait.
		failed := make(chan error)
		go func() {
			_, err := s.f.Open(t.Context(), blobRef(digest.FromString("x")), nil)
			failed <- err
		}()
		synctest.Wait()
		s.do(policy.Effect{Kind: policy.EfClose, Blob: digest.FromString("x")})
		go s.stop(t)
		if err := <-failed; !errors.Is(err, errClosed) {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		if _, err := s.f.Open(t.Context(), blobRef(digest.FromString("x")), nil); !errors.Is(err, errClosed) {
			t.Errorf("%v", err)
		}
	})
}

// The core never hears again of a reader that it ended.
func TestEndedReaderIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		failed := make(chan error)
		d := digest.FromString("x")
		go func() {
			_, err := s.f.Open(t.Context(), blobRef(d), nil)
			failed <- err
		}()
		ev, _ := s.until(policy.EvRead)
		s.do(policy.Effect{Kind: policy.EfFail, Reader: ev.Reader, Blob: d, Status: 404, Reason: policy.ReasonOrigin},
			policy.Effect{Kind: policy.EfClose, Blob: d})
		if err := <-failed; statusOf(err) != 404 {
			t.Errorf("%v", err)
		}
		synctest.Wait()
		for len(s.s.heard) > 0 {
			if ev := <-s.s.heard; ev.Kind == policy.EvCancel || ev.Kind == policy.EvConsumed {
				t.Errorf("%+v", ev)
			}
		}
		s.stop(t)
	})
}

func TestSourcesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		d := digest.FromString("x")
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			go s.f.Open(ctx, blobRef(d), nil)
			if ev, _ := s.until(policy.EvRead); ev.Source == 0 {
				t.Error("no source")
			}
			cancel()
			s.until(policy.EvCancel)
			s.do(policy.Effect{Kind: policy.EfClose, Blob: d})
			synctest.Wait()
		}
		done := make(chan struct{})
		s.f.queue.put(item{do: func() {
			if len(s.f.sources)+len(s.f.numbers)+len(s.f.blobs)+len(s.f.readers)+len(s.f.ops) != 0 {
				t.Error("something was kept")
			}
			close(done)
		}})
		<-done
		s.stop(t)
	})
}

// A peer that floods this node with messages is started afresh.
func TestMessageFlood(t *testing.T) {
	q := newQueue()
	id := newKeyring(5).Self()
	for i := range maxFrames + 10 {
		if ok := q.putMessage(id, policy.Message{Kind: policy.MsgPing}); ok != (i < maxFrames) {
			t.Fatalf("message %d: %v", i, ok)
		}
	}
	items := q.take(nil)
	if len(items) != maxFrames+2 || items[maxFrames].ev.Kind != policy.EvPeerDown || items[maxFrames+1].ev.Kind != policy.EvPeerUp {
		t.Errorf("%d items", len(items))
	}
	if !q.putMessage(id, policy.Message{}) {
		t.Error("refused afterwards")
	}
}

// readerFrom shows what a writer with ReadFrom is handed.
type readerFrom struct {
	bytes.Buffer
	sections []io.Reader
}

func (w *readerFrom) ReadFrom(r io.Reader) (int64, error) {
	w.sections = append(w.sections, r)
	return w.Buffer.ReadFrom(r)
}

// net.TCPConn uses sendfile for an *io.LimitedReader over an *os.File.
func TestFilesReachTheWriter(t *testing.T) {
	data := random(7, 3*mib)
	o, net := newFakeOrigin(), newFakeNet()
	d := o.add(data)
	n := net.join(t, 1, o, newFakeStore(t), nil)
	for _, when := range []string{"shared", "stored"} {
		c, err := n.f.Open(t.Context(), blobRef(d), nil)
		if err != nil {
			t.Fatal(err)
		}
		w := &readerFrom{}
		if m, err := c.WriteTo(w); err != nil || m != int64(len(data)) || !bytes.Equal(w.Bytes(), data) {
			t.Errorf("%s: %d, %v", when, m, err)
		}
		if len(w.sections) == 0 {
			t.Error("ReadFrom was not used")
		}
		for _, s := range w.sections {
			l, ok := s.(*io.LimitedReader)
			if !ok {
				t.Fatalf("%T", s)
			}
			if _, ok := l.R.(interface{ Fd() uintptr }); !ok {
				t.Errorf("%T", l.R)
			}
		}
		c.Close()
	}
}

func TestOpenRange(t *testing.T) {
	data := random(8, 3*mib+9)
	small := random(9, 400)
	o, net := newFakeOrigin(), newFakeNet()
	d, ds := o.add(data), o.add(small)
	n := net.join(t, 1, o, newFakeStore(t), func(_ *policy.Config, opts *Options) { opts.Uploads = 2 })
	n.want(t, blobRef(d), nil, data)
	n.want(t, blobRef(ds), nil, small)
	asker := newKeyring(2).Self()
	l, _ := chunkindex.LayoutFor(int64(len(data)))
	const head = chunkindex.HeadChunkLength
	for _, c := range []struct {
		req  RangeRequest
		want []byte
		err  error
	}{
		{RangeRequest{d, mib, mib}, data[mib : 2*mib], nil},
		{RangeRequest{d, 0, head}, data[:head], nil},
		{RangeRequest{d, head + 5, head}, data[head+5 : 2*head+5], nil},
		{RangeRequest{d, 3 * mib, 9}, data[3*mib:], nil},
		{RangeRequest{d, mib + 5, 10}, data[mib+5 : mib+15], nil},
		{RangeRequest{d, mib - 5, 10}, data[mib-5 : mib+5], nil},
		{RangeRequest{d, 0, -1}, data, nil},
		{RangeRequest{ds, 0, -1}, small, nil},
		{RangeRequest{d, 0, head + 1}, nil, ErrRange},
		{RangeRequest{d, mib - 1, mib}, nil, ErrRange},
		{RangeRequest{d, mib, mib + 1}, nil, ErrRange},
		{RangeRequest{d, 3*mib + 9, 1}, nil, ErrRange},
		{RangeRequest{d, 3 * mib, 10}, nil, ErrRange},
		{RangeRequest{d, -1, 10}, nil, ErrRange},
		{RangeRequest{d, 1 << 62, 1}, nil, ErrRange},
		{RangeRequest{d, 5, -1}, nil, ErrRange},
		{RangeRequest{digest.FromString("no"), 0, 1}, nil, errNotHere},
	} {
		src, err := n.f.OpenRange(t.Context(), asker, c.req)
		if c.err != nil {
			if c.err == errNotHere && !absent(err) || c.err == ErrRange && !errors.Is(err, ErrRange) {
				t.Errorf("%+v: %v", c.req, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c.req, err)
			continue
		}
		got, err := io.ReadAll(src.Body)
		if err != nil || !bytes.Equal(got, c.want) || src.Length != int64(len(c.want)) {
			t.Errorf("%+v: %d bytes, %v", c.req, len(got), err)
		}
		src.Body.Close()
		src.Body.Close()
		if c.req.Digest == d && c.req.Length == mib {
			if len(src.Claims) != 1 || src.Claims[0].Verify(d, l, l.At(mib)) != nil {
				t.Errorf("claims %v", src.Claims)
			}
		}
	}
	var open []*RangeSource
	for range 2 {
		src, err := n.f.OpenRange(t.Context(), asker, RangeRequest{d, 0, 10})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, src)
	}
	var busy interface{ Busy() bool }
	if _, err := n.f.OpenRange(t.Context(), asker, RangeRequest{d, 0, 10}); !errors.As(err, &busy) || !busy.Busy() {
		t.Errorf("%v", err)
	}
	for _, src := range open {
		src.Body.Close()
	}
}

var errNotHere = errors.New("not here")

// Only what is known to be right is served of a blob that is being fetched.
func TestServePartial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		data := random(10, 4*mib)
		d := s.o.add(data)
		l, _ := chunkindex.LayoutFor(4 * mib)
		asker := newKeyring(2)
		bytesOf := func(i int) []byte { off, n := l.Chunk(i); return data[off : off+n] }
		claim := asker.Sign(d, l, 4, sha256.Sum256(bytesOf(4)))
		s.do(policy.Effect{Kind: policy.EfOpen, Blob: d, Size: 4 * mib},
			policy.Effect{Kind: policy.EfOriginRead, ID: 1, Blob: d, N: 3 * mib, Size: 4 * mib})
		s.until(policy.EvOriginDone)
		s.do(policy.Effect{Kind: policy.EfStore, ID: 1, Blob: d, Chunk: 0, Level: chunkindex.Fetched},
			policy.Effect{Kind: policy.EfStore, ID: 1, Blob: d, Chunk: 4, Level: chunkindex.Attested, Claim: &claim},
			policy.Effect{Kind: policy.EfStore, ID: 1, Blob: d, Chunk: 5, Level: chunkindex.Received})
		synctest.Wait()
		for i, signer := range []*keyring{0: ptr(newKeyring(1)), 4: &asker, 6: nil} {
			off, n := l.Chunk(i)
			src, err := s.f.OpenRange(t.Context(), asker.Self(), RangeRequest{d, off, n})
			if signer == nil {
				if !absent(err) {
					t.Errorf("chunk %d: %v", i, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("chunk %d: %v", i, err)
			}
			if got, _ := io.ReadAll(src.Body); !bytes.Equal(got, bytesOf(i)) {
				t.Errorf("chunk %d: wrong bytes", i)
			}
			if len(src.Claims) != 1 || src.Claims[0].Signer != signer.Self() || src.Claims[0].Verify(d, l, i) != nil {
				t.Errorf("chunk %d: claims %v", i, src.Claims)
			}
			src.Body.Close()
		}
		s.do(policy.Effect{Kind: policy.EfRaise, Blob: d, Chunk: 5, Level: chunkindex.Agreed},
			policy.Effect{Kind: policy.EfDrop, Blob: d, Chunk: 0})
		synctest.Wait()
		for i, ok := range []bool{4: true, 5: true, 6: false} {
			off, n := l.Chunk(i)
			src, err := s.f.OpenRange(t.Context(), asker.Self(), RangeRequest{d, off, n})
			if (err == nil) != ok {
				t.Errorf("chunk %d: %v", i, err)
			}
			if err == nil {
				src.Body.Close()
			}
		}
		if st := s.f.Status(); len(st.Blobs) != 1 || st.Blobs[0].Levels["agreed"] != 1 || st.Blobs[0].Levels["absent"] != 5 {
			t.Errorf("%+v", st)
		}
		s.do(policy.Effect{Kind: policy.EfClose, Blob: d})
		synctest.Wait()
		s.stop(t)
	})
}

func ptr[T any](v T) *T { return &v }

// A disk that fails while the blob is proven is neither a proof nor a refutation.
func TestProofFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(t, nil)
		data := random(11, 2*mib)
		d := s.o.add(data)
		s.store.finish = func() error { return errors.New("input/output error") }
		s.do(policy.Effect{Kind: policy.EfOpen, Blob: d, Size: 2 * mib},
			policy.Effect{Kind: policy.EfOriginRead, ID: 1, Blob: d, N: 2 * mib, Size: 2 * mib})
		s.until(policy.EvOriginDone)
		l, _ := chunkindex.LayoutFor(2 * mib)
		for i := range l.Count() {
			s.do(policy.Effect{Kind: policy.EfStore, ID: 1, Blob: d, Chunk: i, Level: chunkindex.Fetched})
		}
		s.do(policy.Effect{Kind: policy.EfProve, Blob: d})
		_, before := s.until(policy.EvStoreFailed)
		for _, ev := range before {
			if ev.Kind == policy.EvProven || ev.Kind == policy.EvRefuted {
				t.Errorf("%+v", ev)
			}
		}
		s.do(policy.Effect{Kind: policy.EfClose, Blob: d})
		synctest.Wait()
		s.stop(t)
	})
}
