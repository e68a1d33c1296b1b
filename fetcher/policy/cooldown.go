package policy

import (
	"time"

	"github.com/peercache/peercache/chunkindex"
)

// An origin that asks to be left alone is left alone by everybody. One that fails
// whoever asks it is asked by one node at a time, and by none for a while that doubles
// (Nygard, "Release It!", 2007, has it as the circuit breaker): each asker by itself would
// have to find out, and all together would ask all the time.

// patient reports whether an origin's status says to come again later.
func patient(status int) bool { return status == 429 || status == 503 }

// coolDown stops the granting, and tells all askers, because the origin told one
// of them to leave it alone.
func (c *Core) coolDown(b *blob, from chunkindex.NodeID, status int, wait time.Duration, origin Origin) {
	wait = min(wait, maxOriginWait)
	b.coord.until = max(b.coord.until, c.now.Add(wait))
	for _, a := range b.coord.askers {
		if a.id != from && a.id != c.cfg.Self {
			c.send(a.id, Message{Kind: MsgCooldown, Blob: b.id, Size: b.size, Small: b.small, Status: status, Wait: wait, Origin: origin})
		}
	}
	if from != c.cfg.Self {
		c.cool(b, status, wait, origin)
	}
}

const (
	// failuresBorne is how many grants in a row the origin may fail, as each may be
	// its grantee's own fault.
	failuresBorne = 2
	// maxPauses bounds how often the pause doubles.
	maxPauses = 4
	// statusFails tells askers that the origin fails whoever asks it: the HTTP status
	// Bad Gateway.
	statusFails = 502
)

// failing reports whether the origin fails whoever is told to read from it.
func (k *coordinator) failing() bool { return k.failed >= failuresBorne }

// grantFailed notes that the origin failed a grantee. If it failed others before, nothing
// is granted for a while, and the askers are told. What else comes back meanwhile
// was granted before, and says nothing new.
//
// Each that looks whether the origin still fails does so twice: its own circuit breaker
// may be open, so that the first time only closes that.
func (c *Core) grantFailed(b *blob, by chunkindex.NodeID) {
	k := b.coord
	k.failed++
	if k.prober == by {
		k.prober = chunkindex.NodeID{}
	} else {
		k.prober = by
	}
	if !k.failing() || c.now < k.until {
		return
	}
	k.until = c.now.Add(c.cfg.RetryOrigin << min(k.pauses, maxPauses))
	k.pauses++
	for _, a := range k.askers {
		c.tellPause(b, a.id)
	}
}

// tellPause tells an asker when to ask again, if nothing is granted before.
func (c *Core) tellPause(b *blob, to chunkindex.NodeID) {
	if k := b.coord; k.failing() && c.now < k.until && to != c.cfg.Self {
		c.send(to, Message{Kind: MsgCooldown, Blob: b.id, Size: b.size, Small: b.small, Status: statusFails, Wait: time.Duration(k.until - c.now)})
	}
}

// patientUntil is when whoever coordinates b looks, or looked, whether the origin still
// fails.
func (c *Core) patientUntil(b *blob) Time {
	if b.coord != nil {
		return max(b.ask.until, b.coord.until)
	}
	return b.ask.until
}

// heardCooldown believes the coordinator that the origin wants to be left alone.
func (c *Core) heardCooldown(b *blob, from chunkindex.NodeID, m *Message) {
	if b.ask.to == from && m.Wait > 0 && m.Status == statusFails {
		b.ask.until = c.now.Add(min(m.Wait, c.cfg.RetryOrigin<<maxPauses))
		return
	}
	if b.ask.to != from || m.Wait <= 0 || !patient(m.Status) {
		c.count(CountIgnored, 1)
		return
	}
	c.cool(b, m.Status, min(m.Wait, maxOriginWait), m.Origin)
}

// cool leaves the sources of a blob at an origin alone, as if it had said so to this
// node.
func (c *Core) cool(b *blob, status int, wait time.Duration, origin Origin) {
	c.count(CountCooldown, 1)
	for _, s := range b.sources {
		if s.refused != 0 || s.origin != origin {
			continue
		}
		// For so long in all, a peer's word counts; then this node asks for itself,
		// once a while.
		if s.told == 0 || c.now > s.told.Add(forgetTold) {
			s.told = max(c.now, 1)
		}
		wait := min(wait, time.Duration(s.told.Add(maxTold)-c.now))
		if wait <= 0 {
			c.count(CountIgnored, 1)
			continue
		}
		s.status, s.failedAt, s.until = status, c.now, max(s.until, c.now.Add(wait))
		s.fails = max(s.fails, 1)
		c.emit(Effect{Kind: EfCooldown, Blob: b.id, Source: s.src, Wait: wait})
		b.wake(s.until)
	}
}

// maxTold is how long an origin is left alone on peers' word alone: less than what
// a client is left waiting. After forgetTold it counts anew.
const (
	maxTold    = 20 * time.Second
	forgetTold = 2 * time.Minute
)

// permanent reports whether an origin's status is its last word on a blob, as
// opposed to a state that may pass.
func permanent(status int) bool {
	return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429
}

// renewable reports whether an origin's status speaks of credentials, which may be
// renewed while a reader waits, rather than of the blob.
func renewable(status int) bool { return status == 401 || status == 403 }
