package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// Whatever goes wrong, as long as one honest node and the origin are there at
// the end: no client completes with wrong bytes (the driver checks each), each
// that waits is served or told so in bounded time, and nothing is left over.
func TestFaultSearch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(rt, "nodes")
		seed := rapid.Uint64().Draw(rt, "seed")
		mode := Verify(rapid.IntRange(0, 1).Draw(rt, "verify"))
		w := newWorld(rt, n, func(_ int, c *Config) { c.Verify, c.Seed = mode, seed })
		rng := rand.New(rand.NewPCG(seed, 1))
		d := w.blob("layer", rapid.Int64Range(1, 80*mib).Draw(rt, "size"))
		w.unranged = rapid.Bool().Draw(rt, "unranged")
		var all []*client
		for _, node := range w.nodes {
			w.after(time.Duration(rng.Int64N(int64(time.Second))), func() {
				if !node.down {
					all = append(all, node.read(d, 0, -1))
				}
			})
		}
		outage := false
		w.originStatus = func(*node, digest.Digest) int {
			if outage {
				return 503
			}
			return 0
		}
		var log []string
		for range rapid.IntRange(0, 6).Draw(rt, "faults") {
			victim := w.nodes[1+rng.IntN(n-1)]
			at := time.Duration(rng.Int64N(int64(2 * time.Second)))
			kind := rng.IntN(8)
			log = append(log, fmt.Sprintf("%v: %d on %s", at, kind, victim.id))
			w.after(at, func() {
				switch kind {
				case 0:
					if !victim.down {
						w.kill(victim)
					}
				case 1:
					if !victim.down {
						w.kill(victim)
						w.restart(victim, victim.core.cfg)
					}
				case 2:
					victim.corrupt, victim.signs = true, rng.IntN(2) == 0
				case 3:
					victim.stalls = true
				case 4:
					victim.mute = !victim.mute
				case 5:
					if victim.links[w.nodes[0]] {
						w.unlink(victim, w.nodes[0])
					}
				case 6:
					outage = true
					w.after(time.Second, func() { outage = false })
				case 7:
					victim.full = true
				}
			})
		}
		w.run(2*time.Minute, func() bool { return false })
		for _, c := range all {
			// A client that was told to go elsewhere, or whose node was
			// killed, has its answer.
			if !c.done() && !c.node.down && c.node.clientsHas(c) {
				rt.Errorf("client of %s left with %d of %d; faults %v", c.node.id, c.upto, c.end, log)
			}
		}
		// With everything healed, the honest first node serves its client.
		for _, node := range w.nodes {
			node.mute, node.stalls = false, false
		}
		last := w.nodes[0].read(d, 0, -1)
		w.run(time.Minute, last.done)
		if last.status == 503 && mode == VerifyMember {
			last = w.nodes[0].read(d, 0, -1)
			w.run(time.Minute, last.done)
		}
		if !last.done() || last.status != 0 {
			rt.Errorf("after all healed: %d of %d, status %d %s; faults %v", last.upto, last.end, last.status, last.reason, log)
		}
		w.quiet()
	})
}

func (n *node) clientsHas(c *client) bool {
	for _, o := range n.clients {
		if o == c {
			return true
		}
	}
	return false
}
