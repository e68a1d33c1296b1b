package store

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peercache/peercache/chunkindex"
)

// uncleanly makes a store with a complete and a partial blob, and lets it look as
// if the machine had died under it.
func uncleanly(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(context.Background(), whole.digest, KindLayer, whole.data); err != nil {
		t.Fatal(err)
	}
	p, err := s.Partial(unended.digest, unended.layout, KindLayer)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := p.WriteChunk(i, fullBuffer(unended.chunk(i)), chunkindex.Fetched, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.cleanPath()); err != nil {
		t.Fatal(err)
	}
}

// flip changes one byte of a file.
func flip(t *testing.T, name string, off int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := []byte{0}
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// figure returns the value of one counter.
func figure(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].Metric[0].GetCounter().GetValue()
}

// TestProveOnce asks many times at once for the proof of a blob after an unclean
// stop: it is read once, and never again until the next unclean stop, also over a
// clean restart.
func TestProveOnce(t *testing.T) {
	dir := t.TempDir()
	uncleanly(t, dir)
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(whole.digest)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := b.Prove(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b.Close()
	if n := figure(t, s.counts.proofs); n != 1 {
		t.Errorf("read %v times", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, nil); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if b, err = s.Open(whole.digest); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Prove(ctx); err != nil { // needs no time
		t.Error(err)
	}
	if n := figure(t, s.counts.proofs); n != 0 {
		t.Errorf("read %v times after a clean stop", n)
	}
}

// TestProveCorrupt finds a wrong byte in a blob, and in a chunk of a partial one,
// after an unclean stop.
func TestProveCorrupt(t *testing.T) {
	dir := t.TempDir()
	uncleanly(t, dir)
	var evicted []digest.Digest
	s, err := Open(dir, &Options{OnEvict: func(d digest.Digest) { evicted = append(evicted, d) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	flip(t, s.blobPath(whole.digest), mib/2+77)
	flip(t, s.partialPath(unended.digest), 3)
	b, err := s.Open(whole.digest)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for range 2 {
		var corrupt *CorruptError
		if err := b.Prove(context.Background()); !errors.As(err, &corrupt) || corrupt.Digest != whole.digest {
			t.Fatalf("error is %v", err)
		}
	}
	if _, err := s.Open(whole.digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a corrupt blob can be opened: %v", err)
	}
	if len(evicted) != 1 || evicted[0] != whole.digest {
		t.Errorf("OnEvict was told %v", evicted)
	}
	if info, err := s.Stat(unended.digest); err != nil || info.Have != 0 {
		t.Errorf("chunks count before they were read back: %+v, %v", info, err)
	}
	p, err := s.Partial(unended.digest, unended.layout, KindLayer)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if a, b := p.Chunk(0), p.Chunk(1); a.Level != chunkindex.Absent || b.Level != chunkindex.Fetched {
		t.Errorf("chunks are %s, %s", a.Level, b.Level)
	}
	if u := s.Usage(); u.Bytes != int64(len(unended.chunk(1))) {
		t.Errorf("usage is %+v", u)
	}
}

// TestFileVanished removes a blob's file behind the store's back, and cuts one.
func TestFileVanished(t *testing.T) {
	s, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []content{small, whole} {
		if err := s.Put(context.Background(), c.digest, KindLayer, c.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Remove(s.blobPath(small.digest)), os.Truncate(s.blobPath(whole.digest), 5)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []content{small, whole} {
		var corrupt *CorruptError
		if _, err := s.Open(c.digest); !errors.As(err, &corrupt) {
			t.Errorf("error is %v", err)
		}
		if _, err := s.Stat(c.digest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	}
}

// TestRun lets the store recover by itself after an unclean stop, with a wrong
// byte in a blob whose turn to be scrubbed has come.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	uncleanly(t, dir)
	told := make(chan digest.Digest, 1)
	s, err := Open(dir, &Options{OnEvict: func(d digest.Digest) { told <- d }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	flip(t, s.blobPath(whole.digest), 9)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	select {
	case d := <-told:
		if d != whole.digest {
			t.Errorf("evicted %s", d)
		}
	case <-time.After(30 * time.Second):
		t.Error("the corrupt blob was not found")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	// Chunks are read back before blobs.
	if info, err := s.Stat(unended.digest); err != nil || info.Have != 2 {
		t.Errorf("partial blob: %+v, %v", info, err)
	}
}

// TestScrub lets a blob grow old.
func TestScrub(t *testing.T) {
	s, _, c := openMeter(t, t.TempDir(), Options{ScrubInterval: 24 * time.Hour})
	defer s.Close()
	if err := s.Put(context.Background(), small.digest, KindLayer, small.data); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		reads float64
	}{{time.Hour, 0}, {24 * time.Hour, 1}, {time.Hour, 1}, {24 * time.Hour, 2}} {
		c.now = c.now.Add(step.after)
		s.scrub(context.Background())
		if n := figure(t, s.counts.proofs); n != step.reads {
			t.Errorf("read %v times, want %v", n, step.reads)
		}
	}
	flip(t, s.blobPath(small.digest), 0)
	c.now = c.now.Add(25 * time.Hour)
	s.scrub(context.Background())
	if n := figure(t, s.counts.corrupt); n != 1 {
		t.Errorf("%v corrupt blobs counted", n)
	}
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	dir := t.TempDir()
	for range 2 { // a second store in one process, after the first
		s, err := Open(dir, &Options{MaxBytes: 1000, Registerer: r})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Put(context.Background(), small.digest, KindLayer, small.data); err != nil {
			t.Fatal(err)
		}
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			if f.GetHelp() == "" || len(f.Metric) != 1 || len(f.Metric[0].Label) != 0 {
				t.Errorf("%s has no help, or labels", f.GetName())
			}
			got[f.GetName()] = f.Metric[0].GetGauge().GetValue() + f.Metric[0].GetCounter().GetValue()
		}
		if got["peercache_store_free_bytes"] <= 0 {
			t.Errorf("free bytes are %v", got["peercache_store_free_bytes"])
		}
		delete(got, "peercache_store_free_bytes")
		want := map[string]float64{
			"peercache_store_bytes": 700, "peercache_store_max_bytes": 1000, "peercache_store_blobs": 1, "peercache_store_partials": 0,
			"peercache_store_evictions_total": 0, "peercache_store_corrupt_total": 0, "peercache_store_corrupt_chunks_total": 0,
			"peercache_store_proofs_total": 0,
		}
		if !maps.Equal(got, want) {
			t.Errorf("metrics are %v, want %v", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAttempts opens an index that killed the process each time that it was
// opened.
func TestAttempts(t *testing.T) {
	dir := t.TempDir()
	uncleanly(t, dir)
	if err := os.WriteFile(dir+"/OPENING", []byte("...."), 0o600); err != nil {
		t.Fatal(err)
	}
	verify(t, dir, "the index", []digest.Digest{whole.digest})
	if _, err := os.Stat(dir + "/index.broken"); err != nil {
		t.Error(err)
	}
}
