package simulation

import (
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// rules are the invariants of a run. What happens is told to them as it happens;
// they change nothing.
type rules struct {
	c *cluster
}

func newRules(c *cluster) *rules { return &rules{c: c} }

// began and ended tell of a fault of nodes, which are nil for one of the origin
// that befalls all.
func (r *rules) began(f *scenario.Fault, nodes []int32) {}
func (r *rules) ended(f *scenario.Fault, nodes []int32) {}

// joined tells of a node that came into the cluster.
func (r *rules) joined(n *node) {}

// stepped tells of a step of a core whose effects are not carried out yet.
func (r *rules) stepped(n *node, ev *policy.Event, effects []policy.Effect) {}

// originSent tells of bytes that the origin wrote for a node: a whole chunk, or
// what a read that was cut had of one.
func (r *rules) originSent(n *node, blob int32, chunk int, bytes int64, whole bool) {}

// completed and refused tell of clients: one that has all bytes of a blob, and one
// that is told to go elsewhere.
func (r *rules) completed(n *node, cl *client)                 {}
func (r *rules) refused(n *node, cl *client, e *policy.Effect) {}

// over tells that the last pull is done, or the run's time is up.
func (r *rules) over() {}

// finish returns what was found, once nothing happens any more.
func (r *rules) finish() []Invariant { return nil }
