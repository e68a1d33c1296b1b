package policy

import (
	"testing"
	"time"
)

// zonedWorld has so many nodes with the blob in zone 1, and others in zone 2, that want it.
// The origin is not there any more.
func zonedWorld(t *testing.T, holders, others int, blind bool) (*world, []*client, func() int) {
	t.Helper()
	w := newWorld(t, holders+others, func(i int, c *Config) {
		switch {
		case blind:
		case i < holders:
			c.Label.Zone = 1
		default:
			c.Label.Zone = 2
		}
	})
	d := w.blob("zoned", 20*mib)
	var first []*client
	for _, n := range w.nodes[:holders] {
		first = append(first, n.read(d, 0, -1))
	}
	w.wait(time.Minute, first...)
	before := w.uploaded(holders)
	var clients []*client
	for _, n := range w.nodes[holders:] {
		clients = append(clients, n.read(d, 0, -1))
	}
	return w, clients, func() int { return w.uploaded(holders) - before }
}

// uploaded is how many uploads the first nodes were asked for and did admit.
func (w *world) uploaded(nodes int) int {
	n := 0
	for _, o := range w.nodes[:nodes] {
		n += int(o.uploads)
	}
	return n
}

// A zone takes about one copy from another zone, and is served whatever one of its nodes does.
func TestZoneTakesOneCopy(t *testing.T) {
	chunks := 0
	for _, tc := range []struct {
		name    string
		others  int
		blind   bool
		befalls func(w *world)
		// least and most are how many hundredths of a copy are asked of the other zone.
		least, most int
	}{
		{name: "no zones", others: 8, blind: true, least: 150, most: 2000},
		{name: "one node", others: 1, least: 95, most: 130},
		{name: "two nodes", others: 2, least: 95, most: 130},
		{name: "eight nodes", others: 8, least: 95, most: 150},
		{name: "one crashes", others: 8, befalls: func(w *world) { w.kill(w.nodes[6]) }, least: 95, most: 200},
		{name: "one is mute", others: 8, befalls: func(w *world) { w.nodes[6].mute = true }, least: 95, most: 250},
		{name: "one reaches nobody far", others: 8, befalls: func(w *world) {
			for _, far := range w.nodes[:4] {
				w.unlink(w.nodes[6], far)
			}
		}, least: 95, most: 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, clients, crossed := zonedWorld(t, 4, tc.others, tc.blind)
			chunks = w.blobs[clients[0].d].n
			if tc.befalls != nil {
				tc.befalls(w)
			}
			var served []*client
			for k, c := range clients {
				if tc.befalls == nil || k != 2 || tc.name == "one reaches nobody far" {
					served = append(served, c)
				}
			}
			begun := w.now
			w.wait(30*time.Second, served...)
			copies := crossed() * 100 / chunks
			t.Logf("%d %% of a copy asked for, after %v", copies, time.Duration(w.now-begun))
			if copies < tc.least || copies > tc.most {
				t.Errorf("%d %% of a copy were asked of the other zone, want %d to %d", copies, tc.least, tc.most)
			}
			w.egress(clients[0].d, 20*mib)
		})
	}
}
