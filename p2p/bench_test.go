package p2p

import (
	"bytes"
	"context"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/peercache/peercache/chunkindex"
)

const (
	benchBytes   = 1 << 30
	benchStreams = 4
)

// cpu is the CPU time of this process, both ends together.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, since time.Duration) {
	b.ReportMetric((cpu()-since).Seconds()/float64(b.N), "CPU-s/GiB")
}

// BenchmarkTransfer moves 1 GiB between two nodes in one process, over four
// streams: by Read in ranges of 1 MiB and of 4 MiB, and, for comparison, over
// bare libp2p streams (TCP, TLS, yamux) that carry nothing else.
//
//	go test -run '^$' -bench Transfer -benchtime 3x ./p2p
func BenchmarkTransfer(b *testing.B) {
	b.Run("range-1MiB", func(b *testing.B) { benchRanges(b, 1<<20) })
	b.Run("range-4MiB", func(b *testing.B) { benchRanges(b, 4<<20) })
	b.Run("libp2p", benchRaw)
}

func benchRanges(b *testing.B, length int64) {
	x, y := pair(b, nil)
	data := randomBytes(64 << 20)
	x.rec.onRange = func(_ context.Context, _ chunkindex.NodeID, r RangeRequest) (*RangeSource, error) {
		off := r.Offset % int64(len(data))
		return &RangeSource{Size: benchBytes, Length: r.Length, Body: io.NopCloser(bytes.NewReader(data[off : off+r.Length]))}, nil
	}
	d := digestOf("bench")
	b.SetBytes(benchBytes)
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		x.rec.mu.Lock()
		x.rec.requests = nil
		x.rec.mu.Unlock()
		var next atomic.Int64
		var wg sync.WaitGroup
		for range benchStreams {
			wg.Go(func() {
				buf := make([]byte, 256<<10)
				for {
					off := next.Add(length) - length
					if off >= benchBytes {
						return
					}
					resp, err := y.Read(context.Background(), x.Self(), RangeRequest{d, off, length})
					if err != nil {
						b.Error(err)
						return
					}
					n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
					resp.Body.Close()
					if n != length || err != nil {
						b.Errorf("%d bytes, %v", n, err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	reportCPU(b, before)
}

func benchRaw(b *testing.B) {
	const bulk = "/bench/1"
	x, y := rawHost(b, crypto.Ed25519), rawHost(b, crypto.Ed25519)
	data := randomBytes(64 << 20)
	x.SetStreamHandler(bulk, func(s network.Stream) {
		defer s.Close()
		io.ReadFull(s, make([]byte, 1))
		for left := benchBytes / benchStreams; left > 0; {
			off := left % len(data)
			n, err := s.Write(data[off:min(off+256<<10, off+left, len(data))])
			if err != nil {
				return
			}
			left -= n
		}
	})
	if err := y.Connect(context.Background(), peer.AddrInfo{ID: x.ID(), Addrs: x.Addrs()}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchBytes)
	b.ReportAllocs()
	before := cpu()
	for b.Loop() {
		var wg sync.WaitGroup
		for range benchStreams {
			wg.Go(func() {
				s, err := y.NewStream(context.Background(), x.ID(), bulk)
				if err != nil {
					b.Error(err)
					return
				}
				s.Write([]byte{1})
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 256<<10))
				if n != benchBytes/benchStreams || err != nil {
					b.Errorf("%d bytes, %v", n, err)
				}
				s.Close()
			})
		}
		wg.Wait()
	}
	reportCPU(b, before)
}

// BenchmarkFrames sends small control frames from one node to another: as many
// as it takes, in bursts of 16, and one by one, where each burst waits until the
// one before has arrived. It reports the CPU time of both nodes.
//
//	go test -run '^$' -bench Frames ./p2p
func BenchmarkFrames(b *testing.B) {
	b.Run("stream", func(b *testing.B) { benchFrames(b, maxQueuedFrames/2, 1) })
	b.Run("burst-16", func(b *testing.B) { benchFrames(b, 0, 16) })
	b.Run("lone", func(b *testing.B) { benchFrames(b, 0, 1) })
}

// benchFrames sends bursts of frames, and has at most ahead of them unanswered
// when it begins one.
func benchFrames(b *testing.B, ahead int64, burst int) {
	x, y := pair(b, nil)
	var got atomic.Int64
	arrived := make(chan struct{}, 1)
	y.rec.mu.Lock()
	y.rec.onFrame = func(chunkindex.NodeID, []byte) {
		got.Add(1)
		select {
		case arrived <- struct{}{}:
		default:
		}
	}
	y.rec.mu.Unlock()
	frame := make([]byte, 40)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	sent := int64(0)
	begin := cpu()
	for b.Loop() {
		if sent%int64(burst) == 0 {
			for sent-got.Load() > ahead {
				<-arrived
			}
		}
		if err := x.Send(y.Self(), frame); err != nil {
			b.Fatal(err)
		}
		sent++
	}
	b.ReportMetric(float64((cpu()-begin).Nanoseconds())/float64(b.N), "CPU-ns/frame")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
}
