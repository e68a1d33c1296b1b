package simulation

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/peercache/peercache/chunkindex"
	"github.com/peercache/peercache/fetcher/policy"
	"github.com/peercache/peercache/simulation/scenario"
)

const ms = time.Millisecond

// quiet is a cluster of nodes without clients, in which tests have things happen.
// What nodes 0 hears, and when, is in heard.
func quiet(t *testing.T, run *scenario.Run) (c *cluster, heard *[]string) {
	t.Helper()
	heard = new([]string)
	c, err := newCluster(run, Options{Points: 10, Observe: func(at time.Duration, node int, ev *policy.Event, _ []policy.Effect) {
		if node == 0 && ev.Kind == policy.EvMessage {
			*heard = append(*heard, fmt.Sprint(ev.Msg.N, " ", at))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.q = queue{}
	c.now = startTime
	return c, heard
}

// wait lets time go by.
func (c *cluster) wait(d time.Duration) {
	c.waiting = 1
	end := c.now + int64(d)
	c.play(context.Background(), end)
	c.now = end
}

// say sends a message with a number to node 0.
func (c *cluster) say(from, number int) {
	c.send(c.nodes[from], &c.nodes[0].id, &policy.Message{Kind: policy.MsgPong, Blob: c.blobs[0].id, N: number})
}

// stream has bytes flow from a node to another.
func (c *cluster) stream(from, to int32, size, most int64) (flow int32) {
	i := c.transfers.put(transfer{open: true, serial: 1, to: to, from: from})
	c.nodes[to].transfers = append(c.nodes[to].transfers, i)
	flow = c.net.start(c.now, c.topo.between(from, to), size, most, i, false)
	c.transfers.all[i].flow = flow
	c.net.flush(c.now)
	return flow
}

func expect(t *testing.T, heard *[]string, want ...string) {
	t.Helper()
	if fmt.Sprint(*heard) != fmt.Sprint(want) {
		t.Errorf("heard %v, want %v", *heard, want)
	}
	*heard = nil
}

// fourPlaces is node 0, one in its rack, one in its zone and one far away.
func fourPlaces() *scenario.Run {
	r := crowd{nodes: 4, size: mib}.run()
	r.Zones = []scenario.Zone{{Name: "a"}, {Name: "b"}}
	r.Racks = []scenario.Rack{{}, {}, {Zone: 1}}
	r.Nodes[2].Rack = 1
	r.Nodes[3].Zone, r.Nodes[3].Rack = 1, 2
	r.Latency = scenario.Latency{Rack: ms, Zone: 2 * ms, Far: 5 * ms, Origin: 7 * ms}
	return r
}

func TestLatencyIsThatOfThePlace(t *testing.T) {
	c, heard := quiet(t, fourPlaces())
	for i := 3; i > 0; i-- {
		c.say(i, i)
	}
	c.wait(time.Second)
	expect(t, heard, "1 1ms", "2 2ms", "3 5ms")
}

// Messages wait for the CPU that takes the ones before them.
func TestMessagesTakeTime(t *testing.T) {
	r := fourPlaces()
	r.Costs.Message = 3 * ms
	c, heard := quiet(t, r)
	c.say(1, 1)  // there at 1 ms, taken from then until 4
	c.say(2, 2)  // there at 2 ms: until 7
	c.say(3, 3)  // there at 5 ms: until 10
	c.say(1, 11) // there at 1 ms too, and before the second: until 7, so that the others are 3 ms later
	c.wait(20 * ms)
	c.say(1, 4)
	c.wait(time.Second)
	expect(t, heard, "1 4ms", "11 7ms", "2 10ms", "3 13ms", "4 24ms")
}

// A link that is full has a queue, one that is not has none.
func TestFullLinksHaveQueues(t *testing.T) {
	r := fourPlaces()
	r.Latency.Queue = 20 * ms
	for i := range r.Nodes {
		r.Nodes[i].Up, r.Nodes[i].Down = 100*mib, 200*mib
	}
	c, heard := quiet(t, r)
	flow := c.stream(1, 0, 1<<30, 75*mib)
	c.say(1, 1) // at three quarters nothing waits
	c.wait(100 * ms)
	expect(t, heard, "1 1ms")

	c.net.setCap(flow, 100*mib)
	c.net.flush(c.now)
	c.say(1, 2) // its own link is full, that of node 0 half
	c.say(2, 3)
	c.wait(100 * ms)
	expect(t, heard, "3 102ms", "2 121ms")

	// What is sent when the queue is gone stays behind what waited in it.
	c.say(1, 4)
	c.net.setCap(flow, 1)
	c.net.flush(c.now)
	c.say(1, 5)
	c.wait(100 * ms)
	expect(t, heard, "4 221ms", "5 221ms")
}

// What goes over a connection on which a chunk is under way waits for what of it
// is in the buffers.
func TestBuffers(t *testing.T) {
	r := fourPlaces()
	r.Costs.Buffer = mib / 2
	for i := range r.Nodes {
		r.Nodes[i].Up, r.Nodes[i].Down = 10*mib, 10*mib
	}
	c, heard := quiet(t, r)
	c.stream(1, 0, mib, 0)
	c.say(1, 1) // half a MiB at 10 MiB a second
	c.say(2, 2)
	c.wait(75 * ms)
	c.say(1, 3) // a quarter is left
	c.wait(20 * ms)
	expect(t, heard, "2 2ms", "1 51ms")
	c.wait(15 * ms)
	expect(t, heard, "3 101ms")
}

// Lost packets make messages later, by whole time-outs, and change no order.
func TestLossDelaysMessages(t *testing.T) {
	r := fourPlaces()
	r.Faults = []scenario.Fault{{Kind: scenario.Loss, Nodes: []int{1}, Part: 200_000}}
	c, _ := quiet(t, r)
	c.nodes[1].loss = 200_000
	var times []time.Duration
	next, late := 0, 0
	c.opt.Observe = func(at time.Duration, node int, ev *policy.Event, _ []policy.Effect) {
		if node == 0 && ev.Kind == policy.EvMessage {
			if ev.Msg.N != next {
				t.Fatalf("message %d after %d", ev.Msg.N, next-1)
			}
			next++
			times = append(times, at)
		}
	}
	const n = 1000
	for i := range n {
		at := time.Duration(c.now - startTime)
		c.say(1, i)
		c.wait(10 * time.Second)
		if d := times[i] - at; d != ms {
			if d%(200*ms) != ms {
				t.Fatalf("a message took %v", d)
			}
			late++
		}
	}
	if late < n/7 || late > n/4 {
		t.Errorf("%d of %d messages were late", late, n)
	}
}

// TestLetter: a message of each kind is read as it was written, and shares nothing with
// what its sender keeps.
func TestLetter(t *testing.T) {
	bits := chunkindex.FullBitfield(3)
	for kind := policy.MsgState; kind <= policy.MsgFree; kind++ {
		sent := policy.Message{Kind: kind, Blob: "b", Size: 7, Small: true, Chunk: 1, N: 2, Rest: [4]uint64{5}}
		if kind == policy.MsgState || kind == policy.MsgAsk {
			sent.Bits, sent.Epoch = bits, 3
		}
		e := policy.Effect{Kind: policy.EfSend, Msg: sent}
		ownEffect(&e)
		var l letter
		l.write(&e.Msg)
		var got policy.Message
		if l.read(&got); !reflect.DeepEqual(got, sent) {
			t.Errorf("%+v was read as %+v", sent, got)
		}
		if got.Bits.Clear(1); sent.Bits.Len() > 0 && !bits.Has(1) {
			t.Errorf("kind %d shares its bits", kind)
		}
	}
}
