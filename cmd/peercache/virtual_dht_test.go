package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/opencontainers/go-digest"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/p2p"
)

// dhtResult is what look-ups took, and what they missed. Quantiles are those of 0, 5, …,
// 100 %, in units of the one-way latency between two nodes.
type dhtResult struct {
	Nodes     int     `json:"nodes"`
	LatencyMs float64 `json:"one_way_latency_ms"`
	Lookups   int     `json:"lookups"`
	// Cold is a look-up as the fetcher makes it, the closest nodes and the providers at
	// once, of what nobody provides; Provided of what some provide. Closest and Providers
	// are its halves when cold.
	Cold      []float64 `json:"cold"`
	Provided  []float64 `json:"provided"`
	Closest   []float64 `json:"closest"`
	Providers []float64 `json:"providers"`
	// Missed is the part of the true twenty closest nodes that answers lacked, and
	// MissedFirst how many answers lacked the closest of all; Found of those who
	// provide.
	Missed      float64 `json:"missed"`
	MissedFirst float64 `json:"missed_first"`
	Found       float64 `json:"found"`
	// Connected is the least and the mean number of peers of a node.
	Connected [2]float64 `json:"connected"`
}

// measureDHT has all nodes look the same digest up at once, as a crowd does, for some
// digests, and then again when three nodes provide it.
func measureDHT(v *virtualRun, digests int) (*dhtResult, error) {
	const providers = 3
	r := &dhtResult{Nodes: len(v.nodes), LatencyMs: v.run.Latency.Rack.Seconds() * 1e3}
	var cold, provided, closest, searched []time.Duration
	missed, first, found, asked, expected := 0, 0, 0, 0, 0
	for i := range digests {
		d := digest.FromString(fmt.Sprint("digest ", i))
		truth := v.trulyClosest(d)
		for _, again := range []bool{false, true} {
			if again {
				for j := range providers {
					if err := v.nodes[(i+j)%len(v.nodes)].running().host.Provide(d); err != nil {
						return nil, err
					}
				}
				time.Sleep(10 * time.Second) // they announce a little later, together
			}
			looked := make([]lookedUp, len(v.nodes))
			err := v.each(func(n *virtualNode) (err error) {
				looked[n.number], err = lookUp(n.running().host, d)
				return err
			})
			if err != nil {
				return nil, err
			}
			for j, l := range looked {
				if again {
					provided = append(provided, max(l.closest, l.searched))
					if (j-i+len(v.nodes))%len(v.nodes) >= providers {
						found += len(l.providers)
						expected += providers
					}
					continue
				}
				cold, closest, searched = append(cold, max(l.closest, l.searched)), append(closest, l.closest), append(searched, l.searched)
				asked++
				for k, id := range truth {
					if !slices.Contains(l.nodes, id) {
						missed++
						if k == 0 {
							first++
						}
					}
				}
			}
			time.Sleep(2 * time.Second)
		}
	}
	r.Lookups = asked
	r.Missed, r.MissedFirst = float64(missed)/float64(asked*min(20, len(v.nodes))), float64(first)/float64(asked)
	r.Found = float64(found) / float64(max(1, expected))
	hop := v.run.Latency.Rack
	r.Cold, r.Provided, r.Closest, r.Providers = hops(cold, hop), hops(provided, hop), hops(closest, hop), hops(searched, hop)
	r.Connected[0] = float64(len(v.nodes))
	for _, n := range v.nodes {
		peers := float64(len(n.running().host.Peers()))
		r.Connected[0] = min(r.Connected[0], peers)
		r.Connected[1] += peers / float64(len(v.nodes))
	}
	return r, nil
}

// lookedUp is one look-up.
type lookedUp struct {
	closest, searched time.Duration
	nodes, providers  []chunkindex.NodeID
}

// lookUp does what the fetcher does for a blob.
func lookUp(h *p2p.Host, d digest.Digest) (l lookedUp, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	start := time.Now()
	var both sync.WaitGroup
	both.Go(func() {
		l.nodes, err = h.Closest(ctx, d)
		l.closest = time.Since(start)
	})
	var searchErr error
	both.Go(func() {
		l.providers, searchErr = h.Providers(ctx, d, policy.MaxPeers)
		l.searched = time.Since(start)
	})
	both.Wait()
	if err == nil {
		err = searchErr
	}
	return l, err
}

// trulyClosest are the twenty nodes closest to a digest, by all that there are.
func (v *virtualRun) trulyClosest(d digest.Digest) []chunkindex.NodeID {
	c, err := chunkindex.CID(d)
	if err != nil {
		panic(err) // of a digest that is one
	}
	ids := make([]chunkindex.NodeID, len(v.nodes))
	for i, n := range v.nodes {
		ids[i] = n.id
	}
	slices.SortFunc(ids, func(a, b chunkindex.NodeID) int {
		if kb.Closer(p2p.PeerID(a), p2p.PeerID(b), string(c.Hash())) {
			return -1
		}
		return 1
	})
	return ids[:min(20, len(ids))]
}

// hops are the quantiles of some times, in units of one.
func hops(times []time.Duration, unit time.Duration) []float64 {
	slices.Sort(times)
	var q []float64
	for i := range 21 {
		t := times[i*(len(times)-1)/20]
		q = append(q, float64(t*10/unit)/10)
	}
	return q
}

// What the DHT takes and misses: go test ./cmd/peercache -run VirtualDHT -v -args -virtual.dht 50,0.5ms
func TestVirtualDHT(t *testing.T) {
	if *virtualDHT == "" {
		t.Skip("takes -virtual.dht NODES,LATENCY")
	}
	var nodes int
	var text string
	if _, err := fmt.Sscanf(*virtualDHT, "%d,%s", &nodes, &text); err != nil {
		t.Fatal(err)
	}
	latency, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	run := flashCrowd(nodes, 1<<20, 125_000_000, latency)
	run.Pulls = nil
	playVirtual(t, run, func(v *virtualRun) error {
		result, err := measureDHT(v, max(2, 400/nodes))
		if err != nil {
			return err
		}
		line, err := json.Marshal(result)
		fmt.Printf("%s\n", line)
		return err
	})
}
