package fetcher

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keyring signs with a key made from a number.
type keyring struct{ key ed25519.PrivateKey }

func newKeyring(n byte) keyring {
	return keyring{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))}
}

func (k keyring) Self() (id chunkindex.NodeID) {
	copy(id[:], k.key.Public().(ed25519.PublicKey))
	return id
}

func (k keyring) Sign(d digest.Digest, l chunkindex.Layout, i int, s chunkindex.Sum) chunkindex.Claim {
	return chunkindex.Sign(k.key, d, l, i, s)
}

func (k keyring) SignRecord(context string, msg []byte) []byte {
	return ed25519.Sign(k.key, append([]byte(context+"\x00"), msg...))
}

type noSpaceError struct{}

func (noSpaceError) Error() string { return "no space" }
func (noSpaceError) NoSpace() bool { return true }

type mismatchError struct{}

func (mismatchError) Error() string        { return "digest mismatch" }
func (mismatchError) DigestMismatch() bool { return true }

// fakeStore keeps blobs in files of a directory and the rest in memory. It
// checks what the contract says about its callers.
type fakeStore struct {
	t     testing.TB
	dir   string
	limit int64 // bytes, 0 none

	mu      sync.Mutex
	blobs   map[digest.Digest]*fakeBlob
	records map[string][]byte
	copies  map[digest.Digest]int
	used    int64
	written int64 // bytes of chunks
	opened  int   // files that callers have open
	// proof, where set, is what proving a complete blob gives.
	proof func(digest.Digest) error
	// finish, where set, is called by Complete before it does anything.
	finish func() error
}

type fakeBlob struct {
	s        *fakeStore
	d        digest.Digest
	l        chunkindex.Layout
	kind     Kind
	complete bool
	owned    bool
	chunks   map[int]ChunkState
}

func newFakeStore(t testing.TB) *fakeStore {
	s := &fakeStore{t: t, dir: t.TempDir(), blobs: map[digest.Digest]*fakeBlob{}, records: map[string][]byte{}, copies: map[digest.Digest]int{}}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.opened != 0 {
			t.Errorf("%d files of the store are still open", s.opened)
		}
		for d, b := range s.blobs {
			if b.owned {
				t.Errorf("partial %s is still open", d)
			}
		}
	})
	return s
}

func (s *fakeStore) path(d digest.Digest) string { return filepath.Join(s.dir, d.Encoded()) }

func (s *fakeStore) Stat(d digest.Digest) (StoreInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blobs[d]
	if b == nil {
		return StoreInfo{}, fs.ErrNotExist
	}
	return StoreInfo{Size: b.l.Size(), Kind: b.kind, Complete: b.complete}, nil
}

func (s *fakeStore) open(d digest.Digest) (*os.File, error) {
	f, err := os.Open(s.path(d))
	if err == nil {
		s.opened++
	}
	return f, err
}

func (s *fakeStore) Open(d digest.Digest) (StoredBlob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blobs[d]
	if b == nil || !b.complete {
		return nil, fs.ErrNotExist
	}
	f, err := s.open(d)
	if err != nil {
		return nil, err
	}
	return &fakeStored{b: b, f: f}, nil
}

type fakeStored struct {
	b    *fakeBlob
	f    *os.File
	once sync.Once
}

func (o *fakeStored) Size() int64    { return o.b.l.Size() }
func (o *fakeStored) File() *os.File { return o.f }
func (o *fakeStored) Prove(context.Context) error {
	o.b.s.mu.Lock()
	proof := o.b.s.proof
	o.b.s.mu.Unlock()
	if proof != nil {
		return proof(o.b.d)
	}
	return nil
}

func (o *fakeStored) Sum(i int) (sum chunkindex.Sum, err error) {
	off, n := o.b.l.Chunk(i)
	data := make([]byte, n)
	_, err = o.f.ReadAt(data, off)
	return sha256.Sum256(data), err
}

func (o *fakeStored) Close() error {
	o.once.Do(func() { o.b.s.closeFile(o.f) })
	return nil
}

func (s *fakeStore) closeFile(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened--
	f.Close()
}

