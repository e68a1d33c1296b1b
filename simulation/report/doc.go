// Package report makes of a simulation's outcome what people and programs read: a
// table for the terminal, JSON, and a page of HTML with plots that opens offline.
// It judges by what the scenario demands and measures nothing itself.
//
// # The JSON document
//
// What [Report.JSON] writes is stable: keys are only ever added, and "schema" rises
// if that has to change. Times are in seconds and virtual, save wall_seconds; sizes
// are bytes, rates bytes a second; a ratio without a meaning is null.
//
//	schema            1
//	scenario, description, seed, nodes
//	trace_hash        of all that the nodes were told and when, 16 hex digits: equal
//	                  on every machine for the same scenario, seed, nodes and version
//	version, commit, modified, go, platform
//	command           the line that does it again
//	ok, problems      whether everything is as demanded; what is not, in words
//	partial           the run was interrupted: everything below is as of then
//	pulls             {total, complete, unserved, excused, refused, unfinished, failures}; excused:
//	                  the node was dead or cut off; refused: the origin does not let it in;
//	                  failures: errors that clients were given
//	unserved          the first 20: {node, image, begun_seconds, status, failures}
//	makespan_seconds  from the first client's start to the last one's end
//	optimum_seconds   T*, what no schedule beats by much where the origin is no faster
//	                  than a node (see simulation.Result), in rates of payload; 0 where
//	                  it is not known
//	makespan_ratio    of the two; null where most of the optimum is that the last client
//	                  begins late: a ratio of two waits says nothing
//	completion_seconds, first_byte_seconds
//	                  {count, mean, p50, p90, p99, max}: each client that was served, from its
//	                  own start; of an interrupted run the first bytes of all that had one
//	unique_bytes      of blobs and manifests wanted, each counted once
//	origin_bytes      that the origin sent, aborted and hedged ones included
//	origin_egress_ratio
//	                  of the two
//	without_bytes     what the origin would send without Peercache, to each node what it wants
//	origin_requests, origin_manifest_requests, origin_throttled
//	peer_bytes, store_bytes, cut_bytes
//	                  from peers; served from a node's own store; sent in vain
//	link_bytes        {access, rack-uplink, zone-uplink, paid-uplink, origin}: what went
//	                  over each class of links; a byte counts in each that it takes
//	link_capacity     the same classes: what all links of it could carry a second
//	messages          by type; message_count, messages_per_node, messages_per_pull
//	mechanisms        {takeovers, redirects, hedges, bans, busy, regrants, refetches}: how
//	                  often each happened
//	counters          all counters of the nodes' cores
//	invariants        by name: {rule, checks, violations, first}
//	recovery_seconds  the longest gap after a node was killed
//	configuration     what was simulated: see [Configuration]
//	faults            the timeline: {at_seconds, until_seconds, kind, text}
//	notes             what became of the scenario otherwise than it is written
//	events, steps, events_per_second, wall_seconds, virtual_seconds
//	series            the course of the run: {at_seconds, done, from_origin, from_peers,
//	                  from_store, origin_bytes, messages, link_bytes}, sums from the start
//
// For several seeds [Summary.JSON] writes {"schema", "runs": [...], "summary": {...}}: the
// runs as above without configuration, faults and series, and of each figure the
// least, the median and the greatest.
package report
