package origin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

func blobCall(src Source, method string, d digest.Digest) *call {
	return &call{
		kind: kindBlob, method: method, src: src,
		path:   "/v2/" + src.Repository + "/blobs/" + d.String(),
		header: make(http.Header),
	}
}

// setRange asks for the bytes from off to end (exclusive; negative: to the end
// of the blob).
func (q *call) setRange(off, end int64) {
	s := "bytes=" + strconv.FormatInt(off, 10) + "-"
	if end >= 0 {
		s += strconv.FormatInt(end-1, 10)
	}
	q.header.Set("Range", s)
}

// Blob reads n bytes of a blob from offset off; n < 0 means to its end. It
// returns when the origin has answered; the context governs the body as well.
//
// The bytes are what the origin says the blob is: only who hashes them knows.
// The caller must look at Body.Offset, since an origin that ignores Range sends
// the whole blob.
//
// Errors: fs.ErrNotExist (404), *DeniedError, *Error with the origin's status or
// Unreachable, the context's own.
func (c *Client) Blob(ctx context.Context, src Source, d digest.Digest, off, n int64) (*Body, error) {
	t, err := c.check(src, d)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("origin: negative offset %d", off)
	}
	end := int64(-1)
	if n >= 0 {
		end = off + n
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &Body{
		c: c, t: t, src: src, digest: d, ctx: ctx, cancel: cancel,
		Size: -1, Offset: off, Ranged: off > 0 || n >= 0, pos: off, end: end, asked: end,
	}
	if n == 0 {
		return b, nil
	}
	if err := b.open(time.Time{}); err != nil {
		cancel()
		return nil, err
	}
	b.lastByte = time.Now()
	return b, nil
}

// Size returns a blob's size without downloading it, or -1 if the origin tells
// its size in no way. Errors are those of Blob.
func (c *Client) Size(ctx context.Context, src Source, d digest.Digest) (int64, error) {
	t, err := c.check(src, d)
	if err != nil {
		return 0, err
	}
	q := blobCall(src, http.MethodHead, d)
	resp, err := c.do(ctx, t, q)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK && resp.ContentLength > 0:
		return resp.ContentLength, nil
	case resp.StatusCode != http.StatusOK && !refusesHead(t, resp):
		return 0, statusError(q, resp)
	}

	// No HEAD here, or one without a length (0 is what careless servers send):
	// ask for the first byte and look at the rest of the headers.
	q = blobCall(src, http.MethodGet, d)
	q.setRange(0, 1)
	resp, err = c.do(ctx, t, q)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	r, ok := parseContentRange(resp.Header.Get("Content-Range"))
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if !ok {
			return 0, badAnswer(q, "a malformed Content-Range")
		}
		return r.total, nil
	case http.StatusRequestedRangeNotSatisfiable:
		if ok && r.total == 0 {
			return 0, nil
		}
	case http.StatusOK:
		return resp.ContentLength, nil
	}
	return 0, statusError(q, resp)
}

// refusesHead reports whether the answer to a HEAD says something about HEAD
// rather than about what was asked for. A URL that is signed for GET is
// refused with 403 when another method is used on it.
func refusesHead(t *target, resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest:
		return true
	case http.StatusUnauthorized, http.StatusForbidden:
		for _, e := range t.endpoints {
			if e.host == hostKey(resp.Request.URL) {
				return false
			}
		}
		return true
	}
	return false
}
