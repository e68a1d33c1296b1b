package scenario

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// More than these is a mistake, or no run that ends.
const (
	maxNodes  = 100_000
	maxZones  = 1000
	maxImages = 10_000
	maxBlobs  = 100_000
	maxLayers = 1000
	maxPulls  = 1_000_000
	maxFaults = 1000
	maxLayer  = int64(1) << 40 // as chunkindex has it
	maxImage  = int64(1) << 40
	maxUnique = int64(1) << 42 // of all blobs; times 10^9 it still fits 128 bits over any rate
)

var word = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$`)

// checker looks for what makes no sense in a scenario that was read.
type checker struct {
	*Scenario
	r      *reader
	layout *layout // nil if the topology is wrong
}

// fail says what is wrong with a key; where it is not given, of what should have it.
func (c *checker) fail(path, format string, args ...any) {
	at, from := place{1, 1}, path
	for from != "" {
		if p, ok := c.at[from]; ok {
			at = p
			break
		}
		from = parent(from)
	}
	c.r.fail(at, path, format, args...)
}

// parent is the path of what a key or an item belongs to.
func parent(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

func (c *checker) given(path string) bool { return c.r.given(path) }

func (c *checker) oneOf(path, value string, of ...string) bool {
	if slices.Contains(of, value) {
		return true
	}
	c.fail(path, "%q is none of %s", value, strings.Join(of, ", "))
	return false
}

func (c *checker) check() {
	if !word.MatchString(c.Name) {
		c.fail("name", "%q is not a name of letters, digits, -, _ and .", c.Name)
	}
	if c.sound("verify") {
		c.oneOf("verify", c.Verify, "member", "strict")
	}
	// What was not read cannot be checked, and what would only repeat an error is
	// not; the rest is, so that all is told at once.
	for _, part := range []struct {
		needs []string
		check func()
	}{
		{[]string{"topology"}, c.checkTopology},
		{[]string{"latency", "dht", "costs", "origin"}, c.checkTimes},
		{[]string{"origin"}, c.checkOrigin},
		{[]string{"images"}, c.checkImages},
		{[]string{"limits"}, c.checkLimits},
		{nil, c.checkWorkload},
		{nil, c.checkFaults},
	} {
		if !slices.ContainsFunc(part.needs, func(key string) bool { return !c.sound(key) }) {
			part.check()
		}
	}
	if len(c.r.errs) == 0 {
		c.checkConnected()
	}
}

// sound says whether nothing is known to be wrong with a key of the file and those below it.
func (c *checker) sound(key string) bool {
	return !slices.ContainsFunc(c.r.errs, func(e *Error) bool {
		rest, is := strings.CutPrefix(e.Key, key)
		return is && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// inTime checks that something begins before the run ends.
func (c *checker) inTime(path string, at duration) {
	c.notNegative(path, at)
	if c.sound("limits") && at >= c.Limits.Time {
		c.fail(path, "%v is not before the run ends, limits.time %v", time.Duration(at), time.Duration(c.Limits.Time))
	}
}

func (c *checker) checkTopology() {
	t := &c.Topology
	before := len(c.r.errs)
	if t.Nodes > maxNodes {
		c.fail("topology.nodes", "%d nodes are more than %d", t.Nodes, maxNodes)
	}
	if !c.given("topology") {
		c.fail("topology", "is missing; it needs at least nodes")
		return
	}
	if c.given("topology.nodes") && t.Nodes == 0 {
		c.fail("topology.nodes", "must be at least 1")
	}
	c.checkShares("topology.machines", len(t.Machines), func(i int) (part, bool) { return t.Machines[i].Share, true })
	c.checkZones()
	if len(c.r.errs) > before {
		return
	}
	n := int(t.Nodes)
	if n == 0 {
		for _, z := range t.Zones {
			n += int(z.Nodes)
		}
	}
	c.layout = c.place(n)
}

// checkShares checks that the shares of a list make a whole, but for rounding.
func (c *checker) checkShares(path string, n int, share func(i int) (part, bool)) {
	sum, found := int64(0), false
	for i := range n {
		s, given := share(i)
		if !given {
			continue
		}
		found = true
		sum += int64(s)
		if s <= 0 {
			c.fail(fmt.Sprintf("%s[%d].share", path, i), "must be more than 0")
		}
	}
	if found && (sum > whole || sum < whole-int64(n)) {
		c.fail(path, "the shares make %s, not 100%%", percent(sum))
	}
}

func (c *checker) checkZones() {
	t := &c.Topology
	if len(t.Zones) == 0 {
		c.fail("topology.zones", "is an empty list; leave it out for one zone")
		return
	}
	if len(t.Zones) > maxZones {
		c.fail("topology.zones", "%d zones are more than %d", len(t.Zones), maxZones)
		return
	}
	sum, shares, counts := int64(0), 0, 0
	for i, z := range t.Zones {
		path := fmt.Sprintf("topology.zones[%d]", i)
		if !word.MatchString(z.Name) {
			c.fail(path+".name", "%q is not a name of letters, digits, -, _ and .", z.Name)
		}
		if j := slices.IndexFunc(t.Zones, func(o zone) bool { return o.Name == z.Name }); j < i {
			c.fail(path+".name", "%q is the name of another zone too", z.Name)
		}
		if c.given(path + ".share") {
			shares++
		}
		if c.given(path + ".nodes") {
			counts++
			sum += int64(z.Nodes)
			if z.Nodes == 0 {
				c.fail(path+".nodes", "must be at least 1")
			}
		}
		if z.Nodes > maxNodes {
			c.fail(path+".nodes", "%d nodes are more than %d", z.Nodes, maxNodes)
		}
	}
	switch n := len(t.Zones); {
	case shares > 0 && counts > 0:
		c.fail("topology.zones", "some zones have a share and some nodes; give one of the two for all")
	case shares > 0 && shares < n:
		c.fail("topology.zones", "%d of %d zones have no share", n-shares, n)
	case counts > 0 && counts < n:
		c.fail("topology.zones", "%d of %d zones have no nodes", n-counts, n)
	case counts > 0 && t.Nodes > 0 && sum != int64(t.Nodes):
		c.fail("topology.zones", "the zones have %d nodes, and topology.nodes is %d; one of the two is enough", sum, t.Nodes)
	case counts > 0 && sum > maxNodes:
		c.fail("topology.zones", "%d nodes are more than %d", sum, maxNodes)
	case counts == 0 && t.Nodes == 0:
		if !c.given("topology.nodes") {
			c.fail("topology.nodes", "is missing: how many nodes are there?")
		}
	case counts == 0 && int64(n) > int64(t.Nodes):
		c.fail("topology.zones", "%d zones are more than %d nodes", n, t.Nodes)
	}
	if shares == len(t.Zones) {
		c.checkShares("topology.zones", len(t.Zones), func(i int) (part, bool) { return t.Zones[i].Share, true })
	}
}

// notNegative checks durations.
func (c *checker) notNegative(path string, d duration) {
	if d < 0 {
		c.fail(path, "%v must not be negative", time.Duration(d))
	}
}

func (c *checker) checkTimes() {
	l, k := &c.Latency, &c.Costs
	for _, v := range []struct {
		path string
		d    duration
	}{
		{"latency.rack", l.Rack}, {"latency.zone", l.Zone}, {"latency.far", l.Far}, {"latency.origin", l.Origin}, {"latency.queue", l.Queue},
		{"dht.publish", c.DHT.Publish},
		{"costs.message", k.Message}, {"costs.open", k.Open}, {"costs.store", k.Store}, {"costs.hash", k.Hash}, {"costs.publish", k.Publish},
		{"costs.request", k.Request}, {"origin.delay", c.Origin.Delay},
	} {
		c.notNegative(v.path, v.d)
		if v.d > duration(time.Hour) {
			c.fail(v.path, "%v is more than an hour", time.Duration(v.d))
		}
	}
	if k.Overhead < 0 {
		c.fail("costs.overhead", "must not be negative")
	}
	if c.given("dht.delays") && len(c.DHT.Delays) == 0 || len(c.DHT.Delays) > 1000 {
		c.fail("dht.delays", "must have 1 to 1000 quantiles")
	}
	for i, d := range c.DHT.Delays {
		path := fmt.Sprintf("dht.delays[%d]", i)
		c.notNegative(path, d)
		if i > 0 && d < c.DHT.Delays[i-1] {
			c.fail(path, "%v is less than the quantile before it", time.Duration(d))
		}
	}
	if c.DHT.Misses < 0 || c.DHT.Misses == whole {
		c.fail("dht.misses", "must be from 0%% to below 100%%")
	}
}

func (c *checker) checkOrigin() {
	if c.Origin.Connections > maxNodes {
		c.fail("origin.connections", "%d are more than %d", c.Origin.Connections, maxNodes)
	}
	if len(c.Origin.Limits) > 10 {
		c.fail("origin.limits", "more than 10 limits")
	}
	for i, l := range c.Origin.Limits {
		path := fmt.Sprintf("origin.limits[%d]", i)
		if l.Requests == 0 {
			c.fail(path+".requests", "must be at least 1; an origin-outage is a fault")
		}
		if l.Window <= 0 {
			c.fail(path+".window", "must be more than 0, such as 6h")
		}
		c.oneOf(path+".of", l.Of, "all", "manifests")
		c.oneOf(path+".per", l.Per, "address", "node")
	}
}

func (c *checker) checkLimits() {
	l := &c.Limits
	if l.Time <= 0 {
		c.fail("limits.time", "must be more than 0: it ends the run")
	}
	c.notNegative("limits.deadline", l.Deadline)
	c.notNegative("limits.honest_bans", l.HonestBans)
	if l.Deadline > l.Time {
		c.fail("limits.deadline", "%v is more than limits.time, %v: nobody would see whether it is kept", time.Duration(l.Deadline), time.Duration(l.Time))
	}
	if c.given("limits.egress") && l.Egress < whole && l.Egress > 0 {
		c.fail("limits.egress", "%s is less than one copy, which the origin must send", percent(int64(l.Egress)))
	}
	if l.NodeMemory > 0 && l.NodeMemory < 1<<20 {
		c.fail("limits.node_memory", "is less than 1MiB, that is a chunk")
	}
}

// percent is parts in a million for people.
func percent(n int64) string {
	s := fmt.Sprintf("%d.%04d", n/10_000, n%10_000)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".") + "%"
}
