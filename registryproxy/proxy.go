package registryproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options are what a [Proxy] can do without. The zero value and nil stand for
// the defaults.
type Options struct {
	// DefaultOrigin is asked for what names no origin. Default "docker.io".
	DefaultOrigin string
	// MaxRequests is the number of requests served at once; more are answered
	// with 503 at once, so that clients go elsewhere instead of queueing.
	// Default 4096.
	MaxRequests int
	// StallTimeout is how long the Backend may deliver no byte before the request
	// ends, with 504 or, within a body, by a broken connection. Default 30 s.
	StallTimeout time.Duration
	// ClientTimeout is how long a client may take no byte before its connection
	// is closed. A runtime that unpacks while it pulls takes none while its disk
	// is busy. Default 60 s.
	ClientTimeout time.Duration
	// Logger receives each request at debug, and requests that failed for a
	// reason on this side at warn. Default: none.
	Logger *slog.Logger
	// Registerer receives the metrics peercache_proxy_*. Default: none.
	Registerer prometheus.Registerer
}

// Proxy serves the pull side of the distribution specification from a
// [Backend]. It is an [http.Handler] and safe for concurrent use; it owns no
// goroutine. It has to be mounted at the root of its server, without a
// [http.ServeMux] before it, which would rewrite paths; see [NewServer].
type Proxy struct {
	backend       Backend
	defaultOrigin string
	stallTimeout  time.Duration
	clientTimeout time.Duration
	slots         chan struct{}
	log           *slog.Logger
	metrics       *metrics
}

// New returns a proxy for a backend. It fails if the default origin is not a
// registry's name, or if the metrics cannot be registered.
func New(backend Backend, opts *Options) (*Proxy, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.DefaultOrigin == "" {
		o.DefaultOrigin = "docker.io"
	}
	origin, err := CanonicalOrigin(o.DefaultOrigin)
	if err != nil {
		return nil, fmt.Errorf("registryproxy: default origin: %w", err)
	}
	if o.MaxRequests <= 0 {
		o.MaxRequests = 4096
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 30 * time.Second
	}
	if o.ClientTimeout <= 0 {
		o.ClientTimeout = 60 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registryproxy: %w", err)
	}
	return &Proxy{
		backend:       backend,
		defaultOrigin: origin,
		stallTimeout:  o.StallTimeout,
		clientTimeout: o.ClientTimeout,
		slots:         make(chan struct{}, o.MaxRequests),
		log:           o.Logger,
		metrics:       m,
	}, nil
}

// ServeHTTP implements [http.Handler]. It panics with [http.ErrAbortHandler],
// which the server turns into a broken connection, when a response that has
// begun cannot be finished.
func (p *Proxy) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	started := time.Now()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	watch := newWatch(p.stallTimeout, cancel)
	defer watch.pause()
	w := newResponse(rw, p.clientTimeout, watch)

	p.metrics.inFlight.Inc()
	defer p.metrics.inFlight.Dec()

	rt, err := p.serve(ctx, w, r)
	out := p.conclude(ctx, w, r, rt, err)
	p.observe(r, rt, w, out, time.Since(started), w.firstByte.Sub(started))
	if out.abort {
		panic(http.ErrAbortHandler)
	}
}

// outcome is how a request ended.
type outcome struct {
	status int   // as in the response, or 499
	abort  bool  // the connection has to be broken
	byUs   bool  // the reason, if there is one, is on this side
	err    error // the reason
}

// serve finds out what a request wants and does it. An error is the reason why
// there is no response, or half a one.
func (p *Proxy) serve(ctx context.Context, w *response, r *http.Request) (route, error) {
	rt, bad := parseRoute(r.URL, p.defaultOrigin)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		rt.endpoint = endpointPush
	}
	if r.ContentLength != 0 {
		// A body that nobody reads may not be taken for the next request, nor be
		// waited for: without a deadline the server would, to be polite.
		w.Header().Set("Connection", "close")
		_ = w.rc.SetReadDeadline(time.Now())
	}

	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	default:
		f := refuse(http.StatusServiceUnavailable, codeTooManyRequests, "too many requests at once on this node")
		f.retry, f.quiet = time.Second, true
		return rt, f
	}
	switch {
	case isLoop(r.Header):
		return rt, refuse(http.StatusLoopDetected, codeDenied,
			"loop: this request comes from a Peercache proxy, whose origin is configured to be this one")
	case rt.endpoint == endpointPush:
		f := refuse(http.StatusMethodNotAllowed, codeUnsupported,
			"Peercache only serves pulls: %s is not supported; push to the origin itself", r.Method)
		f.allow = true
		return rt, f
	case r.ContentLength != 0:
		return rt, refuse(http.StatusBadRequest, codeUnsupported, "a pull has no request body")
	case bad != nil:
		return rt, bad
	}
	switch rt.endpoint {
	case endpointBase:
		return rt, p.serveBase(w, r)
	case endpointManifest:
		return rt, p.serveManifest(ctx, w, r, rt)
	case endpointBlob:
		return rt, p.serveBlob(ctx, w, r, rt)
	default:
		return rt, p.serveList(ctx, w, r, rt)
	}
}

