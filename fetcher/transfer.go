package fetcher

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

const (
	// progressBytes is how many bytes pass between two progress events.
	progressBytes = 256 << 10
	// maxClaims bounds the signatures that are checked for one chunk.
	maxClaims = 16
)

var (
	errSize    = errors.New("fetcher: the peer's blob has another size")
	errLength  = errors.New("fetcher: the peer sends another number of bytes than it was asked for")
	errTooLong = errors.New("fetcher: larger than what travels whole")
	errLocal   = errors.New("fetcher: no memory")
)

// meter reads a body at the rate that it has a share of, counts what comes, and
// reports it in steps.
type meter struct {
	r      io.Reader
	total  int64
	unsaid int64
	from   from
	count  *metrics
	tally  func(int64) // counts for the blob and the peer, nil for nobody
	alive  func()      // called for each read that brings bytes
	report func(int64) // called for each progressBytes, and where they take long

	// Steps are also cut by time, once every: where little comes it is not nothing.
	every time.Duration
	said  time.Time
	// Where the rate is bounded, report is also called with 0 while a share is waited
	// for, since nobody else is slow; pause is what undoes alive meanwhile.
	share *share
	pause func()
}

// limit bounds the rate of m, where l has one. done must be called after the last Read.
func (f *Fetcher) limit(ctx context.Context, m *meter, l *limiter) (done func()) {
	m.share = l.share(ctx, chunkindex.NodeID{})
	m.every = max(f.cfg.TransferStall/4, time.Millisecond)
	m.said = time.Now()
	return m.share.close
}

func (m *meter) Read(p []byte) (int, error) {
	if m.share != nil && len(p) > 0 {
		paused := false
		got, err := m.share.takeTelling(len(p), m.every, func() {
			if m.pause != nil {
				m.pause()
				paused = true
			}
			m.tell()
		})
		if err != nil {
			return 0, err
		}
		if paused {
			m.alive()
		}
		p = p[:got]
	}
	n, err := m.r.Read(p)
	m.share.giveBack(len(p) - n)
	if n > 0 {
		m.total += int64(n)
		m.unsaid += int64(n)
		m.count.received(m.from, int64(n))
		if m.tally != nil {
			m.tally(int64(n))
		}
		if m.alive != nil {
			m.alive()
		}
		if m.unsaid >= progressBytes {
			m.flush()
		} else {
			m.tell()
		}
	}
	return n, err
}

// tell reports what has come, be it nothing, where that was not done for a while.
func (m *meter) tell() {
	if m.report != nil && time.Since(m.said) >= m.every {
		m.report(m.unsaid)
		m.unsaid, m.said = 0, time.Now()
	}
}

func (m *meter) flush() {
	if m.unsaid > 0 && m.report != nil {
		m.report(m.unsaid)
		m.said = time.Now()
	}
	m.unsaid = 0
}

// onceCloser makes Close safe to call from a context's end and again.
type onceCloser struct {
	c    io.Closer
	once sync.Once
	err  error
}

func (o *onceCloser) Close() error {
	o.once.Do(func() { o.err = o.c.Close() })
	return o.err
}

// closeWith closes c when ctx ends or stop is called.
func closeWith(ctx context.Context, c io.Closer) (stop func()) {
	o := &onceCloser{c: c}
	unhook := context.AfterFunc(ctx, func() { closeQuietly(o) })
	return func() {
		unhook()
		closeQuietly(o)
	}
}

// transfer reads a chunk, or a small blob, from a peer, and ends with one event.
func (f *Fetcher) transfer(ctx context.Context, e *policy.Effect) {
	ev := policy.Event{Kind: policy.EvTransferDone, Blob: e.Blob, ID: e.ID, Chunk: e.Chunk, Peer: e.Peer}
	h, err := f.receive(ctx, e, &ev)
	if err != nil {
		ev = policy.Event{Kind: policy.EvTransferFailed, Blob: e.Blob, ID: e.ID, Chunk: e.Chunk, Peer: e.Peer,
			Fault: f.faultOf(err)}
		if ev.Fault == policy.FaultBusy {
			ev.Peers = alternativesOf(err)
		}
		if ev.Fault != policy.FaultCancelled {
			f.log.Debug("a transfer failed", "digest", e.Blob, "peer", e.Peer, "chunk", e.Chunk, "err", err)
		}
	} else {
		f.mem.put(arrival{e.ID, e.Chunk}, h)
	}
	f.post(ev)
}

func (f *Fetcher) faultOf(err error) policy.Fault {
	var busy interface{ Busy() bool }
	var corrupt *CorruptError
	switch {
	case f.ctx.Err() != nil, errors.Is(err, errLocal):
		return policy.FaultLocal
	case errors.Is(err, errStalled):
		return policy.FaultStalled
	case errors.Is(err, context.Canceled):
		return policy.FaultCancelled
	case absent(err):
		return policy.FaultGone
	case errors.As(err, &busy) && busy.Busy():
		return policy.FaultBusy
	case errors.As(err, &corrupt):
		return policy.FaultCorrupt
	}
	return policy.FaultBroken
}

