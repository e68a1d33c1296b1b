package fetcher

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/fetcher/policy"
)

// Error says why a client cannot have something, in the terms of HTTP.
type Error struct {
	Status int
	// Code is an OCI error code, or "" for the status' usual one.
	Code    string
	Message string
	Retry   time.Duration
	Err     error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("fetcher: %s: %v", e.Message, e.Err)
	}
	return "fetcher: " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// HTTPStatus is the status that a client should see.
func (e *Error) HTTPStatus() int { return e.Status }

// RetryAfter is how long the client should wait, or 0.
func (e *Error) RetryAfter() time.Duration { return e.Retry }

// OCICode is the error code of the distribution-spec, or "".
func (e *Error) OCICode() string { return e.Code }

// CorruptError says that bytes do not hash to the digest they were asked for by.
type CorruptError struct {
	Digest digest.Digest
	// From is who gave them: "peer", "origin" or "store".
	From string
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("fetcher: the bytes from the %s do not match %s", e.From, e.Digest)
}

// HTTPStatus is 503: a client does best to ask somebody else.
func (e *CorruptError) HTTPStatus() int { return http.StatusServiceUnavailable }

// statusCancelled describes an origin read that this node ended itself.
const statusCancelled = 499

// errClosed is what callers get once the fetcher has stopped.
var errClosed = &Error{Status: http.StatusServiceUnavailable, Code: "UNAVAILABLE", Message: "shutting down"}

// errStalled is the cause of a transfer's context that brought no byte.
var errStalled = errors.New("fetcher: no byte came in time")

// failure turns a reader's end, as the core sees it, into what the client is
// told. last is what the origin said last about the blob, nil for nothing.
func failure(status int, reason policy.Reason, last error) *Error {
	e := &Error{Status: status, Message: reason.String()}
	if reason == policy.ReasonOrigin && last != nil && statusOf(last) == status {
		e.Err, e.Retry = last, retryOf(last)
		var coded interface{ OCICode() string }
		if errors.As(last, &coded) {
			e.Code = coded.OCICode()
		}
	}
	if e.Status != 0 {
		return e
	}
	switch reason {
	case policy.ReasonRange:
		e.Status = http.StatusRequestedRangeNotSatisfiable
	case policy.ReasonStalled:
		e.Status = http.StatusGatewayTimeout
	case policy.ReasonOrigin:
		e.Status = http.StatusBadGateway
	default:
		e.Status = http.StatusServiceUnavailable
	}
	return e
}

// statusOf is the HTTP status that describes an origin's error.
func statusOf(err error) int {
	var s interface{ HTTPStatus() int }
	if errors.As(err, &s) && s.HTTPStatus() != 0 {
		return s.HTTPStatus()
	}
	var timeout interface{ Timeout() bool }
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// maxRetry bounds how long the core is told to leave an origin alone, which it tells
// its peers: some origins name a time that is years away.
const maxRetry = time.Hour

// retryOf is how long an origin's error asks to leave it alone, or 0.
func retryOf(err error) time.Duration {
	var r interface{ RetryAfter() time.Duration }
	if errors.As(err, &r) {
		return r.RetryAfter()
	}
	return 0
}

// wishOf is how long the origin itself asks to be left alone, or 0: what is told to
// peers. A node whose circuit breaker is open speaks for itself, and asks that again.
func wishOf(err error) time.Duration {
	var l interface{ Local() bool }
	if errors.As(err, &l) && l.Local() {
		return 0
	}
	return min(retryOf(err), maxRetry)
}

// definite reports whether an error is the origin's own word on the question,
// rather than a sign that it cannot be asked.
func definite(err error) bool {
	status := statusOf(err)
	return status >= 400 && status < 500 &&
		status != http.StatusRequestTimeout && status != http.StatusTooManyRequests && status != statusCancelled
}

// sizes is the detail of an error about a blob's size; want -1 is unknown.
type sizes struct{ got, want int64 }

// Error implements error.
func (s sizes) Error() string { return fmt.Sprintf("size %d, expected %d", s.got, s.want) }
