package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/peercache/peercache/cmd/peercache/internal/config"
)

// Screen is what a view is drawn for.
type Screen struct {
	// Width and Height are in characters. No line is wider, and there are no more
	// lines, where they are more than 0.
	Width, Height int
	// Colour permits ANSI colours.
	Colour bool
}

// Colours, as parameters of ANSI's Select Graphic Rendition.
const (
	bold   = "1"
	dim    = "2"
	green  = "32"
	yellow = "33"
	blue   = "34"
	cyan   = "36"
)

var cellColours = map[Cell]string{
	CellMissing: dim, CellFromPeer: cyan, CellFromOrigin: yellow, CellPartly: blue, CellHere: green, CellProven: bold + ";" + green,
}

var legend = []struct {
	cell Cell
	text string
}{
	{CellMissing, "missing"}, {CellFromPeer, "peers"}, {CellFromOrigin, "origin"},
	{CellPartly, "in part"}, {CellHere, "here"}, {CellProven, "proven"},
}

// line is a line of a screen, in pieces of one colour each.
type line []piece

type piece struct{ colour, text string }

func plain(format string, args ...any) line { return line{{"", fmt.Sprintf(format, args...)}} }

func (l line) add(colour, format string, args ...any) line {
	return append(l, piece{colour, fmt.Sprintf(format, args...)})
}

// text is the line as it is drawn: cut to the width, and without what a terminal
// would obey, since part of it is what a stranger sent.
func (l line) text(s Screen) string {
	var b strings.Builder
	left := s.Width
	for _, p := range l {
		text := printable(p.text)
		if s.Width > 0 {
			text = firstRunes(text, left)
			left -= utf8.RuneCountInString(text)
		}
		if s.Colour && p.colour != "" && text != "" {
			text = "\x1b[" + p.colour + "m" + text + "\x1b[0m"
		}
		b.WriteString(text)
	}
	return b.String()
}

// printable puts a question mark for what is not shown but obeyed.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func firstRunes(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// defaultWidth is for what has none: a file, a pipe.
const defaultWidth = 80

// plainNeighbours is how many neighbours of a blob are shown where the height is
// no bound.
const plainNeighbours = 8

// Draw renders the latest snapshot, with the rates that follow from those before
// it, as lines without line breaks.
func (h *History) Draw(s Screen) []string {
	l := h.Latest()
	if l == nil {
		return nil
	}
	width := cmp.Or(s.Width, defaultWidth)
	lines := h.head(l)
	rows := fit(l.Blobs, s.Height, s.Height-1-len(lines)-2)
	shown := len(rows)
	for i, rows := range rows {
		lines = append(lines, nil)
		lines = append(lines, h.blobLines(l, &l.Blobs[i], width, rows)...)
	}
	switch {
	case len(l.Blobs) == 0:
		lines = append(lines, nil, plain("nothing is under way"))
	case shown < len(l.Blobs):
		lines = append(lines, nil, plain("and %d more blobs", len(l.Blobs)-shown))
	default:
		lines = append(lines, nil)
	}
	if shown > 0 {
		lines = append(lines, legendLine())
	}
	if s.Height > 0 && len(lines) > s.Height-1 {
		lines = lines[:max(1, s.Height-1)]
	}
	out := make([]string, len(lines))
	for i, line := range lines {
		out[i] = line.text(s)
	}
	return out
}

// blobRows is what a blob takes without its neighbours: an empty line and three
// that are not.
const blobRows = 4

// fit says how many blobs go into a number of lines, and how many lines each of
// them has for its neighbours. Where the height is 0 all do.
func fit(blobs []ActiveBlob, height, lines int) []int {
	shown := len(blobs)
	if height > 0 && shown > lines/blobRows {
		lines-- // "and more" takes one
		shown = max(0, min(shown, lines/blobRows))
	}
	rows := make([]int, shown)
	left := lines - blobRows*shown
	for given := true; given; {
		given = false
		for i := range rows {
			if rows[i] < len(blobs[i].Neighbours) && (height == 0 && rows[i] < plainNeighbours || height > 0 && left > 0) {
				rows[i]++
				left--
				given = true
			}
		}
	}
	return rows
}

func (h *History) head(l *Live) []line {
	from := func(count func(l *Live) int64) string {
		return rateText(h.rate(func(l *Live) (int64, bool) { return count(l), true }))
	}
	return []line{
		line{{bold, l.ID}}.add("", "  up %s", seconds(l.UptimeSeconds)),
		plain("%s, %s of clients, who get %s", number(l.Peers, "peer"), number(l.Readers, "request"),
			from(func(l *Live) int64 { return l.Served.Store + l.Served.Peer + l.Served.Origin })),
		plain("%s from peers, %s from origins", from(func(l *Live) int64 { return l.Received.Peer }),
			from(func(l *Live) int64 { return l.Received.Origin })),
	}
}

