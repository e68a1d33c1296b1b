package fetcher

import (
	"container/list"
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxHints bounds the digests that something is remembered of.
const maxHints = 16384

// hint is what is known of a digest without its bytes.
type hint struct {
	size      int64 // -1 unknown, or told differently by two who should know
	kind      Kind
	mediaType string // of a manifest
	parsed    bool   // its own descriptors are hints already
}

// hints remembers what manifests, and origins, said about digests, for as long
// as there is room: the least recently used go first. Whoever can push a
// manifest can claim any size for any digest, so two claims that differ leave
// the size unknown, and a size that turns out wrong is forgotten.
type hints struct {
	mu   sync.Mutex
	most int
	by   map[digest.Digest]*list.Element
	used *list.List // of *hintEntry, most recently used first
}

type hintEntry struct {
	digest digest.Digest
	hint
	disputed bool
}

func newHints(most int) *hints {
	return &hints{most: most, by: map[digest.Digest]*list.Element{}, used: list.New()}
}

func (h *hints) get(d digest.Digest) (hint, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.by[d]
	if e == nil {
		return hint{size: -1}, false
	}
	h.used.MoveToFront(e)
	return e.Value.(*hintEntry).hint, true
}

// put adds what n says to what is known.
func (h *hints) put(d digest.Digest, n hint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n.size == 0 {
		n.size = -1 // only one digest has no bytes, and nobody asks about it
	}
	e := h.by[d]
	if e == nil {
		h.by[d] = h.used.PushFront(&hintEntry{digest: d, hint: n})
		if h.used.Len() > h.most {
			last := h.used.Back()
			delete(h.by, h.used.Remove(last).(*hintEntry).digest)
		}
		return
	}
	h.used.MoveToFront(e)
	old := e.Value.(*hintEntry)
	switch {
	case old.disputed || n.size < 0:
	case old.size >= 0 && old.size != n.size:
		old.size, old.disputed = -1, true
	default:
		old.size = n.size
	}
	old.kind = max(old.kind, n.kind)
	if n.mediaType != "" {
		old.mediaType = n.mediaType
	}
	old.parsed = old.parsed || n.parsed
}

// forget drops the size of a digest, which was wrong.
func (h *hints) forget(d digest.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.by[d]; e != nil {
		e.Value.(*hintEntry).size = -1
	}
}

// learn remembers what a manifest says of itself and of what it names.
// mediaType is what came with it, used where it does not say.
func (h *hints) learn(d digest.Digest, body []byte, mediaType string) {
	m := parseManifest(body)
	if m.mediaType != "" {
		mediaType = m.mediaType
	}
	h.put(d, hint{size: int64(len(body)), kind: KindManifest, mediaType: mediaType, parsed: true})
	for _, c := range m.descriptors {
		h.put(c.Digest, hint{size: c.Size, kind: c.kind, mediaType: c.MediaType})
	}
}
