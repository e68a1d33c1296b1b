package simulation

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

// ruledRun is a run of some nodes that all pull 24 MiB, without a fault.
func ruledRun(nodes int, apart time.Duration) *scenario.Run {
	r := &scenario.Run{Name: "ruled", Seed: 7, Racks: make([]scenario.Rack, 1), Zones: make([]scenario.Zone, 1), Verify: "member",
		Latency: scenario.Latency{Rack: time.Millisecond, Zone: time.Millisecond, Far: time.Millisecond, Origin: 5 * time.Millisecond},
		DHT:     scenario.DHT{Delays: []time.Duration{2 * time.Millisecond}},
		Costs:   scenario.Costs{Open: time.Millisecond, Store: time.Millisecond, Hash: time.Millisecond, Publish: time.Millisecond},
		Origin:  scenario.Origin{Link: 50 * mebi},
		Blobs:   []scenario.Blob{{Name: "manifest", Size: 1000, Manifest: true}, {Name: "layer", Size: 24 * mebi}},
		Images:  []scenario.Image{{Name: "image", Layers: []int{1}}},
		Limits:  scenario.Limits{Time: 3 * time.Minute, Deadline: time.Minute}}
	for i := range nodes {
		r.Nodes = append(r.Nodes, scenario.Node{Up: 50 * mebi, Down: 50 * mebi})
		r.Pulls = append(r.Pulls, scenario.Pull{Node: i, At: time.Duration(i) * apart, Retries: 5})
	}
	return r
}

// double is a core that does something wrong: it sees each event before the core
// does, which does not get one that it returns false for, and each effect after
// it, and passes on what effect appends.
type double struct {
	*policy.Core
	event  func(now policy.Time, ev *policy.Event) bool
	effect func(now policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect
	// also are events that the core is given at once, as if they had happened.
	also []policy.Event
}

func (d *double) Step(now policy.Time, ev policy.Event, dst []policy.Effect) []policy.Effect {
	if d.event != nil && !d.event(now, &ev) {
		return dst
	}
	all := d.Core.Step(now, ev, nil)
	for i := 0; i < len(all) || len(d.also) > 0; {
		if i < len(all) {
			if d.effect != nil {
				dst = d.effect(now, all[i], dst)
			} else {
				dst = append(dst, all[i])
			}
			i++
			continue
		}
		next := d.also[0]
		d.also = d.also[1:]
		all = append(all, d.Core.Step(now, next, nil)...)
	}
	return dst
}

// only wraps the core of one node, -1 for all.
func only(which int, wrap func(d *double, cfg *policy.Config)) func(int, policy.Config) Core {
	return func(node int, cfg policy.Config) Core {
		d := &double{}
		if which < 0 || node == which {
			wrap(d, &cfg)
		}
		d.Core = policy.New(cfg)
		return d
	}
}

// Each invariant bites: a core that breaks it is caught by it, and by no other.
func TestBrokenCoresAreCaught(t *testing.T) {
	const one = 2 // the node whose core is wrong, where that is one
	for name, tc := range map[string]struct {
		by      string
		run     *scenario.Run
		newCore func(int, policy.Config) Core
		tune    func(int, *policy.Config)
	}{
		"nothing is wrong":          {run: ruledRun(6, 0)},
		"nothing is wrong, strict":  {run: func() *scenario.Run { r := ruledRun(6, 0); r.Verify = "strict"; return r }()},
		"nothing is wrong, crowded": {run: ruledRun(80, time.Millisecond)},
		"releases what is not proven": {by: "wrong-bytes", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			d.effect = func(_ policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect {
				if e.Kind == policy.EfProve {
					d.also = append(d.also, policy.Event{Kind: policy.EvProven, Blob: e.Blob})
					return dst
				}
				return append(dst, e)
			}
		})},
		"releases what nobody vouches for": {by: "wrong-bytes", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			var reader policy.ID
			d.event = func(_ policy.Time, ev *policy.Event) bool {
				switch {
				case ev.Kind == policy.EvRead && !ev.Small:
					reader = ev.Reader
				case ev.Kind == policy.EvTransferDone:
					ev.Claims = nil // it forgets who said so
				}
				return true
			}
			d.effect = func(_ policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect {
				dst = append(dst, e)
				if e.Kind == policy.EfStore && e.Level == chunkindex.Received && e.Chunk == 0 {
					dst = append(dst, policy.Effect{Kind: policy.EfDeliver, Reader: reader, Blob: e.Blob, Off: chunkindex.HeadChunkLength, Size: e.Size})
				}
				return dst
			}
		})},
		"asks the origin for what others have": {by: "egress", run: ruledRun(4, 3*time.Second), newCore: only(one, func(d *double, _ *policy.Config) {
			d.event = func(_ policy.Time, ev *policy.Event) bool {
				return ev.Kind != policy.EvPeerUp && ev.Kind != policy.EvMessage
			}
		})},
		"gives no answer": {by: "completion", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			d.effect = func(_ policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect {
				if e.Kind == policy.EfDeliver || e.Kind == policy.EfFail {
					return dst
				}
				return append(dst, e)
			}
		})},
		"refuses what it could serve": {by: "completion", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			refused := false
			d.effect = func(_ policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect {
				if e.Kind == policy.EfDeliver && !refused {
					refused = true
					d.also = append(d.also, policy.Event{Kind: policy.EvCancel, Reader: e.Reader})
					return append(dst, policy.Effect{Kind: policy.EfFail, Reader: e.Reader, Blob: e.Blob, Status: 503, Reason: policy.ReasonUnavailable})
				}
				return append(dst, e)
			}
		})},
		"forgets to end a reader": {by: "orphans", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			d.event = func(_ policy.Time, ev *policy.Event) bool { return ev.Kind != policy.EvCancel }
		})},
		"never lets go of a blob": {by: "orphans", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			d.effect = func(_ policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect {
				if e.Kind == policy.EfClose {
					return dst
				}
				return append(dst, e)
			}
		})},
		"loses the end of a transfer": {by: "orphans", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			lost := false
			d.event = func(_ policy.Time, ev *policy.Event) bool {
				if ev.Kind == policy.EvTransferFailed && !lost {
					lost = true
					return false
				}
				return true
			}
		})},
		"ignores its budget": {by: "memory", run: ruledRun(6, 0), tune: func(_ int, cfg *policy.Config) { cfg.InFlightBytes = mebi },
			newCore: only(one, func(_ *double, cfg *policy.Config) { cfg.InFlightBytes = 48 * mebi })},
		"grants twice": {by: "one-fetch", run: ruledRun(6, 0), newCore: only(-1, func(d *double, cfg *policy.Config) {
			var askers []chunkindex.NodeID
			d.event = func(_ policy.Time, ev *policy.Event) bool {
				if ev.Kind == policy.EvMessage && ev.Msg.Kind == policy.MsgAsk && !slices.Contains(askers, ev.Peer) {
					askers = append(askers, ev.Peer)
				}
				return true
			}
			d.effect = func(_ policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect {
				dst = append(dst, e)
				if e.Kind == policy.EfSend && e.Msg.Kind == policy.MsgGrant {
					for _, o := range askers {
						if o != e.Peer {
							e.Peer = o
							return append(dst, e)
						}
					}
				}
				return dst
			}
		})},
		"bans the honest": {by: "honest-bans", run: ruledRun(6, 0), newCore: only(one, func(d *double, _ *policy.Config) {
			banned := false
			d.effect = func(now policy.Time, e policy.Effect, dst []policy.Effect) []policy.Effect {
				if e.Kind == policy.EfTransfer && !banned {
					banned = true
					dst = append(dst, policy.Effect{Kind: policy.EfBan, Peer: e.Peer, At: now.Add(time.Minute), Reason: policy.ReasonLied})
				}
				return append(dst, e)
			}
		})},
	} {
		t.Run(name, func(t *testing.T) {
			caughtBy(t, tc.by, tc.run, Options{NewCore: tc.newCore, Tune: tc.tune})
		})
		t.Run(name+", in windows", func(t *testing.T) {
			opt := inWindows(2)
			opt.NewCore, opt.Tune = tc.newCore, tc.tune
			caughtBy(t, tc.by, tc.run, opt)
		})
	}
}

