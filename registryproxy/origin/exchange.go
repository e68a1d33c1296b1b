package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"
)

var (
	errFirstByte = errors.New("no answer in time")
	errIdle      = errors.New("the body stalled")
	errClosed    = errors.New("the client was closed")
)

// exchange sends one request and returns the response when its headers are
// there. The response's body must be closed; it watches for silence, counts
// bytes and holds a slot of the host until then. Errors are a *DeniedError, an
// *Error, or the context's own. Nothing is retried or followed here.
//
// limit, if it is not zero, is when to stop waiting for the headers although
// Options.FirstByte is not over.
func (c *Client) exchange(ctx context.Context, t *target, k kind, req *http.Request, limit time.Time) (*http.Response, error) {
	if why := t.checkURL(req.URL); why != "" {
		c.metrics.requests.WithLabelValues(string(k), "denied").Inc()
		return nil, c.denied(t.name, req.URL.Host, why, t.remedy(req.URL))
	}
	h := c.host(t, req.URL)
	op := req.Method + " " + req.URL.Host + " (" + string(k) + ")"
	if k != kindProbe {
		wait, last, ok := h.admit(time.Now())
		c.probeIfDue(t, h)
		if !ok {
			c.metrics.failfast.Inc()
			return nil, &Error{
				Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Retry: wait, unreachable: true, final: true, local: true,
				Message: fmt.Sprintf("%s is not asked at the moment, since it did not answer: %s", h.key, last),
			}
		}
	}
	if wait := h.paused(k, time.Now()); wait > 0 && k != kindProbe {
		c.metrics.failfast.Inc()
		return nil, &Error{
			Status: http.StatusServiceUnavailable, Code: CodeTooManyRequests, Retry: wait, unreachable: true,
			Message: h.key + " has asked to be left alone for a while",
		}
	}
	release, err := c.slot(ctx, h, k, req.Method)
	if err != nil {
		return nil, err
	}

	req.Header.Set("User-Agent", c.opts.UserAgent)
	req.Header.Set("Via", c.via)
	req.Header.Set("Accept-Encoding", "identity")

	start := time.Now()
	patience := c.opts.FirstByte
	if !limit.IsZero() {
		patience = max(min(patience, limit.Sub(start)), 0)
	}
	hctx, cancel := context.WithCancelCause(ctx)
	headers := time.AfterFunc(patience, func() { cancel(errFirstByte) })
	suspect := time.AfterFunc(c.opts.SuspectAfter, func() { h.suspect(start, time.Now()) })
	closing := context.AfterFunc(c.ctx, func() { cancel(errClosed) })
	finish := sync.OnceFunc(func() {
		headers.Stop()
		suspect.Stop()
		closing()
		cancel(nil)
		release()
	})
	switch k {
	case kindProbe:
		suspect.Stop() // whoever probes judges
	case kindBlob:
		// That a blob takes its time is no sign of trouble, once connected: a
		// registry may have to fetch it from its own storage first.
		hctx = httptrace.WithClientTrace(hctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { suspect.Stop() }})
	}
	resp, err := t.transport.RoundTrip(req.WithContext(hctx))
	now := time.Now()
	if err == nil && !headers.Stop() {
		// The time was up in the very moment; the body could not be read.
		resp.Body.Close()
		err = errFirstByte
	}
	if err != nil {
		err = c.exchangeError(ctx, context.Cause(hctx), t, h, k, op, start, err)
		finish()
		c.metrics.requests.WithLabelValues(string(k), errorLabel(err)).Inc()
		return nil, err
	}
	suspect.Stop()
	c.metrics.requests.WithLabelValues(string(k), statusLabel(resp.StatusCode)).Inc()
	c.judge(t, h, k, resp, start, now)
	body := &stream{
		body: resp.Body, c: c, t: t, h: h, kind: k, op: op, caller: ctx, ctx: hctx, finish: finish,
		counted: k != kindToken && k != kindProbe,
		first:   max(patience-now.Sub(start), c.opts.Idle),
		silence: time.AfterFunc(time.Hour, func() { cancel(errIdle) }),
	}
	body.silence.Stop()
	resp.Body = body
	return resp, nil
}

// slot waits for a free slot of a host. That wait is this node's own doing and
// does not count against the host.
func (c *Client) slot(ctx context.Context, h *host, k kind, method string) (release func(), err error) {
	slots := h.others
	switch {
	case k == kindProbe:
		return func() {}, nil
	case k == kindBlob && method == http.MethodGet:
		slots = h.streams
	}
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
	}
	timer := time.NewTimer(c.opts.FirstByte)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("origin: waiting for a connection to %s: %w", h.key, ctx.Err())
	case <-timer.C:
		c.metrics.failfast.Inc()
		return nil, &Error{
			Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Retry: time.Second, final: true, local: true,
			Message: "all connections to " + h.key + " are busy",
		}
	}
}

