package simulation

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// SearchRun is the run that a fault search with the defaults makes of a seed.
func SearchRun(seed uint64) *scenario.Run { return SearchConfig{}.Run(seed) }

// Run is the run that a search makes of a seed: a small cluster in which everything is
// drawn at random, the topology, the speeds, the images, when clients come, whose word
// counts, and what goes wrong when. All that goes wrong is mended in time, save that
// some nodes never come back and some lie to the end.
func (cfg SearchConfig) Run(seed uint64) *scenario.Run {
	cfg = cfg.filled()
	d := &dice{rand.New(rand.NewPCG(seed, 0xFA017))}
	r := &scenario.Run{Name: "fault-search", Seed: seed, Verify: "member"}
	if d.one(4) {
		r.Verify = "strict"
	}
	d.topology(r, cfg.Nodes)
	d.images(r, cfg.Chunks, seed)
	d.pulls(r)
	d.faults(r, cfg.Faults+d.IntN(cfg.Faults+2))
	r.Limits = scenario.Limits{Time: 10 * time.Minute, Deadline: 90 * time.Second}
	return r
}

// dice draw what a run is made of.
type dice struct{ *rand.Rand }

// one is true once in n times.
func (d *dice) one(n int) bool { return d.IntN(n) == 0 }

// between is from lo to hi.
func (d *dice) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(d.Int64N(int64(hi-lo)+1))
}

func pick[T any](d *dice, xs ...T) T { return xs[d.IntN(len(xs))] }

const megabyte = 1_000_000

func (d *dice) topology(r *scenario.Run, nodes int) {
	rate := pick[int64](d, 25, 50, 125) * megabyte
	for z := range 1 + d.IntN(3) {
		zone := scenario.Zone{Name: fmt.Sprintf("zone-%d", z)}
		if d.one(3) {
			zone.Up = rate * int64(2+d.IntN(10))
			zone.Down, zone.Paid = zone.Up, d.one(2)
		}
		r.Zones = append(r.Zones, zone)
		for range 1 + d.IntN(3) {
			rack := scenario.Rack{Zone: z}
			if d.one(3) {
				rack.Up = rate * int64(2+d.IntN(10))
				rack.Down = rack.Up
			}
			r.Racks = append(r.Racks, rack)
		}
	}
	mixed := d.one(3)
	for range nodes {
		rack := d.IntN(len(r.Racks))
		n := scenario.Node{Zone: r.Racks[rack].Zone, Rack: rack, Up: rate, Down: rate}
		if mixed {
			n.Up = rate / int64(1+d.IntN(4))
			n.Down = rate / int64(1+d.IntN(2))
		}
		if d.one(8) {
			n.Disk = rate * int64(1+d.IntN(4))
		}
		r.Nodes = append(r.Nodes, n)
	}
	near := d.between(50*time.Microsecond, time.Millisecond)
	r.Latency = scenario.Latency{Rack: near, Zone: near * 2, Far: near * time.Duration(2+d.IntN(30)), Origin: d.between(2*time.Millisecond, 40*time.Millisecond)}
	if d.one(3) {
		r.Latency.Queue = d.between(time.Millisecond, 20*time.Millisecond)
	}
	r.DHT = scenario.DHT{Delays: []time.Duration{time.Millisecond, d.between(time.Millisecond, 50*time.Millisecond), d.between(50*time.Millisecond, 400*time.Millisecond)},
		Publish: d.between(10*time.Millisecond, 500*time.Millisecond)}
	if d.one(6) {
		r.DHT.Misses = 1 + d.IntN(50_000)
	}
	r.Costs = scenario.Costs{Message: d.between(2*time.Microsecond, 30*time.Microsecond), Open: d.between(100*time.Microsecond, 3*time.Millisecond),
		Store: d.between(100*time.Microsecond, 3*time.Millisecond), Hash: d.between(500*time.Microsecond, 2*time.Millisecond),
		Publish: d.between(time.Millisecond, 20*time.Millisecond), Overhead: d.IntN(60_000), Request: d.between(0, 2*time.Millisecond)}
	r.Origin = scenario.Origin{Link: rate * int64(1+d.IntN(4)), Delay: d.between(time.Millisecond, 60*time.Millisecond)}
	if d.one(3) {
		r.Origin.Connection = r.Origin.Link / int64(2+d.IntN(6))
	}
	if d.one(8) {
		r.Origin.Readers = 1 + d.IntN(nodes)
	}
}

const mebi = 1 << 20

func (d *dice) images(r *scenario.Run, chunks int, seed uint64) {
	blob := func(size int64, manifest bool) int {
		r.Blobs = append(r.Blobs, scenario.Blob{Name: fmt.Sprintf("blob %d of seed %d", len(r.Blobs), seed), Size: size, Manifest: manifest})
		return len(r.Blobs) - 1
	}
	kinds := 1 + d.IntN(2)
	for i := range kinds {
		image := scenario.Image{Name: fmt.Sprintf("image-%d", i), Manifest: blob(int64(500+d.IntN(4000)), true)}
		image.Layers = append(image.Layers, blob(int64(500+d.IntN(20000)), false)) // the config
		left := int64(chunks) * mebi / int64(kinds)
		for layers := 1 + d.IntN(4); layers > 0; layers-- {
			size := left / int64(layers)
			if layers > 1 {
				size = max(d.Int64N(2*size), 1)
			}
			left -= min(size, left-1)
			image.Layers = append(image.Layers, blob(size, false))
		}
		if i > 0 && d.one(2) {
			image.Layers[1] = r.Images[0].Layers[1] // shared
		}
		r.Images = append(r.Images, image)
	}
}

