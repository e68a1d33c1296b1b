// Package admin is a node's side for its operator: metrics, health, status, a
// stream of what is under way and, on request, profiles, over HTTP; and the
// client's half of status and stream, with their forms for people.
//
// It serves no content and changes nothing. Whoever reaches it can read it, so
// it belongs on loopback or on a management network.
package admin

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves, by GET:
//
//	/metrics   Prometheus metrics
//	/healthz   200 while the process is alive
//	/readyz    200 while the proxy serves; a node without peers is ready; 503
//	           while it starts and once it stops
//	/status    a [Status] as JSON; 503 like /readyz
//	/watch     a [Live] as JSON about every 500 ms, as server-sent events, until
//	           the node stops; 503 like /readyz, 429 beyond 16 watchers
//	/debug/pprof/  if asked for
//
// It may serve before the node is up: [Handler.SetReady]. It is safe for
// concurrent use.
type Handler struct {
	mux      *http.ServeMux
	state    atomic.Pointer[state]
	watchers chan struct{} // a token for each
}

type state struct {
	status func() Status // nil: not ready
	live   func() (Live, error)
	why    string
	over   chan struct{} // closed when another state has come
}

// NewHandler returns a handler that is not ready yet.
func NewHandler(metrics prometheus.Gatherer, log *slog.Logger, profiles bool) *Handler {
	h := &Handler{mux: http.NewServeMux(), watchers: make(chan struct{}, maxWatchers)}
	h.SetUnready("starting")
	h.mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	}))
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	h.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if _, ok := h.ready(w); ok {
			fmt.Fprintln(w, "ready")
		}
	})
	h.mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s, ok := h.ready(w)
		if !ok {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(s.status()); err != nil {
			log.Debug("status not delivered", "err", err)
		}
	})
	h.mux.HandleFunc("GET /watch", func(w http.ResponseWriter, r *http.Request) { h.watch(w, r, log) })
	h.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "Peercache: /status /watch /metrics /healthz /readyz")
	})
	if profiles {
		h.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		h.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		h.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		h.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		h.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return h
}

// SetReady says that the node serves, and who knows its status and what is under
// way. live is called from many goroutines, and may fail for a while.
func (h *Handler) SetReady(status func() Status, live func() (Live, error)) {
	h.set(&state{status: status, live: live})
}

// SetUnready says that the node does not serve, and why in a word. It ends all
// streams.
func (h *Handler) SetUnready(why string) { h.set(&state{why: why}) }

func (h *Handler) set(s *state) {
	s.over = make(chan struct{})
	if old := h.state.Swap(s); old != nil {
		close(old.over)
	}
}

func (h *Handler) ready(w http.ResponseWriter) (*state, bool) {
	s := h.state.Load()
	if s.status == nil {
		http.Error(w, s.why, http.StatusServiceUnavailable)
	}
	return s, s.status != nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// NewServer returns a server for a handler, to be started by its Serve method.
// A profile may take minutes, so responses have no deadline.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
