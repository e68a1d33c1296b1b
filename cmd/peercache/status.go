package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/peercache/peercache/cmd/peercache/internal/admin"
	"github.com/peercache/peercache/cmd/peercache/internal/config"
)

func (p *program) statusCommand() *cobra.Command {
	var asJSON, watch bool
	var addr string
	interval := time.Second
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask a node how it is",
		Long: `Asks a running node for its identity, addresses, peers, blobs, bytes by source
and the health of its origins, and which blobs it is at work on.

With --watch it shows what is under way, again and again, until it is interrupted:
of each blob the chunks as a bar, the rates by source, the neighbours and theirs.
On a terminal the view is redrawn in place, elsewhere it is printed each time; with
--json there is a line of JSON each time. NO_COLOR forbids colours.

The node is found at --admin, else PEERCACHE_ADMIN, else 127.0.0.1:5052.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			def := config.Default(p.env)
			addr := cmp.Or(addr, p.env("PEERCACHE_ADMIN"), def.Admin)
			if err := config.HostPort(addr); err != nil {
				return usageError(err)
			}
			switch {
			case watch && interval < minInterval:
				return usageError(fmt.Errorf("--interval: %s is less than %s", interval, minInterval))
			case !watch && cmd.Flags().Changed("interval"):
				return usageError(errors.New("--interval goes with --watch"))
			case watch:
				return p.watch(cmd.Context(), addr, asJSON, interval)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
			defer cancel()
			status, raw, err := admin.Fetch(ctx, addr)
			if err != nil {
				return err
			}
			if asJSON {
				_, err := p.stdout.Write(raw)
				return err
			}
			return status.Render(p.stdout)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the node's answer as it is")
	cmd.Flags().BoolVar(&watch, "watch", false, "show what is under way until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", interval, "the time between two views of --watch")
	cmd.Flags().StringVar(&addr, "admin", "", "the node's admin address, `HOST:PORT`")
	return cmd
}
