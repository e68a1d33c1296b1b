package admin

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata anew")

const (
	self  = "12D3KooWLo964DbdK4pGJmBqgpfWVahnjUv6M4YUkF3wLfWL5GTj"
	other = "12D3KooWA8EXV3KjBxEU5EnsPfneLx84vMWAtTBQBeyooN82KSuX"
)

// exampleLive is a node in the middle of a pull: one blob swarms, one is small and
// checked, of one nothing is known yet.
func exampleLive() Live {
	l := Live{
		ID: self, Version: "v1", UptimeSeconds: 61.2, AtSeconds: 10, Peers: 15, Readers: 2,
		Received: Received{Peer: 100 << 20, Origin: 32 << 20}, Served: Served{Store: 1 << 20, Peer: 60 << 20, Origin: 16 << 20},
		Blobs: []ActiveBlob{
			{
				Digest: "sha256:" + strings.Repeat("0123456789abcdef", 4), Size: 64 << 20, Have: 24 << 20, Chunks: 64, Wanted: true,
				Cells:   "========================pppp..===...pp..oooooooooooooooo..........",
				Readers: 1, Transfers: 4, OriginReads: 1, Bytes: Served{Store: 1 << 20, Peer: 16 << 20, Origin: 8 << 20},
				Coordinator: other,
				Neighbours: []Neighbour{
					{ID: "12D3KooWslow", Chunks: 3, Bytes: 1 << 20},
					{ID: other, Chunks: 40, Transfers: 3, Bytes: 10 << 20},
					{ID: "12D3KooWmiddling", Chunks: 64, Transfers: 1, Bytes: 5 << 20},
					{ID: "12D3KooWnone", Chunks: 0},
				},
			},
			{
				Digest: "sha256:" + strings.Repeat("f", 64), Size: 100000, Have: 100000, Chunks: 1, Cells: "=", Wanted: true,
				Bytes: Served{Origin: 100000}, Coordinator: self,
			},
			{Digest: "sha256:" + strings.Repeat("9", 64), Size: -1, Wanted: true, Readers: 1},
		},
	}
	return l
}

// moved is the example two seconds later.
func moved() Live {
	l := exampleLive()
	l.AtSeconds += 2
	l.UptimeSeconds += 2
	l.Received.Peer += 24 << 20
	l.Received.Origin += 4 << 20
	l.Served.Peer += 28 << 20
	b := &l.Blobs[0]
	b.Have, b.Bytes.Peer, b.Bytes.Origin = b.Have+24<<20, b.Bytes.Peer+20<<20, b.Bytes.Origin+4<<20
	b.Cells = strings.Repeat("=", 40) + "pppp..oooooo.....=======" // fewer than 64 on purpose
	b.Neighbours[1].Bytes += 15 << 20
	b.Neighbours[2].Bytes += 5 << 20
	l.Blobs[1].Proven, l.Blobs[1].Cells = true, "#"
	return l
}

