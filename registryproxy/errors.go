package registryproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The error codes that the proxy gives. All but the last four are those of the
// distribution specification, section "Error Codes"; these four are docker's
// registry's, for cases that the specification has no code for.
const (
	codeBlobUnknown     = "BLOB_UNKNOWN"
	codeDigestInvalid   = "DIGEST_INVALID"
	codeManifestUnknown = "MANIFEST_UNKNOWN"
	codeNameInvalid     = "NAME_INVALID"
	codeNameUnknown     = "NAME_UNKNOWN"
	codeUnauthorized    = "UNAUTHORIZED"
	codeDenied          = "DENIED"
	codeUnsupported     = "UNSUPPORTED"
	codeTooManyRequests = "TOOMANYREQUESTS"

	codeRangeInvalid      = "RANGE_INVALID"
	codePaginationInvalid = "PAGINATION_NUMBER_INVALID"
	codeUnavailable       = "UNAVAILABLE"
	codeUnknown           = "UNKNOWN"
)

// statusClientGone stands in logs and metrics, never in a response, for a
// request whose client went away before its response began (nginx's number).
const statusClientGone = 499

// defaultRetry is the Retry-After of a 503 TOOMANYREQUESTS for which the
// Backend named none.
const defaultRetry = 5 * time.Second

// Error is an error with the response that it asks for. A [Backend] may return
// it, wrapped or not, or any other error with the same methods; Error() is
// shown to the client and must hold no secret.
type Error struct {
	Status  int           // HTTP status, 400 to 599
	Code    string        // code of the distribution specification; empty: by the status
	Message string        // for a person
	Retry   time.Duration // Retry-After; 0 for none
}

func (e *Error) Error() string { return e.Message }

// HTTPStatus is the status of the response, 400 to 599.
func (e *Error) HTTPStatus() int { return e.Status }

// OCICode is the error code of the body, or "" for the one that goes with the
// status.
func (e *Error) OCICode() string { return e.Code }

// RetryAfter is when the client may ask again; 0 says nothing about it.
func (e *Error) RetryAfter() time.Duration { return e.Retry }

// RangeError says that content of Size bytes does not have the range that was
// asked for.
type RangeError struct {
	Size int64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("range not satisfiable within %d bytes", e.Size)
}

// HTTPStatus is 416.
func (e *RangeError) HTTPStatus() int { return http.StatusRequestedRangeNotSatisfiable }

// TotalSize is the size of the content in bytes, for Content-Range.
func (e *RangeError) TotalSize() int64 { return e.Size }

// errStalled is the cause of a request's context when the Backend has been
// silent for too long.
var errStalled = errors.New("no byte within the stall timeout")

// failure is a response that is an error.
type failure struct {
	status  int
	code    string
	message string
	retry   time.Duration // Retry-After, if above 0
	size    int64         // Content-Range: bytes */size, if not below 0
	allow   bool          // Allow: GET, HEAD
	quiet   bool          // no warning in the log: there may be thousands a second
}

// Error makes a failure an error, so that handlers can return it.
func (f *failure) Error() string { return f.message }

func refuse(status int, code, format string, args ...any) *failure {
	return &failure{status: status, code: code, message: fmt.Sprintf(format, args...), size: -1}
}

