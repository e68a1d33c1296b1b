package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// maxResumes is how often a body is continued without having got
	// resumeProgress further in between.
	maxResumes     = 5
	resumeProgress = 1 << 20
)

// Body is the bytes of a blob as they come from an origin. When they break off
// or stall, Read asks for the rest, so that the reader sees nothing of it.
//
// Read is for one goroutine at a time; Close may be called at any time, and
// ends a Read.
type Body struct {
	// Size is the blob's size, or -1 where the origin has not told it.
	Size int64
	// Offset is where the first byte that Read returns really is in the blob:
	// as asked for, or 0 if the origin ignored the range.
	Offset int64
	// Ranged reports that a range was asked for and the origin heeded it.
	Ranged bool

	c      *Client
	t      *target
	src    Source
	digest digest.Digest
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.Mutex // held by Read, and by Close once ctx is canceled
	cur      *http.Response
	curEnd   int64 // where cur's bytes end, exclusive; -1 if that is unknown
	pos      int64 // offset in the blob of the next byte
	end      int64 // where this body ends, exclusive; -1 while that is unknown
	asked    int64 // end as asked for, or -1
	etag     string
	etagHost string
	resumes  int   // since mark
	mark     int64 // pos when resumes was last 0
	lastByte time.Time
	err      error
}

// Length is the number of bytes that Read will return in all, or -1.
func (b *Body) Length() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.end < 0 {
		return -1
	}
	return b.end - b.Offset
}

// Read implements io.Reader. At the end of what was asked for it returns
// io.EOF; that many bytes have been read then. Other errors are those of
// Client.Blob and ErrChanged, and final.
func (b *Body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		if b.err == nil && b.end >= 0 && b.pos >= b.end {
			b.err = io.EOF
		}
		if b.err != nil || len(p) == 0 {
			b.drop()
			return 0, b.err
		}
		if b.curEnd >= 0 && b.pos >= b.curEnd {
			// The origin sent less than was asked for, and said so.
			b.drop()
		}
		cause := io.ErrUnexpectedEOF
		if b.cur != nil {
			q := p
			if b.curEnd >= 0 {
				q = p[:min(int64(len(p)), b.curEnd-b.pos)]
			}
			n, err := b.cur.Body.Read(q)
			if n > 0 {
				b.pos += int64(n)
				b.lastByte = time.Now()
				if b.pos-b.mark >= resumeProgress {
					b.mark, b.resumes = b.pos, 0
				}
				// An error is met again by the next Read, or by a new request.
				if err != nil && err != io.EOF {
					b.drop()
				}
				return n, nil
			}
			switch {
			case err == nil:
				return 0, nil
			case err == io.EOF && b.curEnd < 0:
				// The origin told no length, so that this must be the end.
				b.end = b.pos
				continue
			case err != io.EOF:
				cause = err
			}
			b.drop()
		}
		b.err = b.resume(cause)
	}
}

// Close ends the body.
func (b *Body) Close() error {
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = fmt.Errorf("origin: read after Close: %w", context.Canceled)
	}
	b.drop()
	return nil
}

// drop closes the current response.
func (b *Body) drop() {
	if b.cur != nil {
		b.cur.Body.Close()
		b.cur = nil
	}
}

// resume asks for the rest, at the registry and not at the host to which that
// redirected: such URLs expire. It gives up when asking again is pointless,
// after maxResumes, and when there has been no byte for Options.Stall.
func (b *Body) resume(cause error) error {
	limit := b.lastByte.Add(b.c.opts.Stall)
	for {
		if err := b.ctx.Err(); err != nil {
			return fmt.Errorf("origin: reading blob %s: %w", b.digest, err)
		}
		pause := firstPause << b.resumes / 2 // 50, 100, 200, … ms
		pause = pause*3/4 + rand.N(pause/2)
		if b.resumes == maxResumes || !worthWaiting(b.ctx, pause, limit) {
			return &Error{
				Status: http.StatusBadGateway, Code: CodeUnavailable, unreachable: true, final: true, err: cause,
				Message: fmt.Sprintf("blob %s of %s broke off at byte %d", b.digest, b.src.Origin, b.pos),
			}
		}
		b.resumes++
		if err := sleep(b.ctx, pause); err != nil {
			return fmt.Errorf("origin: reading blob %s: %w", b.digest, err)
		}
		b.c.metrics.resumes.Inc()
		err := b.open(limit)
		if err == nil {
			return nil
		}
		var e *Error
		if !errors.As(err, &e) || e.final || !e.unreachable {
			return err
		}
		cause = err
	}
}

