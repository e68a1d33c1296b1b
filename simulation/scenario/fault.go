package scenario

import "time"

// FaultKind is what goes wrong.
type FaultKind string

// The faults. Those of nodes befall Fault.Nodes, or whoever has Fault.Role; those of the
// origin befall the origin, for Fault.Nodes alone where there are some. A fault
// without For lasts until the end.
const (
	// Crash ends nodes as kill -9 and a power cut do: connections break and what
	// is not yet synced is lost. After Restart, if that is not 0, they come back, with
	// their clients asking anew.
	Crash FaultKind = "crash"
	// Drain tells nodes that they end: their clients stop, and after Notice
	// the nodes leave in good order. After Restart they come back.
	Drain FaultKind = "drain"
	// Partition parts Nodes from all others (not from the origin). OneWay: what Nodes
	// send is lost, what they are sent arrives.
	Partition FaultKind = "partition"
	// Offline parts Nodes from the origin alone.
	Offline FaultKind = "offline"
	// Loss loses Part of the packets to and from Nodes: bytes come slower, messages
	// later.
	Loss FaultKind = "loss"
	// SlowNIC makes the links of Nodes as slow as Rate, SlowDisk their disks.
	SlowNIC  FaultKind = "slow-nic"
	SlowDisk FaultKind = "slow-disk"
	// SlowNode has Nodes take Delay for each message.
	SlowNode FaultKind = "slow-node"
	// FullDisk has the stores of Nodes refuse.
	FullDisk FaultKind = "full-disk"
	// Rot spoils Part of the chunks that Nodes hold, once.
	Rot FaultKind = "bit-rot"
	// Corrupt has Nodes serve wrong bytes beside honest claims, as a broken disk
	// would. Forge has them serve wrong bytes and sign them: a forged index. Lie has
	// them say that they hold what they do not. Stall has them accept requests and
	// send nothing, Mute take messages and say nothing.
	Corrupt FaultKind = "corrupt"
	Forge   FaultKind = "forge"
	Lie     FaultKind = "lie"
	Stall   FaultKind = "stall"
	Mute    FaultKind = "mute"
	// ClockSkew sets the clocks of Nodes off by Delay at once, and from then on
	// they run Part too fast (or, negative, too slow).
	ClockSkew FaultKind = "clock-skew"
	// StaleDHT has look-ups answered as of when it began.
	StaleDHT FaultKind = "stale-dht"
	// OriginThrottle has the origin answer 429 with a Retry-After of Delay,
	// OriginError answer Status, OriginReset break Part of its answers off in the middle, OriginStall
	// take requests and send nothing, OriginOutage refuse connections,
	// ExpiredToken answer 401.
	OriginThrottle FaultKind = "origin-throttle"
	OriginError    FaultKind = "origin-error"
	OriginReset    FaultKind = "origin-reset"
	OriginStall    FaultKind = "origin-stall"
	OriginOutage   FaultKind = "origin-outage"
	ExpiredToken   FaultKind = "expired-token"
)

// Role is a part that a node plays at some time.
type Role string

// The roles: who gave the latest grant, and one that is reading from the origin and
// gave none.
const (
	Coordinator Role = "coordinator"
	Fetcher     Role = "fetcher"
)

// Fault is one thing that goes wrong. One that is for a Role befalls the first node
// that has it from At on; if none comes to have it, nobody.
type Fault struct {
	Kind  FaultKind
	At    time.Duration
	For   time.Duration // 0 until the end
	Nodes []int         // ascending
	Role  Role          // "" for Nodes

	Restart, Notice, Delay time.Duration
	Part                   int // in a million
	Rate                   int64
	Status                 int
	OneWay                 bool
	// Line is where it stands in its file, from 1, for messages about it; 0 if it is in none.
	Line int
}

// Heals is when the fault is over, and whether it ever is: a crash is over when the
// node is back.
func (f *Fault) Heals() (at time.Duration, ever bool) {
	switch f.Kind {
	case Crash, Drain:
		return f.At + f.Notice + f.Restart, f.Restart > 0
	case Rot:
		return f.At, true
	}
	return f.At + f.For, f.For > 0
}