func (d *dice) pulls(r *scenario.Run) {
	spread := pick(d, 0, 0, 200*time.Millisecond, time.Second, 4*time.Second)
	parallel := pick(d, 0, 3, 1)
	late := d.one(3)
	for i := range r.Nodes {
		p := scenario.Pull{Node: i, Image: d.IntN(len(r.Images)), Parallel: parallel, Retries: 60}
		if spread > 0 {
			p.At = d.between(0, spread)
		}
		if late && d.one(5) {
			r.Nodes[i].Joins = d.between(time.Millisecond, 5*time.Second)
			p.At = r.Nodes[i].Joins + d.between(0, 500*time.Millisecond)
		}
		r.Pulls = append(r.Pulls, p)
		if len(r.Images) > 1 && d.one(3) {
			p.Image, p.At = 1-p.Image, p.At+d.between(0, 3*time.Second)
			r.Pulls = append(r.Pulls, p)
		}
	}
	slices.SortStableFunc(r.Pulls, func(a, b scenario.Pull) int { return cmp.Compare(a.At, b.At) })
}

// faultKinds are drawn from, those that the cluster has most to do with more often.
var faultKinds = []scenario.FaultKind{
	scenario.Crash, scenario.Crash, scenario.Crash, scenario.Crash, scenario.Drain, scenario.Partition, scenario.Partition, scenario.Offline,
	scenario.Loss, scenario.SlowNIC, scenario.SlowDisk, scenario.SlowNode, scenario.FullDisk, scenario.Rot, scenario.Corrupt, scenario.Corrupt,
	scenario.Forge, scenario.Forge, scenario.Lie, scenario.Stall, scenario.Stall, scenario.Mute, scenario.Mute, scenario.ClockSkew, scenario.StaleDHT,
	scenario.OriginThrottle, scenario.OriginError, scenario.OriginReset, scenario.OriginStall, scenario.OriginOutage, scenario.ExpiredToken,
}

func (d *dice) faults(r *scenario.Run, n int) {
	for range n {
		r.Faults = append(r.Faults, d.fault(r))
	}
	slices.SortStableFunc(r.Faults, func(a, b scenario.Fault) int { return cmp.Compare(a.At, b.At) })
}

func (d *dice) fault(r *scenario.Run) scenario.Fault {
	f := scenario.Fault{Kind: pick(d, faultKinds...), At: d.between(0, 4*time.Second), For: d.between(50*time.Millisecond, 6*time.Second)}
	some := func(most int) {
		f.Nodes = append(f.Nodes, d.Perm(len(r.Nodes))[:1+d.IntN(max(min(most, len(r.Nodes)-1), 1))]...)
		slices.Sort(f.Nodes)
	}
	switch f.Kind {
	case scenario.Crash:
		f.For = 0
		if !d.one(4) {
			f.Restart = d.between(50*time.Millisecond, 5*time.Second)
		}
		switch d.IntN(3) {
		case 0:
			f.Role = scenario.Coordinator
		case 1:
			f.Role = scenario.Fetcher
		default:
			some(len(r.Nodes) / 3)
		}
	case scenario.Drain:
		f.For, f.Notice = 0, d.between(0, 2*time.Second)
		f.Restart = d.between(100*time.Millisecond, 5*time.Second)
		some(len(r.Nodes) / 3)
	case scenario.Partition:
		f.OneWay = d.one(3)
		some(len(r.Nodes) / 2)
	case scenario.Offline, scenario.StaleDHT:
		some(len(r.Nodes) / 2)
	case scenario.Loss:
		f.Part = 1000 + d.IntN(50_000)
		some(len(r.Nodes) / 4)
	case scenario.SlowNIC, scenario.SlowDisk:
		f.Rate = pick[int64](d, 1, 5, 10) * megabyte
		some(5)
	case scenario.SlowNode:
		f.Delay = d.between(time.Millisecond, 200*time.Millisecond)
		if d.one(2) {
			f.Role = pick(d, scenario.Coordinator, scenario.Fetcher)
		} else {
			some(5)
		}
	case scenario.FullDisk:
		some(3)
	case scenario.Rot:
		f.For, f.Part = 0, 10_000+d.IntN(500_000)
		some(3)
	case scenario.Corrupt, scenario.Forge, scenario.Lie:
		if d.one(2) {
			f.For = 0
		}
		some(2)
	case scenario.Stall, scenario.Mute:
		if d.one(3) {
			f.Role = pick(d, scenario.Coordinator, scenario.Fetcher)
		} else {
			some(4)
		}
	case scenario.ClockSkew:
		f.Delay = d.between(-2*time.Second, 2*time.Second) // the core's time is no wall clock
		f.Part = d.IntN(2000) - 1000
		some(len(r.Nodes) / 4)
	case scenario.OriginThrottle:
		f.Delay = d.between(0, 5*time.Second)
	case scenario.OriginError:
		f.Status = pick(d, 500, 502, 503, 504)
	case scenario.OriginReset:
		f.Part = 50_000 + d.IntN(900_000)
	}
	return f
}
