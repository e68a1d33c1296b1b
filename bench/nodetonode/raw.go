package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
)

const (
	rawProtocol = "/peercache/bench/raw/1"
	rawStreams  = 4
	rawRange    = 1 << 20
	rawBuffer   = 256 << 10
)

func rawHost(options ...libp2p.Option) (host.Host, error) {
	return libp2p.New(append([]libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.DisableIdentifyAddressDiscovery(),
	}, options...)...)
}

// serveRaw is the role of the server: on each stream it answers every offset, 8
// bytes, with a range of bytes from memory.
func serveRaw(ctx context.Context, _ []string, in io.Reader, out io.Writer) error {
	h, err := rawHost(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		return err
	}
	defer h.Close()
	data := make([]byte, 64<<20)
	if _, err := io.ReadFull(rig.Content{Number: 4, Size: int64(len(data))}.Reader(), data); err != nil {
		return err
	}
	h.SetStreamHandler(rawProtocol, func(s network.Stream) {
		defer s.Close()
		var offset [8]byte
		for {
			if _, err := io.ReadFull(s, offset[:]); err != nil {
				return
			}
			at := binary.BigEndian.Uint64(offset[:]) % uint64(len(data))
			for part := data[at : at+rawRange]; len(part) > 0; {
				n, err := s.Write(part[:min(rawBuffer, len(part))])
				if err != nil {
					return
				}
				part = part[n:]
			}
		}
	})
	if err := json.NewEncoder(out).Encode(peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
		return err
	}
	return untilEnd(ctx, in)
}

// untilEnd returns when ctx ends or who started this process does.
func untilEnd(ctx context.Context, in io.Reader) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}

// fetchRaw is the role of the client: it connects to the server of its first
// argument, fetches as many bytes as its second one says, and says how long that
// took. It ends when it is told to, so that its CPU time can be read.
func fetchRaw(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	var server peer.AddrInfo
	if err := json.Unmarshal([]byte(args[0]), &server); err != nil {
		return err
	}
	total, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	h, err := rawHost(libp2p.NoListenAddrs)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := h.Connect(ctx, server); err != nil {
		return err
	}
	e := json.NewEncoder(out)
	if err := e.Encode("connected"); err != nil {
		return err
	}
	if _, err := io.ReadFull(in, make([]byte, 1)); err != nil { // "go"
		return err
	}
	start := time.Now()
	var next atomic.Int64
	g, all := errgroup.WithContext(ctx)
	for range rawStreams {
		g.Go(func() error {
			s, err := h.NewStream(all, server.ID, rawProtocol)
			if err != nil {
				return err
			}
			defer s.Reset()
			buf := make([]byte, rawBuffer)
			for {
				off := next.Add(rawRange) - rawRange
				if off >= total {
					return nil
				}
				if _, err := s.Write(binary.BigEndian.AppendUint64(nil, uint64(off))); err != nil {
					return err
				}
				for left := rawRange; left > 0; {
					n, err := s.Read(buf[:min(len(buf), left)])
					left -= n
					if err != nil && left > 0 {
						return err
					}
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := e.Encode(time.Since(start).Seconds()); err != nil {
		return err
	}
	return untilEnd(ctx, in)
}

// measureRaw moves n bytes between two processes and returns the seconds it took
// and the CPU seconds of both.
func measureRaw(ctx context.Context, r *rig.Rig, n int64) (seconds, serverCPU, clientCPU float64, err error) {
	var addr json.RawMessage
	server, _, _, err := r.StartRole(ctx, "serve", &addr)
	if err != nil {
		return 0, 0, 0, err
	}
	defer server.Stop()
	var ready string
	client, tell, out, err := r.StartRole(ctx, "fetch", &ready, string(addr), fmt.Sprint(n))
	if err != nil {
		return 0, 0, 0, err
	}
	defer client.Stop()
	cpu := func() (a, b time.Duration) {
		var errA, errB error
		a, errA = server.CPU()
		b, errB = client.CPU()
		err = errors.Join(err, errA, errB)
		return a, b
	}
	a, b := cpu()
	if _, err := io.WriteString(tell, "!"); err != nil {
		return 0, 0, 0, err
	}
	if err := client.ReadLine(ctx, out, &seconds); err != nil {
		return 0, 0, 0, err
	}
	a2, b2 := cpu()
	return seconds, (a2 - a).Seconds(), (b2 - b).Seconds(), err
}
