package simulation

import (
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// A node's client of the origin, as package registryproxy/origin has it: it asks
// again where that may help, goes on where an answer broke off, leaves the origin alone
// when that says so, and does not ask one that does not answer. What cores are told
// is what is left when all that was of no use.

const (
	originAttempts = 4
	firstPause     = 100 * int64(time.Millisecond)
	maxResumes     = 5
	resumeProgress = 1 << 20

	dialTimeout      = 3 * int64(time.Second)  // for a connection
	firstByteTimeout = 15 * int64(time.Second) // for an answer
	idleTimeout      = 5 * int64(time.Second)  // without a byte of it
	retryFor         = 5 * int64(time.Second)  // after the first attempt
	stallTimeout     = 20 * int64(time.Second) // without a byte, attempts to go on included
	maxPause         = int64(time.Minute)      // that the origin can ask for

	breakerThreshold = 3
	breakerFirst     = int64(time.Second)
	breakerLongest   = 15 * int64(time.Second)
)

// originView is what a node has made of the origin's answers.
type originView struct {
	// until when it is left alone: by all requests, by those for manifests
	pauseAll, pauseManifests int64
	throttled                int // answers in a row that asked for that and did not say for how long
	// the circuit breaker
	score     int // failures in a row, weighted
	open      bool
	nextProbe int64
	opening   int64 // for how long it was open last
	lastOK    int64
}

// refusal is why a request brought nothing.
type refusal struct {
	status int
	wait   int64 // that the origin asked for
	// weight is that of a failure to answer; own: nothing was sent at all.
	weight int
	own    bool
	final  bool // asking again is no use
}

func (r *refusal) unreachable() bool { return r.status >= 500 || r.status == 429 || r.status == 408 }

// retriable statuses may be others the next time.
func (r *refusal) retriable() bool {
	return r.status == 408 || r.status == 429 || r.status == 500 || r.status >= 502 && r.status <= 504
}

// request makes an attempt, unless the node knows better.
func (c *cluster) request(i int32) {
	r := &c.reads.all[i]
	n, b := c.nodes[r.node], c.blobs[r.blob]
	c.renew(r)
	r.sent, r.stalled = c.now, false
	if r.attempt == 0 {
		r.since = c.now
	}
	v := &n.view
	if v.open {
		// The breaker's pause is the node's own, and nothing that cores tell one another.
		c.probe(n)
		c.comeToNothing(i, refusal{status: 503, own: true, final: true}, 0)
		return
	}
	until := v.pauseAll
	if b.manifest {
		until = max(until, v.pauseManifests)
	}
	if until > c.now {
		c.comeToNothing(i, refusal{status: 503, wait: until - c.now, own: true}, 0)
		return
	}
	c.res.OriginRequests++
	if b.manifest && !r.sizeOnly {
		c.res.ManifestRequests++
	}
	switch {
	case n.offline > 0:
		c.comeToNothing(i, refusal{status: 504, weight: 2}, dialTimeout)
	case c.suffers(scenario.OriginOutage, n) != nil:
		c.comeToNothing(i, refusal{status: 502, weight: 1}, c.toOrigin(n)+int64(c.run.Latency.Origin))
	default:
		c.q.push(c.now+c.toOrigin(n)+int64(c.run.Origin.Delay), evAsked, n.index, 0, r.arg(i))
	}
}

// renew makes a read's earlier events void.
func (c *cluster) renew(r *originRead) {
	c.serial++
	r.serial = c.serial
}

// comeToNothing has a request fail after a while.
func (c *cluster) comeToNothing(i int32, why refusal, delay int64) {
	r := &c.reads.all[i]
	r.why = why
	c.q.push(c.now+delay, evNothing, r.node, 0, r.arg(i))
}

// nothing is called when a request has failed: it is made again after a pause,
// where that may help.
func (c *cluster) nothing(arg uint64) {
	i, r := c.readAt(arg)
	if r == nil {
		return
	}
	why := r.why
	r.stalled = false
	c.judge(c.nodes[r.node], c.blobs[r.blob], r.sent, &why)
	pause := c.jitter(firstPause << r.attempt)
	if why.wait > 0 {
		pause = max(pause, why.wait+c.rng.Int64N(why.wait/10+1))
	}
	if why.retriable() && !why.final && r.attempt+1 < originAttempts && c.now+pause <= r.since+retryFor {
		r.attempt++
		c.q.push(c.now+pause, evAgain, r.node, 0, r.arg(i))
		return
	}
	if r.told && !why.final && why.unreachable() {
		c.goOn(i)
		return
	}
	c.failRead(i, why)
}

// jitter is between three and five quarters of a time.
func (c *cluster) jitter(d int64) int64 { return d*3/4 + c.rng.Int64N(d/2+1) }

// goOn asks for the rest of an answer that broke off.
func (c *cluster) goOn(i int32) {
	r := &c.reads.all[i]
	pause := c.jitter(firstPause << r.resumes / 2)
	if r.resumes == maxResumes || c.now+pause > r.lastByte+stallTimeout {
		c.failRead(i, refusal{status: 502})
		return
	}
	r.resumes++
	r.attempt = 0
	c.renew(r)
	c.q.push(c.now+pause, evAgain, r.node, 0, r.arg(i))
}

// again makes the next attempt.
func (c *cluster) again(arg uint64) {
	if i, r := c.readAt(arg); r != nil {
		c.request(i)
	}
}

// interrupt breaks an answer off, by a failure of some weight.
func (c *cluster) interrupt(i int32, weight int) {
	r := &c.reads.all[i]
	c.judge(c.nodes[r.node], c.blobs[r.blob], r.sent, &refusal{status: 502, weight: weight})
	c.cutRead(r)
	c.disconnect(r)
	c.goOn(i)
}

// halt has an answer stand still.
func (c *cluster) halt(i int32) {
	r := &c.reads.all[i]
	c.net.settle(&c.net.flows[r.flow], c.netNow())
	c.net.setCap(r.flow, halted)
	r.lastByte = c.now
	c.q.push(c.now+idleTimeout, evIdle, r.node, 0, r.arg(i))
}

// idle is called when an answer may have stood still for too long.
func (c *cluster) idle(arg uint64) {
	i, r := c.readAt(arg)
	if r != nil && r.flow >= 0 && c.net.flows[r.flow].most == halted {
		c.interrupt(i, 2)
	}
}

// failRead tells whoever wanted something of the origin that it cannot be had.
func (c *cluster) failRead(i int32, why refusal) {
	r := c.reads.all[i]
	n := c.nodes[r.node]
	c.stopRead(i)
	if r.reader != 0 {
		c.bypassFailed(n, r.reader, why.status)
		return
	}
	c.step(n, policy.Event{Kind: policy.EvOriginFailed, Blob: c.blobs[r.blob].id, ID: r.id, Status: why.status, Wait: time.Duration(why.wait)})
}

// judge draws conclusions about the origin from what came of a request.
func (c *cluster) judge(n *node, b *content, sent int64, why *refusal) {
	v := &n.view
	switch {
	case why.own:
	case why.weight > 0, why.status == 502, why.status == 504, why.status == 503 && why.wait == 0:
		if v.lastOK > sent {
			return
		}
		if v.score += max(why.weight, 1); v.score >= breakerThreshold && !v.open {
			c.openBreaker(v)
		}
	case why.status == 429 || why.status == 503:
		wait := why.wait
		if wait == 0 {
			wait = int64(time.Second) << min(v.throttled, 5)
			v.throttled++
		}
		why.wait = min(wait, maxPause)
		until := &v.pauseAll
		if b.manifest && why.status == 429 {
			// Registries meter manifests, not layers.
			until = &v.pauseManifests
		}
		*until = max(*until, c.now+why.wait)
	default:
		c.heard(v)
	}
}

// heard notes that the origin answers.
func (c *cluster) heard(v *originView) {
	v.lastOK, v.score, v.opening, v.open, v.throttled = c.now, 0, 0, false, 0
}

// openBreaker has the origin be left alone, for longer each time.
func (c *cluster) openBreaker(v *originView) {
	v.open = true
	v.opening = min(max(2*v.opening, breakerFirst), breakerLongest)
	v.nextProbe = c.now + v.opening*4/5 + c.rng.Int64N(v.opening*2/5)
}

// probe tries, if it is time for that, whether the origin answers again. One that
// does is on parole: the next failure counts.
func (c *cluster) probe(n *node) {
	v := &n.view
	if c.now < v.nextProbe {
		return
	}
	if n.offline == 0 && c.originAnswers(n) {
		v.open, v.score = false, breakerThreshold-1
	} else {
		c.openBreaker(v)
	}
}