// failureOf is the one place that maps errors to responses.
//
//	error                        status            code
//	fs.ErrNotExist               404               by the route: MANIFEST_UNKNOWN, BLOB_UNKNOWN; NAME_UNKNOWN for lists
//	status 404                   404               the error's own UNKNOWN code, else by the route
//	status 401                   401               UNAUTHORIZED, without a WWW-Authenticate challenge (see below)
//	status 403                   403               DENIED
//	status 408, 429              503 Retry-After   TOOMANYREQUESTS: containerd would ask this mirror five times
//	                                               more on 429, and fall back only then
//	status 416                   416 Content-Range RANGE_INVALID
//	other 4xx, 5xx               the same          the error's own code, else UNAVAILABLE (502, 503, 504),
//	                                               UNSUPPORTED (405), UNKNOWN
//	407, no error status         502               UNAVAILABLE
//	deadline, stall              504               UNAVAILABLE
//	anything else                500               UNKNOWN, "internal error": it may hold paths and addresses
//
// An origin's 401 loses its challenge on purpose. With one, containerd answers
// it towards this mirror, with the user's registry credentials, over plain
// http. Without one it has nothing to answer, and so turns to the next host,
// the origin, which it then authenticates to itself; so do Podman, CRI-O,
// BuildKit and Docker. RFC 9110 wants a challenge with each 401; what is lost by
// leaving it out is what must not happen.
func failureOf(err error, ep endpoint) *failure {
	var status interface{ HTTPStatus() int }
	switch {
	case errors.As(err, &status):
	case errors.Is(err, fs.ErrNotExist):
		return refuse(http.StatusNotFound, ep.unknownCode(), "%s not found", ep.thing())
	case errors.Is(err, errStalled), errors.Is(err, context.DeadlineExceeded):
		return refuse(http.StatusGatewayTimeout, codeUnavailable, "no source delivered in time")
	default:
		return refuse(http.StatusInternalServerError, codeUnknown, "internal error")
	}

	f := refuse(status.HTTPStatus(), "", "%s", presentable(status))
	if code, ok := status.(interface{ OCICode() string }); ok && isCode(code.OCICode()) {
		f.code = code.OCICode()
	}
	if retry, ok := status.(interface{ RetryAfter() time.Duration }); ok {
		f.retry = retry.RetryAfter()
	}
	switch f.status {
	case http.StatusUnauthorized:
		f.code = codeUnauthorized
	case http.StatusForbidden:
		f.code = codeDenied
	case http.StatusNotFound:
		switch f.code {
		case codeBlobUnknown, codeManifestUnknown, codeNameUnknown:
		default:
			f.code = ep.unknownCode()
		}
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		f.status, f.code = http.StatusServiceUnavailable, codeTooManyRequests
		if f.retry <= 0 {
			f.retry = defaultRetry
		}
	case http.StatusRequestedRangeNotSatisfiable:
		f.code = codeRangeInvalid
		if total, ok := status.(interface{ TotalSize() int64 }); ok {
			f.size = total.TotalSize()
		}
	default:
		if f.status < 400 || f.status > 599 || f.status == http.StatusProxyAuthRequired {
			f.status, f.code = http.StatusBadGateway, codeUnavailable
		}
	}
	if f.code == "" {
		f.code = codeOfStatus(f.status)
	}
	return f
}

func codeOfStatus(status int) string {
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codeUnavailable
	case http.StatusMethodNotAllowed:
		return codeUnsupported
	default:
		return codeUnknown
	}
}

// isCode reports whether a code has the form that the specification gives codes.
func isCode(code string) bool {
	for i := range len(code) {
		if c := code[i]; (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return code != "" && len(code) <= 64
}

// presentable is the message of an error that is meant for a client: bounded,
// and on one line.
func presentable(status interface{ HTTPStatus() int }) string {
	message := http.StatusText(status.HTTPStatus())
	if err, ok := status.(error); ok && err.Error() != "" {
		message = err.Error()
	}
	message = strings.ToValidUTF8(message, "?")
	message = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, message)
	const most = 1024
	if len(message) > most {
		cut := most
		for !utf8.RuneStart(message[cut]) {
			cut--
		}
		message = message[:cut] + "..."
	}
	return message
}

// write sends the failure as an OCI error body. Headers that described the
// content must not have been set, or be gone.
func (f *failure) write(w *response, r *http.Request) {
	type ociError struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Errors []ociError `json:"errors"`
	}{[]ociError{{f.code, f.message}}})
	if err != nil {
		panic(err) // two strings: cannot happen
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if f.allow {
		h.Set("Allow", "GET, HEAD")
	}
	if f.retry > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(f.retry.Seconds())), 10))
	}
	if f.size >= 0 && f.status == http.StatusRequestedRangeNotSatisfiable {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(f.size, 10))
	}
	_ = w.sendBytes(r, f.status, body) // the request has failed as it is
}
