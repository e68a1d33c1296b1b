package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// pull is a client that asks again, a second later, after it was told to.
type pull struct {
	n        *node
	d        digest.Digest
	cl       *client
	failures int
}

const pullTries = 5

func (w *world) pull(n *node, d digest.Digest) *pull {
	p := &pull{n: n, d: d}
	p.ask()
	return p
}

func (p *pull) ask() { p.cl = p.n.read(p.d, 0, -1) }

// pulled runs until every pull has succeeded, and fails the test for those that
// have not.
func (w *world) pulled(d time.Duration, pulls ...*pull) {
	w.t.Helper()
	for end := w.now.Add(d); w.now < end; {
		w.run(min(time.Second, time.Duration(end-w.now)), func() bool {
			return !slices.ContainsFunc(pulls, func(p *pull) bool { return !p.cl.done() })
		})
		again := false
		for _, p := range pulls {
			if p.cl.done() && p.cl.status != 0 && p.failures < pullTries {
				p.failures++
				again = true
				w.after(time.Second, p.ask)
				p.cl = &client{node: p.n, d: p.d}
			}
		}
		if !again && !slices.ContainsFunc(pulls, func(p *pull) bool { return !p.cl.done() }) {
			break
		}
	}
	for _, p := range pulls {
		if !p.cl.done() || p.cl.status != 0 {
			w.t.Errorf("%v: client of %s has %d of %d after %d failures, status %d %s", time.Duration(w.now), p.n.id, p.cl.upto, p.cl.end, p.failures, p.cl.status, p.cl.reason)
		}
	}
}

// bannedAre fails the test if the honest nodes hold somebody else for a liar.
func (w *world) bannedAre(honest []*node, liars ...*node) {
	w.t.Helper()
	for _, n := range honest {
		for _, p := range n.core.peers.all() {
			if p.banned != 0 && !slices.Contains(liars, w.node(p.id)) {
				w.t.Errorf("%s bans %s, which is honest", n.id, p.id)
			}
		}
	}
}

func others(all []*node, liars ...*node) []*node {
	return slices.DeleteFunc(slices.Clone(all), func(n *node) bool { return slices.Contains(liars, n) })
}

func (w *world) sum(nodes []*node, m Metric) int64 {
	var sum int64
	for _, n := range nodes {
		sum += n.counts[m]
	}
	return sum
}

// One member lies in every way; each honest client is served, the origin writes
// at most one more copy an epoch whatever the number of victims, whoever proves the
// blob bans the liar, and nobody else is banned.
func TestOneLiarCostsOneCopy(t *testing.T) {
	const size = 64 * mib
	for _, tc := range []struct {
		name string
		make func(w *world, liar *node)
	}{
		{"signs what it serves", func(_ *world, liar *node) { liar.corrupt, liar.signs = true, true }},
		{"signs nothing", func(_ *world, liar *node) { liar.corrupt = true }},
		{"boasts", func(_ *world, liar *node) { liar.corrupt, liar.signs, liar.boasts = true, true, true }},
		{"later", func(w *world, liar *node) {
			w.after(200*time.Millisecond, func() { liar.corrupt, liar.signs = true, true })
		}},
		{"is deceived itself", func(_ *world, liar *node) { liar.poisoned = true }},
		{"is deceived itself, and boasts", func(_ *world, liar *node) { liar.poisoned, liar.boasts = true, true }},
	} {
		for _, n := range []int{3, 9} {
			for _, mode := range []Verify{VerifyMember, VerifyStrict} {
				for _, at := range map[int][]int{3: {1}, 9: {0, 8}}[n] { // the liar's rank
					w := newWorld(t, n, func(_ int, c *Config) { c.Verify = mode })
					w.chunkTime = 20 * time.Millisecond
					d := w.blob("layer", size)
					liar := w.ranked(d)[at]
					honest := others(w.nodes, liar)
					tc.make(w, liar)
					name := fmt.Sprintf("%s, n=%d, mode %d, rank %d", tc.name, n, mode, at)
					w.t = named{t, name}
					liar.read(d, 0, -1)
					var pulls []*pull
					for _, o := range honest {
						pulls = append(pulls, w.pull(o, d))
					}
					w.pulled(2*time.Minute, pulls...)
					// What the liar reads for itself is its own affair. As the
					// coordinator it has some of it read twice, by its grants and by
					// those of whoever takes over.
					most := int64(2*size) + w.sum(honest, CountProbe)*mib
					if at == 0 {
						most += size / 2
					}
					if got := w.originBytes[d] - liar.originBytes; got > most {
						t.Errorf("%s: the origin wrote %.2f copies, %d chunks of it to find out who lied",
							name, float64(got)/size, w.sum(honest, CountProbe))
					}
					w.bannedAre(honest, liar)
					for _, o := range honest {
						if o.droppedWrong > 0 && o.core.peers.get(liar.id).banned == 0 {
							t.Errorf("%s: a victim has not banned the liar", name)
						}
					}
					w.quiet()
				}
			}
		}
	}
}

