package p2p

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
)

// slowLink is one end of a connection that carries so many bytes a second.
type slowLink struct {
	net.Conn
	rate   int
	once   sync.Once
	closed chan struct{}
}

func newSlowLink(c net.Conn, rate int) *slowLink {
	return &slowLink{Conn: c, rate: rate, closed: make(chan struct{})}
}

func (l *slowLink) Write(p []byte) (int, error) {
	select {
	case <-time.After(time.Duration(len(p)) * time.Second / time.Duration(l.rate)):
		return l.Conn.Write(p)
	case <-l.closed:
		return 0, net.ErrClosed
	}
}

// Close ends a Write: yamux waits for that with a mutex held, which time in a bubble does
// not pass for.
func (l *slowLink) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}

// muxedPair returns both ends of a connection whose first end sends at a rate.
func muxedPair(t *testing.T, m network.Multiplexer, rate int) (from, to network.MuxedConn) {
	t.Helper()
	a, b := net.Pipe()
	from, err := m.NewConn(newSlowLink(a, rate), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if to, err = m.NewConn(b, true, nil); err != nil {
		t.Fatal(err)
	}
	return from, to
}

func openStream(t *testing.T, from, to network.MuxedConn) (out, in network.MuxedStream) {
	t.Helper()
	out, err := from.OpenStream(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if in, err = to.AcceptStream(); err != nil {
		t.Fatal(err)
	}
	return out, in
}

// waitOfMessage is how long a message takes while so many chunks go the same way over a
// connection of 1 MB/s.
func waitOfMessage(t *testing.T, m network.Multiplexer, chunks int) (wait time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		from, to := muxedPair(t, m, 1_000_000)
		for range chunks {
			out, in := openStream(t, from, to)
			go func() {
				for chunk := make([]byte, 1<<20); ; {
					if _, err := out.Write(chunk); err != nil {
						return
					}
				}
			}()
			go func() { _, _ = io.Copy(io.Discard, in) }()
		}
		out, in := openStream(t, from, to)
		time.Sleep(5 * time.Second)
		start := time.Now()
		if _, err := out.Write([]byte("?")); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(in, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		wait = time.Since(start)
		closeBoth(t, from, to)
	})
	return wait
}

func closeBoth(t *testing.T, from, to network.MuxedConn) {
	t.Helper()
	if err := errors.Join(from.Close(), to.Close()); err != nil {
		t.Error(err)
	}
	synctest.Wait()
}

// A request waits for little of what is sent beside it, however much that is.
func TestMessagePassesChunks(t *testing.T) {
	for _, chunks := range []int{1, 4} {
		// What may lie before it: half of the bound, and one piece more for each writer.
		most := time.Duration(leastUnsent/2*(chunks+1)+smallWrite) * time.Second / 1_000_000
		if wait := waitOfMessage(t, newMuxer(), chunks); wait > most {
			t.Errorf("%d chunks: waited %v, want at most %v", chunks, wait, most)
		}
	}
	if wait := waitOfMessage(t, yamux.DefaultTransport, 4); wait < 500*time.Millisecond {
		t.Errorf("without bounds it waited %v: the test shows nothing", wait)
	}
}

// A link that is fast has more in front of it, one that becomes slow has little again.
func TestQueueFollowsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		link := newSlowLink(a, 50_000_000)
		var told []int
		o := newOutbound(link)
		o.setUnsent = func(n int) { told = append(told, n) }
		run := func(d time.Duration) {
			frame := make([]byte, 32<<10)
			for start := time.Now(); time.Since(start) < d; {
				if _, err := o.Write(frame); err != nil {
					t.Fatal(err)
				}
			}
		}
		run(time.Second)
		if !within(o.most, 500_000) {
			t.Errorf("%d bytes at 50 MB/s, want 10 ms' worth", o.most)
		}
		link.rate = 1_000_000
		run(time.Second)
		if o.most != leastUnsent {
			t.Errorf("%d bytes at 1 MB/s, want the least", o.most)
		}
		if len(told) < 2 || told[len(told)-1] != leastUnsent {
			t.Errorf("the kernel was told %v", told)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
}

func within(got, want int) bool { return got > want*3/4 && got < want*5/4 }

// Who waits for room goes on when its stream ends, its time is over, or the connection is
// closed.
func TestWaitForRoomEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(s network.MuxedStream, o *outbound) error
		late bool
	}{
		{"reset", func(s network.MuxedStream, _ *outbound) error { return s.Reset() }, false},
		{"closed", func(_ network.MuxedStream, o *outbound) error { return o.Close() }, false},
		{"deadline", func(network.MuxedStream, *outbound) error { return nil }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := net.Pipe()
				o := newOutbound(a)
				o.add(mostUnsent) // and nobody ever writes it
				s := newMuxedStream(&endedStream{}, o)
				if err := s.SetWriteDeadline(time.Now().Add(3 * time.Second)); err != nil {
					t.Fatal(err)
				}
				start, ended := time.Now(), make(chan error, 1)
				go func() {
					_, err := s.Write(make([]byte, 1<<20))
					ended <- err
				}()
				time.Sleep(time.Second)
				if err := tc.end(s, o); err != nil {
					t.Error(err)
				}
				want := time.Second
				if tc.late {
					want *= 3
				}
				// What yamux's own Write says is what counts.
				if err := <-ended; !errors.Is(err, errEnded) {
					t.Errorf("ended with %v", err)
				}
				if took := time.Since(start); took != want {
					t.Errorf("ended after %v, want %v", took, want)
				}
			})
		})
	}
}

var errEnded = errors.New("ended")

// endedStream is a stream that takes nothing.
type endedStream struct{ network.MuxedStream }

func (*endedStream) Write([]byte) (int, error)        { return 0, errEnded }
func (*endedStream) SetWriteDeadline(time.Time) error { return nil }
func (*endedStream) Reset() error                     { return nil }
