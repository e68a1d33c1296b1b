package origin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
	"unicode"
)

const (
	maxAttempts = 4
	firstPause  = 100 * time.Millisecond // doubles from attempt to attempt
	// maxErrorBody is how much of an error body is read.
	maxErrorBody = 64 << 10
)

// do asks an origin's mirrors, each once, and then the origin itself, again
// after a pause where that may help. It returns any response of the origin that
// is an answer (2xx, 3xx and 4xx but 408 and 429), and those of a mirror only if
// they are 2xx.
//
// All requests of this package are GET or HEAD and so may be repeated. No
// attempt starts later than Options.RetryFor after the first, nor later than
// the context allows.
func (c *Client) do(ctx context.Context, t *target, q *call) (*http.Response, error) {
	last := len(t.endpoints) - 1
	for _, mirror := range t.endpoints[:last] {
		resp, err := c.follow(ctx, t, mirror, q)
		switch {
		case ctx.Err() != nil:
			closeBody(resp)
			return nil, fmt.Errorf("origin: %s: %w", q, ctx.Err())
		case err == nil && resp.StatusCode < 300:
			return resp, nil
		}
		closeBody(resp)
	}
	start := time.Now()
	for n := 0; ; n++ {
		resp, err := c.follow(ctx, t, t.endpoints[last], q)
		if err == nil && !retriable(t.endpoints[last], resp) {
			return resp, nil
		}
		var e *Error
		if err == nil {
			e = statusError(q, resp)
			e.Retry = min(e.Retry, c.opts.MaxCooldown)
			closeBody(resp)
		} else if !errors.As(err, &e) || e.final {
			return nil, err
		}
		pause := firstPause << n
		pause = pause*3/4 + rand.N(pause/2)
		if e.Retry > 0 {
			// Up to a tenth later: those who wait should not all come at once.
			pause = max(pause, e.Retry+rand.N(e.Retry/10+1))
		}
		if n+1 == maxAttempts || !worthWaiting(ctx, pause, start.Add(c.opts.RetryFor)) || !worthWaiting(ctx, pause, q.limit) {
			return nil, e
		}
		c.metrics.retries.Inc()
		if err := sleep(ctx, pause); err != nil {
			return nil, fmt.Errorf("origin: %s: %w", q, err)
		}
	}
}

// retriable reports whether asking again may give another answer. That another
// host, to which the origin redirected, refuses a URL most often means that its
// signature has expired; the origin will sign another one.
func retriable(ep *endpoint, resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		return resp.Request.Method == http.MethodGet && hostKey(resp.Request.URL) != ep.host
	}
	return false
}

// worthWaiting reports whether after waiting for d there is time for anything
// else.
func worthWaiting(ctx context.Context, d time.Duration, end time.Time) bool {
	at := time.Now().Add(d)
	if deadline, ok := ctx.Deadline(); ok && at.After(deadline) {
		return false
	}
	return end.IsZero() || !at.After(end)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func closeBody(resp *http.Response) {
	if resp != nil {
		resp.Body.Close()
	}
}

// statusError makes an error of a response that is not what was asked for. It
// takes code and message from the body where that is the spec's (distribution-
// spec, "Error Codes"). It does not close the body.
func statusError(q *call, resp *http.Response) *Error {
	e := &Error{Status: resp.StatusCode, Code: q.kind.code(resp.StatusCode)}
	e.unreachable = resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusRequestTimeout
	e.Retry = retryAfter(resp.Header.Get("Retry-After"), time.Now())
	if resp.StatusCode < 400 {
		// A success or redirect that was not asked for is an error of its own.
		e = badAnswer(q, "unexpected status "+resp.Status)
	}
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	e.Message = fmt.Sprintf("%s: status %d", q, resp.StatusCode)
	if data, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)); err == nil &&
		json.Unmarshal(data, &body) == nil && len(body.Errors) > 0 {
		if code := body.Errors[0].Code; validCode(code) {
			e.Code = code
		}
		if m := printable(body.Errors[0].Message, 200); m != "" {
			e.Message += ": " + m
		}
	}
	return e
}

// validCode accepts what an OCI error code can look like.
func validCode(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == ""
}

// printable returns at most n characters of s without control characters: it
// comes from outside and goes to logs and terminals.
func printable(s string, n int) string {
	s = strings.ToValidUTF8(s, "")
	var b strings.Builder
	for _, r := range s {
		if n--; n < 0 {
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}