// named is a tester that says which case it is about.
type named struct {
	*testing.T
	name string
}

func (n named) Errorf(format string, args ...any) {
	n.T.Helper()
	n.T.Errorf(n.name+": "+format, args...)
}

// lieAtRest is a world of n nodes in which all but the last hold a blob, and liars of
// these serve wrong bytes from now on.
func lieAtRest(t *testing.T, n, liars int, mode Verify) (w *world, d digest.Digest, victim *node) {
	w = newWorld(t, n, func(_ int, c *Config) { c.Verify = mode })
	d = w.blob("layer", 64*mib)
	var all []*client
	for _, o := range w.nodes[:n-1] {
		all = append(all, o.read(d, 0, -1))
	}
	w.wait(time.Minute, all...)
	w.run(time.Minute, func() bool { return false })
	for _, o := range w.nodes[:liars] {
		o.corrupt, o.signs = true, true
	}
	w.originBytes[d] = 0
	return w, d, w.nodes[n-1]
}

// The audit finds the chunks that differ: nothing right is dropped, and no more is
// read from the origin than what settles it.
func TestAuditFindsWhatDiffers(t *testing.T) {
	for _, mode := range []Verify{VerifyMember, VerifyStrict} {
		for _, n := range []int{5, 12} {
			w, d, victim := lieAtRest(t, n, 1, mode)
			w.pulled(time.Minute, w.pull(victim, d))
			if victim.droppedRight > 0 || mode == VerifyMember && victim.droppedWrong == 0 {
				t.Errorf("n=%d, mode %d: %d right and %d wrong chunks were dropped", n, mode, victim.droppedRight, victim.droppedWrong)
			}
			w.egress(d, maxProbes*mib)
			w.bannedAre(w.nodes[1:], w.nodes[0])
			if victim.core.peers.get(w.nodes[0].id).banned == 0 {
				t.Errorf("n=%d, mode %d: the liar is not banned", n, mode)
			}
			w.quiet()
		}
	}
}

// Neighbours that answer only after the audit: the victim does without them, and
// what they say then is of use.
func TestLateAuditAnswers(t *testing.T) {
	for _, late := range []time.Duration{900 * time.Millisecond, 1500 * time.Millisecond, 4 * time.Second} {
		w, d, victim := lieAtRest(t, 5, 1, VerifyMember)
		p := w.pull(victim, d)
		w.run(time.Minute, func() bool { return victim.counts[CountRefuted] > 0 })
		for _, o := range w.nodes[1:4] {
			o.paused = w.now.Add(late)
		}
		w.pulled(time.Minute, p)
		w.egress(d, (64+2*maxProbes)*mib)
		w.bannedAre(w.nodes[1:], w.nodes[0])
		w.quiet()
	}
}

// Each further liar is found under a further epoch; where there is nobody left to
// believe, the victim reads for itself.
func TestManyLiars(t *testing.T) {
	for _, mode := range []Verify{VerifyMember, VerifyStrict} {
		for liars := 2; liars <= 5; liars++ {
			w, d, victim := lieAtRest(t, 7, liars, mode)
			w.pulled(3*time.Minute, w.pull(victim, d))
			if got := victim.counts[CountRefuted]; got > maxEpochs {
				t.Errorf("%d liars, mode %d: refuted %d times", liars, mode, got)
			}
			w.egress(d, 3*64*mib)
			w.bannedAre(w.nodes[liars:], w.nodes[:liars]...)
			w.quiet()
		}
	}
}