// caughtBy has a run break the invariant of a name, "" for none, and no other.
func caughtBy(t *testing.T, by string, run *scenario.Run, opt Options) {
	t.Helper()
	res, err := Simulate(context.Background(), run, opt)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, v := range res.Invariants {
		if v.Checks == 0 {
			t.Errorf("%s was never checked", v.Name)
		}
		if v.Name == by {
			found = true
		}
		if (v.Violations > 0) != (v.Name == by) {
			t.Errorf("%s was broken %d times: %s", v.Name, v.Violations, v.First)
		}
		t.Logf("%s: %d checks, %s", v.Name, v.Checks, v.First)
	}
	if !found && by != "" {
		t.Errorf("there is no invariant %s", by)
	}
}

// A chunk that is dropped and stored again before the disk is done with it is written twice, and
// afterwards not at all: what would be left in the count would be taken for a leak.
func TestMemoryOfAChunkThatIsWrittenTwice(t *testing.T) {
	run := ruledRun(1, 0)
	run.Limits.NodeMemory = 100 * mebi
	c, err := newCluster(run, Options{Points: 10})
	if err != nil {
		t.Fatal(err)
	}
	n, v := c.nodes[0], &c.rules.memory
	store := &policy.Effect{Kind: policy.EfStore, Blob: c.blobs[1].id, Chunk: 9}
	stored := &policy.Event{Kind: policy.EvStored, Blob: c.blobs[1].id, Chunk: 9}
	v.stores(n, store)
	v.stores(n, store)
	if got, want := v.nodes[0].writing, 2*c.lengthOf(1, 9); got != want {
		t.Errorf("%d bytes are being written, want %d", got, want)
	}
	for range 3 { // one of them of a chunk that nobody writes
		v.written(n, stored)
	}
	if got := v.nodes[0]; got.writing != 0 || len(got.writes) != 0 {
		t.Errorf("%d bytes of %v are left", got.writing, got.writes)
	}
}
