package simulation

import (
	"fmt"
	"time"

	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// rules are the invariants of a run. What happens is told to them as it happens;
// they change nothing. Each is a type in a file of its own; what the faults make
// of the cluster they all learn from reach.
//
// They know more than any node does: who holds what, whose bytes are wrong, who
// can reach whom. Where a node may not know yet what they know, they give it the
// time to find out: see [knownAfter].
type rules struct {
	c     *cluster
	reach reach

	wrong      wrongBytes
	egress     egress
	oneFetch   oneFetch
	completion completion
	orphans    orphans
	memory     memory
	bans       honestBans
}

func newRules(c *cluster) *rules {
	r := &rules{c: c}
	r.reach.init(c)
	for _, t := range r.tallies() {
		t.c = c
	}
	r.wrong.init()
	r.egress.init(&r.reach)
	r.oneFetch.init(&r.reach)
	r.oneFetch.rules = &r.egress
	r.completion.init(&r.reach)
	r.orphans.init()
	r.memory.init()
	r.bans.init(&r.reach)
	return r
}

// tallies are those of all invariants, in the order of reports.
func (r *rules) tallies() []*tally {
	return []*tally{&r.wrong.tally, &r.egress.tally, &r.completion.tally, &r.orphans.tally, &r.memory.tally, &r.oneFetch.tally, &r.bans.tally}
}

// tally counts the checks of one invariant.
type tally struct {
	Invariant
	c *cluster
}

// broken notes a violation: at node n, nil for none, of a blob, -1 for none.
func (t *tally) broken(n *node, blob int32, format string, args ...any) {
	t.Violations++
	if t.First != "" {
		return
	}
	t.First = "after " + time.Duration(t.c.now-startTime).String()
	if n != nil {
		t.First += fmt.Sprintf(", node %d", n.index)
	}
	if blob >= 0 {
		t.First += fmt.Sprintf(", blob %d (%s)", blob, t.c.blobs[blob].id.Encoded()[:12])
	}
	t.First += ": " + fmt.Sprintf(format, args...)
}

// began and ended tell of a fault of nodes, which are nil for one of the origin
// that befalls all.
func (r *rules) began(f *scenario.Fault, nodes []int32) {
	r.reach.began(f, nodes)
	r.completion.befell(f, nodes, 1)
	if f.Kind == scenario.Crash || f.Kind == scenario.Drain {
		for _, i := range nodes {
			r.died(r.c.nodes[i])
		}
	}
}

func (r *rules) ended(f *scenario.Fault, nodes []int32) {
	r.reach.ended(f, nodes)
	r.completion.befell(f, nodes, -1)
}

// died forgets what a node had under way: a drained one goes later than its fault
// begins.
func (r *rules) died(n *node) {
	if n.down {
		r.egress.died(n)
		r.orphans.died(n)
		r.memory.died(n)
	}
}

// joined tells of a node that came into the cluster.
func (r *rules) joined(n *node) { r.reach.disturb(n.index) }

// booted tells of a node that was given a new core.
func (r *rules) booted(n *node, cfg *policy.Config) {
	r.egress.died(n)
	r.orphans.died(n)
	r.memory.booted(n, cfg)
}

// stepped tells of a step of a core whose effects are not carried out yet.
func (r *rules) stepped(n *node, ev *policy.Event, effects []policy.Effect) {
	switch ev.Kind {
	case policy.EvPeerUp:
		r.reach.linked(n, ev.Peer)
	case policy.EvTransferDone, policy.EvTransferFailed:
		r.memory.ended(n, ev.ID, false)
	case policy.EvOriginDone, policy.EvOriginFailed:
		r.memory.ended(n, ev.ID, true)
		r.egress.ended(n, ev.ID)
	case policy.EvOriginHeaders:
		if a := r.egress.find(n, ev.ID); a != nil {
			r.oneFetch.answered(a)
		}
	case policy.EvStored, policy.EvStoreFailed:
		r.memory.written(n, ev)
	case policy.EvMessage:
		if ev.Msg.Epoch > 0 && ev.Msg.Kind == policy.MsgGrant {
			r.egress.epoch(n, ev.Msg.Blob, ev.Msg.Epoch)
		}
	}
	var excuse excuse
	for i := range effects {
		switch e := &effects[i]; e.Kind {
		case policy.EfCount:
			excuse.count(e.Metric)
		case policy.EfSend:
			if e.Msg.Epoch > 0 && (e.Msg.Kind == policy.MsgState || e.Msg.Kind == policy.MsgAsk) {
				r.egress.epoch(n, e.Msg.Blob, e.Msg.Epoch)
			}
			if e.Msg.Kind == policy.MsgGrant {
				r.egress.granted(n, &e.Msg)
				excuse.grants--
			}
		case policy.EfTransfer:
			r.memory.began(n, e, false)
		case policy.EfOriginRead:
			r.memory.began(n, e, true)
			read := r.egress.asked(n, e, &excuse)
			r.oneFetch.asked(n, read, r.egress.open)
			r.egress.open = append(r.egress.open, read)
		case policy.EfCancelOrigin:
			r.egress.cancelled(n, e.ID)
		case policy.EfStore:
			r.memory.stores(n, e)
		case policy.EfOpen, policy.EfClose:
			r.orphans.opened(n, e)
		case policy.EfBan:
			r.reach.banned(e)
			r.bans.banned(n, e)
		}
	}
	r.memory.check(n)
}

// originSent tells of bytes that the origin wrote for a node: a whole chunk, or
// what a read that was cut had of one.
func (r *rules) originSent(n *node, blob int32, chunk int, bytes int64, whole bool) {
	r.egress.sent(n, blob, chunk, bytes, whole)
}

// released, completed and refused tell of clients: one that is given the bytes of a
// blob up to an offset, one that has them all, and one that is told to go elsewhere.
func (r *rules) released(n *node, cl *client, upto int64)      { r.wrong.released(n, cl, upto) }
func (r *rules) completed(n *node, cl *client)                 { r.wrong.completed(n, cl) }
func (r *rules) refused(n *node, cl *client, e *policy.Effect) { r.completion.refused(n, cl, e) }

// over tells that the last pull is done, or the run's time is up.
func (r *rules) over() { r.completion.over() }

// finish returns what was found, once nothing happens any more.
func (r *rules) finish() []Invariant {
	r.egress.finish()
	r.orphans.finish()
	r.bans.Checks++ // of the sum, which may be of nothing
	var found []Invariant
	for _, t := range r.tallies() {
		found = append(found, t.Invariant)
	}
	return found
}