// serveBase answers the probe with which Docker and Podman begin.
func (p *Proxy) serveBase(w *response, r *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	return w.sendBytes(r, http.StatusOK, []byte("{}\n"))
}

// conclude turns an error into a response, if one can still be sent.
func (p *Proxy) conclude(ctx context.Context, w *response, r *http.Request, rt route, err error) outcome {
	if err == nil {
		return outcome{status: w.status}
	}
	stalled := errors.Is(context.Cause(ctx), errStalled)
	if stalled {
		err = fmt.Errorf("%w: %w", errStalled, err)
	}
	// The client's own context: ctx may have been ended by the watch.
	gone := r.Context().Err() != nil || w.clientErr != nil
	switch {
	case w.begun:
		return outcome{status: w.status, abort: true, byUs: !gone, err: err}
	case gone:
		// There is nobody to tell. To return would be to send an empty 200 to a
		// client that has closed just its own half of the connection.
		return outcome{status: statusClientGone, abort: true, err: err}
	}
	var f *failure
	switch {
	case stalled: // whatever the Backend makes of the end of its context
		f = failureOf(errStalled, rt.endpoint)
	case !errors.As(err, &f):
		f = failureOf(err, rt.endpoint)
	}
	closing := w.Header().Get("Connection")
	w.reset()
	if closing != "" {
		w.Header().Set("Connection", closing)
	}
	f.write(w, r)
	return outcome{status: f.status, byUs: f.status >= 500 && !f.quiet, err: err}
}

// observe counts and logs a request.
func (p *Proxy) observe(r *http.Request, rt route, w *response, out outcome, took, first time.Duration) {
	p.metrics.request(rt.endpoint, out, took)
	if w.begun {
		p.metrics.firstByte.WithLabelValues(string(rt.endpoint)).Observe(first.Seconds())
	}
	level, message := slog.LevelDebug, "request"
	switch {
	case out.byUs && out.abort:
		level, message = slog.LevelWarn, "response broken off"
	case out.byUs:
		level, message = slog.LevelWarn, "request failed"
	}
	if !p.log.Enabled(r.Context(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("kind", string(rt.endpoint)),
		slog.String("origin", rt.origin),
		slog.String("repository", rt.repository),
		slog.String("tag", rt.tag),
		slog.String("digest", string(rt.digest)),
		slog.Int("status", out.status),
		slog.Int64("bytes", w.written),
		slog.Duration("took", took),
		slog.String("client", r.RemoteAddr),
		slog.String("agent", r.UserAgent()),
	}
	if out.err != nil {
		attrs = append(attrs, slog.Any("err", out.err))
	}
	p.log.LogAttrs(r.Context(), level, message, attrs...)
}

// sendBytes sends a whole response whose body is in memory. Headers must be
// set, but for the length.
func (w *response) sendBytes(r *http.Request, status int, body []byte) error {
	w.setLength(int64(len(body)))
	w.promise(status, int64(len(body)))
	if r.Method == http.MethodHead || len(body) == 0 {
		w.WriteHeader(status)
		return nil
	}
	_, err := w.Write(body)
	return err
}

// sendContent sends content that has been opened. Headers must be set, but for
// the length.
func (w *response) sendContent(content io.WriterTo, status int, n int64) error {
	w.setLength(n)
	w.promise(status, n)
	if _, err := content.WriteTo(w); err != nil {
		return err
	}
	if w.written != n {
		return fmt.Errorf("registryproxy: content ended after %d of %d bytes: %w", w.written, n, io.ErrUnexpectedEOF)
	}
	w.begin() // if there was nothing to write
	return nil
}
