package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// faultKind is what a kind of fault takes: keys beyond kind and at, those with an exclamation mark
// needed. group: two of a group at the same time on the same node contradict each
// other.
type faultKind struct {
	kind    FaultKind
	keys    string
	group   string
	meaning string
}

// faultKinds are all kinds, in the order of the documentation. "who!" stands for nodes or role, one of
// which is needed, "who" for the same, needless.
var faultKinds = []faultKind{
	{Crash, "who! restart", "down",
		"Nodes end as by kill -9 and a power cut: connections break, and what is not yet synced is lost."},
	{Drain, "who! notice restart", "down",
		"Nodes are told that they end, as spot instances are: their clients stop, and after `notice` the nodes leave in good order."},
	{Partition, "who! for one_way", "",
		"The nodes are parted from all others, not from the origin."},
	{Offline, "who! for", "offline",
		"The nodes are parted from the origin alone."},
	{Loss, "who! part! for", "loss",
		"`part` of the packets to and from the nodes is lost: bytes come slower, messages later."},
	{SlowNIC, "who! rate! for", "slow-nic",
		"The nodes' links are as slow as `rate`."},
	{SlowDisk, "who! rate! for", "slow-disk",
		"The nodes' disks are as slow as `rate`."},
	{SlowNode, "who! delay! for", "slow-node",
		"The nodes take `delay` for each message."},
	{FullDisk, "who! for", "full-disk",
		"The nodes' stores refuse to write."},
	{Rot, "who! part!", "",
		"`part` of the chunks that the nodes hold is spoiled, once."},
	{Corrupt, "who! for", "bytes",
		"The nodes serve wrong bytes beside honest claims, as a broken disk would."},
	{Forge, "who! for", "bytes",
		"The nodes serve wrong bytes and sign that they are right: a forged index."},
	{Lie, "who! for", "lie",
		"The nodes say that they hold what they do not."},
	{Stall, "who! for", "stall",
		"The nodes accept requests for chunks, and send nothing."},
	{Mute, "who! for", "mute",
		"The nodes take messages, and say nothing."},
	{ClockSkew, "who! delay part for", "clock",
		"The nodes' clocks are off by `delay` at once, and run `part` too fast from then on."},
	{StaleDHT, "for", "dht",
		"Look-ups are answered as of when it began."},
	{OriginThrottle, "nodes delay for", "answer",
		"The origin answers 429 with a Retry-After of `delay`."},
	{OriginError, "nodes status for", "answer",
		"The origin answers `status`."},
	{OriginReset, "nodes part for", "reset",
		"The origin breaks `part` of its answers off in the middle."},
	{OriginStall, "nodes for", "answer",
		"The origin takes requests, and sends nothing."},
	{OriginOutage, "nodes for", "answer",
		"The origin refuses connections."},
	{ExpiredToken, "nodes for", "answer",
		"The origin answers 401."},
}

// takes says whether the kind has a key, and whether it needs it.
func (k *faultKind) takes(key string) (has, needs bool) {
	for _, f := range strings.Fields(k.keys) {
		name, need := strings.CutSuffix(f, "!")
		if name == key || name == "who" && (key == "nodes" || key == "role") {
			return true, need && name == key
		}
	}
	return false, false
}

func kindOf(name string) *faultKind {
	for i := range faultKinds {
		if string(faultKinds[i].kind) == name {
			return &faultKinds[i]
		}
	}
	return nil
}

// faultFields are the keys that only some faults have.
var faultFields = []string{"for", "nodes", "role", "restart", "notice", "delay", "part", "rate", "status", "one_way"}

func (c *checker) checkFaults() {
	if len(c.Faults) > maxFaults {
		c.fail("faults", "%d faults are more than %d", len(c.Faults), maxFaults)
		return
	}
	for i := range c.Faults {
		f := &c.Faults[i]
		path := fmt.Sprintf("faults[%d]", i)
		if !c.sound(path) {
			continue
		}
		kind := kindOf(f.Kind)
		if kind == nil {
			if f.Kind == "" {
				c.fail(path, "has no kind")
				continue
			}
			names := make([]string, len(faultKinds))
			for k := range faultKinds {
				names[k] = string(faultKinds[k].kind)
			}
			c.oneOf(path+".kind", f.Kind, names...)
			continue
		}
		for _, key := range faultFields {
			has, needs := kind.takes(key)
			switch given := c.given(path + "." + key); {
			case given && !has:
				what := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(kind.keys, "!", ""), "who", "nodes role"), " ", ", ")
				c.fail(path+"."+key, "has no meaning for %s, which has at, %s", f.Kind, what)
			case !given && needs:
				c.fail(path+"."+key, "is missing; %s needs it", f.Kind)
			}
		}
		nodes, role := c.given(path+".nodes"), c.given(path+".role")
		if nodes && role {
			c.fail(path+".role", "and nodes are both given; one of the two says whom it befalls")
		}
		if strings.Contains(kind.keys, "who!") && !nodes && !role {
			c.fail(path, "whom does it befall? %s needs nodes or role", f.Kind)
		}
		if role {
			c.oneOf(path+".role", f.Role, string(Coordinator), string(Fetcher))
		}
		c.checkSelector(path+".nodes", &f.Nodes)
		c.checkFaultValues(path, f)
	}
}

