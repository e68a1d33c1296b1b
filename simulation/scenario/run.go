package scenario

import "time"

// Run is a scenario made concrete by a seed. All times count from the start of
// the run, rates are bytes a second, sizes bytes, parts parts in a million. A run
// is a value: whoever takes one does not change it.
type Run struct {
	Name string
	Seed uint64
	// Nodes are all that there ever are, by number; Racks and Zones are named by
	// their indices. There is at least one of each.
	Nodes []Node
	Racks []Rack
	Zones []Zone

	Latency Latency
	DHT     DHT
	Costs   Costs
	Origin  Origin

	// Blobs are all that the origin has, Images name their blobs by index.
	Blobs  []Blob
	Images []Image
	// Pulls are what clients do, ascending by time; Faults what goes wrong, the
	// same.
	Pulls  []Pull
	Faults []Fault
	Limits Limits
	// Verify is the nodes' release rule: "member" or "strict".
	Verify string
	// Notes say what of the scenario came out otherwise than one may expect, such as a
	// fault on a node that there is not among fewer nodes.
	Notes []string
}

// Node is one node and its links.
type Node struct {
	Zone, Rack int
	// Up and Down are the rates of its network card, Disk that at which it writes,
	// 0 without a bound.
	Up, Down, Disk int64
	// Space is how much its store may hold, 0 without a bound.
	Space int64
	// Joins is when it comes into the cluster, 0 from the start.
	Joins time.Duration
}

// Rack is a rack of a zone. Up and Down are its uplink's rates, 0 without a bound.
type Rack struct {
	Zone     int
	Up, Down int64
}

// Zone is a zone. Up and Down are the rates of its link to the other zones and to
// the origin, 0 without a bound. What goes over the link of one that is Paid is paid for.
type Zone struct {
	Name     string
	Up, Down int64
	Paid     bool
}

// Latency is one way, between two nodes of a rack, of a zone, of two zones, and
// from any node to the origin. Queue is how much each link on the way that is full adds to it.
type Latency struct {
	Rack, Zone, Far, Origin time.Duration
	Queue                   time.Duration
}

// DHT says how look-ups go.
type DHT struct {
	// Delays are quantiles of how long a look-up takes, evenly spaced and
	// ascending, at least one: between two of them it is linear.
	Delays []time.Duration
	// Misses is the part of the members that a node's view lacks, in parts in a
	// million: each node has its own, for the whole run.
	Misses int
	// Publish is how long after a node announces something others can find it.
	Publish time.Duration
}

// Costs are what a node's own work takes.
type Costs struct {
	// Message is the CPU time of a control message at its receiver; CPU that is
	// busy makes later ones wait.
	Message time.Duration
	// Open is how long the store takes to open a blob, Store and Hash what a MiB
	// costs to write (beyond the disk's rate) and to hash in the background,
	// Publish what a proof costs beyond that.
	Open, Store, Hash, Publish time.Duration
	// Overhead is what the wire takes beyond the payload, in parts in a million
	// of it: headers, TLS, multiplexing.
	Overhead int
	// Request is what a node and its peer take for a range request beyond the
	// latency.
	Request time.Duration
	// Buffer is how many bytes of a chunk wait in the buffers of the connection that
	// it is sent over. What else is sent to the same node meanwhile, messages and
	// requests, waits behind them, since two nodes have one connection. 0: nothing waits.
	Buffer int64
}

// Origin is the upstream registry.
type Origin struct {
	// Link is the rate of its link, Connection that of one connection, 0 without
	// a bound.
	Link, Connection int64
	// Connections is how many it serves at once, 0 any number: one more gets 503.
	Connections int
	// Delay is how long it thinks before each answer.
	Delay time.Duration
	// Limits are its rate limits. Every limit that a request counts for must have
	// room for it; else it gets 429 with Retry-After.
	Limits []RateLimit
	// Readers is how many nodes have credentials that it accepts, from node 0 on;
	// 0 all.
	Readers int
}

// RateLimit is how many requests the origin answers in each window of time.
type RateLimit struct {
	// Manifests: only requests for manifests count, as with Docker Hub. PerNode:
	// each node has its own, else all share one address.
	Manifests, PerNode bool
	Requests           int
	Window             time.Duration
}

// Blob is one blob of the origin. Name tells blobs apart: two images that share a
// layer name the same blob.
//
// Config: it is the configuration of an image, which is pulled with the layers and is
// none.
type Blob struct {
	Name             string
	Size             int64
	Manifest, Config bool
}

// Image is an image: the index of its manifest's blob, and those of its layers (and
// config) in order.
type Image struct {
	Name     string
	Manifest int
	Layers   []int
}

// Pull is one client that pulls an image through its node. It asks for the manifest
// and then, Parallel at a time (0 all at once), for what the node's client has not
// pulled before. It asks again, Retries times at most and a second later each, for
// what it was told it cannot have.
type Pull struct {
	At       time.Duration
	Node     int
	Image    int
	Parallel int
	Retries  int
	// Wave is which of the waves that wait for one another it is in, from 1 on, and After the one
	// before, for which it waits: it begins at At, and not before all pulls of After are complete
	// or given up. Both are 0 where nobody waits.
	Wave, After int
}

// Limits bound a run, and are what its outcome is judged by; 0 stands for no bound.
type Limits struct {
	// Time ends the run. It is never 0.
	Time time.Duration
	// Deadline is by when after its start each pull must be complete, once what
	// went wrong is mended.
	Deadline time.Duration
	// Egress is how many bytes the origin may send, in millionths of the unique
	// bytes wanted.
	Egress int64
	// NodeMemory bounds what a node may hold of chunks in flight.
	NodeMemory int64
	// HonestBans bounds the time for which honest nodes are banned, over all
	// pairs together.
	HonestBans time.Duration
}
