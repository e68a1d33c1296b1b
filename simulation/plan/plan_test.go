package plan

import (
	"testing"
	"time"
)

const (
	gib  = 1 << 30
	mib  = 1 << 20
	gbit = 125_000_000
)

// What no rule of thumb would get wrong, worked out by hand.
func TestByHand(t *testing.T) {
	// 8 nodes, links of 1 MiB in 10 ms, the registry's no faster: 64 chunks, the last of
	// which goes through four rounds.
	q := &Question{Nodes: 8, Images: []int64{64 * mib}, Layers: 1, Up: 100 * mib, Down: 100 * mib, Origin: 100 * mib, Zones: 1}
	with := q.With()
	if want := 10 * time.Millisecond * (64 - 1 + 4); with.Time != want {
		t.Errorf("with: %v, want %v", with.Time, want)
	}
	if with.Bytes != 64*mib || with.Requests != 1+4 || with.Manifests != 1 {
		t.Errorf("with: %+v", with)
	}
	without := q.Without()
	if want := 8 * 640 * time.Millisecond; without.Time != want || without.Because != ByOrigin {
		t.Errorf("without: %v by %s, want %v", without.Time, without.Because, want)
	}
	if without.Bytes != 8*64*mib || without.Requests != 16 || without.Manifests != 8 {
		t.Errorf("without: %+v", without)
	}

	// A registry of a quarter of a node's link: its time for all bytes, and three rounds.
	q.Origin = 25 * mib
	if with, want := q.With(), 2560*time.Millisecond+30*time.Millisecond; with.Time != want || with.Because != ByOriginUp {
		t.Errorf("a slow registry: %v by %s, want %v", with.Time, with.Because, want)
	}
	// One node alone: its own link or the registry's.
	q.Nodes = 1
	if with, without := q.With(), q.Without(); with.Time != 2560*time.Millisecond || without.Time != with.Time {
		t.Errorf("a lone node: %v and %v", with.Time, without.Time)
	}
}

// A link of 125 MiB a second carries 100 of payload where the wire takes a quarter more.
func TestOverhead(t *testing.T) {
	q := &Question{Nodes: 8, Images: []int64{64 * mib}, Layers: 1, Up: 125 * mib, Down: 125 * mib, Origin: 125 * mib, Zones: 1, Overhead: 250_000}
	least, _ := q.Least()
	if with, want := q.With().Time, 670*time.Millisecond; with != want || least != 640*time.Millisecond {
		t.Errorf("with: %v, want %v; least %v", with, want, least)
	}
	if without, want := q.Without().Time, 8*640*time.Millisecond; without != want {
		t.Errorf("without: %v, want %v", without, want)
	}
}

// Docker Hub's 100 manifests in six hours: 500 nodes need four more windows, and with
// Peercache none.
func TestRateLimit(t *testing.T) {
	q := &Question{Nodes: 500, Images: []int64{10 * gib}, Layers: 10, Up: gbit, Down: gbit, Origin: 10 * gbit, Zones: 1,
		Limit: Limit{Requests: 100, Window: 6 * time.Hour, Manifests: true}}
	without := q.Without()
	if without.Wait != 24*time.Hour {
		t.Errorf("waits %v, want 24 h", without.Wait)
	}
	// The last hundred share the registry's link.
	if rest, want := without.Time-without.Wait, 100*10*gib/(10*gbit)*time.Second; (rest - want).Abs() > 2*time.Second {
		t.Errorf("then pulls for %v, want %v", rest, want)
	}
	if with := q.With(); with.Wait != 0 || with.Manifests != 1 {
		t.Errorf("with: %+v", with)
	}
	q.Limit.PerNode = true
	if without := q.Without(); without.Wait != 0 {
		t.Errorf("with a limit for each node it waits %v", without.Wait)
	}
	q.Limit = Limit{Requests: 50, Window: time.Hour}
	if with := q.With(); with.Requests != 641 || with.Wait != 12*time.Hour {
		t.Errorf("a limit on all requests: %d requests wait %v", with.Requests, with.Wait)
	}
}

func TestZones(t *testing.T) {
	q := &Question{Nodes: 30, Images: []int64{gib, gib}, Layers: 4, Up: gbit, Down: gbit, Origin: 10 * gbit, Zones: 3, ZoneLink: gbit / 10, Paid: true}
	with, without := q.With(), q.Without()
	if with.Paid != 5*2*gib || without.Paid != 30*2*gib {
		t.Errorf("paid: %d and %d", with.Paid, without.Paid)
	}
	if with.Because != ByZones || without.Because != ByZones {
		t.Errorf("bound by %s and %s", with.Because, without.Because)
	}
}

// T* lies above what nothing beats, and what goes without Peercache never below it.
func TestOrderOfBounds(t *testing.T) {
	for _, nodes := range []int{1, 2, 3, 7, 100, 5000} {
		for _, origin := range []int64{gbit / 20, gbit, 40 * gbit} {
			for _, up := range []int64{gbit / 4, gbit} {
				q := &Question{Nodes: nodes, Images: []int64{300*mib + 17}, Layers: 3, Up: up, Down: gbit, Origin: origin, Zones: 1}
				least, _ := q.Least()
				with, without := q.With(), q.Without()
				if with.Time < least || without.Time < 0 || without.Bytes < with.Bytes {
					t.Errorf("%d nodes, registry %d, up %d: least %v, with %v, without %v", nodes, origin, up, least, with.Time, without.Time)
				}
			}
		}
	}
}

// Absurd figures give absurd times, not small ones.
func TestOverflow(t *testing.T) {
	q := &Question{Nodes: 1 << 20, Images: []int64{1 << 40}, Layers: 1, Up: 1, Down: 1, Origin: 1, Zones: 1}
	if got := q.Without().Time; got != forever {
		t.Errorf("%v", got)
	}
}