// TestDraw compares views with testdata/*.golden; -update writes them.
func TestDraw(t *testing.T) {
	many := moved()
	for i := range 10 {
		b := many.Blobs[0]
		b.Digest = fmt.Sprintf("sha256:%064x", i)
		b.Neighbours = make([]Neighbour, 20)
		for k := range b.Neighbours {
			b.Neighbours[k] = Neighbour{ID: fmt.Sprintf("12D3KooW%010d", k), Chunks: k}
		}
		many.Blobs = append(many.Blobs, b)
	}
	hostile := exampleLive()
	hostile.ID = "\x1b]0;owned\x07"
	hostile.Blobs = []ActiveBlob{{Digest: "\x1b[2J\n", Size: 1, Cells: "\x1b\n\x00=", Wanted: true, Neighbours: []Neighbour{{ID: "\r\x1b[31m"}}}}
	for _, test := range []struct {
		name   string
		lives  []Live
		screen Screen
	}{
		{"first", []Live{exampleLive()}, Screen{}},
		{"moved", []Live{exampleLive(), moved()}, Screen{}},
		{"terminal", []Live{exampleLive(), moved()}, Screen{Width: 100, Height: 30, Colour: true}},
		{"narrow", []Live{exampleLive(), moved()}, Screen{Width: 30, Height: 40}},
		{"low", []Live{exampleLive(), moved()}, Screen{Width: 80, Height: 18}},
		{"tiny", []Live{exampleLive(), moved()}, Screen{Width: 1, Height: 2}},
		{"many", []Live{many}, Screen{Width: 80, Height: 40}},
		{"idle", []Live{{ID: self, Blobs: []ActiveBlob{}}}, Screen{Width: 80, Height: 24}},
		{"hostile", []Live{hostile}, Screen{Width: 80, Height: 24}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var h History
			for _, l := range test.lives {
				h.Add(l)
			}
			lines := h.Draw(test.screen)
			if h := test.screen.Height; h > 0 && len(lines) >= h {
				t.Errorf("%d lines on a screen of %d", len(lines), h)
			}
			if !test.screen.Colour {
				for _, l := range lines {
					if w := test.screen.Width; w > 0 && len([]rune(l)) > w {
						t.Errorf("wider than %d: %q", w, l)
					}
				}
			}
			got := []byte(strings.ReplaceAll(strings.Join(lines, "\n"), "\x1b", "^") + "\n")
			path := filepath.Join("testdata", test.name+".golden")
			if *update {
				if err := os.WriteFile(path, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
	if lines := new(History).Draw(Screen{}); len(lines) != 0 {
		t.Errorf("a view of nothing: %q", lines)
	}
}

func TestHistory(t *testing.T) {
	at := func(seconds float64, bytes int64) Live {
		return Live{ID: self, AtSeconds: seconds, Blobs: []ActiveBlob{{Digest: "d", Bytes: Served{Peer: bytes}}}}
	}
	rate := func(lives ...Live) float64 {
		var h History
		for _, l := range lives {
			h.Add(l)
		}
		return h.blobRate("d", func(b *ActiveBlob) int64 { return b.Bytes.Peer })
	}
	other := at(9, 500)
	other.ID = "another"
	for _, test := range []struct {
		name  string
		lives []Live
		want  float64
	}{
		{"nothing", nil, 0},
		{"one snapshot", []Live{at(1, 1000)}, 0},
		{"two", []Live{at(1, 1000), at(3, 2000)}, 500},
		{"the same twice", []Live{at(1, 1000), at(1, 2000)}, 0},
		{"a blob that is new", []Live{{ID: self, AtSeconds: 1}, {ID: self, AtSeconds: 2}, at(2.5, 100)}, 200},
		{"a blob that is new, later", []Live{{ID: self, AtSeconds: 1}, at(2, 100), at(3, 400)}, 300},
		{"a blob that is gone", []Live{at(1, 1000), {ID: self, AtSeconds: 2}}, 0},
		{"counts that start anew", []Live{at(1, 1000), at(2, 10)}, 0},
		{"a node that was restarted", []Live{at(100, 1000), at(1, 5000)}, 0},
		{"another node", []Live{at(8, 100), other}, 0},
		{"old ones do not count", []Live{at(0, 0), at(10, 1000), at(12, 3000), at(13, 4000), at(14, 5000)}, 1000},
		{"but the window is spanned", []Live{at(0, 0), at(10, 1000)}, 100},
	} {
		if got := rate(test.lives...); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	var h History
	for i := range 1000 {
		h.Add(at(float64(i)/10, 0))
	}
	if len(h.lives) > 10*rateWindow+2 {
		t.Errorf("%d snapshots are kept", len(h.lives))
	}
}

func TestCells(t *testing.T) {
	for _, test := range []struct {
		chunks string
		width  int
		want   string
	}{
		{"", 5, ""},
		{".po=#+", 6, ".po=#+"},
		{".po=#+", 99, ".po=#+"},
		{"..pp==##", 4, ".p=#"},
		{".p.o=.#.=#=o", 6, "po++=o"},
		{"=.=======", 3, "+=="},
		{"....o...", 1, "o"},
	} {
		if got := Cells(len(test.chunks), test.width, func(i int) Cell { return Cell(test.chunks[i]) }); got != test.want {
			t.Errorf("%q in %d: %q, want %q", test.chunks, test.width, got, test.want)
		}
	}
	// The order in which cells are joined does not matter.
	all := []Cell(".po+=#")
	for _, a := range all {
		for _, b := range all {
			for _, c := range all {
				if a.Join(b) != b.Join(a) || a.Join(b).Join(c) != a.Join(b.Join(c)) {
					t.Errorf("%c, %c and %c", a, b, c)
				}
			}
		}
	}
}
