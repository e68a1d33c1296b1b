package simulation

import (
	"context"
	"time"
)

// The course of a run, and how far it is.

const (
	firstStep     = 10 * int64(time.Millisecond)
	defaultPoints = 300
	// progressPause is how much wall time is between two reports.
	progressPause = 250 * time.Millisecond
)

// series notes points at equal distances. Nobody knows beforehand how long a run
// will be: when there are too many, every other one goes and the distance doubles.
type series struct {
	next, step int64
	points     []Point
}

// samples notes the points that are due before at.
func (c *cluster) samples(at int64) {
	s := &c.series
	for s.next < at && !c.ending {
		s.points = append(s.points, c.point(s.next))
		s.next += s.step
		if n := len(s.points); n > c.opt.Points {
			kept := s.points[:0]
			for i := 0; i < n; i += 2 {
				kept = append(kept, s.points[i])
			}
			s.points = kept
			if n%2 == 1 {
				s.next += s.step
			}
			s.step *= 2
		}
	}
}

// point is the state of the run.
func (c *cluster) point(at int64) Point {
	r := c.res
	p := Point{At: time.Duration(at - startTime), Done: c.done, FromOrigin: r.OriginDelivered, FromPeers: r.PeerBytes,
		FromStore: c.fromStore, Egress: r.OriginBytes, Messages: c.messages}
	p.Links = c.net.carried
	for i := range c.net.flows {
		f := &c.net.flows[i]
		if !f.active {
			continue
		}
		c.net.settle(f, max(min(at, c.now), f.settled))
		moved := f.moved()
		if f.origin {
			p.Egress += moved
		}
		for class, times := range f.path {
			p.Links[class] += moved * int64(times)
		}
	}
	for class, n := range p.Links {
		// The wire takes more than the payload.
		p.Links[class] = n + mulDiv(n, c.net.overhead, 1_000_000)
	}
	return p
}

// watch says when the wall clock was looked at.
type watch struct {
	began, last time.Time
}

// lookAround reports progress, and says whether the run is to end.
func (c *cluster) lookAround(ctx context.Context) bool {
	if ctx.Err() != nil {
		c.res.Partial = true
		return true
	}
	if c.opt.Progress == nil {
		return false
	}
	now := time.Now()
	if now.Sub(c.watch.last) >= progressPause {
		c.watch.last = now
		c.report(now)
	}
	return false
}

func (c *cluster) report(now time.Time) {
	r := c.res
	p := Progress{At: time.Duration(c.now - startTime), Done: c.done, Pulls: len(c.pulls), Wanted: r.Wanted,
		Received: min(r.OriginDelivered+r.PeerBytes+c.fromStore, r.Wanted), Events: r.Events, OriginBytes: r.OriginBytes}
	wall := now.Sub(c.watch.began)
	p.WallSeconds = wall.Seconds()
	if p.Received > 0 {
		p.EstimatedLeft = time.Duration(float64(wall) * float64(p.Wanted-p.Received) / float64(p.Received))
	}
	c.opt.Progress(p)
}
