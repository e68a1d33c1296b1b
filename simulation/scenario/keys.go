package scenario

// key is what is known of a key of the format: its default as it would stand in
// the file ("" for none, a word in brackets where it comes from elsewhere), and
// what it means. README.md has the same, and a test compares the two.
type key struct{ path, standard, meaning string }

// keys are all that there are, in the order of the documentation. [] stands for
// each item of a list.
var keys = []key{
	{"name", "(the file's name)", "How reports name the scenario."},
	{"description", "", "What question it answers, for people."},
	{"verify", "member", "The nodes' release rule: `member` or `strict`."},

	{"topology", "(required)", "The nodes and their network."},
	{"topology.nodes", "(required, or `nodes` for each zone)", "How many nodes there are. They are numbered from 0, zone after zone."},
	{"topology.link", "1gbit", "The rate of a node's network card, each way."},
	{"topology.up", "(`link`)", "The rate at which a node sends, where it differs."},
	{"topology.down", "(`link`)", "The rate at which a node receives, where it differs."},
	{"topology.disk", "unlimited", "The rate at which a node's disk writes."},
	{"topology.space", "none", "How much a node's store may hold; `none` is no bound."},
	{"topology.machines", "", "Kinds of nodes, where they differ. Which node is of which kind is drawn."},
	{"topology.machines[].share", "(required)", "The part of the nodes that are of this kind. All shares make 100%."},
	{"topology.machines[].link", "(`topology.link`)", "As there."},
	{"topology.machines[].up", "(`link`, `topology.up`)", "As there."},
	{"topology.machines[].down", "(`link`, `topology.down`)", "As there."},
	{"topology.machines[].disk", "(`topology.disk`)", "As there."},
	{"topology.machines[].space", "(`topology.space`)", "As there."},
	{"topology.rack_size", "0", "How many nodes share a rack; 0 puts all nodes of a zone into one."},
	{"topology.rack_uplink", "unlimited", "The rate of a rack's link to its zone, each way."},
	{"topology.uplink", "unlimited", "The rate of a zone's link to the other zones and to the origin, each way."},
	{"topology.paid", "false", "Whether what goes over the zones' links is paid for."},
	{"topology.zones", "1", "The zones, or how many equal ones there are; these are named zone-0, zone-1 and so on."},
	{"topology.zones[].name", "(required)", "The zone's name: letters, digits, `-`, `_` and `.`."},
	{"topology.zones[].share", "(equal)", "The part of the nodes that are in it. All shares make 100%."},
	{"topology.zones[].nodes", "", "Instead of `share`: how many are in it."},
	{"topology.zones[].rack_size", "(`topology.rack_size`)", "As there."},
	{"topology.zones[].rack_uplink", "(`topology.rack_uplink`)", "As there."},
	{"topology.zones[].uplink", "(`topology.uplink`)", "As there."},
	{"topology.zones[].up", "(`uplink`)", "The rate at which the zone sends, where it differs."},
	{"topology.zones[].down", "(`uplink`)", "The rate at which the zone receives, where it differs."},
	{"topology.zones[].paid", "(`topology.paid`)", "As there."},

	{"latency", "", "How long a packet takes, one way."},
	{"latency.rack", defaultLatencyRack, "Between two nodes of a rack."},
	{"latency.zone", defaultLatencyZone, "Between two racks of a zone."},
	{"latency.far", defaultLatencyFar, "Between two zones."},
	{"latency.origin", defaultLatencyOrigin, "Between a node and the origin."},
	{"latency.queue", defaultLatencyQueue, "How much a link that is full adds."},

	{"dht", "", "How look-ups of who has a blob go."},
	{"dht.delays", "(8.6 to 12.9 latencies)", "How long a look-up takes: a duration, or quantiles of it, evenly spaced and ascending. By default as measured, in units of the latency between the farthest nodes."},
	{"dht.misses", "0%", "The part of the members that a node's view lacks."},
	{"dht.publish", defaultDHTPublish, "How long it takes until others can find what a node announced."},

	{"costs", "", "What the nodes' own work takes."},
	{"costs.message", defaultCostMessage, "CPU time of a control message at its receiver."},
	{"costs.open", defaultCostOpen, "Until the store has opened a blob."},
	{"costs.store", defaultCostStore, "What a MiB costs to write, beyond the disk's rate."},
	{"costs.hash", defaultCostHash, "What a MiB costs to hash in the background."},
	{"costs.publish", defaultCostPublish, "What the proof of a blob costs beyond that."},
	{"costs.overhead", defaultCostOverhead, "What the wire takes beyond the payload: headers, TLS, multiplexing."},
	{"costs.request", defaultCostRequest, "What a node and its peer take for a range request, beyond the latency."},
	{"costs.buffer", defaultCostBuffer, "How much of a chunk waits in the buffers of a connection, and what else is sent on it behind that."},

	{"origin", "", "The upstream registry."},
	{"origin.link", "10gbit", "The rate of its link."},
	{"origin.connection", "unlimited", "The rate of one connection to it."},
	{"origin.connections", "0", "How many connections it serves at once; one more gets 503. 0 is any number."},
	{"origin.delay", "10ms", "How long it thinks before each answer."},
	{"origin.readers", "all", "How many nodes, or what part of them, have credentials that it accepts: the first ones."},
	{"origin.limits", "", "Rate limits; a request that one has no room for gets 429 with Retry-After."},
	{"origin.limits[].requests", "(required)", "How many requests it answers in each window."},
	{"origin.limits[].window", "(required)", "The window."},
	{"origin.limits[].of", "all", "Which requests count: `all`, or `manifests` as with Docker Hub."},
	{"origin.limits[].per", "address", "`address`: all nodes share one, as behind a NAT; `node`: each has its own."},

	{"images", "(required)", "What there is to pull."},
	{"images[].name", "image", "The image's name, of which there is one each: letters, digits, `-`, `_` and `.`."},
	{"images[].layers", "(required, or `base`)", "The size of its one layer, a list of sizes, or `count`, `size` and `spread`."},
	{"images[].layers.count", "1", "How many layers there are."},
	{"images[].layers.size", "(required)", "The size of all layers together."},
	{"images[].layers.spread", "0%", "How far sizes are from the mean, up or down; they are drawn."},
	{"images[].base", "", "An image that stands before it in the list, whose layers it has too, as its first ones."},
	{"images[].count", "1", "How many such images there are, with layers of their own (but for `base`): NAME-1, NAME-2 and so on."},
	{"images[].versions", "1", "How many versions of it there are: NAME:1, NAME:2 and so on."},
	{"images[].shared", "0%", "The part of the image, from its first layer on, that all its versions share. Of a list of sizes those layers are shared that lie wholly within it."},
	{"images[].manifest", "1KiB", "The size of its manifest."},
	{"images[].config", "2KiB", "The size of its configuration, which is pulled like a layer; `none` leaves it out."},

	{"workload", "(a flash crowd of the first image)", "Who pulls what, and when. All entries happen."},
	{"workload[].kind", "flash-crowd", "`flash-crowd`, `staggered`, `rolling`, `poisson` or `autoscale`."},
	{"workload[].image", "(the first image)", "What is pulled: an image or a list of them, from the most popular on. A name without its number or version stands for all of them."},
	{"workload[].zipf", "0", "Of several images the k-th is pulled in proportion to 1 / k to this power; 0 is evenly."},
	{"workload[].nodes", "all", "Which nodes pull; see below. Nodes that have not yet joined are left out."},
	{"workload[].at", "0s", "When it begins."},
	{"workload[].jitter", "0s", "flash-crowd, rolling: each pull begins up to this later; not in a wave that had to wait."},
	{"workload[].over", "(required)", "staggered: from the first pull to the last. autoscale: from the first node that joins to the last."},
	{"workload[].every", "(required)", "poisson: the mean time between two pulls."},
	{"workload[].pulls", "(one for each node)", "poisson: how many pulls there are. Nodes take turns in an order that is drawn."},
	{"workload[].batch", "10%", "rolling: how many nodes, or what part of them, a wave has."},
	{"workload[].interval", "(required without `wait`)", "rolling: from one wave to the next, done or not."},
	{"workload[].wait", "false", "rolling: whether a wave begins no sooner than all pulls of the one before are complete or given up; `interval` is then the least from one to the next."},
	{"workload[].delay", "0s", "autoscale: from when a node joins until it pulls."},
	{"workload[].order", "number", "staggered, rolling, autoscale: which nodes come first: by `number`, that is zone after zone, or `random`."},
	{"workload[].parallel", "3", "How many layers a client pulls at a time; 0 is all at once."},
	{"workload[].retries", "10", "How often a client asks again, a second later, for what it was told it cannot have."},

	{"faults", "", "What goes wrong."},
	{"faults[].kind", "(required)", "One of the faults below."},
	{"faults[].at", "0s", "When it begins."},
	{"faults[].for", "(until the end)", "How long it lasts."},
	{"faults[].nodes", "", "Which nodes it befalls; see below."},
	{"faults[].role", "", "Instead of `nodes`: the first node that is `coordinator` (gave the latest grant) or `fetcher` (reads from the origin, and is not the coordinator)."},
	{"faults[].restart", "", "crash, drain: after what time the nodes are back."},
	{"faults[].notice", "0s", "drain: how long before they leave the nodes are told."},
	{"faults[].delay", "", "slow-node: what each message takes. clock-skew: how far clocks are off, fast or (negative) slow. origin-throttle: the Retry-After, by default 1s."},
	{"faults[].part", "", "loss: of the packets. bit-rot: of the chunks. clock-skew: how much too fast, or (negative) too slow, clocks run. origin-reset: of the answers, by default 100%."},
	{"faults[].rate", "", "slow-nic, slow-disk: what is left of it."},
	{"faults[].status", "", "origin-error: the status, 400 to 599, by default 503."},
	{"faults[].one_way", "false", "partition: what the nodes send is lost, what they are sent arrives."},

	{"limits", "", "What bounds the run, and what it is judged by."},
	{"limits.time", "1h", "When the run ends, done or not."},
	{"limits.deadline", "0s", "By when after its start each pull must be complete, once what went wrong is mended; 0 is no bound."},
	{"limits.egress", "0", "How many bytes the origin may send, over the unique bytes wanted; 0 is no bound."},
	{"limits.node_memory", "none", "How much a node may hold of chunks in flight; `none` is no bound."},
	{"limits.honest_bans", "0s", "For how long honest nodes may be banned, over all pairs together; 0 is no bound."},
}