func (s *fakeStore) Put(_ context.Context, d digest.Digest, kind Kind, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.Algorithm().FromBytes(data) != d {
		s.t.Errorf("Put of wrong bytes")
		return mismatchError{}
	}
	if err := s.reserve(int64(len(data))); err != nil {
		return err
	}
	l, _ := chunkindex.LayoutFor(int64(len(data)))
	s.blobs[d] = &fakeBlob{s: s, d: d, l: l, kind: kind, complete: true}
	return os.WriteFile(s.path(d), data, 0o600)
}

func (s *fakeStore) reserve(n int64) error {
	if s.limit > 0 && s.used+n > s.limit {
		return noSpaceError{}
	}
	s.used += n
	return nil
}

func (s *fakeStore) Partial(d digest.Digest, l chunkindex.Layout, kind Kind) (Partial, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.blobs[d]
	switch {
	case b != nil && b.complete:
		return nil, fs.ErrExist
	case b != nil && b.owned:
		s.t.Errorf("a second owner of partial %s", d)
		return nil, errors.New("busy")
	case b == nil || b.l != l:
		b = &fakeBlob{s: s, d: d, l: l, kind: kind, chunks: map[int]ChunkState{}}
		s.blobs[d] = b
		f, err := os.Create(s.path(d))
		if err != nil {
			return nil, err
		}
		f.Close()
	}
	b.owned = true
	return b, nil
}

func (b *fakeBlob) Chunk(i int) ChunkState {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return b.chunks[i]
}

func (b *fakeBlob) WriteChunk(i int, buf *chunkindex.Buffer, lvl chunkindex.Level, c *chunkindex.Claim) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	off, n := b.l.Chunk(i)
	if !buf.Full() || int64(buf.Len()) != n || !b.owned {
		b.s.t.Errorf("chunk %d: a buffer of %d bytes, owned %v", i, buf.Len(), b.owned)
	}
	if err := b.s.reserve(n); err != nil {
		return err
	}
	f, err := os.OpenFile(b.s.path(b.d), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(buf.Bytes(), off); err != nil {
		return err
	}
	b.s.written += n
	b.chunks[i] = ChunkState{Level: lvl, Sum: buf.Sum(), Claim: c}
	return nil
}

func (b *fakeBlob) Raise(i int, lvl chunkindex.Level, c *chunkindex.Claim) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	st := b.chunks[i]
	if c == nil {
		c = st.Claim
	}
	b.chunks[i] = ChunkState{max(lvl, st.Level), st.Sum, c}
	return nil
}

func (b *fakeBlob) Drop(i int) error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	_, n := b.l.Chunk(i)
	if b.chunks[i].Level != chunkindex.Absent {
		b.s.used -= n
	}
	delete(b.chunks, i)
	return nil
}

func (b *fakeBlob) File() (*os.File, error) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	return os.Open(b.s.path(b.d))
}

func (b *fakeBlob) HashPrefix(context.Context) (int, error) { return 0, nil }

func (b *fakeBlob) Complete(context.Context) error {
	b.s.mu.Lock()
	finish := b.s.finish
	b.s.mu.Unlock()
	if finish != nil {
		if err := finish(); err != nil {
			return err
		}
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if len(b.chunks) != b.l.Count() {
		b.s.t.Errorf("Complete with %d of %d chunks", len(b.chunks), b.l.Count())
	}
	data, err := os.ReadFile(b.s.path(b.d))
	if err != nil {
		return err
	}
	if b.d.Algorithm().FromBytes(data) != b.d {
		return mismatchError{}
	}
	b.complete = true
	return nil
}

func (b *fakeBlob) Close() error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.owned = false
	return nil
}

func (b *fakeBlob) Discard() error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.owned = false
	delete(b.s.blobs, b.d)
	return os.Remove(b.s.path(b.d))
}

func (s *fakeStore) SetCopies(d digest.Digest, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies[d] = n
}

func (s *fakeStore) List(f func(digest.Digest, StoreInfo) bool) error {
	s.mu.Lock()
	infos := map[digest.Digest]StoreInfo{}
	for d, b := range s.blobs {
		infos[d] = StoreInfo{b.l.Size(), b.kind, b.complete}
	}
	s.mu.Unlock()
	for d, info := range infos {
		if !f(d, info) {
			break
		}
	}
	return nil
}

func (s *fakeStore) Record(space, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.records[space+"/"+key]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return v, nil
}

func (s *fakeStore) PutRecord(space, key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[space+"/"+key] = value
	return nil
}

