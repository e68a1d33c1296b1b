package fetcher

import (
	"context"
	"slices"
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
	case policy.EfConnect:
		f.connect(e.Peer)
	case policy.EfLookup:
		q := *e
		f.spawn(func() { f.post(f.lookedUp(&q)) })
	case policy.EfProvide:
		f.announcer.provide(e.Blob, chunkGroup{e.Chunk, e.N})
	case policy.EfWithdraw:
		f.announcer.withdraw(e.Blob)
	case policy.EfOpen:
		f.openBlob(e)
	case policy.EfClose:
		f.closeBlob(e.Blob)
	case policy.EfTransfer:
		t := *e
		f.begin(t.ID, func(ctx context.Context) { f.transfer(ctx, &t) })
	case policy.EfServe:
		f.answerUpload(e.ID, uploadAnswer{served: true})
	case policy.EfBusy:
		f.answerUpload(e.ID, uploadAnswer{busy: true, peers: slices.Clone(e.Peers[:min(len(e.Peers), maxAlternatives)])})
	case policy.EfCooldown:
		if name := f.sourceOf(e.Source).Origin; name != "" {
			f.origin.Cooldown(name, e.Wait)
		}
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
// connected the transport itself reports what has become of it. Nodes that the
// message names are introduced before it.
func (f *Fetcher) send(to chunkindex.NodeID, m *policy.Message) {
	switch m.Kind {
	case policy.MsgPeers:
		f.introduce(to, m.Peers)
	case policy.MsgRedirect:
		f.introduce(to, []chunkindex.NodeID{m.Peer})
	}
	err := f.peers.Send(to, policy.AppendMessage(nil, m))
	if err == nil {
		f.count.message(m.Kind, sent)
		return
	}
	f.mu.RLock()
	up := f.up[to]
	f.mu.RUnlock()
	if !up {
		f.post(policy.Event{Kind: policy.EvPeerDown, Peer: to})
	}
}

// lookedUp asks the DHT who is close to a blob, who has it, and who has the group
// of its chunks that is asked for, all at once.
func (f *Fetcher) lookedUp(e *policy.Effect) policy.Event {
	d := e.Blob
	ctx, cancel := context.WithTimeout(f.ctx, f.opts.LookupTimeout)
	defer cancel()
	ev := policy.Event{Kind: policy.EvLooked, Blob: d}
	providers := func(of digest.Digest) []chunkindex.NodeID {
		ids, err := f.peers.Providers(ctx, of, policy.MaxPeers)
		if err != nil {
			f.log.Debug("looking up providers", "digest", d, "err", err)
		}
		return ids
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if ev.Closest, err = f.peers.Closest(ctx, d); err != nil {
			f.log.Debug("looking up the closest nodes", "digest", d, "err", err)
		}
	})
	wg.Go(func() { ev.Providers = providers(d) })
	var group []chunkindex.NodeID
	if e.N > 0 {
		wg.Go(func() { group = providers(chunkGroup{e.Chunk, e.N}.key(d)) })
	}
	wg.Wait()
	if b := f.lookUp(d); b != nil {
		b.mu.Lock()
		b.copies = len(ev.Providers)
		b.mu.Unlock()
	}
	for _, id := range group {
		if len(ev.Providers) < policy.MaxPeers && !slices.Contains(ev.Providers, id) {
			ev.Providers = append(ev.Providers, id)
		}
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
