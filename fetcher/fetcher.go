package fetcher

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
)

// Options are what a Fetcher may be told beside its collaborators. The zero
// value, and a nil *Options, mean the defaults.
type Options struct {
	// TagLifetime is how long the answer to a question that changes with time
	// (tags, lists, referrers) is used without asking the origin again. 0 means
	// 60 s.
	TagLifetime time.Duration
	// TagsFromPeers says when other nodes' answers are used in place of the
	// origin's. "" means FromPeersAlways.
	TagsFromPeers FromPeers
	// AccessLifetime is how long the origin's permission to read a repository
	// is good. 0 means TagLifetime, or a minute if that is more.
	AccessLifetime time.Duration
	// MaxStale is how old an answer may be that is given while the origin
	// cannot be asked. 0 means 7 days.
	MaxStale time.Duration
	// OriginPatience is how long an origin is waited for before a stale answer
	// is given instead. 0 means 1.5 s.
	OriginPatience time.Duration
	// PeerPatience is how long peers are waited for that are asked a question.
	// 0 means 500 ms.
	PeerPatience time.Duration
	// OriginTimeout bounds a question to an origin as a whole. 0 means 30 s.
	OriginTimeout time.Duration
	// LookupTimeout bounds a look-up on the DHT. 0 means 1 s.
	LookupTimeout time.Duration
	// Uploads bounds the ranges that are open for peers at once, whatever the core
	// admits; whoever asks for more is told that this node is busy. 0 means 128.
	Uploads int
	// UploadRate bounds what is sent to all peers together, DownloadRate what is
	// received from them, OriginRate what is read from all origins together: bytes
	// a second, each. 0 means no bound.
	UploadRate, DownloadRate, OriginRate int64
	// AnnounceCheck is about how often this node looks, for each blob that it
	// holds, whether others announce it: where few do it announces the blob too,
	// where many do it may stop. 0 means 40 min, a third of what the DHT remembers
	// announcements for; a negative value that it never does.
	AnnounceCheck time.Duration
	// Logger receives what an operator should know. nil means none.
	Logger *slog.Logger
	// Registerer receives the metrics. nil means none.
	Registerer prometheus.Registerer

	core stepper // tests script the core's effects
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{
		{&o.TagLifetime, time.Minute},
		{&o.MaxStale, 7 * 24 * time.Hour},
		{&o.OriginPatience, 1500 * time.Millisecond},
		{&o.PeerPatience, 500 * time.Millisecond},
		{&o.OriginTimeout, 30 * time.Second},
		{&o.LookupTimeout, time.Second},
		{&o.AnnounceCheck, 40 * time.Minute},
	} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	if o.AccessLifetime == 0 {
		o.AccessLifetime = max(o.TagLifetime, time.Minute)
	}
	if o.TagsFromPeers == "" {
		o.TagsFromPeers = FromPeersAlways
	}
	if o.Uploads == 0 {
		o.Uploads = 128
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// stepper is the policy core: see [policy.Core.Step].
type stepper interface {
	Step(now policy.Time, ev policy.Event, dst []policy.Effect) []policy.Effect
}

// Fetcher is the production driver of the policy core. One goroutine, in Run,
// owns the core and all that is marked "loop" here. Everything that takes time
// happens in goroutines that Run waits for, and comes back as an event.
type Fetcher struct {
	store  Store
	peers  Peers
	origin Origin
	keys   Keyring
	cfg    policy.Config
	opts   Options
	log    *slog.Logger
	count  *metrics
	mem    *memory
	hints  *hints
	tags   *tags
	desk   *desk
	access *accessBook
	start  time.Time

	ctx    context.Context // ends when Run does
	cancel context.CancelFunc
	queue  *queue
	lastID atomic.Uint64 // of readers
	// lastUpload is the last ID of an upload.
	lastUpload atomic.Uint64

	// spawning guards stopped and the first Add of work.
	spawning sync.Mutex
	stopped  bool
	work     sync.WaitGroup

	core    stepper                   // loop
	effects []policy.Effect           // loop
	timer   *time.Timer               // loop
	readers map[policy.ID]*reader     // loop
	ops     map[policy.ID]func()      // loop: what cancels transfers and reads
	sources map[sourceKey]*source     // loop
	numbers map[policy.Source]*source // loop
	lastSrc policy.Source             // loop
	asked   *upload                   // loop: the upload that the core is being asked about
	askedID policy.ID                 // loop

	// mu guards blobs, which the loop alone changes, and the peers. It is taken
	// before the queue's.
	mu     sync.RWMutex
	blobs  map[digest.Digest]*blob
	up     map[chunkindex.NodeID]bool
	alone  map[*reader]bool // unasked ones: see readAlone
	banned map[chunkindex.NodeID]time.Time

	uploads       chan struct{} // a token for each range being served
	readerCount   atomic.Int64
	live          live
	limits        struct{ upload, download, origin *limiter }
	connects      connects
	introductions introductions
	announcer     announcer
}

var _ Service = (*Fetcher)(nil)

// New returns a fetcher and starts nothing: call [Fetcher.Run]. opts may be nil.
func New(store Store, peers Peers, origin Origin, keys Keyring, cfg policy.Config, opts *Options) *Fetcher {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	o = o.withDefaults()
	f := &Fetcher{
		store: store, peers: peers, origin: origin, keys: keys, cfg: cfg, opts: o,
		log: o.Logger, count: newMetrics(),
		mem: newMemory(cfg.InFlightBytes), hints: newHints(maxHints), tags: newTags(),
		access: newAccessBook(),
		start:  time.Now(), queue: newQueue(),
		core:    o.core,
		readers: map[policy.ID]*reader{},
		ops:     map[policy.ID]func(){},
		sources: map[sourceKey]*source{},
		numbers: map[policy.Source]*source{},
		blobs:   map[digest.Digest]*blob{},
		up:      map[chunkindex.NodeID]bool{},
		alone:   map[*reader]bool{},
		banned:  map[chunkindex.NodeID]time.Time{},
		uploads: make(chan struct{}, o.Uploads),
	}
	f.desk = newDesk(o.OriginPatience, f.isUp)
	f.origin = witness{origin, f.witnessed}
	if f.core == nil {
		f.core = policy.New(cfg)
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.limits.upload, f.limits.download, f.limits.origin = newLimiter(o.UploadRate), newLimiter(o.DownloadRate), newLimiter(o.OriginRate)
	f.connects.wanted = map[chunkindex.NodeID]chan struct{}{}
	f.announcer.begin(f)
	f.count.register(o.Registerer, f)
	return f
}

// Run does the work until ctx ends; then open readers fail, and Run returns nil
// once all its goroutines have. Call it once.
func (f *Fetcher) Run(ctx context.Context) error {
	f.timer = time.NewTimer(time.Hour)
	f.timer.Stop()
	f.tellHeld()
	var items []item
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-f.timer.C:
			f.step(policy.Event{Kind: policy.EvTimer})
		case <-f.queue.ready:
			items = f.queue.take(items)
			for i := range items {
				f.handle(&items[i])
			}
		}
	}
	f.spawning.Lock()
	f.stopped = true
	f.spawning.Unlock()
	f.timer.Stop()
	f.cancel()
	for _, r := range f.readers {
		r.fail(errClosed)
	}
	f.work.Wait()
	for _, b := range f.blobs {
		b.release()
	}
	for _, b := range f.blobs {
		f.discardAll(b.digest)
	}
	return nil
}

// spawn runs fn in a goroutine that Run waits for, and reports false once the
// fetcher has stopped.
func (f *Fetcher) spawn(fn func()) bool {
	f.spawning.Lock()
	defer f.spawning.Unlock()
	if f.stopped {
		return false
	}
	f.work.Go(fn)
	return true
}

// now is the core's clock: monotonic, from the fetcher's own start.
func (f *Fetcher) now() policy.Time { return policy.Time(time.Since(f.start)) }

func (f *Fetcher) post(ev policy.Event) { f.queue.put(item{ev: ev}) }

// tellHeld tells the core what the store holds, before anything else, and sees
// to it that complete blobs are announced: the DHT forgets those of nodes that
// are gone.
func (f *Fetcher) tellHeld() {
	f.announcer.work.add(f.announcer.restore)
	var complete []digest.Digest
	err := f.store.List(func(d digest.Digest, info StoreInfo) bool {
		f.step(policy.Event{Kind: policy.EvHeld, Blob: d, Size: info.Size, Whole: info.Complete, Small: isSmall(info)})
		if info.Complete {
			complete = append(complete, d)
		}
		return f.ctx.Err() == nil
	})
	if err != nil {
		f.log.Error("listing the store", "err", err)
	}
	f.announcer.start(complete)
}

func isSmall(info StoreInfo) bool {
	return info.Kind == KindManifest || info.Size <= chunkindex.MinChunkLength
}

// handle takes one item from the queue. Events about a reader or a blob that the
// loop has let go of meanwhile end here: the core never hears of a reader again
// that it ended.
func (f *Fetcher) handle(it *item) {
	if it.do != nil {
		it.do()
		return
	}
	if it.upload != nil {
		f.stepUpload(it.upload, it.ev)
		return
	}
	ev := &it.ev
	switch ev.Kind {
	case policy.EvRead:
		f.admit(it.reader, ev)
	case policy.EvConsumed:
		if f.readers[ev.Reader] == nil {
			return
		}
	case policy.EvCancel:
		r := f.readers[ev.Reader]
		if r == nil {
			return
		}
		f.dismiss(r)
	case policy.EvTransferDone, policy.EvTransferFailed, policy.EvOriginDone, policy.EvOriginFailed:
		if cancel := f.ops[ev.ID]; cancel != nil {
			cancel()
			delete(f.ops, ev.ID)
		}
	}
	f.step(*ev)
	switch ev.Kind {
	case policy.EvEvicted:
		// Be it a partial one, of which the core announced groups.
		f.announcer.withdraw(ev.Blob)
	case policy.EvTransferDone, policy.EvOriginChunk:
		// Nobody will ask for the bytes of a blob that has been let go of.
		if b := f.blobs[ev.Blob]; b == nil || !b.open {
			f.discard(arrival{ev.ID, ev.Chunk})
		}
	}
}

func (f *Fetcher) step(ev policy.Event) {
	f.effects = f.core.Step(f.now(), ev, f.effects[:0])
	for i := range f.effects {
		f.carryOut(&f.effects[i])
		f.effects[i] = policy.Effect{}
	}
}

// PeerUp tells that a peer became reachable, PeerDown that it no longer is. They
// don't block. Calls about one peer must come in order.
func (f *Fetcher) PeerUp(id chunkindex.NodeID) {
	f.mu.Lock()
	f.up[id] = true
	f.company()
	f.mu.Unlock()
	f.tags.silence.heard(id)
	f.connects.arrived(id)
	f.announcer.metPeer()
	f.post(policy.Event{Kind: policy.EvPeerUp, Peer: id})
}

// PeerDown is described at [Fetcher.PeerUp].
func (f *Fetcher) PeerDown(id chunkindex.NodeID) {
	f.mu.Lock()
	delete(f.up, id)
	f.post(policy.Event{Kind: policy.EvPeerDown, Peer: id}) // before any reader is alone
	f.mu.Unlock()
	f.desk.gone(id)
	f.introductions.forget(id)
}

// Frame takes a control frame from a peer. It doesn't block. It fails for what no
// correct peer sends, which changes nothing here; a message of a kind that is not
// known and may be ignored is ignored.
func (f *Fetcher) Frame(from chunkindex.NodeID, frame []byte) error {
	if len(frame) > 0 && frame[0] == frameAddresses {
		return f.learn(from, frame)
	}
	m, err := policy.DecodeMessage(frame)
	if errors.Is(err, policy.ErrOptional) {
		return nil
	}
	if err != nil {
		return err
	}
	f.count.message(m.Kind, received)
	if !f.queue.putMessage(from, m) {
		f.log.Debug("a peer sends too much", "peer", from)
	}
	return nil
}

// Evicted tells that the store dropped a blob. It doesn't block.
func (f *Fetcher) Evicted(d digest.Digest) {
	f.post(policy.Event{Kind: policy.EvEvicted, Blob: d})
}

// connected lists up to most peers that are up and not banned.
func (f *Fetcher) connected(most int) []chunkindex.NodeID {
	f.mu.RLock()
	defer f.mu.RUnlock()
	ids := make([]chunkindex.NodeID, 0, min(most, len(f.up)))
	for id := range f.up {
		if len(ids) == most {
			break
		}
		if !f.banned[id].After(time.Now()) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (f *Fetcher) connectedTo() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.up)
}

// isUp reports whether a node is this one or a peer that is up.
func (f *Fetcher) isUp(id chunkindex.NodeID) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.up[id] || id == f.keys.Self()
}

func (f *Fetcher) isBanned(id chunkindex.NodeID) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.banned[id].After(time.Now())
}

func (f *Fetcher) lookUp(d digest.Digest) *blob {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.blobs[d]
}

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
