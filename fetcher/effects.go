package fetcher

import (
	"context"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// carryOut does what the core decided, or starts it. It runs in the loop and
// waits for nothing.
func (f *Fetcher) carryOut(e *policy.Effect) {
	switch e.Kind {
	case policy.EfSend:
		f.send(e.Peer, &e.Msg)
	case policy.EfLookup:
		d := e.Blob
		f.spawn(func() { f.post(f.lookedUp(d)) })
	case policy.EfProvide:
		if err := f.peers.Provide(e.Blob); err != nil {
			f.log.Warn("announcing a blob", "digest", e.Blob, "err", err)
		}
	case policy.EfWithdraw:
		if err := f.peers.Withdraw(e.Blob); err != nil {
			f.log.Warn("withdrawing a blob", "digest", e.Blob, "err", err)
		}
	case policy.EfOpen:
		f.openBlob(e)
	case policy.EfClose:
		f.closeBlob(e.Blob)
	case policy.EfTransfer:
		t := *e
		f.begin(t.ID, func(ctx context.Context) { f.transfer(ctx, &t) })
	case policy.EfOriginSize:
		q, src := *e, f.sourceOf(e.Source)
		f.begin(q.ID, func(ctx context.Context) { f.originSize(ctx, &q, src) })
	case policy.EfOriginRead:
		q, src, b := *e, f.sourceOf(e.Source), f.blobs[e.Blob]
		f.begin(q.ID, func(ctx context.Context) { f.originRead(ctx, &q, src, b) })
	case policy.EfCancelTransfer, policy.EfCancelOrigin:
		if cancel := f.ops[e.ID]; cancel != nil {
			cancel()
		}
	case policy.EfStore:
		f.storeChunk(e)
	case policy.EfDiscard:
		f.discard(arrival{e.ID, e.Chunk})
	case policy.EfRaise:
		f.raiseChunk(e)
	case policy.EfDrop:
		f.dropChunk(e)
	case policy.EfProve:
		f.proveBlob(e)
	case policy.EfDeliver:
		if r := f.readers[e.Reader]; r != nil {
			r.deliver(e)
		}
	case policy.EfFail:
		if r := f.readers[e.Reader]; r != nil {
			f.dismiss(r)
			r.fail(failure(e.Status, e.Reason, r.blob.lastOriginError()))
		}
	case policy.EfBypass:
		if r := f.readers[e.Reader]; r != nil {
			f.dismiss(r)
			r.bypass()
		}
	case policy.EfSums:
		s := *e
		select {
		case f.uploads <- struct{}{}:
			f.spawn(func() {
				defer func() { <-f.uploads }()
				f.sendSums(&s)
			})
		default:
			// As busy as with ranges: the asker does without.
			f.send(s.Peer, &policy.Message{Kind: policy.MsgSums, Blob: s.Blob, Size: s.Size, Chunk: s.Chunk})
		}
	case policy.EfTimer:
		if e.At == 0 {
			f.timer.Stop()
		} else {
			f.timer.Reset(max(0, time.Duration(e.At-f.now())))
		}
	case policy.EfBan:
		f.ban(e)
	case policy.EfCount:
		f.count.policy(e.Metric, e.N)
	}
}

// begin runs an effect that has an ID in a goroutine of its own, with a context
// that its cancelling effect ends.
func (f *Fetcher) begin(id policy.ID, fn func(context.Context)) {
	ctx, cancel := context.WithCancel(f.ctx)
	f.ops[id] = cancel
	if !f.spawn(func() { fn(ctx) }) {
		cancel()
	}
}

// send hands a message to the transport. A peer that cannot be sent to and that
// the transport does not count as connected is down for the core; of one that is
// connected the transport itself reports what has become of it.
func (f *Fetcher) send(to chunkindex.NodeID, m *policy.Message) {
	err := f.peers.Send(to, policy.AppendMessage(nil, m))
	if err == nil {
		return
	}
	f.mu.RLock()
	up := f.up[to]
	f.mu.RUnlock()
	if !up {
		f.post(policy.Event{Kind: policy.EvPeerDown, Peer: to})
	}
}

// lookedUp asks the DHT who is close to a blob and who has it, both at once.
func (f *Fetcher) lookedUp(d digest.Digest) policy.Event {
	ctx, cancel := context.WithTimeout(f.ctx, f.opts.LookupTimeout)
	defer cancel()
	ev := policy.Event{Kind: policy.EvLooked, Blob: d}
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if ev.Closest, err = f.peers.Closest(ctx, d); err != nil {
			f.log.Debug("looking up the closest nodes", "digest", d, "err", err)
		}
	})
	wg.Go(func() {
		var err error
		if ev.Providers, err = f.peers.Providers(ctx, d, policy.MaxPeers); err != nil {
			f.log.Debug("looking up providers", "digest", d, "err", err)
		}
	})
	wg.Wait()
	if b := f.lookUp(d); b != nil {
		b.mu.Lock()
		b.copies = len(ev.Providers)
		b.mu.Unlock()
	}
	return ev
}

func (f *Fetcher) ban(e *policy.Effect) {
	now := time.Now()
	until := now.Add(time.Duration(e.At - f.now()))
	f.log.Warn("a peer is banned", "peer", e.Peer, "reason", e.Reason.String(), "seconds", int(until.Sub(now).Seconds()))
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, t := range f.banned {
		if !t.After(now) {
			delete(f.banned, id)
		}
	}
	f.banned[e.Peer] = until
}

// sendSums answers for the sums of a blob at rest: with none where it is gone or
// cannot be proven.
func (f *Fetcher) sendSums(e *policy.Effect) {
	m := policy.Message{Kind: policy.MsgSums, Blob: e.Blob, Size: e.Size, Chunk: e.Chunk}
	if sb, err := f.store.Open(e.Blob); err == nil {
		if sb.Prove(f.ctx) == nil && sb.Size() == e.Size {
			for i := e.Chunk; i < e.Chunk+int(min(e.N, policy.MaxSums)); i++ {
				sum, err := sb.Sum(i)
				if err != nil {
					break
				}
				m.Sums = append(m.Sums, sum)
			}
		}
		closeQuietly(sb)
	}
	m.N = len(m.Sums)
	f.send(e.Peer, &m)
}
