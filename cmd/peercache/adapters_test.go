package main

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"testing"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher"
	"github.com/peercache/peercache/p2p"
)

// What a node says when it refuses a range, the asking node's fetcher understands,
// and so it does the nodes that are named.
func TestRefusalsTravel(t *testing.T) {
	others := []chunkindex.NodeID{{1}, {2}}
	for name, c := range map[string]struct {
		err    error
		busy   bool
		others []chunkindex.NodeID
		absent bool
	}{
		"busy":        {err: fetcher.BusyError{}, busy: true},
		"busy, named": {err: fmt.Errorf("serving: %w", fetcher.BusyError{Peers: others}), busy: true, others: others},
		"absent":      {err: fmt.Errorf("serving: %w", fs.ErrNotExist), absent: true},
		"range":       {err: fmt.Errorf("serving: %w", fetcher.ErrRange)},
		"broken":      {err: errors.New("broken")},
	} {
		t.Run(name, func(t *testing.T) {
			told := refusal(c.err)
			if errors.Is(told, p2p.ErrBusy) != c.busy || errors.Is(told, p2p.ErrBadRange) != errors.Is(c.err, fetcher.ErrRange) {
				t.Errorf("told as %v", told)
			}
			// As the transport does: what arrives is the answer alone.
			arrived := told
			var busy p2p.BusyError
			switch {
			case errors.As(told, &busy):
				arrived = busy
			case errors.Is(told, fs.ErrNotExist):
				arrived = p2p.ErrNotFound
			}
			heard := peerError(fmt.Errorf("reading: %w", arrived))
			var isBusy interface{ Busy() bool }
			if errors.As(heard, &isBusy) != c.busy || errors.Is(heard, fs.ErrNotExist) != c.absent {
				t.Errorf("heard as %v", heard)
			}
			var named interface{ Alternatives() []chunkindex.NodeID }
			if errors.As(heard, &named) && !reflect.DeepEqual(named.Alternatives(), c.others) {
				t.Errorf("named %v", named.Alternatives())
			}
			if c.others != nil && named == nil {
				t.Error("nobody is named")
			}
		})
	}
}