// valueKind is a kind of values, with examples that are read.
type valueKind struct{ kind, examples, meaning string }

// valueKinds are all, in the order of the documentation.
var valueKinds = []valueKind{
	{"text", "app", "Any text."},
	{"flag", "true, false", ""},
	{"count", "0, 100", "A whole number."},
	{"size", "640MiB, 1.5GB, 2KiB, none", "Bytes: B, kB, MB, GB, TB, or KiB, MiB, GiB, TiB. `none` is 0."},
	{"rate", "1gbit, 50mbit, 200MB/s, unlimited", "Bytes a second as sizes are given, with or without /s; or bits: kbit, mbit, gbit, tbit. At least 8kbit, at most 1tbit."},
	{"duration", "90s, 1m30s, 6h, 100us", "As in Go: ns, us, ms, s, m, h. At most 720h."},
	{"part", "30%, 0.1%, 1/50", "From 0% to 100%, to a millionth."},
	{"ratio", "1.02, 102%", "The same, and it may be more than the whole, up to 1000."},
	{"exponent", "1.1", "From 0 to 10, to a millionth."},
	{"nodes", "all, 3, 0-4, 30%, 3 random, zone a, rack a/0, 30% of zone a", "Which nodes; see below."},
	{"amount", "10, 10%, all", "A number of nodes, or a part of them."},
	{"list", "", "A list, each item begun with a dash."},
	{"section", "", "Further keys."},
}

// standards are the defaults by key; those from elsewhere are "".
var standards = func() map[string]string {
	m := map[string]string{}
	for _, k := range keys {
		m[k.path] = ""
		if len(k.standard) > 0 && k.standard[0] != '(' {
			m[k.path] = k.standard
		}
	}
	return m
}()