// judge draws conclusions about the host from a response's status.
func (c *Client) judge(t *target, h *host, k kind, resp *http.Response, start, now time.Time) {
	if k == kindProbe {
		return // see probe
	}
	switch resp.StatusCode {
	case http.StatusServiceUnavailable:
		if resp.Header.Get("Retry-After") != "" {
			h.pause(k, resp, now, c.opts.MaxCooldown)
			return
		}
		fallthrough
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		if h.failed(start, now, 1, "status "+resp.Status) {
			c.opened(t, h, resp.Status)
		}
		return
	case http.StatusTooManyRequests:
		h.pause(k, resp, now, c.opts.MaxCooldown)
	default:
		h.unthrottled()
	}
	if h.answered(now) {
		c.log(t, "origin answers again", "origin", t.name, "endpoint", h.key)
	}
}

// exchangeError turns a transport's error into this package's, and counts it
// against the host if it is the host's fault.
func (c *Client) exchangeError(ctx context.Context, cause error, t *target, h *host, k kind, op string, start time.Time, err error) error {
	var addr *addrError
	switch {
	case errors.As(err, &addr):
		remedy := ""
		if !addr.named {
			remedy = hint(t.name)
		}
		return c.denied(t.name, fmt.Sprintf("%s (%s)", h.key, addr.addr), addr.reason, remedy)
	case ctx.Err() != nil:
		return fmt.Errorf("origin: %s: %w", op, ctx.Err())
	case errors.Is(cause, errClosed):
		return &Error{Status: http.StatusServiceUnavailable, Code: CodeUnavailable, Message: op, unreachable: true, final: true, err: errClosed}
	}
	e := &Error{Status: http.StatusBadGateway, Code: CodeUnavailable, Message: op, unreachable: true, err: err}
	weight := 1
	var netErr net.Error
	switch {
	case errors.Is(cause, errFirstByte) || errors.Is(cause, errIdle):
		e.Status, e.err, weight = http.StatusGatewayTimeout, cause, 2
	case errors.As(err, &netErr) && netErr.Timeout():
		e.Status, weight = http.StatusGatewayTimeout, 2
	case isCertificateError(err):
		e.final = true // no certificate gets better by asking again
	}
	if k != kindProbe && h.failed(start, time.Now(), weight, e.err.Error()) {
		c.opened(t, h, e.err.Error())
	}
	return e
}

// opened does what there is to do when a breaker has opened.
func (c *Client) opened(t *target, h *host, why string) {
	// Connections that look alive may lead nowhere.
	t.transport.CloseIdleConnections()
	c.log(t, "origin does not answer", "origin", t.name, "endpoint", h.key, "err", why)
}

func isCertificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid)
}

func errorLabel(err error) string {
	var e *Error
	var d *DeniedError
	switch {
	case errors.As(err, &d):
		return "denied"
	case !errors.As(err, &e):
		return "canceled"
	case e.Status == http.StatusGatewayTimeout:
		return "timeout"
	}
	return "error"
}

// stream is the body of a response. Read and Close must not be called at the
// same time; canceling the caller's context ends a Read.
type stream struct {
	body    io.ReadCloser
	c       *Client
	t       *target
	h       *host
	kind    kind
	op      string
	caller  context.Context
	ctx     context.Context
	counted bool
	first   time.Duration // how long the first Read may take; 0 after it
	silence *time.Timer
	finish  func()
}

// Read implements io.Reader. Silence for Options.Idle is an error, but time
// between calls of Read is the caller's own.
func (s *stream) Read(p []byte) (int, error) {
	patience := s.c.opts.Idle
	if s.first > 0 {
		patience, s.first = s.first, 0
	}
	began := time.Now()
	s.silence.Reset(patience)
	n, err := s.body.Read(p)
	s.silence.Stop()
	if s.counted {
		s.c.metrics.received.Add(float64(n))
	}
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, s.c.exchangeError(s.caller, context.Cause(s.ctx), s.t, s.h, s.kind, s.op, began, err)
}

// Close implements io.Closer. It reads what little is left first, so that the
// connection can be used again.
func (s *stream) Close() error {
	if s.ctx.Err() == nil {
		s.silence.Reset(100 * time.Millisecond)
		n, _ := io.CopyN(io.Discard, s.body, 4<<10)
		if s.counted {
			s.c.metrics.received.Add(float64(n))
		}
		s.silence.Stop()
	}
	err := s.body.Close()
	s.finish()
	return err
}
