package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/spf13/cobra"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/store"
)

func (p *program) serveCommand() *cobra.Command {
	var settings *config.Settings
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: `Runs a node until SIGINT or SIGTERM: the proxy for container runtimes, the
store, and the side that other nodes talk to. No configuration is needed.

Each flag has an environment variable, PEERCACHE_ and its name in capitals with
_ for - (PEERCACHE_LISTEN; lists separated by commas), and a key in the file of
--config. Flags win over the environment, the environment over the file. The
file, with every key:

` + indent(config.Example()) + `
Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage or configuration, 3 an
address is taken, 4 another process uses the data directory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := settings.Load()
			if err != nil {
				return usageError(err)
			}
			return serve(cmd.Context(), c, p.stdout, newLogger(c, p.stderr))
		},
	}
	cmd.Flags().SortFlags = false
	settings = config.New(cmd.Flags(), p.env)
	return cmd
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n    ") + "\n"
}

// serve runs a node until ctx ends.
func serve(ctx context.Context, c *config.Config, stdout io.Writer, log *slog.Logger) (err error) {
	n, err := openNode(c, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if c.AddressFile != "" {
		defer os.Remove(c.AddressFile)
	}
	return n.Run(ctx, func() error {
		a := n.addresses()
		log.Info("serving", "proxy", a.Proxy, "admin", a.Admin, "peers", a.Addresses, "data", c.Data,
			"verify", c.Verify, "version", readBuildInfo().Version)
		for flag, addr := range map[string]string{"listen": a.Proxy, "admin": a.Admin} {
			if host, _, err := net.SplitHostPort(addr); err == nil && !net.ParseIP(host).IsLoopback() {
				log.Warn("not a loopback address: whoever reaches it can read from it", "setting", c.At(flag), "address", addr)
			}
		}
		if c.AddressFile != "" {
			if err := writeAddresses(c.AddressFile, a); err != nil {
				return fmt.Errorf("%s: %w", c.At("address-file"), err)
			}
		}
		return printHints(stdout, a, c)
	})
}

// writeAddresses makes the file appear whole or not at all.
func writeAddresses(path string, a addresses) error {
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".addresses-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(data, '\n'))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

func newLogger(c *config.Config, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// bind binds an address of the configuration.
func (on network) bind(c *config.Config, flag, addr string) (net.Listener, error) {
	listen := on.listen
	if listen == nil {
		listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	l, err := listen(addr)
	if err != nil {
		return nil, listenError(c, flag, err)
	}
	return l, nil
}

// freeForPeers tries the addresses for peers that name a port. libp2p would fail
// on a taken one too, but its error is text, from which no exit code follows.
func (on network) freeForPeers(c *config.Config) error {
	if on.peers != nil {
		return nil
	}
	for _, a := range c.P2PListen {
		m, err := multiaddr.NewMultiaddr(a)
		if err != nil {
			return err // cannot be: the configuration was checked
		}
		network, addr, err := manet.DialArgs(m)
		if err != nil {
			return err
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return listenError(c, "p2p-listen", err)
		}
		l.Close()
	}
	return nil
}

// listenError says what to do about an address that cannot be used.
func listenError(c *config.Config, flag string, err error) error {
	where := c.At(flag)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &exitError{exitAddrInUse, fmt.Errorf(
			"%s: %w: another program (or another node) listens there; stop it, or choose another address with --%s", where, err, flag)}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %w: no interface of this machine has the address", where, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %w: ports below 1024 need privileges", where, err)
	}
	return fmt.Errorf("%s: %w", where, err)
}

// dataError says what to do about a data directory that cannot be used.
func dataError(c *config.Config, err error) error {
	where := c.At("data")
	switch {
	case errors.Is(err, store.ErrLocked):
		return &exitError{exitDataLocked, fmt.Errorf(
			"%s: %s is in use by another process; stop it, or give this node a directory of its own with --data", where, c.Data)}
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %w; run as its owner, or choose another directory with --data", where, err)
	}
	return fmt.Errorf("%s: %w", where, err)
}
