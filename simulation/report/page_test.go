package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/peercache/peercache/simulation/scenario"
)

func runHTML(t *testing.T, r *Report) string {
	t.Helper()
	var buf bytes.Buffer
	if err := r.HTML(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// walk calls f for each element of a page.
func walk(n *html.Node, f func(*html.Node)) {
	if n.Type == html.ElementNode {
		f(n)
	}
	for c := range n.ChildNodes() {
		walk(c, f)
	}
}

// checkPage fails for a page that is not well-formed where it should be, or that needs
// anything from elsewhere.
func checkPage(t *testing.T, page string) (figures int) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	walk(doc, func(n *html.Node) {
		switch n.Data {
		case "script", "link", "iframe", "object", "embed", "img", "image", "base", "use", "foreignObject":
			t.Errorf("the page has an element %s", n.Data)
		}
		for _, a := range n.Attr {
			if strings.HasPrefix(a.Key, "on") || strings.HasPrefix(a.Key, "xmlns") {
				if strings.HasPrefix(a.Key, "on") {
					t.Errorf("the page has an attribute %s", a.Key)
				}
				continue
			}
			if strings.Contains(a.Val, "//") || strings.Contains(a.Val, "url(") {
				t.Errorf("%s %s refers to %q", n.Data, a.Key, a.Val)
			}
		}
	})
	for _, bad := range []string{"@import", "url(", "NaN", "ZgotmplZ", "Inf"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %s", bad)
		}
	}
	for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1) {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("an SVG is not well-formed: %v", err)
			}
		}
		if strings.Contains(svg, `role="img"`) {
			figures++
			if !strings.Contains(svg, "var(--text)") || strings.Contains(svg, "#000000") || strings.Contains(svg, "Liberation") {
				t.Error("a plot has colours or a font of its own")
			}
		}
	}
	return figures
}

// The page is whole, refers to nothing elsewhere, and says what the report says.
func TestPage(t *testing.T) {
	run, res := sample(50)
	page := runHTML(t, New(run, res, about))
	if n := checkPage(t, page); n != 6 {
		t.Errorf("%d plots, want 6", n)
	}
	for _, want := range []string{"<title>sample</title>", "What does a rollout cost?", "Everything is as the scenario demands.", "1.0100 copies",
		"time since the start (s)", "received (GiB)", "sent (MiB)", "of capacity (%)", "the scenario&#39;s limit", "paid zone links",
		"Over paid links", "The optimum, T*, is what the best schedule known would take", "wrong-bytes", "nodes 1-3, for good", "connections are refused", "100 manifests in 6 h", "peercache simulate sample --seed 7", "commit 0123abcd", "000000000000feed"} {
		if !strings.Contains(strings.ReplaceAll(page, "\u00a0", " "), want) {
			t.Errorf("the page does not hold %q", want)
		}
	}
	var all []*Report
	for seed := range uint64(4) {
		run, res := sample(10)
		run.Seed = seed
		all = append(all, New(run, res, about).Short())
	}
	var buf bytes.Buffer
	if err := Summarise(all, nil, 4, "peercache simulate sample --seeds 0..3").HTML(&buf, func(uint64) string { return "seed-1/report.html" }); err != nil {
		t.Fatal(err)
	}
	if n := checkPage(t, buf.String()); n != 2 {
		t.Errorf("%d plots of all seeds, want 2", n)
	}
	if strings.Count(buf.String(), whatOptimum) != 1 {
		t.Error("the page of all seeds does not say what the optimum is")
	}
}

// The optimum counts from the first client's start. Drawn from the run's start on it would lie to
// the left of where anything can be.
func TestOptimumInThePlot(t *testing.T) {
	run, res := sample(10)
	r := New(run, res, about)
	if got := r.optimumAt(); got != 45 {
		t.Errorf("%v s, want 45", got)
	}
	for i := range run.Pulls {
		run.Pulls[i].At += 30 * time.Second
	}
	if got := New(run, res, about).optimumAt(); got != 75 {
		t.Errorf("%v s, want 75", got)
	}
	r.MakespanRatio = nil
	if got := r.optimumAt(); got != 0 {
		t.Errorf("%v s where it says nothing", got)
	}
}

// Names come from files that others wrote.
func TestPageEscapes(t *testing.T) {
	run, res := sample(10)
	const evil = `</title><script>alert(1)</script>"'&<img src=//x.test/y onerror=z>`
	run.Name, run.Zones[0].Name, run.Images[0].Name = evil, evil, evil
	res.Invariants[0].First, res.Invariants[0].Violations = evil, 1
	res.Pulls[3].Done, res.Pulls[3].Status = 0, 500
	a := about
	a.Description, a.Command = evil, evil
	page := runHTML(t, New(run, res, a))
	checkPage(t, page)
	if strings.Contains(page, "<script") || strings.Contains(page, "<img") {
		t.Error("what a scenario says became a part of the page")
	}
}