// Without the origin the liar cannot be told from the others, and the client hears
// so in bounded time; with it again all is well.
func TestLiarWhileTheOriginIsDown(t *testing.T) {
	w, d, victim := lieAtRest(t, 4, 1, VerifyMember)
	down := true
	w.originStatus = func(*node, digest.Digest) int {
		if down {
			return 503
		}
		return 0
	}
	cl := victim.read(d, 0, -1)
	w.run(2*time.Minute, cl.done)
	if !cl.done() {
		t.Errorf("the client waits with %d of %d", cl.upto, cl.end)
	}
	w.run(time.Minute, func() bool { return false })
	down = false
	w.pulled(2*time.Minute, w.pull(victim, d))
	w.bannedAre(w.nodes[1:], w.nodes[0])
	w.quiet()
}

// A ban is over after a while, and then the node is one like any other.
func TestBansExpire(t *testing.T) {
	w, d, victim := lieAtRest(t, 3, 1, VerifyMember)
	liar := w.nodes[0]
	w.pulled(time.Minute, w.pull(victim, d))
	if victim.core.peers.get(liar.id).banned == 0 || victim.core.alive(liar.id) {
		t.Fatal("the liar is not banned")
	}
	liar.corrupt = false
	w.run(victim.core.cfg.Ban+time.Second, func() bool { return false })
	if victim.core.peers.get(liar.id).banned > w.now {
		t.Error("the ban does not end")
	}
	next := w.blob("next", 40*mib)
	w.wait(time.Minute, liar.read(next, 0, -1))
	w.wait(time.Minute, victim.read(next, 0, -1))
	w.egress(next, 40*mib)
	w.quiet()
}

// Strict verification lets no wrong byte out, so that no client sees an error, at
// the first pull and at the next one.
func TestStrictWithAForger(t *testing.T) {
	for _, n := range []int{3, 8, 16} {
		w := newWorld(t, n, strict)
		w.nodes[1].corrupt, w.nodes[1].signs = true, true
		for k, name := range []string{"first", "second"} {
			d := w.blob(name, 64*mib)
			var all []*client
			for _, o := range others(w.nodes, w.nodes[1]) {
				all = append(all, o.read(d, 0, -1))
			}
			forger := w.nodes[1].read(d, 0, -1)
			w.wait(time.Minute, all...)
			w.run(time.Minute, forger.done)
			if most := []int64{2, 1}[k] * 64 * mib; k == 0 || n > 3 {
				w.egress(d, most+int64(k)*64*mib)
			}
		}
		w.bannedAre(others(w.nodes, w.nodes[1]), w.nodes[1])
		w.quiet()
	}
}

// Where nobody lies, nothing of all this happens.
func TestNoAuditWithoutALie(t *testing.T) {
	w := newWorld(t, 8, nil)
	asked := 0
	w.trace = func(_ string, args ...any) {
		if len(args) > 3 && args[3] == MsgAskSums {
			asked++
		}
	}
	d := w.blob("layer", 100*mib)
	var all []*client
	for _, o := range w.nodes {
		all = append(all, o.read(d, 0, -1))
	}
	w.wait(time.Minute, all...)
	if probes := w.sum(w.nodes, CountProbe); asked > 0 || probes > 0 {
		t.Errorf("%d questions and %d probes", asked, probes)
	}
}

// The harness fails a test in which messages go back and forth without end.
func TestLoopsAreFound(t *testing.T) {
	said := ""
	w := newWorld(&giver{t, &said}, 2, nil)
	var again func()
	again = func() {
		w.nodes[0].hears(w.nodes[1], Message{Kind: MsgPing, Blob: digest.FromString("layer"), Size: -1})
		w.after(time.Microsecond, again)
	}
	again()
	func() {
		defer func() { _ = recover() }()
		w.run(time.Second, func() bool { return false })
	}()
	if !strings.Contains(said, "events within a virtual second") || !strings.Contains(said, "message 9") {
		t.Errorf("the harness says %q", said)
	}
}

// giver is a tester that gives up by a panic, and keeps what it was told.
type giver struct {
	*testing.T
	said *string
}

func (g *giver) Fatalf(format string, args ...any) {
	*g.said = fmt.Sprintf(format, args...)
	panic(g)
}
