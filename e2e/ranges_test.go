//go:build e2e && linux

package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// pieceLength is containerd 2's concurrent_layer_fetch_buffer.
const pieceLength = 8 * mib

// fetchLikeContainerd2 gets a blob of size bytes as containerd 2.4 does with
// parallel fetches: open-ended ranges, several at once, each hung up on after
// its piece.
func fetchLikeContainerd2(ctx context.Context, url string, size int64) ([]byte, error) {
	blob := make([]byte, size)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true, MaxConnsPerHost: 8}}
	defer client.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for off := int64(0); off < size; off += pieceLength {
		g.Go(func() error {
			ctx, hangUp := context.WithCancel(ctx)
			defer hangUp()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
			req.Header.Set("Accept-Encoding", "zstd, gzip, deflate")
			resp, err := client.Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			want := fmt.Sprintf("bytes %d-%d/%d", off, size-1, size)
			if resp.StatusCode != http.StatusPartialContent || resp.Header.Get("Content-Range") != want || resp.Header.Get("Content-Encoding") != "" {
				return fmt.Errorf("range at %d: %s, Content-Range %q (want %q), Content-Encoding %q", off,
					resp.Status, resp.Header.Get("Content-Range"), want, resp.Header.Get("Content-Encoding"))
			}
			_, err = io.ReadFull(resp.Body, blob[off:min(off+pieceLength, size)])
			return err
		})
	}
	return blob, g.Wait()
}

// TestParallelOpenRanges: containerd 2's ranges overlap all the way to the end.
// If each became a request to the registry, a 120 MB layer would cost a GB.
func TestParallelOpenRanges(t *testing.T) {
	f := startFront(t, sharedRegistry(t).addr, "")
	layer := largest(t, runnableImage(t))
	digest := layer.Digest.String()
	one := startNode(t, f.url(), nil)
	two := startNode(t, f.url(), []*node{one})
	for i, n := range []*node{one, two} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		blob, err := fetchLikeContainerd2(ctx, n.at("app/big", "blobs/"+digest), layer.Size)
		cancel()
		if err != nil {
			t.Fatalf("node %d: %v", i+1, err)
		}
		if got := digestOf(digest, blob); got != digest {
			t.Fatalf("node %d: the pieces make %s", i+1, got)
		}
		// Once for both: the second node's come from the first.
		if got := f.seen(blobKind); got.bytes > layer.Size {
			t.Errorf("node %d: %d bytes from the registry in %d requests, for a blob of %d", i+1, got.bytes, got.requests, layer.Size)
		}
	}
}

// TestBothNodesAtOnce: two nodes that pull the same image at the same time cost
// the registry one copy.
func TestBothNodesAtOnce(t *testing.T) {
	f := startFront(t, sharedRegistry(t).addr, "")
	layer := largest(t, runnableImage(t))
	digest := layer.Digest.String()
	one := startNode(t, f.url(), nil)
	two := startNode(t, f.url(), []*node{one})
	three := startNode(t, f.url(), []*node{one, two})
	var g errgroup.Group
	for _, n := range []*node{one, two, three} {
		g.Go(func() error {
			r := fetch(t, 2*time.Minute, "GET", n.at("app/big", "blobs/"+digest))
			if r.err != nil || r.status != http.StatusOK || digestOf(digest, r.body) != digest {
				return fmt.Errorf("%s: %v", n.proxy, r)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	// The architecture grants a stripe to one node at a time; hedges of up to
	// 1 % and one stripe begun twice are counted, not hidden.
	if got, most := f.seen(blobKind).bytes, layer.Size+layer.Size/100+16*mib; got > most {
		t.Errorf("three nodes took %d bytes from the registry for a blob of %d", got, layer.Size)
	} else {
		t.Logf("egress: %.3f copies", float64(got)/float64(layer.Size))
	}
}
