package scenario

// Scenario is what a file of the format says, with defaults for what it leaves
// out. It is made by [Parse], checked, and not changed after that.
//
// The keys of the file are the names of the fields, in lower case with
// underscores; keys.go has their defaults and what they mean.
type Scenario struct {
	// Name is how reports name it, Description the question that it answers.
	Name, Description string

	Verify   string
	Topology topology
	Latency  latency
	DHT      dht
	Costs    costs
	Origin   origin
	Images   []image
	Workload []work
	Faults   []fault
	Limits   limits

	file string
	// at is where each key stands, by its path such as faults[2].nodes.
	at map[string]place
}

// place is a line and column of the file, from 1.
type place struct{ line, column int }

type topology struct {
	Nodes          count
	Link, Up, Down rate
	Disk           rate
	Space          size
	Machines       []machine
	RackSize       count
	RackUplink     rate
	Uplink         rate
	Paid           bool
	Zones          zones
}

// machine is a kind of node.
type machine struct {
	Share                part
	Link, Up, Down, Disk rate
	Space                size
}

type zone struct {
	Name                         string
	Share                        part
	Nodes                        count
	RackSize                     count
	RackUplink, Uplink, Up, Down rate
	Paid                         bool
}

// zones are a list, or only how many there are.
type zones []zone

type latency struct {
	Rack, Zone, Far, Origin, Queue duration
}

type dht struct {
	Delays  []duration
	Misses  part
	Publish duration
}

type costs struct {
	Message, Open, Store, Hash, Publish duration
	Overhead                            part
	Request                             duration
	Buffer                              size
}

type origin struct {
	Link, Connection rate
	Connections      count
	Delay            duration
	Readers          amount
	Limits           []originLimit
}

type originLimit struct {
	Requests count
	Window   duration
	Of, Per  string
}

type image struct {
	Name             string
	Layers           layers
	Base             string
	Count, Versions  count
	Shared           part
	Manifest, Config size
}

// layers are the list of their sizes, or how many have what size together.
type layers struct {
	Count  count
	Size   size
	Spread part
	list   []size
}

type work struct {
	Kind              string
	Image             []string
	Zipf              exponent
	Nodes             selector
	At, Jitter        duration
	Over, Every       duration
	Pulls             count
	Batch             amount
	Interval, Delay   duration
	Wait              bool
	Order             string
	Parallel, Retries count
}

type fault struct {
	Kind                   string
	At, For                duration
	Nodes                  selector
	Role                   string
	Restart, Notice, Delay duration
	Part                   part
	Rate                   rate
	Status                 count
	OneWay                 bool
}

type limits struct {
	Time, Deadline duration
	Egress         ratio
	NodeMemory     size
	HonestBans     duration
}

// amount is a number of nodes or a part of them; 0 is all.
type amount struct {
	n    int64
	part bool
}
