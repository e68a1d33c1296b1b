package simulation

import (
	"math"
	"slices"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// How what goes wrong begins and ends. What it does is in the files about what it
// befalls.

// fault is one that the run has, and whom it befell.
type fault struct {
	*scenario.Fault
	number int
	nodes  []int32
	since  int64
	side   uint64     // of a partition: its bit
	pairs  [][2]int32 // whom it parted for so long that their connections broke
}

// roleRetry is how often a fault looks for a node in its role.
const roleRetry = 5 * int64(time.Millisecond)

// begin has a fault begin, or, where it is for a role that nobody has whom it can befall, look
// again in a while. What ends nodes spares those that are away or about to leave: they come back
// once.
func (c *cluster) begin(k int) {
	f := &c.faults[k]
	f.nodes, f.since = f.nodes[:0], c.now
	ends := f.Kind == scenario.Crash || f.Kind == scenario.Drain
	if f.Role != "" {
		n := c.inRole(f.Role)
		if n == nil || ends && n.leaving {
			if !c.ending {
				c.q.push(c.now+roleRetry, evFault, 0, 0, uint64(k))
			}
			return
		}
		f.nodes = append(f.nodes, n.index)
	}
	for _, i := range f.Nodes {
		if !ends || !c.nodes[i].down && !c.nodes[i].leaving {
			f.nodes = append(f.nodes, int32(i))
		}
	}
	if f.Kind == scenario.StaleDHT && f.Role == "" && len(f.Nodes) == 0 {
		for i := range c.nodes {
			f.nodes = append(f.nodes, int32(i))
		}
	}
	c.suffering = append(c.suffering, f)
	for _, i := range f.nodes {
		c.strike(f, c.nodes[i], +1)
	}
	c.changed(f)
	c.rules.began(f.Fault, f.nodes)
	switch {
	case f.Kind == scenario.Crash:
		if f.Restart > 0 {
			c.q.push(c.now+int64(f.Restart), evHeal, 0, 0, uint64(k))
		}
	case f.Kind == scenario.Drain:
		c.q.push(c.now+int64(f.Notice), evLeave, 0, 0, uint64(k))
		if f.Restart > 0 {
			c.q.push(c.now+int64(f.Notice+f.Restart), evHeal, 0, 0, uint64(k))
		}
	case f.For > 0:
		c.q.push(c.now+int64(f.For), evHeal, 0, 0, uint64(k))
	}
}

// heal ends a fault.
func (c *cluster) heal(k int) {
	f := &c.faults[k]
	c.suffering = slices.DeleteFunc(c.suffering, func(o *fault) bool { return o == f })
	for _, i := range f.nodes {
		c.strike(f, c.nodes[i], -1)
	}
	c.changed(f)
	c.rules.ended(f.Fault, f.nodes)
}

// strike has a fault begin (+1) or end (-1) for a node. Several of a kind may
// befall one at a time.
func (c *cluster) strike(f *fault, n *node, by int) {
	switch f.Kind {
	case scenario.Crash:
		if by > 0 {
			n.gone = f.Restart == 0
			c.kill(n)
		} else {
			c.join(n, n.known)
		}
	case scenario.Drain:
		if by > 0 {
			c.takeLeave(n, f.Restart == 0)
		} else {
			c.join(n, n.known)
		}
	case scenario.Partition:
		c.part(f, n, by > 0)
	case scenario.Offline:
		n.offline += by
	case scenario.Loss:
		n.loss += int64(by * f.Part)
	case scenario.SlowNIC:
		s := &c.run.Nodes[n.index]
		rate := c.least(f.Kind, n)
		c.net.setRate(n.up, min(bound(s.Up), rate))
		c.net.setRate(n.in, min(bound(s.Down), rate))
	case scenario.SlowDisk:
		c.setDisk(n, min(bound(c.run.Nodes[n.index].Disk), c.least(f.Kind, n)))
	case scenario.SlowNode:
		work := c.run.Costs.Message
		for _, o := range c.suffering {
			if o.Kind == f.Kind && slices.Contains(o.nodes, n.index) {
				work = max(work, o.Delay)
			}
		}
		c.setWork(n, int64(work))
	case scenario.FullDisk:
		n.full += by
	case scenario.Rot:
		c.spoil(n, f.Part)
	case scenario.Corrupt:
		n.wicked = true
		n.corrupt += by
	case scenario.Forge:
		n.wicked = true
		n.forges += by
	case scenario.Lie:
		n.wicked = true
		n.lies += by
	case scenario.Stall:
		n.stalls += by
	case scenario.Mute:
		n.mute += by
	case scenario.ClockSkew:
		c.skew(f, n, by > 0)
	case scenario.StaleDHT:
		n.stale = 0
		for _, o := range c.suffering {
			if o.Kind == f.Kind && slices.Contains(o.nodes, n.index) && (n.stale == 0 || o.since < n.stale) {
				n.stale = o.since
			}
		}
	}
}

// least is the least rate that the faults of a kind leave a node.
func (c *cluster) least(kind scenario.FaultKind, n *node) int64 {
	rate := int64(math.MaxInt64)
	for _, o := range c.suffering {
		if o.Kind == kind && slices.Contains(o.nodes, n.index) {
			rate = min(rate, max(o.Rate, 1))
		}
	}
	return rate
}

// changed has flows and reads that are under way feel the begin or the end of a
// fault.
func (c *cluster) changed(f *fault) {
	switch f.Kind {
	case scenario.Partition:
		c.partitioned(f)
	case scenario.Loss, scenario.Offline, scenario.OriginStall:
		c.recap()
		c.answerStalled()
	case scenario.OriginOutage:
		for i := range c.reads.all {
			if r := &c.reads.all[i]; r.open && r.flow >= 0 && c.suffers(scenario.OriginOutage, c.nodes[r.node]) != nil {
				c.interrupt(int32(i), 1)
			}
		}
	}
}

// recap gives all flows the limits that they have now.
func (c *cluster) recap() {
	for i := range c.net.flows {
		f := &c.net.flows[i]
		if !f.active {
			continue
		}
		var most int64
		if f.origin {
			n := c.nodes[c.reads.all[f.owner].node]
			if most = c.originCap(n); n.offline > 0 || c.suffers(scenario.OriginStall, n) != nil {
				most = halted
			}
		} else {
			t := &c.transfers.all[f.owner]
			most = c.peerCap(c.nodes[t.from], c.nodes[t.to])
		}
		if most == f.most || most > 0 && c.net.payload(most) == f.most {
			continue
		}
		if f.origin && most == halted {
			c.halt(f.owner)
		} else {
			c.net.setCap(int32(i), most)
		}
	}
}

// suffers returns a fault of the origin that befalls a node now, nil for none.
func (c *cluster) suffers(kind scenario.FaultKind, n *node) *scenario.Fault {
	for _, f := range c.suffering {
		if f.Kind == kind && (len(f.Nodes) == 0 && f.Role == "" || slices.Contains(f.nodes, n.index)) {
			return f.Fault
		}
	}
	return nil
}

// inRole is a node that plays a part now, nil if none does.
func (c *cluster) inRole(r scenario.Role) *node {
	if r == scenario.Coordinator {
		if n := c.grantor; n != nil && !n.down {
			return n
		}
		return nil
	}
	for i := range c.reads.all {
		if r := &c.reads.all[i]; r.open && r.flow >= 0 && c.nodes[r.node] != c.grantor {
			return c.nodes[r.node]
		}
	}
	return nil
}
