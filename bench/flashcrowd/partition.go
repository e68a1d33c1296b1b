package main

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/peercache/peercache/bench/internal/rig"
	"github.com/peercache/peercache/simulation/scenario"
)

// parted lists who sends to whom in vain; -1 is the origin.
func (p *plan) parted(d *deed) (pairs [][2]int) {
	for _, i := range d.Nodes {
		others := []int{-1}
		if d.Kind == scenario.Partition {
			others = nil
			for j := range p.c.members {
				if !slices.Contains(d.Nodes, j) {
					others = append(others, j)
				}
			}
		}
		for _, j := range others {
			pairs = append(pairs, [2]int{i, j})
			if !d.OneWay {
				pairs = append(pairs, [2]int{j, i})
			}
		}
	}
	return pairs
}

// cut adds (+1) or takes away (-1) a fault that parts these pairs.
func (p *plan) cut(ctx context.Context, pairs [][2]int, by int) error {
	p.cutMu.Lock()
	defer p.cutMu.Unlock()
	change := map[int][]*rig.Host{}
	for _, pair := range pairs {
		before := p.cuts[pair]
		p.cuts[pair] = before + by
		if before == 0 || before+by == 0 {
			change[pair[0]] = append(change[pair[0]], p.hostOf(pair[1]))
		}
	}
	var g errgroup.Group
	for from, to := range change {
		g.Go(func() error {
			if by > 0 {
				return p.hostOf(from).Block(ctx, to...)
			}
			return p.hostOf(from).Unblock(ctx, to...)
		})
	}
	return g.Wait()
}

func (p *plan) hostOf(i int) *rig.Host {
	if i < 0 {
		return p.c.o.host
	}
	return p.c.hosts[i]
}
