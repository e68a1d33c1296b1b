package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/peercache/peercache/fetcher"
	"github.com/peercache/peercache/simulation/scenario"
)

const (
	// Below 400 connections a node is connected to all others, and each of the two ends takes
	// some 200 KiB: 200 nodes take 8 to 12 GiB.
	maxVirtualNodes   = 256
	maxVirtualContent = 1 << 30
)

// virtualRefuses says what of a run real nodes in virtual time cannot do.
func virtualRefuses(run *scenario.Run) error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if n := len(run.Nodes); n > maxVirtualNodes {
		refuse("%d nodes: there is memory for %d", n, maxVirtualNodes)
	}
	size := int64(0)
	for _, b := range run.Blobs {
		size += b.Size
	}
	if size > maxVirtualContent {
		refuse("blobs of %d bytes: the origin keeps them in memory, %d at most", size, int64(maxVirtualContent))
	}
	for i, r := range run.Racks {
		if r.Up != 0 || r.Down != 0 {
			refuse("rack %d: packets have no uplinks that nodes share", i)
		}
	}
	for i, z := range run.Zones {
		if z.Up != 0 || z.Down != 0 {
			refuse("zone %d: packets have no uplinks that nodes share", i)
		}
	}
	for i, n := range run.Nodes {
		if n.Disk != 0 && (n.Down == 0 || n.Disk < n.Down) {
			refuse("node %d: its disk is slower than its link, and real disks take no virtual time", i)
			break
		}
	}
	if run.Origin.Readers != 0 {
		refuse("origin: every node may read from it")
	}
	for i := range run.Faults {
		switch f := &run.Faults[i]; f.Kind {
		case scenario.Crash, scenario.Drain, scenario.Partition, scenario.Offline, scenario.Loss,
			scenario.OriginThrottle, scenario.OriginError, scenario.OriginReset, scenario.OriginStall, scenario.OriginOutage, scenario.ExpiredToken:
		default:
			refuse("fault %d: %q cannot be made with real nodes in virtual time", i, f.Kind)
		}
	}
	return errors.Join(errs...)
}

// fault carries a fault out.
func (v *virtualRun) fault(ctx context.Context, f *scenario.Fault) error {
	if !v.until(ctx, f.At) {
		return ctx.Err()
	}
	nodes := f.Nodes
	if f.Role != "" {
		n, err := v.whoHas(ctx, f.Role)
		if err != nil {
			return err
		}
		nodes = []int{n}
	}
	switch f.Kind {
	case scenario.Crash, scenario.Drain:
		var all sync.WaitGroup
		for _, i := range nodes {
			all.Go(func() { v.fail(v.report(v.end(ctx, f, v.nodes[i]))) })
		}
		all.Wait()
		return nil
	}
	here := *f
	here.Nodes = nodes
	v.change(func() { v.lasting = append(v.lasting, &here) })
	if at, ever := f.Heals(); ever && v.until(ctx, at) {
		v.change(func() { v.lasting = slices.DeleteFunc(v.lasting, func(x *scenario.Fault) bool { return x == &here }) })
	}
	return nil
}

// end is a crash or a drain of one node.
func (v *virtualRun) end(ctx context.Context, f *scenario.Fault, n *virtualNode) error {
	forGood := f.Restart == 0
	if f.Kind == scenario.Crash {
		if err := n.crash(forGood); err != nil {
			return err
		}
	} else {
		n.dismiss()
		select {
		case <-time.After(f.Notice):
		case <-ctx.Done():
			return ctx.Err()
		}
		n.leave(forGood)
	}
	if forGood || !v.until(ctx, f.At+f.Notice+f.Restart) {
		return nil
	}
	return n.start(v.log)
}

// change changes which faults last, and tells network and origin.
func (v *virtualRun) change(what func()) {
	v.mu.Lock()
	what()
	lasting := slices.Clone(v.lasting)
	v.mu.Unlock()
	v.origin.set(lasting)
	v.net.lose(func(from, to int) int {
		lost := 0
		for _, f := range lasting {
			has := func(host int) bool { return host != originHost && slices.Contains(f.Nodes, host-firstNode) }
			switch f.Kind {
			case scenario.Partition:
				if from != originHost && to != originHost && (has(from) && !has(to) || has(to) && !has(from) && !f.OneWay) {
					return 1e6
				}
			case scenario.Offline:
				if has(from) && to == originHost || has(to) && from == originHost {
					return 1e6
				}
			case scenario.Loss:
				if has(from) || has(to) {
					lost = max(lost, f.Part)
				}
			}
		}
		return lost
	})
}

// whoHas waits until a node has a role, by what the nodes say themselves: whom most of
// them take for the coordinator, or who reads from the origin.
func (v *virtualRun) whoHas(ctx context.Context, role scenario.Role) (int, error) {
	for {
		votes := make([]int, len(v.nodes))
		for i, n := range v.nodes {
			node := n.running()
			if node == nil {
				continue
			}
			live, err := node.fetcher.Live()
			if err != nil {
				continue
			}
			for _, b := range live.Blobs {
				v.vote(role, i, b, votes)
			}
		}
		if most := slices.Max(votes); most > 0 {
			return slices.Index(votes, most), nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (v *virtualRun) vote(role scenario.Role, node int, b fetcher.LiveBlob, votes []int) {
	switch {
	case role == scenario.Fetcher && b.Reads > 0:
		votes[node]++
	case role == scenario.Coordinator && !b.Coordinator.IsZero():
		for i, n := range v.nodes {
			if n.id == b.Coordinator && n.running() != nil {
				votes[i]++
			}
		}
	}
}
