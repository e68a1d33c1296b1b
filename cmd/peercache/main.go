// Command peercache is a node of Peercache, a peer-to-peer cache for container
// image layers, and what goes with it: serve runs a node, status asks one how it
// is, demo shows a small cluster at work on this machine, simulate a large one that
// is not there.
//
// This package wires the others together, in wire.go and adapters.go, and
// decides nothing about content: what is fetched from where is package
// fetcher's business, what a client gets package registryproxy's.
//
// # Exit codes
//
//	0    it worked, or was stopped by SIGINT or SIGTERM as intended (serve)
//	1    it failed; of a simulation: not everything was as demanded
//	2    wrong usage, configuration or scenario; nothing was started
//	3    an address to listen on is taken
//	4    another process uses the data directory
//	130  interrupted before it was finished (demo, simulate)
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first signal on the default handling is back: a second one ends
	// the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
