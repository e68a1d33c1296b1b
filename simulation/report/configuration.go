package report

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peercache/peercache/simulation"
	"github.com/peercache/peercache/simulation/scenario"
)

// Configuration is what was simulated. Rates are bytes a second, 0 without a bound;
// where nodes differ there is the least, the median and the greatest.
type Configuration struct {
	Nodes int `json:"nodes"`
	// Joining is how many of them come into the cluster later.
	Joining int    `json:"joining"`
	Racks   int    `json:"racks"`
	Zones   []Zone `json:"zones"`
	NodeUp  Spread `json:"node_up"`
	// NodeDown and NodeDisk are what nodes receive and write.
	NodeDown Spread `json:"node_down"`
	NodeDisk Spread `json:"node_disk"`
	// RackUplink is the rate towards the racks.
	RackUplink Spread `json:"rack_uplink"`

	Latency map[string]float64 `json:"latency_seconds"` // rack, zone, far, origin, queue
	// Lookup is the median time of a look-up, Misses the part of the members that a
	// node's view lacks.
	Lookup float64 `json:"lookup_seconds"`
	Misses float64 `json:"view_misses"`
	Origin Origin  `json:"origin"`

	Images    []Image `json:"images"`
	Blobs     int     `json:"blobs"`
	BlobBytes int64   `json:"blob_bytes"`
	Pulls     int     `json:"pulls"`
	Faults    int     `json:"faults"`
	Verify    string  `json:"verify"`
	Sharing   string  `json:"sharing"` // of links by flows: equal, leveled or max-min
	Limits    Limits  `json:"limits"`
}

// Zone is a zone and its link.
type Zone struct {
	Name  string `json:"name"`
	Nodes int    `json:"nodes"`
	Up    int64  `json:"up"`
	Down  int64  `json:"down"`
	Paid  bool   `json:"paid"`
}

// Spread is the least, the median and the greatest of something.
type Spread struct {
	Min    int64 `json:"min"`
	Median int64 `json:"median"`
	Max    int64 `json:"max"`
}

// Origin is the registry.
type Origin struct {
	Link        int64       `json:"link"`
	Connection  int64       `json:"connection"`
	Connections int         `json:"connections"`
	Delay       float64     `json:"delay_seconds"`
	RateLimits  []RateLimit `json:"rate_limits"`
	// Readers is how many nodes it lets in, 0 all.
	Readers int `json:"readers"`
}

// RateLimit is how many requests the origin answers in a window.
type RateLimit struct {
	Requests  int     `json:"requests"`
	Window    float64 `json:"window_seconds"`
	Manifests bool    `json:"manifests"` // only those for manifests count
	PerNode   bool    `json:"per_node"`
}

// what is how many of what it lets through.
func (l *RateLimit) what() string {
	if l.Manifests {
		return plural(l.Requests, "manifest", "manifests")
	}
	return plural(l.Requests, "request", "requests")
}

// Image is an image that was pulled.
type Image struct {
	Name   string `json:"name"`
	Layers int    `json:"layers"`
	Bytes  int64  `json:"bytes"`
	Pulls  int    `json:"pulls"`
}

// Limits are what the run was judged by; 0 without a bound.
type Limits struct {
	Time       float64 `json:"time_seconds"`
	Deadline   float64 `json:"deadline_seconds"`
	Egress     float64 `json:"egress_ratio"`
	NodeMemory int64   `json:"node_memory"`
	HonestBans float64 `json:"honest_ban_seconds"`
}

func configuration(run *scenario.Run, sharing simulation.Sharing) *Configuration {
	c := &Configuration{Nodes: len(run.Nodes), Racks: len(run.Racks), Blobs: len(run.Blobs), Pulls: len(run.Pulls), Faults: len(run.Faults),
		Verify: run.Verify, Sharing: sharing.For(len(run.Nodes)).String(), Misses: float64(run.DHT.Misses) / 1e6,
		Latency: map[string]float64{"rack": seconds(run.Latency.Rack), "zone": seconds(run.Latency.Zone), "far": seconds(run.Latency.Far),
			"origin": seconds(run.Latency.Origin), "queue": seconds(run.Latency.Queue)},
		Limits: Limits{Time: seconds(run.Limits.Time), Deadline: seconds(run.Limits.Deadline), Egress: float64(run.Limits.Egress) / 1e6,
			NodeMemory: run.Limits.NodeMemory, HonestBans: seconds(run.Limits.HonestBans)},
		Origin: Origin{Link: run.Origin.Link, Connection: run.Origin.Connection, Connections: run.Origin.Connections,
			Delay: seconds(run.Origin.Delay), Readers: run.Origin.Readers, RateLimits: []RateLimit{}},
	}
	if d := run.DHT.Delays; len(d) > 0 {
		c.Lookup = seconds(d[len(d)/2])
	}
	for _, z := range run.Zones {
		c.Zones = append(c.Zones, Zone{Name: z.Name, Up: z.Up, Down: z.Down, Paid: z.Paid})
	}
	var up, down, disk, uplink []int64
	for i := range run.Nodes {
		n := &run.Nodes[i]
		up, down, disk = append(up, n.Up), append(down, n.Down), append(disk, n.Disk)
		c.Zones[n.Zone].Nodes++
		if n.Joins > 0 {
			c.Joining++
		}
	}
	for _, r := range run.Racks {
		uplink = append(uplink, r.Down)
	}
	c.NodeUp, c.NodeDown, c.NodeDisk, c.RackUplink = spread(up), spread(down), spread(disk), spread(uplink)
	for _, l := range run.Origin.Limits {
		c.Origin.RateLimits = append(c.Origin.RateLimits, RateLimit{Requests: l.Requests, Window: seconds(l.Window), Manifests: l.Manifests, PerNode: l.PerNode})
	}
	for _, b := range run.Blobs {
		c.BlobBytes += b.Size
	}
	for _, i := range run.Images {
		out := Image{Name: i.Name, Layers: len(i.Layers), Bytes: run.Blobs[i.Manifest].Size}
		for _, b := range i.Layers {
			out.Bytes += run.Blobs[b].Size
		}
		c.Images = append(c.Images, out)
	}
	for _, p := range run.Pulls {
		c.Images[p.Image].Pulls++
	}
	return c
}

