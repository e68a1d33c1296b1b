package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
	"github.com/peercache/peercache/cmd/peercache/internal/demo"
)

func (p *program) demoCommand() *cobra.Command {
	var asJSON bool
	var nodes int
	var size string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show a small cluster at work on this machine",
		Long: `Starts an origin registry and several nodes on this machine's loopback, pulls an
image made of this machine's files on the first node, on the others at once, and
on one more after the origin has been stopped. Then it tells which bytes came
from where. It needs no internet, takes about a minute, and leaves nothing
behind.

Exit codes: 0 everything was as it should be, 1 it was not, 130 interrupted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bytes, err := config.ParseSize(size)
			switch {
			case err != nil:
				return usageError(fmt.Errorf("--size: %w", err))
			case bytes < demo.MinSize || bytes > demo.MaxSize:
				return usageError(fmt.Errorf("--size: %s is not from %s to %s", size, config.FormatSize(demo.MinSize), config.FormatSize(demo.MaxSize)))
			case nodes < demo.MinNodes || nodes > demo.MaxNodes:
				return usageError(fmt.Errorf("--nodes: %d is not from %d to %d", nodes, demo.MinNodes, demo.MaxNodes))
			}
			executable, err := os.Executable()
			if err != nil {
				return err
			}
			report, err := demo.Run(cmd.Context(), demo.Options{
				Nodes: nodes, Size: bytes, Executable: executable, Progress: p.stderr,
			})
			if err != nil {
				if cmd.Context().Err() != nil || errors.Is(err, context.Canceled) {
					return &exitError{exitInterrupted, errors.New("interrupted; everything that was started is stopped and removed")}
				}
				return err
			}
			if asJSON {
				err = report.JSON(p.stdout)
			} else {
				fmt.Fprintln(p.stdout)
				err = report.Table(p.stdout)
			}
			return errors.Join(err, report.Problem())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	cmd.Flags().IntVar(&nodes, "nodes", 4, "how many nodes")
	cmd.Flags().StringVar(&size, "size", "200MiB", "`SIZE` of the image")
	return cmd
}