func (c *checker) checkFaultValues(path string, f *fault) {
	c.inTime(path+".at", f.At)
	if c.given(path+".for") && f.For <= 0 {
		c.fail(path+".for", "must be more than 0; without it the fault lasts until the end")
	}
	if c.given(path+".restart") && f.Restart <= 0 {
		c.fail(path+".restart", "must be more than 0; without it the nodes do not come back")
	}
	c.notNegative(path+".notice", f.Notice)
	kind := FaultKind(f.Kind)
	if kind != ClockSkew {
		c.notNegative(path+".delay", f.Delay)
		if c.given(path+".part") && f.Part <= 0 {
			c.fail(path+".part", "must be more than 0")
		}
	}
	switch kind {
	case Loss:
		if f.Part == whole {
			c.fail(path+".part", "all packets lost is a partition")
		}
	case SlowNode:
		if c.given(path+".delay") && f.Delay == 0 {
			c.fail(path+".delay", "must be more than 0")
		}
	case ClockSkew:
		if f.Delay == 0 && f.Part == 0 {
			c.fail(path, "how much are clocks off? clock-skew needs delay or part")
		}
		if f.Part < -whole/2 || f.Part > whole {
			c.fail(path+".part", "must be from -50%% to 100%%")
		}
	case SlowNIC, SlowDisk:
		if c.given(path+".rate") && f.Rate == 0 {
			c.fail(path+".rate", "unlimited is not slow")
		}
	case OriginError:
		if c.given(path+".status") && (f.Status < 400 || f.Status > 599) {
			c.fail(path+".status", "%d is not an error, from 400 to 599", f.Status)
		}
	}
	if f.Kind != string(ClockSkew) && f.Delay > duration(24*time.Hour) {
		c.fail(path+".delay", "%v is more than a day", time.Duration(f.Delay))
	}
}

// faults spells out the faults. Where the file names nodes, two that contradict each other are
// an error of the file; drawn nodes are drawn from those with which there is no
// such conflict.
func (e *expander) faults() {
	list := make([]Fault, len(e.s.Faults))
	keep := make([]bool, len(list))
	nth := map[string]int{}
	purpose := make([]string, len(list))
	for i := range e.s.Faults {
		kind := e.s.Faults[i].Kind
		purpose[i] = fmt.Sprintf("fault %s %d", kind, nth[kind])
		nth[kind]++
	}
	for _, drawn := range []bool{false, true} {
		for i := range e.s.Faults {
			if f := &e.s.Faults[i]; f.Nodes.drawn() == drawn {
				list[i] = f.run()
				list[i].Line = e.s.line(fmt.Sprintf("faults[%d]", i))
				keep[i] = e.befall(fmt.Sprintf("faults[%d]", i), f, &list[i], purpose[i])
			}
		}
	}
	for i := range list {
		if keep[i] {
			e.run.Faults = append(e.run.Faults, list[i])
		}
	}
	slices.SortStableFunc(e.run.Faults, func(a, b Fault) int { return int(min(max(a.At-b.At, -1), 1)) })
}

// run is the fault without its nodes.
func (f *fault) run() Fault {
	run := Fault{Kind: FaultKind(f.Kind), At: time.Duration(f.At), For: time.Duration(f.For), Role: Role(f.Role),
		Restart: time.Duration(f.Restart), Notice: time.Duration(f.Notice), Delay: time.Duration(f.Delay),
		Part: int(f.Part), Rate: int64(f.Rate), Status: int(f.Status), OneWay: f.OneWay}
	switch {
	case run.Kind == OriginError && run.Status == 0:
		run.Status = 503
	case run.Kind == OriginReset && run.Part == 0:
		run.Part = whole
	case run.Kind == OriginThrottle && run.Delay == 0:
		run.Delay = time.Second
	}
	return run
}

// befall fills in the nodes, and says whether anything is left of the fault.
func (e *expander) befall(path string, f *fault, run *Fault, purpose string) bool {
	group := kindOf(f.Kind).group
	everybody := len(f.Nodes.terms) == 0
	busy := make([]string, len(e.run.Nodes)) // with which fault
	for _, t := range e.taken[group] {
		if group == "" || !overlap(run, t.fault) {
			continue
		}
		if run.Role != "" || t.fault.Role != "" {
			continue // who it befalls is not known before the run
		}
		if everybody || len(t.fault.Nodes) == 0 {
			e.remark(path, "contradicts %s (line %d): both at the same time make no sense", t.path, e.s.line(t.path))
			return false
		}
		for _, n := range t.fault.Nodes {
			busy[n] = t.path
		}
	}
	if run.Role == "" && !everybody {
		there := func(n int) bool { return e.run.Nodes[n].Joins <= run.At }
		free := func(n int) bool { return there(n) && busy[n] == "" }
		run.Nodes = f.Nodes.pick(e.layout, stream(e.seed, purpose), there, free)
		clashes := func(n int) bool { return busy[n] != "" }
		if i := slices.IndexFunc(run.Nodes, clashes); i >= 0 {
			n := run.Nodes[i]
			e.remark(path, "contradicts %s (line %d) on node %d: both at the same time make no sense", busy[n], e.s.line(busy[n]), n)
			run.Nodes = slices.DeleteFunc(run.Nodes, clashes)
		}
		if len(run.Nodes) == 0 {
			e.note(path, "befalls nobody; it is left out")
			return false
		}
		if run.Kind == Partition && len(run.Nodes) == len(e.run.Nodes) {
			e.remark(path+".nodes", "parts all nodes from nobody; name fewer")
			return false
		}
	}
	e.taken[group] = append(e.taken[group], taken{run, path})
	e.order = append(e.order, taken{run, path})
	return true
}

// taken is a fault that has its nodes.
type taken struct {
	fault *Fault
	path  string
}

// overlap says whether two faults are there at the same time.
func overlap(a, b *Fault) bool {
	if b.At < a.At {
		a, b = b, a
	}
	end, ever := a.Heals()
	return !ever || b.At < end
}
