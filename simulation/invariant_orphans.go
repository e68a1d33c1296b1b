package simulation

import (
	"fmt"
	"strings"

	"github.com/peercache/peercache/fetcher/policy"
)

// orphans: when all clients have ended, and the times for which blobs and those who
// want them are remembered have passed, nothing is left: no transfer, read,
// upload, chunk in hand, flow or open blob in the drivers' tables, and nothing
// at all in the cores.
type orphans struct {
	tally
	// open counts, for each node and blob, how often the store was asked to open it
	// and not yet to let go.
	open [][]int32
}

// censor is a core that can be asked what it holds on to.
type censor interface{ Census() policy.Census }

func (v *orphans) init() {
	v.Name = "orphans"
	v.Rule = "once all clients have ended, no transfer, read, upload, pin or reference is left"
	v.open = make([][]int32, len(v.c.nodes))
}

func (v *orphans) opened(n *node, e *policy.Effect) {
	if v.open[n.index] == nil {
		v.open[n.index] = make([]int32, len(v.c.blobs))
	}
	k, ok := v.c.byDigest[e.Blob]
	switch {
	case !ok:
	case e.Kind == policy.EfOpen:
		v.open[n.index][k]++
	default:
		v.open[n.index][k] = 0
	}
}

func (v *orphans) died(n *node) { clear(v.open[n.index]) }

func (v *orphans) finish() {
	if v.c.res.Partial {
		return
	}
	for _, n := range v.c.nodes {
		if n.down {
			continue
		}
		v.Checks++
		var left []string
		note := func(count int, what string) {
			if count > 0 {
				left = append(left, fmt.Sprintf("%d %s", count, what))
			}
		}
		note(len(n.transfers), "transfers")
		note(len(n.reads), "reads")
		note(len(n.hand), "chunks in hand")
		held := 0
		for _, times := range v.open[n.index] {
			held += int(times)
		}
		note(held, "open blobs")
		if core, ok := n.core.(censor); ok {
			if c := core.Census(); c != (policy.Census{}) {
				left = append(left, fmt.Sprintf("in its core %+v", c))
			}
		}
		if left != nil {
			v.broken(n, -1, "left are %s", strings.Join(left, ", "))
		}
	}
	v.Checks++
	flows, uploads := 0, 0
	for i := range v.c.net.flows {
		if v.c.net.flows[i].active {
			flows++
		}
	}
	for i := range v.c.transfers.all {
		if t := &v.c.transfers.all[i]; t.open && t.uploading {
			uploads++
		}
	}
	if flows+uploads > 0 {
		v.broken(nil, -1, "left are %d flows and %d uploads", flows, uploads)
	}
}