// evict drops a blob as the store's own upkeep does.
func (s *fakeStore) evict(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blobs, d)
	os.Remove(s.path(d))
}

func (s *fakeStore) has(d digest.Digest) bool {
	info, err := s.Stat(d)
	return err == nil && info.Complete
}

// statusError is an origin's answer.
type statusError int

func (e statusError) Error() string   { return fmt.Sprintf("status %d", int(e)) }
func (e statusError) HTTPStatus() int { return int(e) }

// throttledError asks to be left alone for a while.
type throttledError struct {
	statusError
	wait time.Duration
}

func (e throttledError) RetryAfter() time.Duration { return e.wait }

// breakerError is what a node's circuit breaker says.
type breakerError struct{ throttledError }

func (breakerError) Local() bool { return true }

// fakeOrigin is a registry. Its fields may be changed between requests.
type fakeOrigin struct {
	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string]Manifest // by digest and by tag
	status    int                 // all requests fail with it
	retry     time.Duration       // what it says with the status
	hang      bool                // requests wait for their contexts
	noRange   bool                // ranges are ignored
	noSize    bool                // sizes are not told with bodies
	resets    int                 // bodies to break off after resetAt bytes
	resetAt   int
	corrupt   bool
	gate      chan struct{} // where set, bodies wait for it before each read
	down      bool          // Reachable is false
	locked    bool          // only a login with a key is let in
	delay     time.Duration // before each answer
	cooldowns []string      // as told
	date      time.Time     // of answers about tags

	sent     atomic.Int64 // body bytes of blobs
	asked    atomic.Int64 // Resolve and List
	sizes    atomic.Int64
	requests atomic.Int64
	gets     atomic.Int64 // Manifest
	refused  atomic.Int64 // 401 to a login
	tried    atomic.Int64 // Anybody
}

// login is an origin as one node reaches it.
type login struct {
	*fakeOrigin
	key bool
	// personal: the node's requests bring credentials, needed or not, so that
	// its client does not know whether anybody can read what it reads: where known,
	// it says no.
	personal, known bool
	anybody         atomic.Bool  // what Anybody found
	hangs           atomic.Bool  // requests of this node wait for their contexts
	answers         atomic.Int64 // status of this node's failure, 0 none
}

func (l *login) enter(ctx context.Context) error {
	if l.hangs.Load() {
		l.asked.Add(1)
		<-ctx.Done()
		return ctx.Err()
	}
	if s := l.answers.Load(); s != 0 {
		return statusError(s)
	}
	l.mu.Lock()
	locked, down := l.locked, l.hang || l.status != 0
	l.mu.Unlock()
	if locked && !l.key && !down {
		l.refused.Add(1)
		return statusError(401)
	}
	return nil
}

func (l *login) Blob(ctx context.Context, src Source, d digest.Digest, off, n int64) (*OriginBody, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	return l.fakeOrigin.Blob(ctx, src, d, off, n)
}

func (l *login) Size(ctx context.Context, src Source, d digest.Digest) (int64, error) {
	if err := l.enter(ctx); err != nil {
		return 0, err
	}
	return l.fakeOrigin.Size(ctx, src, d)
}

func (l *login) Manifest(ctx context.Context, src Source, ref string, accept []string) (*Manifest, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	return l.fakeOrigin.Manifest(ctx, src, ref, accept)
}

func (l *login) Resolve(ctx context.Context, src Source, ref string, accept []string) (Descriptor, error) {
	if err := l.enter(ctx); err != nil {
		return Descriptor{}, err
	}
	return l.fakeOrigin.Resolve(ctx, src, ref, accept)
}

func (l *login) List(ctx context.Context, src Source, kind QueryKind, ref string, params url.Values) (*List, error) {
	if err := l.enter(ctx); err != nil {
		return nil, err
	}
	return l.fakeOrigin.List(ctx, src, kind, ref, params)
}

func newFakeOrigin() *fakeOrigin {
	return &fakeOrigin{blobs: map[digest.Digest][]byte{}, manifests: map[string]Manifest{}}
}

func (o *fakeOrigin) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

func (o *fakeOrigin) add(data []byte) digest.Digest {
	d := digest.FromBytes(data)
	o.set(func() { o.blobs[d] = data })
	return d
}

func (o *fakeOrigin) addManifest(tag, mediaType string, body []byte) digest.Digest {
	d := digest.FromBytes(body)
	m := Manifest{Body: body, MediaType: mediaType, Digest: d}
	o.set(func() { o.manifests[tag], o.manifests[d.String()] = m, m })
	return d
}