// receive does the reading. The error says why the context ended, where it did.
func (f *Fetcher) receive(ctx context.Context, e *policy.Effect, ev *policy.Event) (h *held, err error) {
	small := e.N < 0
	h = &held{blob: e.Blob, from: fromPeer}
	m := &meter{from: fromPeer, count: f.count, report: func(n int64) {
		f.post(policy.Event{Kind: policy.EvTransferProgress, Blob: e.Blob, ID: e.ID, N: n})
	}}
	if b := f.lookUp(e.Blob); b != nil {
		m.tally = b.traffic.peer(e.Peer, f.now())
	}
	defer func() {
		if err == nil {
			return
		}
		f.count.wasted(fromPeer, m.total)
		f.mem.free(h)
	}()
	if !small {
		if h.permits, err = f.permitFor(ctx, e); err != nil {
			return h, err
		}
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(f.cfg.TransferStall, func() { cancel(errStalled) })
	defer watchdog.Stop()
	m.alive = func() { watchdog.Reset(f.cfg.TransferStall) }
	m.pause = func() { watchdog.Stop() }
	defer f.limit(ctx, m, f.limits.download)()

	body, err := f.peers.Read(ctx, e.Peer, e.Blob, e.Off, e.N)
	if err != nil {
		return h, because(ctx, err)
	}
	defer closeWith(ctx, body)()
	m.r = body
	f.post(policy.Event{Kind: policy.EvTransferProgress, Blob: e.Blob, ID: e.ID})
	if small {
		// Waiting for memory is not the peer's fault.
		watchdog.Stop()
		if h.permits, err = f.permit(ctx, max(0, min(body.Length, maxSmall))); err != nil {
			return h, because(ctx, err)
		}
		watchdog.Reset(f.cfg.TransferStall)
		if h.data, err = readWhole(m, body.Length); err == nil {
			err = matches(e.Blob, h.data, "peer")
		}
		ev.Sum, ev.Size = sha256.Sum256(h.data), int64(len(h.data))
	} else {
		switch {
		case body.Size != e.Size:
			// One of the two is wrong, and the origin knows: it is asked next
			// time.
			f.hints.forget(e.Blob)
			return h, errSize
		case body.Length != e.N:
			return h, errLength
		}
		h.buf = f.mem.buffer(e.N)
		if _, err = h.buf.ReadFrom(m); err == nil {
			ev.Sum = h.buf.Sum()
			ev.Claims = validClaims(e, body.Claims)
		}
	}
	if err != nil {
		return h, because(ctx, err)
	}
	ev.N = m.total
	return h, nil
}

// permit waits for memory.
func (f *Fetcher) permit(ctx context.Context, n int64) (int64, error) {
	got, err := f.mem.acquire(ctx, n)
	if err != nil {
		return 0, err
	}
	return got, nil
}

// permitFor waits for the memory that a transfer needs. Meanwhile the core is
// told that all is well: it is not the peer that is slow.
func (f *Fetcher) permitFor(ctx context.Context, e *policy.Effect) (int64, error) {
	if n := min(e.N, f.mem.cap); f.mem.sem.TryAcquire(n) {
		return n, nil
	}
	every := max(f.cfg.TransferStall/4, time.Millisecond)
	waiting := time.NewTicker(every)
	defer waiting.Stop()
	type result struct {
		n   int64
		err error
	}
	got := make(chan result, 1)
	go func() {
		n, err := f.permit(ctx, e.N)
		got <- result{n, err}
	}()
	for {
		select {
		case r := <-got:
			return r.n, r.err
		case <-waiting.C:
			f.post(policy.Event{Kind: policy.EvTransferProgress, Blob: e.Blob, ID: e.ID})
		}
	}
}

// because returns why ctx ended if it did, else err.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// validClaims keeps the claims whose signatures are right, one a signer.
func validClaims(e *policy.Effect, claims []chunkindex.Claim) []chunkindex.Claim {
	l, err := chunkindex.LayoutFor(e.Size)
	if err != nil {
		return nil
	}
	var valid []chunkindex.Claim
	seen := map[chunkindex.NodeID]bool{}
	for _, c := range claims[:min(len(claims), maxClaims)] {
		if !seen[c.Signer] && c.Verify(e.Blob, l, e.Chunk) == nil {
			seen[c.Signer] = true
			valid = append(valid, c)
		}
	}
	return valid
}

// readWhole reads n bytes, or to the end if n is negative, and no more than
// maxSmall.
func readWhole(r io.Reader, n int64) ([]byte, error) {
	if n > maxSmall {
		return nil, errTooLong
	}
	if n >= 0 {
		data := make([]byte, n)
		if _, err := io.ReadFull(r, data); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		return data, nil
	}
	data, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err == nil && len(data) > maxSmall {
		err = errTooLong
	}
	if err != nil {
		return nil, err
	}
	return data, nil
}

// matches checks data against its digest.
func matches(d digest.Digest, data []byte, from string) error {
	if d.Algorithm().FromBytes(data) != d {
		return &CorruptError{Digest: d, From: from}
	}
	return nil
}
