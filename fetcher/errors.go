package fetcher

import (
	"fmt"
	"time"
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
