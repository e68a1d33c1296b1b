//go:build e2e && linux

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/p2p"
)

// badPeer is a member of the cluster that claims to hold every blob it is asked
// about and doesn't do what it should when asked for bytes. It speaks the real
// protocol, so that nodes choose it like any other.
type badPeer struct {
	host  *p2p.Host
	serve func(ctx context.Context, b *badPeer, r p2p.RangeRequest, size int64) (*p2p.RangeSource, error)

	mu    sync.Mutex
	sizes map[string]int64
	asked atomic.Int64 // ranges
}

// startBadPeer joins the nodes' cluster with a peer that knows the sizes of
// blobs and serves ranges of them as it likes.
func startBadPeer(t testing.TB, sizes map[string]int64, nodes []*node,
	serve func(context.Context, *badPeer, p2p.RangeRequest, int64) (*p2p.RangeSource, error)) *badPeer {
	t.Helper()
	opts := &p2p.Options{Listen: []string{"/ip4/127.0.0.1/tcp/" + freePort(t)}}
	for _, n := range nodes {
		opts.Bootstrap = append(opts.Bootstrap, n.status(t).Addresses...)
	}
	b := &badPeer{sizes: sizes, serve: serve}
	host, err := p2p.New(filepath.Join(t.TempDir(), "key"), dssync.MutexWrap(datastore.NewMapDatastore()), opts)
	if err != nil {
		t.Fatal(err)
	}
	b.host = host
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Run(ctx, b) }()
	t.Cleanup(func() {
		cancel()
		<-done
		host.Close()
	})
	return b
}

// PeerUp and PeerDown implement [p2p.Handler].
func (b *badPeer) PeerUp(chunkindex.NodeID)   {}
func (b *badPeer) PeerDown(chunkindex.NodeID) {}

// Frame says that we hold all of whatever somebody wants.
func (b *badPeer) Frame(from chunkindex.NodeID, frame []byte) error {
	m, err := policy.DecodeMessage(frame)
	if err != nil {
		return nil
	}
	var answer policy.Message
	switch m.Kind {
	case policy.MsgPing:
		answer = policy.Message{Kind: policy.MsgPong, Blob: m.Blob, Size: -1}
	case policy.MsgState:
		size, ok := b.size(m.Blob.String())
		if !ok {
			return nil
		}
		l, err := chunkindex.LayoutFor(size)
		if err != nil {
			return nil
		}
		answer = policy.Message{Kind: policy.MsgState, Blob: m.Blob, Size: size,
			Bits: chunkindex.FullBitfield(l.Count()), InFlight: chunkindex.NewBitfield(l.Count())}
	default:
		return nil
	}
	// A peer that went away meanwhile needs no answer.
	_ = b.host.Send(from, policy.AppendMessage(nil, &answer))
	return nil
}

func (b *badPeer) size(digest string) (int64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	size, ok := b.sizes[digest]
	return size, ok
}

// OpenRange implements [p2p.Handler].
func (b *badPeer) OpenRange(ctx context.Context, _ chunkindex.NodeID, r p2p.RangeRequest) (*p2p.RangeSource, error) {
	size, ok := b.size(r.Digest.String())
	if !ok {
		return nil, p2p.ErrNotFound
	}
	b.asked.Add(1)
	return b.serve(ctx, b, r, size)
}

// Call implements [p2p.Handler].
func (b *badPeer) Call(context.Context, chunkindex.NodeID, []byte) ([]byte, error) {
	return nil, p2p.ErrNotFound
}

// corrupt serves bytes that are not the blob's, with a claim of its own that they
// are.
func corrupt(_ context.Context, b *badPeer, r p2p.RangeRequest, size int64) (*p2p.RangeSource, error) {
	n := r.Length
	if n < 0 {
		n = size
	}
	data := bytes.Repeat([]byte("wrong"), int(n)/5+1)[:n]
	src := &p2p.RangeSource{Size: size, Length: n, Body: io.NopCloser(bytes.NewReader(data))}
	if l, err := chunkindex.LayoutFor(size); err == nil {
		if i := l.At(r.Offset); l.Valid(i) {
			src.Claims = []chunkindex.Claim{chunkindex.Sign(b.host.PrivateKey(), r.Digest, l, i, sha256.Sum256(data))}
		}
	}
	return src, nil
}

// corruptUnsigned is corrupt without the claim.
func corruptUnsigned(ctx context.Context, b *badPeer, r p2p.RangeRequest, size int64) (*p2p.RangeSource, error) {
	src, err := corrupt(ctx, b, r, size)
	src.Claims = nil
	return src, err
}

// stall sends a little of what it should, and then nothing, for ever.
func stall(ctx context.Context, b *badPeer, r p2p.RangeRequest, size int64) (*p2p.RangeSource, error) {
	src, err := corrupt(ctx, b, r, size)
	src.Claims = nil
	src.Body = &stalling{Reader: io.LimitReader(src.Body, 1000), ctx: ctx, closed: make(chan struct{})}
	return src, err
}

type stalling struct {
	io.Reader
	ctx    context.Context
	closed chan struct{}
	once   sync.Once
}

func (s *stalling) Read(p []byte) (int, error) {
	if n, _ := s.Reader.Read(p); n > 0 {
		return n, nil
	}
	select {
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	case <-s.closed:
		return 0, io.ErrClosedPipe
	}
}

func (s *stalling) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