func (o *fakeOrigin) ready(ctx context.Context) error {
	o.requests.Add(1)
	o.mu.Lock()
	hang, status, delay, retry := o.hang, o.status, o.delay, o.retry
	o.mu.Unlock()
	if delay > 0 {
		time.Sleep(delay)
	}
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if status != 0 && retry != 0 {
		return throttledError{statusError(status), retry}
	}
	if status != 0 {
		return statusError(status)
	}
	return ctx.Err()
}

func (o *fakeOrigin) Blob(ctx context.Context, _ Source, d digest.Digest, off, n int64) (*OriginBody, error) {
	if err := o.ready(ctx); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.blobs[d]
	if !ok {
		return nil, statusError(404)
	}
	size := int64(len(data))
	if o.noRange {
		off, n = 0, -1
	}
	if off >= size {
		return nil, statusError(416)
	}
	if n < 0 || n > size-off {
		n = size - off
	}
	body := &originStream{o: o, ctx: ctx, data: data[off : off+n], gate: o.gate, left: -1, corrupt: o.corrupt}
	if o.resets > 0 {
		o.resets--
		body.left = o.resetAt
	}
	if o.noSize {
		size = -1
	}
	return &OriginBody{ReadCloser: body, Size: size, Offset: off, Ranged: !o.noRange}, nil
}

type originStream struct {
	o       *fakeOrigin
	ctx     context.Context
	data    []byte
	left    int // bytes before a reset, -1 none
	gate    chan struct{}
	corrupt bool
}

func (s *originStream) Read(p []byte) (int, error) {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-s.ctx.Done():
		}
	}
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.left == 0 {
		return 0, errors.New("connection reset")
	}
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.data)
	if s.left > 0 {
		n = min(n, s.left)
		s.left -= n
	}
	if s.corrupt {
		p[0] ^= 1
	}
	s.data = s.data[n:]
	s.o.sent.Add(int64(n))
	return n, nil
}

func (s *originStream) Close() error { return nil }

func (o *fakeOrigin) Size(ctx context.Context, _ Source, d digest.Digest) (int64, error) {
	if err := o.ready(ctx); err != nil {
		return 0, err
	}
	o.sizes.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	data, ok := o.blobs[d]
	if !ok {
		return 0, statusError(404)
	}
	return int64(len(data)), nil
}

func (o *fakeOrigin) Manifest(ctx context.Context, _ Source, ref string, _ []string) (*Manifest, error) {
	o.gets.Add(1)
	if err := o.ready(ctx); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	m, ok := o.manifests[ref]
	if !ok {
		return nil, statusError(404)
	}
	return &m, nil
}

