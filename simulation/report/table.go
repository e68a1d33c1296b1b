package report

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/peercache/peercache/simulation"
)

// width is that of the terminal that tables are made for.
const width = 80

// Table writes the report for people: the answers first, in 80 columns.
func (r *Report) Table(w io.Writer) error {
	t := &table{w: w, label: 13}
	t.title(r.headline())
	if r.Partial {
		t.row("INTERRUPTED", fmt.Sprintf("after %s of virtual time; this is what happened so far", duration(wall(r.Virtual))))
	}
	t.row("verdict", r.verdict())
	t.blank()
	t.row("how long", r.howLong())
	t.row("first byte", times(r.FirstByte))
	t.row("registry", r.registryText())
	if n := r.LinkBytes[simulation.PaidUplink.String()]; n > 0 {
		t.row("paid links", fmt.Sprintf("%s, %s the distinct content", size(n), times100(n, r.UniqueBytes)))
	}
	t.row("nodes got", fmt.Sprintf("%s from peers, %s from the registry, %s in vain; %s were served from stores",
		size(r.PeerBytes), size(r.res.OriginDelivered), size(r.CutBytes), size(r.StoreBytes)))
	t.row("clients", r.clientsText())
	t.row("invariants", r.invariantsText())
	for _, n := range r.Notes {
		t.row("note", n)
	}
	t.blank()
	t.row("links", r.linksText())
	t.row("messages", r.messagesText())
	t.row("mechanisms", r.mechanismsText())
	t.row("simulated", fmt.Sprintf("%s events in %s, %s a second; trace %s",
		few(float64(r.Events)), duration(wall(r.Wall)), few(r.EventsPerSecond), r.TraceHash))
	if len(r.Problems) > 0 {
		t.blank()
		for _, p := range r.Problems {
			t.row("BROKEN", p)
		}
		t.line("Again: " + r.Command)
	}
	return t.err
}

// headline says what was simulated in a line.
func (r *Report) headline() string {
	what := "nothing"
	if n := len(r.Configuration.Images); n > 0 {
		what = fmt.Sprintf("%s, %s", plural(n, "image", "images"), size(r.Configuration.BlobBytes))
	}
	text := fmt.Sprintf("%s: %s, %s of %s", r.Scenario, plural(r.Nodes, "node", "nodes"), plural(r.Pulls.Total, "pull", "pulls"), what)
	if n := len(r.Faults); n > 0 {
		text += ", " + plural(n, "fault", "faults")
	}
	return fmt.Sprintf("%s, seed %d", text, r.Seed)
}

func (r *Report) verdict() string {
	switch {
	case !r.OK:
		return plural(len(r.Problems), "thing is", "things are") + " not as demanded, see below"
	case r.Partial:
		return "nothing was broken before it was interrupted"
	}
	return "everything is as demanded"
}

func (r *Report) howLong() string {
	text := times(r.Completion)
	if r.Makespan > 0 && !r.Partial {
		text += "; all were done after " + duration(r.res.Makespan)
		if r.MakespanRatio != nil {
			text += fmt.Sprintf(" (%.3f times the optimum, %s)", *r.MakespanRatio, duration(r.res.Optimum))
		} else {
			text += fmt.Sprintf("; the last one began after %s", duration(r.lastStart()))
		}
	}
	return text
}

func (r *Report) registryText() string {
	text := fmt.Sprintf("sent %s for %s of distinct content", size(r.OriginBytes), size(r.UniqueBytes))
	if r.OriginEgressRatio != nil {
		text += fmt.Sprintf(" (%.4f copies)", *r.OriginEgressRatio)
	}
	if r.WithoutBytes > r.OriginBytes {
		text += fmt.Sprintf(", %s without Peercache", size(r.WithoutBytes))
	}
	text += fmt.Sprintf("; answered %s, %s of them for manifests", plural(r.OriginRequests, "request", "requests"), count(r.OriginManifestRequests))
	if r.OriginThrottled > 0 {
		text += fmt.Sprintf("; %s of them with 429", count(r.OriginThrottled))
	}
	return text
}

