package simulation

import (
	"time"

	"github.com/peercache/peercache/fetcher/policy"
)

// honestBans bounds for how long nodes that never did wrong are banned, over all
// pairs together, by Limits.HonestBans: 0, unless the scenario says more. A node
// whose disk rotted did serve wrong bytes, and sign them, so that it may be
// banned; so may, by Limits.HonestBans, one that handed on strangers' lies.
type honestBans struct {
	tally
	reach *reach
	total time.Duration
}

func (v *honestBans) init(w *reach) {
	v.Name = "honest-bans"
	v.Rule = "honest nodes are not banned for longer than the scenario allows"
	v.reach = w
}

func (v *honestBans) banned(n *node, e *policy.Effect) {
	v.Checks++
	o := v.c.nodeOf(&e.Peer)
	if o == nil || v.reach.nodes[o.index].liar {
		return
	}
	v.total += time.Duration(int64(e.At) - v.c.now)
	if v.total > v.c.run.Limits.HonestBans {
		v.broken(n, -1, "it bans node %d, which is honest, until %v; honest nodes are banned for %v in all, of %v",
			o.index, time.Duration(int64(e.At)-startTime), v.total, v.c.run.Limits.HonestBans)
	}
}