// spread sorts values in place.
func spread(values []int64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	slices.Sort(values)
	return Spread{values[0], values[len(values)/2], values[len(values)-1]}
}

// Row is a line of the configuration for people.
type row struct{ Name, Text string }

// rows is the configuration for people.
func (c *Configuration) rows() []row {
	var rows []row
	add := func(name, format string, args ...any) { rows = append(rows, row{name, fmt.Sprintf(format, args...)}) }
	nodes := count(c.Nodes)
	if c.Joining > 0 {
		nodes += fmt.Sprintf(", %s of them join later", count(c.Joining))
	}
	add("Nodes", "%s, in %s and %s", nodes, plural(c.Racks, "rack", "racks"), plural(len(c.Zones), "zone", "zones"))
	if c.NodeUp == c.NodeDown {
		add("Node link", "%s each way", c.NodeUp.rate())
	} else {
		add("Node link", "%s up, %s down", c.NodeUp.rate(), c.NodeDown.rate())
	}
	if c.NodeDisk.Max > 0 {
		add("Node disk", "%s", c.NodeDisk.text(func(n int64) string { return size(n) + "/s" }))
	}
	if c.RackUplink.Max > 0 {
		add("Rack uplink", "%s", c.RackUplink.rate())
	}
	for i, z := range c.Zones {
		if z.Up == 0 && z.Down == 0 && !z.Paid {
			continue
		}
		if i == 6 {
			add("…", "%s more", plural(len(c.Zones)-i, "zone", "zones"))
			break
		}
		paid := ""
		if z.Paid {
			paid = ", paid"
		}
		add("Zone "+z.Name, "%s, %s up, %s down%s", plural(z.Nodes, "node", "nodes"), Spread{z.Up, z.Up, z.Up}.rate(), Spread{z.Down, z.Down, z.Down}.rate(), paid)
	}
	l := func(name string) string { return duration(time.Duration(c.Latency[name] * 1e9)) }
	add("Latency, one way", "%s in a rack, %s in a zone, %s between zones, %s to the origin", l("rack"), l("zone"), l("far"), l("origin"))
	add("DHT", "a look-up takes %s; a view misses %s of the members", duration(time.Duration(c.Lookup*1e9)), percent(int64(c.Misses*1e6+0.5)))
	origin := Spread{c.Origin.Link, c.Origin.Link, c.Origin.Link}.rate()
	if c.Origin.Connection > 0 {
		origin += fmt.Sprintf(", %s a connection", rate(c.Origin.Connection))
	}
	if c.Origin.Connections > 0 {
		origin += fmt.Sprintf(", %s at once", plural(c.Origin.Connections, "connection", "connections"))
	}
	if c.Origin.Delay > 0 {
		origin += fmt.Sprintf(", %s to think", duration(time.Duration(c.Origin.Delay*1e9)))
	}
	if c.Origin.Readers > 0 {
		origin += fmt.Sprintf(", lets in %s", plural(c.Origin.Readers, "node", "nodes"))
	}
	add("Origin", "%s", origin)
	for _, r := range c.Origin.RateLimits {
		whom := "for all together"
		if r.PerNode {
			whom = "for each node"
		}
		add("Rate limit", "%s in %s, %s", r.what(), duration(time.Duration(r.Window*1e9)), whom)
	}
	for i, m := range c.Images {
		if i == 8 {
			add("…", "%s more", plural(len(c.Images)-i, "image", "images"))
			break
		}
		add("Image "+m.Name, "%s in %s, pulled %s", size(m.Bytes), plural(m.Layers, "layer", "layers"), plural(m.Pulls, "time", "times"))
	}
	add("Distinct content", "%s in %s", size(c.BlobBytes), plural(c.Blobs, "blob", "blobs"))
	add("Verification", "%s", c.Verify)
	add("Sharing of links", "%s", c.Sharing)
	limits := []string{"ends after " + duration(time.Duration(c.Limits.Time*1e9))}
	if v := c.Limits.Deadline; v > 0 {
		limits = append(limits, "each pull done within "+duration(time.Duration(v*1e9)))
	}
	if v := c.Limits.Egress; v > 0 {
		limits = append(limits, fmt.Sprintf("at most %.4g copies from the origin", v))
	}
	if v := c.Limits.NodeMemory; v > 0 {
		limits = append(limits, size(v)+" in flight at a node")
	}
	if v := c.Limits.HonestBans; v > 0 {
		limits = append(limits, duration(time.Duration(v*1e9))+" of bans of honest peers")
	}
	add("Limits", "%s", strings.Join(limits, "; "))
	return rows
}

func (s Spread) rate() string { return s.text(rate) }

func (s Spread) text(unit func(int64) string) string {
	switch {
	case s.Max == 0:
		return "without a bound"
	case s.Min == s.Max:
		return unit(s.Max)
	case s.Min == 0:
		return unit(s.Max) + " or without a bound"
	}
	return fmt.Sprintf("%s to %s, median %s", unit(s.Min), unit(s.Max), unit(s.Median))
}