func (r *Report) clientsText() string {
	text := fmt.Sprintf("%s of %s were served", count(r.Pulls.Complete), plural(r.Pulls.Total, "pull", "pulls"))
	if n := r.Pulls.Excused; n > 0 {
		text += fmt.Sprintf("; %s ended with their nodes", count(n))
	}
	if n := r.Pulls.Refused; n > 0 {
		text += fmt.Sprintf("; %s were refused, as their nodes have no access", count(n))
	}
	if n := r.Pulls.Unfinished; n > 0 {
		text += fmt.Sprintf("; %s were under way", count(n))
	}
	if n := r.Pulls.Unserved; n > 0 {
		text += fmt.Sprintf("; %s were NOT", count(n))
	}
	if n := r.Pulls.Failures; n > 0 {
		text += fmt.Sprintf("; errors that clients met: %s", count(n))
	}
	return text
}

func (r *Report) invariantsText() string {
	var checks, violations int64
	var broken []string
	for _, name := range r.invariantNames() {
		i := r.Invariants[name]
		checks += i.Checks
		if violations += i.Violations; i.Violations > 0 {
			broken = append(broken, name)
		}
	}
	if len(r.Invariants) == 0 {
		return "none were checked"
	}
	text := fmt.Sprintf("%s, checked %s times: ", plural(len(r.Invariants), "rule", "rules"), few(float64(checks)))
	if violations == 0 {
		return text + "none was broken"
	}
	return text + fmt.Sprintf("BROKEN %s: %s", plural(violations, "time", "times"), strings.Join(broken, ", "))
}

func (r *Report) linksText() string {
	var parts []string
	for class := range simulation.LinkClasses {
		if n := r.LinkBytes[class.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", class, size(n)))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing was sent")
}

func (r *Report) messagesText() string {
	names := byCount(r.Messages)
	var parts []string
	for _, name := range names[:min(len(names), 5)] {
		if n := r.Messages[name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", name, few(float64(n)/float64(max(r.Nodes, 1)))))
		}
	}
	return fmt.Sprintf("%s a node: %s", few(r.MessagesPerNode), cmp.Or(strings.Join(parts, ", "), "none"))
}

// byCount lists keys, those with the most first.
func byCount(m map[string]int64) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	return names
}

func (r *Report) mechanismsText() string {
	var parts []string
	for _, name := range mechanismNames {
		parts = append(parts, fmt.Sprintf("%s %s", name, count(r.Mechanisms[name])))
	}
	return strings.Join(parts, ", ")
}

func times(d Distribution) string {
	if d.Count == 0 {
		return "no client got that far"
	}
	return fmt.Sprintf("p50 %s, p99 %s, max %s", duration(wall(d.P50)), duration(wall(d.P99)), duration(wall(d.Max)))
}

// times100 is how many times b goes into a.
func times100(a, b int64) string {
	if b <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f times", float64(a)/float64(b))
}

func wall(s float64) time.Duration { return time.Duration(s * 1e9) }

// table writes lines of a label and a text that is folded beside it.
type table struct {
	w     io.Writer
	label int
	err   error
}

func (t *table) line(text string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, strings.TrimRight(text, " "))
	}
}

func (t *table) blank() { t.line("") }

// title is a text without a label.
func (t *table) title(text string) {
	for _, l := range fold(text, width) {
		t.line(l)
	}
}

func (t *table) row(label, text string) {
	for i, l := range fold(text, width-t.label) {
		if i > 0 {
			label = ""
		}
		t.line(fmt.Sprintf("%-*s%s", t.label, label, l))
	}
}

// Indented is a text in lines of a terminal's width, each after n spaces.
func Indented(text string, n int) string {
	var b strings.Builder
	for _, l := range fold(text, width-n) {
		fmt.Fprintf(&b, "%*s%s\n", n, "", l)
	}
	return b.String()
}

// fold breaks a text at its spaces into lines of n characters, where it has any.
func fold(text string, n int) []string {
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(text) {
		length := len([]rune(word))
		switch {
		case used == 0:
			line, used = word, length
		case used+1+length > n:
			lines = append(lines, line)
			line, used = word, length
		default:
			line, used = line+" "+word, used+1+length
		}
	}
	return append(lines, line)
}
