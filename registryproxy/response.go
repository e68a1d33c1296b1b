package registryproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// firstPiece is how much of a file goes out with the headers. See ReadFrom.
	firstPiece = 64 << 10
	// filePiece is how much of a file the kernel is given to send at a time.
	filePiece = 4 << 20
	// writePiece is how much of a buffer goes to the connection at a time: the
	// least that a client has to take within the client timeout.
	writePiece = 64 << 10
	// smallWrite is what net/http may keep in its buffers.
	smallWrite = 4 << 10
)

// errTooLong says that a Backend delivered more bytes than it promised.
var errTooLong = errors.New("registryproxy: content is longer than its range")

// response wraps the server's ResponseWriter. It commits the headers with the
// first body byte and not before, so that a Backend that fails until then still
// gives the client an error to fall back on; it keeps the body to the promised
// length, which the server does not do for what passes through ReadFrom; it
// sees to it that neither side is silent for too long; and it remembers what
// happened, for logs and metrics.
//
// It keeps the way to sendfile open: ReadFrom passes files on as they are.
type response struct {
	http.ResponseWriter
	rc            *http.ResponseController
	clientTimeout time.Duration
	watch         *watch

	status    int       // to be committed, or committed
	left      int64     // body bytes still to come by what was promised
	begun     bool      // headers are out
	firstByte time.Time // when that was
	written   int64     // body bytes
	clientErr error     // writing to the client failed
}

func newResponse(w http.ResponseWriter, clientTimeout time.Duration, watch *watch) *response {
	rw := &response{
		ResponseWriter: w,
		rc:             http.NewResponseController(w),
		clientTimeout:  clientTimeout,
		watch:          watch,
	}
	rw.reset()
	// The deadline of the request before this one on the connection is still set.
	rw.extendDeadline()
	return rw
}

// reset forgets the headers that describe content, so that an error can be sent
// instead.
func (w *response) reset() {
	h := w.Header()
	clear(h)
	h.Set("Docker-Distribution-Api-Version", "registry/2.0")
	// Content is other people's: no browser shall guess that it is a page.
	h.Set("X-Content-Type-Options", "nosniff")
}

// promise sets what the next write commits: a status and n bytes of body.
func (w *response) promise(status int, n int64) {
	w.status, w.left = status, n
}

// WriteHeader commits the headers.
func (w *response) WriteHeader(status int) {
	if w.begun {
		return
	}
	w.begun, w.status, w.firstByte = true, status, time.Now()
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements [io.Writer] for the promised body.
func (w *response) Write(p []byte) (n int, err error) {
	if int64(len(p)) > w.left {
		return 0, errTooLong
	}
	w.begin()
	w.watch.pause()
	defer w.watch.resume()
	for n < len(p) {
		w.extendDeadline()
		m, err := w.ResponseWriter.Write(p[n:min(len(p), n+writePiece)])
		n += m
		w.account(int64(m))
		if err != nil {
			w.clientErr = err
			return n, err
		}
	}
	return n, w.flushSmall(len(p))
}

// file is what sendfile takes as a source: *os.File, also as the package os
// wraps it in its own WriteTo.
type file interface {
	io.Reader
	syscall.Conn
	Stat() (os.FileInfo, error)
}

// ReadFrom implements [io.ReaderFrom] for the promised body. A file, or an
// io.LimitedReader over one, goes to the server's ReadFrom and so to sendfile;
// everything else is copied by Write.
//
// A piece during which the client takes some bytes, but not all before the
// deadline, is gone on with: the deadline is on progress, however slow. That is
// safe for all pieces but the one that commits the headers, which pass through
// buffers whose errors net/http does not report here; so that one is small.
func (w *response) ReadFrom(src io.Reader) (n int64, err error) {
	limit, isLimited := src.(*io.LimitedReader)
	inner := src
	if isLimited {
		inner = limit.R
	}
	f, isFile := inner.(file)
	if !isFile {
		return w.copyFrom(src)
	}
	for w.left > 0 && (!isLimited || limit.N > 0) {
		piece := min(w.left, filePiece)
		if !w.begun {
			piece = min(piece, firstPiece)
		}
		if isLimited {
			piece = min(piece, limit.N)
		}
		m, err := w.readPiece(f, piece)
		n += m
		if isLimited {
			limit.N -= m
		}
		if err != nil || m < piece {
			return n, err // m < piece: the file has ended
		}
	}
	if isLimited && limit.N == 0 {
		return n, nil
	}
	return n, probeEnd(f)
}

// readPiece sends up to length bytes of a file, fewer only at its end.
func (w *response) readPiece(f file, length int64) (n int64, err error) {
	first := !w.begun
	w.begin()
	w.watch.pause()
	defer w.watch.resume()
	for n < length {
		w.extendDeadline()
		m, err := w.serverReadFrom(&io.LimitedReader{R: f, N: length - n})
		n += m
		w.account(m)
		slow := m > 0 && !first && errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil && !slow {
			if isClientError(err) {
				w.clientErr = err
			}
			return n, err
		}
		if m == 0 {
			return n, nil
		}
	}
	return n, w.flushSmall(int(min(length, smallWrite)))
}

// serverReadFrom is the server's ReadFrom, which has to be reached for sendfile
// to be used.
func (w *response) serverReadFrom(r *io.LimitedReader) (int64, error) {
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
}

var copyBuffers = sync.Pool{New: func() any { return new([writePiece]byte) }}

func (w *response) copyFrom(src io.Reader) (n int64, err error) {
	buffer := copyBuffers.Get().(*[writePiece]byte)
	defer copyBuffers.Put(buffer)
	for {
		m, err := src.Read(buffer[:])
		if m > 0 {
			k, werr := w.Write(buffer[:m])
			n += int64(k)
			if werr != nil {
				return n, werr
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// probeEnd returns errTooLong if a reader has not ended.
func probeEnd(r io.Reader) error {
	var one [1]byte
	n, err := io.ReadFull(r, one[:])
	if n > 0 {
		return errTooLong
	}
	if err == io.EOF {
		return nil
	}
	return err
}

func (w *response) begin() {
	if !w.begun {
		w.WriteHeader(w.status)
	}
}

func (w *response) account(n int64) {
	w.written += n
	w.left -= n
}

// flushSmall sends on what net/http would keep in its buffer until more comes,
// if more is to come and may take its time.
func (w *response) flushSmall(n int) error {
	if n >= smallWrite || w.left == 0 {
		return nil
	}
	err := w.rc.Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	if err != nil {
		w.clientErr = err
	}
	return err
}

// extendDeadline gives the client another clientTimeout. What a test's
// ResponseWriter does not support is not needed there.
func (w *response) extendDeadline() {
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.clientTimeout))
}

// isClientError reports whether an error of sendfile is the connection's and
// not the file's.
func isClientError(err error) bool {
	for _, target := range []error{syscall.EPIPE, syscall.ECONNRESET, syscall.ETIMEDOUT, net.ErrClosed, os.ErrDeadlineExceeded} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// watch ends a request whose Backend is silent for too long. It runs while the
// Backend is waited for and stands still while the client is. One goroutine
// calls its methods.
type watch struct {
	timer   *time.Timer
	timeout time.Duration
}

// newWatch returns a running watch that cancels with [errStalled].
func newWatch(timeout time.Duration, cancel context.CancelCauseFunc) *watch {
	return &watch{timeout: timeout, timer: time.AfterFunc(timeout, func() { cancel(errStalled) })}
}

func (w *watch) pause()  { w.timer.Stop() }
func (w *watch) resume() { w.timer.Reset(w.timeout) }
