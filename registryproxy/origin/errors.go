package origin

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
)

// Error codes of the OCI distribution spec that this package uses, and
// UNAVAILABLE, which is docker-registry's own for a registry that cannot answer
// at the moment.
const (
	CodeBlobUnknown     = "BLOB_UNKNOWN"
	CodeDenied          = "DENIED"
	CodeDigestInvalid   = "DIGEST_INVALID"
	CodeManifestInvalid = "MANIFEST_INVALID"
	CodeManifestUnknown = "MANIFEST_UNKNOWN"
	CodeNameInvalid     = "NAME_INVALID"
	CodeNameUnknown     = "NAME_UNKNOWN"
	CodeRangeInvalid    = "RANGE_INVALID"
	CodeTooManyRequests = "TOOMANYREQUESTS"
	CodeUnauthorized    = "UNAUTHORIZED"
	CodeUnavailable     = "UNAVAILABLE"
	CodeUnknown         = "UNKNOWN"
	CodeUnsupported     = "UNSUPPORTED"
)

// Error is an answer that is none: the origin's own error, or this client's
// word that the origin could not be asked.
//
// It matches fs.ErrNotExist when the origin answered 404.
type Error struct {
	// Status is the origin's own status, or, where there was no answer, 502 (no
	// connection, or nonsense on it), 504 (a timeout) or 503 (not asked: the
	// circuit breaker is open, the origin asked for a pause, or all connections
	// are busy).
	Status int
	// Code is an OCI error code, the origin's own where it sent one.
	Code string
	// Message is for people. It never holds a query string, which may be a
	// signature.
	Message string
	// Retry is how long to wait before asking again, or 0.
	Retry time.Duration

	// unreachable: nothing was learned about the content asked for.
	unreachable bool
	// final: asking again will not help.
	final bool
	// local: Retry is this client's own, not the origin's wish.
	local bool
	err   error
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("origin: %s (%d %s)", e.Message, e.Status, e.Code)
	if e.err != nil {
		s += ": " + e.err.Error()
	}
	return s
}

// Unwrap returns the cause below HTTP, if there is one.
func (e *Error) Unwrap() error { return e.err }

// Is reports that a 404 is fs.ErrNotExist.
func (e *Error) Is(target error) bool {
	return target == fs.ErrNotExist && e.Status == http.StatusNotFound
}

// HTTPStatus is the status with which a proxy should pass the error on: the
// origin's, but 503 for 408 and 429, on which containerd would go on asking
// the proxy instead of falling back.
func (e *Error) HTTPStatus() int {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return http.StatusServiceUnavailable
	}
	return e.Status
}

// OCICode is the error code for the OCI error body.
func (e *Error) OCICode() string { return e.Code }

// RetryAfter is how long to wait before asking again, or 0.
func (e *Error) RetryAfter() time.Duration { return e.Retry }

// Local reports that RetryAfter is what this client makes of its own state: its
// circuit breaker is open, or all its connections are busy. Others may reach the origin,
// which did not ask to be left alone.
func (e *Error) Local() bool { return e.local }

// Unreachable reports that nothing was learned about what was asked: the
// origin could not be reached, did not answer in time, refused for want of
// capacity (429, 503) or failed (5xx). Whoever has an older answer may use it.
// A 404 or 403 is an answer.
func (e *Error) Unreachable() bool { return e.unreachable }

// DeniedError says that policy forbids to contact an origin, or a host to
// which it led.
type DeniedError struct {
	// Origin is the origin as it was named.
	Origin string
	// Host is what may not be contacted: the origin itself, an address that it
	// resolves to, or a host that it redirects to.
	Host string
	// Reason says which rule forbids it.
	Reason string
	// Hint is the exact line that would allow it, or empty where nothing does
	// (link-local addresses, metadata services).
	Hint string
}

// Error implements error.
func (e *DeniedError) Error() string {
	s := fmt.Sprintf("origin: %s may not be contacted: %s", e.Origin, e.Reason)
	if e.Host != e.Origin {
		s = fmt.Sprintf("origin: %s leads to %s, which may not be contacted: %s", e.Origin, e.Host, e.Reason)
	}
	if e.Hint != "" {
		s += "; to allow it: " + e.Hint
	}
	return s
}

// HTTPStatus is 403.
func (e *DeniedError) HTTPStatus() int { return http.StatusForbidden }

// OCICode is DENIED.
func (e *DeniedError) OCICode() string { return CodeDenied }

// DigestError says that a manifest is not the one that was asked for. The
// origin is to blame.
type DigestError struct {
	// Want is the digest asked for; Got that of the bytes received.
	Want, Got digest.Digest
	// MediaType is what the origin says that it sent.
	MediaType string
	// Converted reports that the origin itself says that it sent another
	// manifest: docker-registry 2.8 converts to older types for clients whose
	// Accept leaves out the newer ones. Otherwise the bytes are corrupt.
	Converted bool
}

// Error implements error.
func (e *DigestError) Error() string {
	what := "corrupt manifest"
	if e.Converted {
		what = "the origin converted the manifest"
	}
	return fmt.Sprintf("origin: %s: asked for %s, got %s (%s)", what, e.Want, e.Got, e.MediaType)
}

// HTTPStatus is 502.
func (e *DigestError) HTTPStatus() int { return http.StatusBadGateway }

// OCICode is MANIFEST_INVALID.
func (e *DigestError) OCICode() string { return CodeManifestInvalid }

// ErrChanged says that an interrupted body cannot be continued because the
// object at the origin is no longer the same.
var ErrChanged = errors.New("origin: the object changed while it was read")