func legendLine() line {
	var l line
	for i, e := range legend {
		if i > 0 {
			l = l.add("", "  ")
		}
		l = l.add(cellColours[e.cell], "%c", e.cell).add("", " %s", e.text)
	}
	return l.add("", "   * coordinator")
}

func (h *History) blobLines(l *Live, b *ActiveBlob, width, rows int) []line {
	count := func(f func(b *ActiveBlob) int64) float64 { return h.blobRate(b.Digest, f) }
	store := count(func(b *ActiveBlob) int64 { return b.Bytes.Store })
	peers := count(func(b *ActiveBlob) int64 { return b.Bytes.Peer })
	origin := count(func(b *ActiveBlob) int64 { return b.Bytes.Origin })

	head := line{{bold, shortDigest(b.Digest)}}.add("", "  %s  %s", b.sizeText(), b.progressText())
	if b.Size < 0 || b.Have < b.Size {
		head = head.add("", "  %s  ETA %s", rateText(peers+origin), eta(b.Size-b.Have, peers+origin))
	}
	sources := plain("  store %s, peers %s, origin %s", rateText(store), rateText(peers), rateText(origin))
	switch {
	case b.Coordinator == l.ID:
		sources = sources.add("", "; coordinated here")
	case b.OriginReads > 0:
		sources = sources.add("", "; %s", number(b.OriginReads, "origin read"))
	}
	lines := []line{head, bar(b.Cells, width-4), sources}
	return append(lines, h.neighbourLines(b, peers, rows)...)
}

// bar shows cells in a width, larger or smaller than their number.
func bar(cells string, width int) line {
	l := plain("  [")
	width = max(1, width)
	if len(cells) == 0 {
		return l.add("", "%*s]", width, "")
	}
	drawn := Cells(len(cells), width, func(i int) Cell { return Cell(cells[i]) })
	for i := 0; i < width; {
		c := drawn[i*len(drawn)/width]
		end := i
		for end < width && drawn[end*len(drawn)/width] == c {
			end++
		}
		l = l.add(cellColours[Cell(c)], "%s", strings.Repeat(string(rune(c)), end-i))
		i = end
	}
	return l.add("", "]")
}

// neighbourLines shows the neighbours of a blob, the fastest first, in at most so
// many lines.
func (h *History) neighbourLines(b *ActiveBlob, total float64, rows int) []line {
	type row struct {
		Neighbour
		rate float64
	}
	all := make([]row, len(b.Neighbours))
	for i, n := range b.Neighbours {
		all[i] = row{n, h.peerRate(b.Digest, n.ID)}
	}
	slices.SortStableFunc(all, func(x, y row) int {
		return cmp.Or(cmp.Compare(y.rate, x.rate), cmp.Compare(y.Bytes, x.Bytes), cmp.Compare(y.Chunks, x.Chunks), strings.Compare(x.ID, y.ID))
	})
	shown := min(len(all), max(0, rows))
	if shown < len(all) && shown > 0 {
		shown--
	}
	var lines []line
	for _, n := range all[:shown] {
		mark, share := " ", "-"
		if n.ID == b.Coordinator {
			mark = "*"
		}
		if total > 0 {
			share = fmt.Sprintf("%.0f%%", 100*min(1, n.rate/total))
		}
		l := plain("  %s %s  %5d of %d chunks  %12s  %4s", mark, shortID(n.ID), n.Chunks, b.Chunks, rateText(n.rate), share)
		if n.Transfers > 0 {
			l = l.add("", "  %d under way", n.Transfers)
		}
		lines = append(lines, l)
	}
	if rows > 0 && shown < len(all) {
		lines = append(lines, plain("    and %d more", len(all)-shown))
	}
	return lines
}

// sizeText, progressText and eta say "-" for what is not known.
func (b *ActiveBlob) sizeText() string {
	if b.Size < 0 {
		return "-"
	}
	return config.FormatSize(b.Size)
}

func (b *ActiveBlob) progressText() string {
	switch {
	case b.Proven:
		return "proven"
	case b.Size < 0:
		return "-"
	case b.Have >= b.Size:
		return "checking"
	case !b.Wanted && b.Have == 0:
		return "for others"
	}
	return fmt.Sprintf("%d%%", 100*b.Have/b.Size)
}

func eta(bytes int64, rate float64) string {
	if bytes < 0 || rate <= 0 {
		return "-"
	}
	left := float64(bytes) / rate
	if left > 99*3600 {
		return "-"
	}
	return seconds(left)
}

func rateText(rate float64) string { return config.FormatSize(int64(rate)) + "/s" }

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

func number(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// shortDigest is the algorithm and the first 12 digits.
func shortDigest(d string) string {
	algorithm, hex, _ := strings.Cut(d, ":")
	return algorithm + ":" + firstRunes(hex, 12)
}

// shortID is the end of a peer ID: they all begin alike.
func shortID(id string) string { return id[max(0, len(id)-10):] }
