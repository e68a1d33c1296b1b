package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
)

// mib is the chunk that T* reckons with, whatever chunks the nodes use.
const mib = 1 << 20

// optimum returns T*, the time in seconds in which n nodes can have `bytes` bytes
// at best if all links are equal and chunks of 1 MiB pass on whole: link is the
// goodput of a node's link, origin that of the origin's, in bytes a second.
//
// With t = 1 MiB / link and M chunks it is t (M - 1 + ceil(log2(n+1))): the origin
// sends a chunk in each t, and the last one doubles its holders from then on.
// Where the origin is slower than a node it needs bytes/origin for its part, and
// the last chunk goes round in t (ceil(log2(n+1)) - 1); originBound says that this
// is so. An origin that is faster than a node can beat T*.
func optimum(n int, bytes int64, link, origin float64) (seconds float64, originBound bool) {
	t := mib / link
	rounds := float64(bits.Len(uint(n))) // ceil(log2(n+1))
	if origin < link {
		return float64(bytes)/origin + t*(rounds-1), true
	}
	chunks := float64((bytes + mib - 1) / mib)
	return t * (chunks - 1 + rounds), false
}

// goodput measures what one TCP connection carries from one host to another, in
// bytes a second: from the receiver's first byte to its last.
func goodput(ctx context.Context, from, to *rig.Host, nominal rate) (float64, error) {
	// Long enough that the start and the bucket's first burst do not count.
	n := int64(2 << 30)
	if nominal > 0 {
		n = min(n, max(4<<20, int64(nominal)/8*4))
	}
	l, err := to.Listen(net.JoinHostPort(to.IP, "0"))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	g.Go(func() error {
		c, err := from.DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		buf := make([]byte, 256<<10)
		for left := n; left > 0 && err == nil; left -= int64(len(buf)) {
			_, err = c.Write(buf[:min(left, int64(len(buf)))])
		}
		return err
	})
	var result float64
	g.Go(func() error {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		buf := make([]byte, 256<<10)
		first, err := c.Read(buf)
		if err != nil {
			return err
		}
		start := time.Now()
		var got int64
		for err == nil {
			var k int
			k, err = c.Read(buf)
			got += int64(k)
		}
		took := time.Since(start).Seconds()
		if !errors.Is(err, io.EOF) || got+int64(first) != n || took <= 0 {
			return fmt.Errorf("%d of %d bytes came: %w", got+int64(first), n, err)
		}
		result = float64(got) / took
		return nil
	})
	if err := g.Wait(); err != nil {
		return 0, fmt.Errorf("measuring a link: %w", err)
	}
	return result, nil
}