// A run of any length has an axis that people can read.
func TestAxes(t *testing.T) {
	for _, tc := range []struct {
		axis  axis
		label string
	}{
		{timeAxis("t", 0.02), "t (s)"}, {timeAxis("t", 47), "t (s)"}, {timeAxis("t", 400), "t (min)"}, {timeAxis("t", 7000), "t (min)"}, {timeAxis("t", 90000), "t (h)"},
		{byteAxis("b", 900), "b (B)"}, {byteAxis("b", 3<<20), "b (MiB)"}, {byteAxis("b", 2.5e12), "b (TiB)"}, {shareAxis("s", 1.02), "s (%)"}, {shareAxis("s", 0.003), "s (%)"},
		{logTimeAxis("t", 0.03, 300), "t (s)"}, {logTimeAxis("t", 2, 90), "t (s)"},
	} {
		if tc.axis.label != tc.label {
			t.Errorf("to %g: label %q, want %q", tc.axis.max, tc.axis.label, tc.label)
		}
		labels := map[string]bool{}
		for _, k := range tc.axis.Ticks(tc.axis.min, tc.axis.max) {
			if k.Value < tc.axis.min*(1-1e-6) || k.Value > tc.axis.max*(1+1e-6) {
				t.Errorf("%s to %g: a mark at %g", tc.label, tc.axis.max, k.Value)
			}
			if k.Label != "" {
				labels[k.Label] = true
			}
		}
		if n := len(labels); n < 3 || n > 9 || labels["-0"] {
			t.Errorf("%s to %g: labels %v", tc.label, tc.axis.max, labels)
		}
	}
}

// People's terminals have 80 columns.
func TestTable(t *testing.T) {
	run, res := sample(100)
	run.Name = "a-scenario-with-a-name-that-goes-on-and-on-and-on-for-no-reason-at-all"
	res.Invariants[0].Violations, res.Invariants[0].First = 3, strings.Repeat("a long story ", 20)
	r := New(run, res, about)
	var buf bytes.Buffer
	if err := r.Table(&buf); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(buf.String()) {
		if n := utf8.RuneCountInString(strings.TrimSpace(line)); n > width {
			t.Errorf("a line of %d characters: %s", n, line)
		}
	}
	for _, want := range []string{"Again: peercache simulate sample --seed 7", "BROKEN", "1.0100 copies", "99 of 100 pulls were served"} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("the table does not hold %q:\n%s", want, buf.String())
		}
	}
	if n := utf8.RuneCountInString(r.SeedRow()); n > width || utf8.RuneCountInString(SeedHeader()) > width {
		t.Errorf("a row of %d characters", n)
	}
}

func TestWords(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{size(0), "0 B"}, {size(1023), "1023 B"}, {size(10 << 30), "10.0 GiB"}, {size(999 << 20), "999 MiB"}, {size(1000 << 20), "0.98 GiB"},
		{rate(125_000_000), "1 Gbit/s"}, {rate(6_250_000), "50 Mbit/s"}, {rate(12), "96 bit/s"}, {rate(312_500_000), "2.5 Gbit/s"}, {rate(100 * 125_000_000), "100 Gbit/s"},
		{duration(0), "0 s"}, {duration(1500 * time.Nanosecond), "1.50 µs"}, {duration(99 * time.Millisecond), "99.0 ms"}, {duration(61 * time.Second), "61.0 s"},
		{duration(125 * time.Second), "2 min 5 s"}, {duration(24 * time.Hour), "24 h"}, {duration(100 * time.Hour), "4 d 4 h"}, {duration(-time.Second), "-1.00 s"},
		{count(1234567), "1,234,567"}, {count(-1234), "-1,234"}, {count(12), "12"}, {few(1_234_567), "1.23 M"}, {few(12_345), "12,300"}, {few(7.5), "7.50"}, {few(7), "7"},
		{percent(10_000), "1 %"}, {percent(12_345), "1.2345 %"},
		{nodeList([]int{4}), "node 4"}, {nodeList([]int{1, 2, 3}), "nodes 1-3"}, {nodeList([]int{1, 3, 5, 6}), "nodes 1, 3, 5-6 (4)"},
		{nodeList([]int{1, 3, 5, 7, 9, 11, 13, 15, 17}), "9 nodes (1, 3, 5, 7, 9, 11, …)"},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}

// Each fault is told in words.
func TestFaultsInWords(t *testing.T) {
	for _, f := range []scenario.Fault{
		{Kind: scenario.Crash, Nodes: []int{1}, Restart: time.Second}, {Kind: scenario.Crash, Role: scenario.Coordinator}, {Kind: scenario.Drain, Nodes: []int{1}, Notice: time.Second},
		{Kind: scenario.Partition, Nodes: []int{1}, OneWay: true}, {Kind: scenario.Offline, Nodes: []int{1}}, {Kind: scenario.Loss, Nodes: []int{1}, Part: 10_000},
		{Kind: scenario.SlowNIC, Nodes: []int{1}, Rate: 1e6}, {Kind: scenario.SlowDisk, Nodes: []int{1}, Rate: 1e6}, {Kind: scenario.SlowNode, Nodes: []int{1}, Delay: time.Second},
		{Kind: scenario.ClockSkew, Nodes: []int{1}, Delay: time.Second, Part: 5}, {Kind: scenario.OriginThrottle, Delay: time.Second}, {Kind: scenario.OriginError, Status: 503, Nodes: []int{4}},
		{Kind: scenario.OriginReset, Part: 500_000}, {Kind: scenario.OriginStall}, {Kind: scenario.ExpiredToken}, {Kind: scenario.StaleDHT}, {Kind: scenario.StaleDHT, Nodes: []int{7}}, {Kind: scenario.Rot, Nodes: []int{2}, Part: 5},
	} {
		if text := describe(&f); len(text) < 3 || strings.Contains(text, "no node") {
			t.Errorf("%s: %q", f.Kind, text)
		} else if len(f.Nodes) > 0 && !strings.Contains(text, nodeList(f.Nodes)) {
			t.Errorf("%s: %q does not say whom it befalls", f.Kind, text)
		}
	}
}
