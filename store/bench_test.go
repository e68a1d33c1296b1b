package store

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
)

// All of these: go test -run '^$' -bench . ./store

// cpu is the CPU time of this process in seconds.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkWriteAndProve takes in 1 GiB in chunks as a download does: each chunk
// hashed while it is received into a buffer, written, recorded, and the whole
// hashed on the way. CPU-s/GiB includes both hashes.
func BenchmarkWriteAndProve(b *testing.B) {
	s, err := Open(b.TempDir(), &Options{MaxBytes: 4 * gib, MinFreeFraction: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := newContent(digest.SHA256, 1<<20, 1).data
	h := digest.SHA256.Digester()
	for range 1024 {
		h.Hash().Write(data)
	}
	d, l := h.Digest(), layoutOf(gib)
	b.SetBytes(gib)
	b.ReportAllocs()
	start := cpu()
	for b.Loop() {
		p, err := s.Partial(d, l, KindLayer)
		if err != nil {
			b.Fatal(err)
		}
		var buf *chunkindex.Buffer
		for i := range l.Count() {
			off, n := l.Chunk(i)
			buf = chunkindex.NewBuffer(int(n), buf)
			if _, err := buf.ReadFrom(bytes.NewReader(data[off%mib:])); err != nil {
				b.Fatal(err)
			}
			if err := p.WriteChunk(i, buf, chunkindex.Fetched, nil); err != nil {
				b.Fatal(err)
			}
			if _, err := p.HashPrefix(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
		if err := p.Complete(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Delete(d); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric((cpu()-start)/float64(b.N), "CPU-s/GiB")
}

// BenchmarkOpenBlob opens a blob, proves it (nothing to do) and closes it.
func BenchmarkOpenBlob(b *testing.B) {
	s, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	if err := s.Put(context.Background(), whole.digest, KindLayer, whole.data); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		blob, err := s.Open(whole.digest)
		if err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(blob.Prove(context.Background()), blob.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut stores a manifest, durably.
func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := make([]byte, 2000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		copy(data, strconv.Itoa(i))
		if err := s.Put(context.Background(), digest.FromBytes(data), KindManifest, data); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDatastore puts provider records, one by one and in batches of 1000.
func BenchmarkDatastore(b *testing.B) {
	s, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	ctx, value := context.Background(), make([]byte, 10)
	key := func(i int) datastore.Key { return datastore.RawKey(fmt.Sprintf("/providers/%050d/%050d", i%9973, i)) }
	ds := s.Datastore("p2p")
	b.Run("put", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if err := ds.Put(ctx, key(i), value); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("batched put", func(b *testing.B) {
		batch, err := ds.Batch(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for i := 0; b.Loop(); i++ {
			if err := batch.Put(ctx, key(i), value); err != nil {
				b.Fatal(err)
			}
			if i%1000 == 999 {
				if err := batch.Commit(ctx); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := ds.Get(ctx, key(i*7919%100)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkResident reports the anonymous memory of a process that holds a store
// of 20,000 chunk and 50,000 provider records and has come to rest: after it wrote
// them, and after it found them at its start.
func BenchmarkResident(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "store")
	for _, stage := range []string{"write", "open"} {
		b.Run(stage, func(b *testing.B) {
			for b.Loop() {
				cmd := exec.Command(os.Args[0], "-test.run=^$")
				cmd.Env = append(os.Environ(), childEnv+"="+dir+"|"+stage)
				out, err := cmd.Output()
				if err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				var kib float64
				if _, err := fmt.Sscan(string(out), &kib); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(kib/1024, "RssAnon-MiB")
			}
		})
	}
}

// resident is the body of the process that BenchmarkResident starts.
func resident(dir, stage string) error {
	s, err := Open(dir, &Options{MaxBytes: 64 * gib, MinFreeFraction: -1})
	if err != nil {
		return err
	}
	if stage == "write" {
		c := newContent(digest.SHA256, 1<<20, 1)
		buf := fullBuffer(c.data)
		claim := chunkindex.Claim{Sum: buf.Sum()}
		for i := range 20 {
			d := digest.FromString(strconv.Itoa(i))
			p, err := s.Partial(d, layoutOf(gib), KindLayer)
			if err != nil {
				return err
			}
			for i := range 1000 {
				if err := p.setRecord(i, chunkRecord{level: chunkindex.Attested, epoch: s.epoch, sum: claim.Sum, claim: &claim}); err != nil {
					return err
				}
			}
			if err := p.Close(); err != nil {
				return err
			}
		}
		ds := s.Datastore("p2p")
		for i := range 50_000 {
			key := datastore.RawKey(fmt.Sprintf("/providers/%050d/%050d", i%9973, i))
			if err := ds.Put(context.Background(), key, make([]byte, 10)); err != nil {
				return err
			}
		}
	}
	debug.FreeOSMemory() // as the runtime does by itself within minutes
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if kib, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			fmt.Println(strings.Fields(kib)[0])
		}
	}
	return s.Close()
}
