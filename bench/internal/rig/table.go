package rig

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// Table is a table for people.
type Table struct {
	title string
	rows  [][]string
	notes []string
}

// NewTable returns a table with a title and the names of its columns.
func NewTable(title string, columns ...string) *Table {
	return &Table{title: title, rows: [][]string{columns}}
}

// Row adds a row; numbers with a fraction are given three digits that count.
func (t *Table) Row(cells ...any) {
	var row []string
	for _, c := range cells {
		if f, ok := c.(float64); ok {
			row = append(row, number(f))
			continue
		}
		row = append(row, fmt.Sprint(c))
	}
	t.rows = append(t.rows, row)
}

func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	case f >= 1:
		return fmt.Sprintf("%.2f", f)
	}
	return fmt.Sprintf("%.3f", f)
}

// Note adds a line below the table.
func (t *Table) Note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, t.title)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		fmt.Fprintf(w, "  %s\n", strings.Join(row, "\t"))
	}
	w.Flush()
	for _, n := range t.notes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	return b.String()
}

// Median returns the middle of the values, 0 of none.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile returns the value below which the part q of the values lies,
// interpolated, 0 of none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 == len(s) {
		return s[i]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

// Column collects one field of many measurements.
func Column[T any](list []T, field func(T) float64) []float64 {
	var out []float64
	for _, v := range list {
		out = append(out, field(v))
	}
	return out
}

// Verdict says whether a goal is met.
func Verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}
