package main

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/peercache/peercache/cmd/peercache/internal/admin"
	"github.com/peercache/peercache/cmd/peercache/internal/config"
)

func (p *program) statusCommand() *cobra.Command {
	var asJSON bool
	var addr string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Ask a node how it is",
		Long: `Asks a running node for its identity, addresses, peers, blobs, bytes by source
and the health of its origins.

The node is found at --admin, else PEERCACHE_ADMIN, else 127.0.0.1:5052.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			def := config.Default(p.env)
			addr := cmp.Or(addr, p.env("PEERCACHE_ADMIN"), def.Admin)
			if err := config.HostPort(addr); err != nil {
				return usageError(err)
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
	cmd.Flags().StringVar(&addr, "admin", "", "the node's admin address, `HOST:PORT`")
	return cmd
}
