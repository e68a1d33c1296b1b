package scenario

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// selector names nodes: terms with commas between them, each of which is
//
//	all          every node
//	3, 0-4       by number
//	30%, 1/50    a part of the nodes, drawn, at least one
//	3 random     a number of nodes, drawn
//	zone NAME    those of a zone
//	rack NAME/K  those of the K-th rack of a zone, from 0
//
// and may be followed by "of zone NAME" or "of rack NAME/K".
type selector struct {
	text  string
	terms []term
}

type term struct {
	kind   termKind
	lo, hi int64 // numbers; lo: how many, or parts in a million
	zone   string
	rack   int64 // -1 all
}

type termKind uint8

const (
	termAll termKind = iota
	termNumbers
	termPart
	termSome
)

func (*selector) joins() {}

func (s *selector) set(text string) error {
	*s = selector{text: text}
	for _, word := range strings.Split(text, ",") {
		t, err := parseTerm(strings.Join(strings.Fields(word), " "))
		if err != nil {
			return err
		}
		s.terms = append(s.terms, t)
	}
	return nil
}

// Terms are nodes, ascending, as a selector names them by number: 1-3, 7.
func Terms(nodes []int) (terms []string) {
	for i := 0; i < len(nodes); {
		k := i
		for k+1 < len(nodes) && nodes[k+1] == nodes[k]+1 {
			k++
		}
		term := strconv.Itoa(nodes[i])
		if k > i {
			term += "-" + strconv.Itoa(nodes[k])
		}
		terms, i = append(terms, term), k+1
	}
	return terms
}

func parseTerm(text string) (term, error) {
	fail := fmt.Errorf("%q does not name nodes; it may be such as all, 3, 0-4, 30%%, 3 random, zone NAME, rack NAME/0, 30%% of zone NAME", text)
	t := term{rack: -1}
	what, of, is := strings.Cut(text, " of ")
	switch {
	case is:
		if !t.place(of) {
			return t, fail
		}
	case t.place(what):
		return t, nil
	}
	if what == "all" {
		return t, nil
	}
	var a, b count
	if number, is := strings.CutSuffix(what, " random"); is {
		t.kind = termSome
		if a.set(number) != nil || a == 0 {
			return t, fail
		}
		t.lo = int64(a)
		return t, nil
	}
	if strings.ContainsAny(what, "%/") {
		t.kind = termPart
		n, ok := fraction(what, whole)
		if !ok || n == 0 {
			return t, fail
		}
		t.lo = n
		return t, nil
	}
	lo, hi, span := strings.Cut(what, "-")
	if !span {
		hi = lo
	}
	if is || a.set(strings.TrimSpace(lo)) != nil || b.set(strings.TrimSpace(hi)) != nil || b < a {
		return t, fail
	}
	t.kind, t.lo, t.hi = termNumbers, int64(a), int64(b)
	return t, nil
}

// place reads "zone NAME" and "rack NAME/K".
func (t *term) place(text string) bool {
	if name, is := strings.CutPrefix(text, "zone "); is {
		t.zone = name
		return name != ""
	}
	if name, is := strings.CutPrefix(text, "rack "); is {
		zone, rack, slash := strings.Cut(name, "/")
		k, err := strconv.ParseUint(rack, 10, 30)
		t.zone, t.rack = zone, int64(k) // 30 bits
		return slash && err == nil && zone != ""
	}
	return false
}

// drawn says whether the seed decides who is meant.
func (s *selector) drawn() bool {
	return slices.ContainsFunc(s.terms, func(t term) bool { return t.kind == termPart || t.kind == termSome })
}

// pick is who is meant, ascending. there says who may be meant, and is the whole that
// parts are of, free who may be drawn. Numbers beyond the last node are left out.
func (s *selector) pick(l *layout, rng *rand.Rand, there, free func(node int) bool) []int {
	chosen := make([]bool, len(l.zone))
	var pool []int
	for i := range s.terms {
		t := &s.terms[i]
		pool = pool[:0]
		if t.kind == termNumbers {
			for n := t.lo; n <= min(t.hi, int64(len(l.zone))-1); n++ {
				pool = append(pool, int(n))
			}
		} else {
			pool = l.members(t, pool)
		}
		pool = slices.DeleteFunc(pool, func(n int) bool { return !there(n) })
		if t.kind == termPart || t.kind == termSome {
			k := int(t.lo)
			if t.kind == termPart {
				k = max(int((int64(len(pool))*t.lo+whole/2)/whole), 1)
			}
			pool = slices.DeleteFunc(pool, func(n int) bool { return !free(n) })
			k = min(k, len(pool))
			for j := range k { // Fisher and Yates, the first k
				o := j + rng.IntN(len(pool)-j)
				pool[j], pool[o] = pool[o], pool[j]
			}
			pool = pool[:k]
		}
		for _, n := range pool {
			chosen[n] = true
		}
	}
	var nodes []int
	for n, yes := range chosen {
		if yes {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

func (v *amount) set(text string) error {
	if text == "all" {
		*v = amount{}
		return nil
	}
	if strings.ContainsAny(text, "%/") {
		if n, ok := fraction(text, whole); ok && n > 0 {
			*v = amount{n: n, part: true}
			return nil
		}
	} else {
		var n count
		if n.set(text) == nil && n > 0 {
			*v = amount{n: int64(n)}
			return nil
		}
	}
	return fmt.Errorf("%q is not a number of nodes, from 1 on, and not a part of them such as 10%%", text)
}

// of is how many of n nodes it is: at least one, and at most n.
func (v amount) of(n int) int {
	switch {
	case v.n == 0:
		return n
	case v.part:
		return max(int((int64(n)*v.n+whole/2)/whole), min(n, 1))
	}
	return int(min(v.n, int64(n)))
}

func (v *zones) set(text string) error {
	var n count
	if err := n.set(text); err != nil || n < 1 || n > maxZones {
		return fmt.Errorf("%q is not a list of zones, nor their number from 1 to %d", text, maxZones)
	}
	*v = make(zones, n)
	for i := range *v {
		(*v)[i].Name = "zone-" + strconv.Itoa(i)
	}
	return nil
}

func (v *layers) set(text string) error {
	v.Count = 1
	return v.Size.set(text)
}

func (v *layers) items() any { return &v.list }
