package registryproxy

import (
	"log/slog"
	"net/http"
	"time"
)

// ServerOptions are what a server can do without. The zero value and nil stand
// for the defaults.
type ServerOptions struct {
	// ReadHeaderTimeout bounds the time a client may take for its request's
	// headers. Default 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout bounds the time between two requests on a connection.
	// Default 2 min.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's line and headers; what is longer gets
	// status 431. Default 64 KiB: a registry's token has at most a few.
	MaxHeaderBytes int
	// Logger receives the server's own complaints, mostly about clients, at
	// debug. Default: none.
	Logger *slog.Logger
}

// NewServer returns a server with limits that suit a [Proxy], to be started by
// its Serve method. The listener's connections must be *net.TCPConn for sendfile
// to be used.
//
// There is no WriteTimeout: a pull may take hours. The Proxy sets a deadline
// for each step of a body instead. Nor is there a ReadTimeout: it would be
// counted from the request's first byte, and would end a long pull by its
// effect on the reader that notices a client going away.
func NewServer(h http.Handler, opts *ServerOptions) *http.Server {
	var o ServerOptions
	if opts != nil {
		o = *opts
	}
	if o.ReadHeaderTimeout <= 0 {
		o.ReadHeaderTimeout = 10 * time.Second
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 2 * time.Minute
	}
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = 64 << 10
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		// OPTIONS * would otherwise be answered by net/http, with 200.
		DisableGeneralOptionsHandler: true,
	}
}