// open asks for the bytes from pos to end and puts the response into cur, with
// the next byte that is read from it at pos.
func (b *Body) open(limit time.Time) error {
	q := blobCall(b.src, http.MethodGet, b.digest)
	q.limit = limit
	ranged := b.pos > 0 || b.asked >= 0
	if ranged {
		q.setRange(b.pos, b.end)
	}
	resp, err := b.c.do(b.ctx, b.t, q)
	if err != nil {
		return err
	}
	if err := b.accept(q, resp, ranged); err != nil {
		closeBody(resp)
		return err
	}
	return nil
}

// accept checks that a response continues the blob at pos, or begins it if
// this is the first one.
func (b *Body) accept(q *call, resp *http.Response, ranged bool) error {
	first := b.lastByte.IsZero()
	r, ok := parseContentRange(resp.Header.Get("Content-Range"))
	size := resp.ContentLength
	var start, end int64 // what the response covers; end -1 where it does not say
	switch resp.StatusCode {
	case http.StatusOK:
		end = size
	case http.StatusPartialContent:
		if !ranged || !ok || r.first != b.pos || b.end >= 0 && r.last >= b.end ||
			resp.ContentLength >= 0 && resp.ContentLength != r.last-r.first+1 {
			return badAnswer(q, fmt.Sprintf("206 with Content-Range %.60q and Content-Length %d for Range %q",
				resp.Header.Get("Content-Range"), resp.ContentLength, q.header.Get("Range")))
		}
		start, end, size = r.first, r.last+1, r.total
	case http.StatusRequestedRangeNotSatisfiable:
		if first && ok && r.total == 0 && b.pos == 0 {
			b.Size, b.end = 0, 0 // no range of an empty blob can be satisfied
			resp.Body.Close()
			return nil
		}
		return statusError(q, resp)
	default:
		return statusError(q, resp)
	}

	etag, host := resp.Header.Get("ETag"), hostKey(resp.Request.URL)
	switch {
	case b.Size >= 0 && size >= 0 && size != b.Size,
		// Another host may well have another tag for the same bytes.
		b.etag != "" && etag != "" && etag != b.etag && host == b.etagHost:
		return fmt.Errorf("%w: blob %s of %s", ErrChanged, b.digest, b.src.Origin)
	}
	b.etag, b.etagHost = etag, host
	if size >= 0 {
		b.Size = size
	}

	if first {
		if resp.StatusCode == http.StatusOK {
			// All of it, whatever was asked for.
			b.Offset, b.pos, b.mark, b.Ranged, b.end, b.asked = 0, 0, 0, false, end, -1
		} else {
			b.mark = b.pos
		}
	}
	if size >= 0 && (b.end < 0 || b.end > size) {
		b.end = size
	}
	if resp.StatusCode == http.StatusPartialContent && b.end < 0 {
		b.end = end // open-ended and of unknown size: this is what there is
	}
	if start < b.pos {
		// A 200 to a range: the beginning comes again.
		n, err := io.CopyN(io.Discard, resp.Body, b.pos-start)
		b.c.metrics.discarded.Add(float64(n))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				e = &Error{Status: http.StatusBadGateway, Code: CodeUnavailable, Message: q.String(), unreachable: true, err: err}
			}
			return e
		}
	}
	b.cur, b.curEnd = resp, end
	return nil
}
