package origintest

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Fault answers a request in some wrong way. next is how the registry would
// have answered.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// None answers as it should, so that a later request can go wrong.
func None(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }

// Status answers with a status, an OCI error body, and headers as in
// "Retry-After: 3".
func Status(status int, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		WriteError(w, status, "UNKNOWN", "scripted")
	}
}

// Redirect answers 307 (or another status) to where to leads; a * in it stands
// for the path and query that were asked for.
func Redirect(status int, to string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Location", strings.ReplaceAll(to, "*", r.URL.RequestURI()))
		w.WriteHeader(status)
	}
}

// Hang keeps silent until the client goes away.
func Hang(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }

// Drop closes the connection without an answer.
func Drop(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }

// Reset breaks the connection off after n body bytes, by a reset where the
// connection is TCP.
func Reset(n int) Fault { return cut(n, breakOff) }

// Stall sends n body bytes and then nothing until the client goes away.
func Stall(n int) Fault {
	return cut(n, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// cut lets n body bytes pass, and then does what it is told.
func cut(n int, then func(http.ResponseWriter, *http.Request)) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&cutWriter{ResponseWriter: w, left: n, then: func() {
			http.NewResponseController(w).Flush()
			then(w, r)
			panic(http.ErrAbortHandler)
		}}, r)
	}
}

func breakOff(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return // HTTP/2: the panic that follows resets the stream
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // without it the connection ends a little more politely
	}
	conn.Close()
}

type cutWriter struct {
	http.ResponseWriter
	left int
	then func()
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; err == nil && n < len(p) {
		c.then()
	}
	return n, err
}

// IgnoreRange answers 200 with the whole blob.
func IgnoreRange(w http.ResponseWriter, r *http.Request, next http.Handler) {
	r = r.Clone(r.Context())
	r.Header.Del("Range")
	next.ServeHTTP(w, r)
}

// WrongRange answers 206 with the right bytes and the given Content-Range.
func WrongRange(contentRange string) Fault {
	return Header("Content-Range", contentRange)
}

// ShortRange answers with at most n bytes of the range that was asked for, and
// says so.
func ShortRange(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		first, last, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Range"), "bytes="), "-")
		off, err := strconv.ParseInt(first, 10, 64)
		end, endErr := strconv.ParseInt(last, 10, 64)
		if err == nil && (endErr != nil || end-off+1 > n) {
			r = r.Clone(r.Context())
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
		}
		next.ServeHTTP(w, r)
	}
}

// Header answers as it should, but for one header: value replaces it, and ""
// removes it. Removing Content-Length makes the body chunked.
func Header(name, value string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&headerWriter{ResponseWriter: w, name: name, value: value}, r)
	}
}

// HugeHeaders sends n bytes of headers.
func HugeHeaders(n int) Fault {
	return Header("X-Huge", strings.Repeat("x", n))
}

type headerWriter struct {
	http.ResponseWriter
	name, value string
	done        bool
}

func (h *headerWriter) WriteHeader(status int) {
	if !h.done {
		h.done = true
		if h.value == "" {
			h.Header().Del(h.name)
		} else {
			h.Header().Set(h.name, h.value)
		}
	}
	h.ResponseWriter.WriteHeader(status)
	// What is not written in one piece has no Content-Length unless it is given.
	http.NewResponseController(h.ResponseWriter).Flush()
}

// Unwrap is for http.ResponseController.
func (h *headerWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *headerWriter) Write(p []byte) (int, error) {
	if !h.done {
		h.WriteHeader(http.StatusOK)
	}
	return h.ResponseWriter.Write(p)
}

// Corrupt flips the last bit of each piece of the body that is written.
func Corrupt(w http.ResponseWriter, r *http.Request, next http.Handler) {
	next.ServeHTTP(corruptWriter{w}, r)
}

type corruptWriter struct{ http.ResponseWriter }

func (c corruptWriter) Write(p []byte) (int, error) {
	q := append([]byte(nil), p...)
	if len(q) > 0 {
		q[len(q)-1] ^= 1
	}
	return c.ResponseWriter.Write(q)
}
