package fetcher

import (
	"slices"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
)

// Sources counts bytes by where they came from.
type Sources struct {
	Store  int64 `json:"store"`
	Peer   int64 `json:"peer"`
	Origin int64 `json:"origin"`
}

// BlobStatus describes a blob that is being read or fetched.
type BlobStatus struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // -1 unknown
	Chunks int           `json:"chunks"`
	// Levels counts the chunks at each level, by its name.
	Levels  map[string]int `json:"levels"`
	Readers int            `json:"readers"`
}

// Status is a snapshot for people.
type Status struct {
	Received Sources      `json:"received"` // from the network; Store is always 0
	Wasted   Sources      `json:"wasted"`   // the part of Received that was of no use
	Served   Sources      `json:"served"`   // to clients
	Stale    int64        `json:"staleAnswers"`
	Readers  int          `json:"readers"`
	Blobs    []BlobStatus `json:"blobs"`
}

// Status returns a snapshot, its blobs in the order of their digests.
func (f *Fetcher) Status() Status {
	s := Status{
		Received: sourcesOf(&f.count.receivedBytes), Wasted: sourcesOf(&f.count.wastedBytes),
		Served: sourcesOf(&f.count.servedBytes), Stale: f.count.stale.Load(),
		Readers: int(f.readerCount.Load()), Blobs: []BlobStatus{},
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, b := range f.blobs {
		s.Blobs = append(s.Blobs, b.status())
	}
	slices.SortFunc(s.Blobs, func(a, b BlobStatus) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	return s
}

func sourcesOf(c *[fromOrigin + 1]atomic.Int64) Sources {
	return Sources{c[fromStore].Load(), c[fromPeer].Load(), c[fromOrigin].Load()}
}

func (b *blob) status() BlobStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := BlobStatus{Digest: b.digest, Size: b.size, Chunks: len(b.levels), Levels: map[string]int{}, Readers: b.readers}
	for _, l := range b.levels {
		s.Levels[l.String()]++
	}
	return s
}