func (o *fakeOrigin) Resolve(ctx context.Context, _ Source, ref string, _ []string) (Descriptor, error) {
	o.asked.Add(1)
	if err := o.ready(ctx); err != nil {
		return Descriptor{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	m, ok := o.manifests[ref]
	if !ok {
		return Descriptor{}, statusError(404)
	}
	return Descriptor{Digest: m.Digest, Size: int64(len(m.Body)), MediaType: m.MediaType, Date: o.date}, nil
}

func (o *fakeOrigin) List(ctx context.Context, _ Source, kind QueryKind, _ string, _ url.Values) (*List, error) {
	o.asked.Add(1)
	if err := o.ready(ctx); err != nil {
		return nil, err
	}
	if kind == QueryReferrers {
		return nil, statusError(404)
	}
	return &List{Body: []byte(`{"tags":["v1"]}`), MediaType: "application/json", Link: "</next>"}, nil
}

func (o *fakeOrigin) Reachable(string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.down
}

func (o *fakeOrigin) Public(Source) (public, known bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.locked, true
}

func (o *fakeOrigin) Anybody(context.Context, Source, string, bool) bool {
	o.tried.Add(1)
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.locked
}

// Public of a node that has a login of its own is what it found out.
func (l *login) Public(src Source) (public, known bool) {
	if l.personal {
		return l.anybody.Load(), l.known
	}
	return l.fakeOrigin.Public(src)
}

func (l *login) Anybody(ctx context.Context, src Source, reference string, blob bool) bool {
	public := l.fakeOrigin.Anybody(ctx, src, reference, blob)
	l.anybody.Store(public)
	return public
}

func (o *fakeOrigin) Cooldown(origin string, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cooldowns = append(o.cooldowns, fmt.Sprint(origin, " ", wait))
}

// fakeNet connects fetchers in memory.
type fakeNet struct {
	mu        sync.Mutex
	nodes     map[chunkindex.NodeID]*fakeNode
	providers map[digest.Digest][]chunkindex.NodeID
}

func newFakeNet() *fakeNet {
	return &fakeNet{nodes: map[chunkindex.NodeID]*fakeNode{}, providers: map[digest.Digest][]chunkindex.NodeID{}}
}

// fakeNode is one node's Peers. What it serves can be made to go wrong.
type fakeNode struct {
	net     *fakeNet
	id      chunkindex.NodeID
	f       *Fetcher
	store   *fakeStore
	up      atomic.Bool
	corrupt atomic.Bool // serves wrong bytes
	stall   atomic.Bool // serves 1000 bytes, then none
	silent  atomic.Bool // answers no call
	// lie, where set, answers calls in the fetcher's place.
	lie    atomic.Pointer[func(from chunkindex.NodeID, req []byte) ([]byte, error)]
	dieAt  atomic.Int64 // goes away after so many bytes of one body, 0 never
	sent   atomic.Int64
	learnt map[chunkindex.NodeID][]string // by net.mu
	cut    context.Context                // ends when it is disconnected
	cutOff context.CancelFunc
	cancel context.CancelFunc
	done   chan error
}

func (n *fakeNode) other(id chunkindex.NodeID) *fakeNode {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	o := n.net.nodes[id]
	if o == nil || !o.up.Load() || !n.up.Load() {
		return nil
	}
	return o
}

func (n *fakeNode) Send(to chunkindex.NodeID, frame []byte) error {
	o := n.other(to)
	if o == nil {
		return errors.New("not connected")
	}
	if err := o.f.Frame(n.id, frame); err != nil {
		n.store.t.Errorf("a fetcher sent %x: %v", frame, err)
	}
	return nil
}

func (n *fakeNode) Read(ctx context.Context, to chunkindex.NodeID, d digest.Digest, off, length int64) (*PeerBody, error) {
	o := n.other(to)
	if o == nil {
		return nil, errors.New("not connected")
	}
	src, err := o.f.OpenRange(ctx, n.id, RangeRequest{d, off, length})
	if err != nil {
		return nil, err
	}
	return &PeerBody{ReadCloser: &peerStream{ctx: ctx, o: o, r: src.Body}, Size: src.Size, Length: src.Length, Claims: src.Claims}, nil
}

type peerStream struct {
	ctx context.Context
	o   *fakeNode
	r   io.ReadCloser
	n   int64
}

func (s *peerStream) Read(p []byte) (int, error) {
	if s.o.stall.Load() && s.n >= 1000 {
		<-s.ctx.Done()
		return 0, s.ctx.Err()
	}
	if s.o.stall.Load() {
		p = p[:min(len(p), 1000)]
	}
	if at := s.o.dieAt.Load(); at > 0 && s.n >= at {
		s.o.disconnect()
	}
	if !s.o.up.Load() {
		return 0, errors.New("connection broke")
	}
	n, err := s.r.Read(p)
	if n > 0 && s.o.corrupt.Load() {
		p[0] ^= 0xff
	}
	s.n += int64(n)
	s.o.sent.Add(int64(n))
	return n, err
}

func (s *peerStream) Close() error { return s.r.Close() }

func (n *fakeNode) Connect(_ context.Context, to chunkindex.NodeID) error {
	if n.other(to) == nil {
		return errors.New("not reachable")
	}
	return nil
}

// Addresses returns one address for each node of the net.
func (n *fakeNode) Addresses(of chunkindex.NodeID) []string {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.net.nodes[of] == nil {
		return nil
	}
	return []string{"/memory/" + of.String()}
}

func (n *fakeNode) Learn(of chunkindex.NodeID, addresses []string) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.learnt == nil {
		n.learnt = map[chunkindex.NodeID][]string{}
	}
	n.learnt[of] = addresses
}

func (n *fakeNode) Call(ctx context.Context, to chunkindex.NodeID, req []byte) ([]byte, error) {
	o := n.other(to)
	if o == nil {
		return nil, errors.New("not connected")
	}
	if o.silent.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if lie := o.lie.Load(); lie != nil {
		return (*lie)(n.id, req)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(o.cut, cancel)()
	res, err := o.f.Call(ctx, n.id, req)
	if o.other(n.id) == nil {
		return nil, errors.New("connection broke")
	}
	return res, err
}

func (n *fakeNode) Closest(context.Context, digest.Digest) ([]chunkindex.NodeID, error) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	var ids []chunkindex.NodeID
	for id, o := range n.net.nodes {
		if o.up.Load() {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (n *fakeNode) Providers(_ context.Context, d digest.Digest, most int) ([]chunkindex.NodeID, error) {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	ids := slices.DeleteFunc(slices.Clone(n.net.providers[d]), func(id chunkindex.NodeID) bool { return id == n.id })
	return ids[:min(len(ids), most)], nil
}

func (n *fakeNode) Provide(d digest.Digest) error {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if !slices.Contains(n.net.providers[d], n.id) {
		n.net.providers[d] = append(n.net.providers[d], n.id)
	}
	return nil
}

func (n *fakeNode) Withdraw(d digest.Digest) error {
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	n.net.providers[d] = slices.DeleteFunc(n.net.providers[d], func(id chunkindex.NodeID) bool { return id == n.id })
	return nil
}

// disconnect cuts a node off from all others.
func (n *fakeNode) disconnect() {
	if !n.up.Swap(false) {
		return
	}
	n.cutOff()
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	for _, o := range n.net.nodes {
		if o != n {
			o.f.PeerDown(n.id)
			n.f.PeerDown(o.id)
		}
	}
}

// join adds a running fetcher to the net.
func (net *fakeNet) join(t testing.TB, n byte, o Origin, st *fakeStore, change func(*policy.Config, *Options)) *fakeNode {
	keys := newKeyring(n)
	cfg := policy.DefaultConfig(keys.Self())
	cfg.Verify = policy.VerifyMember
	cfg.Seed = uint64(n)
	opts := &Options{}
	if change != nil {
		change(&cfg, opts)
	}
	node := &fakeNode{net: net, id: keys.Self(), store: st, done: make(chan error, 1)}
	node.cut, node.cutOff = context.WithCancel(context.Background())
	node.up.Store(true)
	node.f = New(st, node, o, keys, cfg, opts)
	ctx, cancel := context.WithCancel(context.Background())
	node.cancel = cancel
	go func() { node.done <- node.f.Run(ctx) }()
	t.Cleanup(func() { node.stop(t) })
	net.mu.Lock()
	defer net.mu.Unlock()
	for id, other := range net.nodes {
		if other.up.Load() {
			other.f.PeerUp(node.id)
			node.f.PeerUp(id)
		}
	}
	net.nodes[node.id] = node
	return node
}

// stop stops a node, once, and checks that nothing stays behind.
func (n *fakeNode) stop(t testing.TB) {
	if n.cancel == nil {
		return
	}
	n.disconnect()
	n.cancel()
	n.cancel = nil
	if err := <-n.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	n.f.mem.mu.Lock()
	if len(n.f.mem.held) != 0 {
		t.Errorf("%d chunks are still in memory", len(n.f.mem.held))
	}
	n.f.mem.mu.Unlock()
	// A client whose bytes went past the store gives its permits back itself, when it hears.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := n.f.mem.sem.Acquire(ctx, n.f.mem.cap); err != nil {
		t.Error("permits were not given back")
	}
}

var testSource = Source{Origin: "registry.test", Repository: "app"}

func blobRef(d digest.Digest) Ref { return Ref{Source: testSource, Digest: d} }

// random returns n bytes that depend on the seed only.
func random(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	data := make([]byte, n)
	rand.NewChaCha8(key).Read(data)
	return data
}

// get reads content whole.
func (n *fakeNode) get(ref Ref, r *Range) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := n.f.Open(ctx, ref, r)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var buf bytes.Buffer
	_, err = c.WriteTo(&buf)
	return buf.Bytes(), err
}

func (n *fakeNode) want(t testing.TB, ref Ref, r *Range, want []byte) {
	t.Helper()
	got, err := n.get(ref, r)
	if err != nil {
		t.Fatalf("got %d of %d bytes, then: %v", len(got), len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d wrong bytes, want %d", len(got), len(want))
	}
}
