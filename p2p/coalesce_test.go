package p2p

import (
	"bytes"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coreconnmgr "github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// writeRecorder is a stream that keeps what is written at once.
type writeRecorder struct {
	network.Stream
	mu     sync.Mutex
	writes [][]byte
	hold   chan struct{} // each write waits for it
}

func (w *writeRecorder) Write(p []byte) (int, error) {
	w.mu.Lock()
	w.writes = append(w.writes, bytes.Clone(p))
	w.mu.Unlock()
	<-w.hold
	return len(p), nil
}

func (w *writeRecorder) SetWriteDeadline(time.Time) error { return nil }
func (w *writeRecorder) Reset() error                     { return nil }

func (w *writeRecorder) take() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.writes
	w.writes = nil
	return got
}

type noTag struct{ coreconnmgr.DecayingTag }

func (noTag) Bump(peer.ID, int) error { return nil }

// A lone frame is written at once; frames that have queued up meanwhile go out
// together, in writes of a bounded size.
func TestFramesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zero := func() float64 { return 0 }
		h := &Host{opts: Options{PeerTimeout: 4 * time.Second}, metrics: newMetrics(zero, zero, zero), active: noTag{}}
		w := &writeRecorder{hold: make(chan struct{})}
		s := &session{link: &link{epoch: time.Now()}, stream: w, queue: newSendQueue(), ended: make(chan struct{})}
		var writer sync.WaitGroup
		writer.Go(func() { h.writeFrames(s) })
		push := func(n, size int) {
			t.Helper()
			for range n {
				if err := s.queue.push(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
			}
		}
		begin := time.Now()
		push(1, 40)
		synctest.Wait()
		if got := w.take(); len(got) != 1 || len(got[0]) != 41 || time.Since(begin) != 0 {
			t.Fatalf("a lone frame makes %d writes after %v", len(got), time.Since(begin))
		}
		// The peer takes its time; 500 frames of 41 bytes on the wire queue up.
		push(500, 40)
		w.hold <- struct{}{}
		synctest.Wait()
		if got := w.take(); len(got) != 1 || len(got[0]) != 500*41 {
			t.Errorf("500 queued frames make %d writes, the first of %d bytes", len(got), len(got[0]))
		}
		// Large ones do not wait for one another.
		push(20, 20<<10)
		close(w.hold)
		synctest.Wait()
		total, largest := 0, 0
		for _, p := range w.take() {
			total += len(p)
			largest = max(largest, len(p))
		}
		if total != 20*(20<<10+3) || largest > writeBatch+20<<10+3 {
			t.Errorf("%d bytes written, at most %d at once", total, largest)
		}
		// With nothing to say, it says so, a quarter of the peer timeout later.
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.take(); len(got) != 1 || !bytes.Equal(got[0], []byte{0}) {
			t.Errorf("keep-alive %x", got)
		}
		s.end(errStopping)
		writer.Wait()
	})
}
