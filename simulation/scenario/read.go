package scenario

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// setter is a value that is read from a single word.
type setter interface{ set(text string) error }

// lister is a value that may also be a list; it gives where that goes.
type lister interface{ items() any }

// joiner is a value that may also be a list, whose items mean the same as one
// text with commas.
type joiner interface{ joins() }

// Error is one thing that is wrong with a file.
type Error struct {
	File         string
	Line, Column int
	Key, What    string
}

func (e *Error) Error() string {
	key := e.Key
	if key != "" {
		key += ": "
	}
	return fmt.Sprintf("%s:%d:%d: %s%s", e.File, e.Line, e.Column, key, e.What)
}

// Errors is all that is wrong with a file, in its order.
type Errors []*Error

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives them one by one.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// maxErrors is how many are told: who has more has another kind of file.
const maxErrors = 50

// reader fills a Scenario from a YAML document. It walks the document itself, rather
// than have it decoded, so that all errors are found, with their places, and that values are
// read exactly.
type reader struct {
	file string
	at   map[string]place
	errs Errors
}

func (r *reader) fail(p place, path, format string, args ...any) {
	if len(r.errs) < 10*maxErrors {
		r.errs = append(r.errs, &Error{File: r.file, Line: p.line, Column: p.column, Key: path, What: fmt.Sprintf(format, args...)})
	}
}

// err is all errors by their place, or nil.
func (r *reader) err() error {
	if len(r.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(r.errs, func(a, b *Error) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
	return r.errs[:min(len(r.errs), maxErrors)]
}

func placeOf(n ast.Node) place {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return place{t.Position.Line, t.Position.Column}
	}
	return place{1, 1}
}

// read fills v, which is addressable, from n; without n, or with an empty one, with its
// defaults.
func (r *reader) read(path string, n ast.Node, v reflect.Value) {
	if n != nil && n.Type() == ast.NullType {
		n = nil // "faults:" without a value
	}
	if n == nil {
		r.standard(path, v)
		return
	}
	value := v.Addr().Interface()
	switch typed := n.(type) {
	case *ast.SequenceNode:
		if l, ok := value.(lister); ok {
			r.list(path, typed, reflect.ValueOf(l.items()).Elem())
			return
		}
		if _, ok := value.(joiner); ok {
			r.join(path, typed, value.(setter))
			return
		}
		if v.Kind() != reflect.Slice {
			r.fail(placeOf(n), path, "a list is not possible here")
			return
		}
		r.list(path, typed, v)
	case ast.MapNode:
		if v.Kind() != reflect.Struct || fields(v.Type()) == nil {
			what := "keys and values are not possible here"
			if v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct {
				what = "a list belongs here; begin each item with a dash"
			}
			r.fail(placeOf(n), path, "%s", what)
			return
		}
		r.mapping(path, typed, v)
	default:
		text, ok := r.word(path, n)
		if !ok {
			return
		}
		if err := setWord(v, text); err != nil {
			r.fail(placeOf(n), path, "%v", err)
		}
	}
}

// standard fills v with its default, and what it is made of with theirs.
func (r *reader) standard(path string, v reflect.Value) {
	text := standards[plain(path)]
	if text == "" {
		if v.Kind() == reflect.Struct {
			r.mapping(path, nil, v)
		}
		return
	}
	if err := setWord(v, text); err != nil {
		panic(fmt.Sprintf("the default of %s: %v", path, err)) // a test reads all of them
	}
}

// defaults fills all of s with defaults.
func (r *reader) defaults(s *Scenario) { r.mapping("", nil, reflect.ValueOf(s).Elem()) }

// setWord reads a single word. For a list it is its items, with commas between them.
func setWord(v reflect.Value, text string) error {
	if s, ok := v.Addr().Interface().(setter); ok {
		return s.set(text)
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		return nil
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(text == "true")
		return nil
	case reflect.Slice:
		for _, word := range strings.Split(text, ",") {
			item := reflect.New(v.Type().Elem()).Elem()
			if item.Kind() == reflect.Struct {
				return fmt.Errorf("%q is not a list; begin each item with a dash", text)
			}
			if err := setWord(item, strings.TrimSpace(word)); err != nil {
				return err
			}
			v.Set(reflect.Append(v, item))
		}
		return nil
	}
	return fmt.Errorf("%q stands where keys and values belong: %s", text, strings.Join(fields(v.Type()), ", "))
}

func (r *reader) list(path string, n *ast.SequenceNode, v reflect.Value) {
	v.Set(reflect.MakeSlice(v.Type(), len(n.Values), len(n.Values)))
	for i, item := range n.Values {
		p := fmt.Sprintf("%s[%d]", path, i)
		r.at[p] = placeOf(item)
		if m, ok := item.(ast.MapNode); ok {
			if it := m.MapRange(); it.Next() {
				r.at[p] = placeOf(it.Key())
			}
		}
		if item.Type() == ast.NullType {
			if i < len(n.Entries) && n.Entries[i].Start != nil { // an empty item has no place of its own
				r.at[p] = place{n.Entries[i].Start.Position.Line, n.Entries[i].Start.Position.Column}
			}
			r.fail(r.at[p], p, "is empty")
			continue
		}
		r.read(p, item, v.Index(i))
	}
}

func (r *reader) join(path string, n *ast.SequenceNode, v setter) {
	words := make([]string, len(n.Values))
	for i, item := range n.Values {
		var ok bool
		if words[i], ok = r.word(fmt.Sprintf("%s[%d]", path, i), item); !ok {
			return
		}
	}
	if err := v.set(strings.Join(words, ",")); err != nil {
		r.fail(placeOf(n), path, "%v", err)
	}
}

func (r *reader) mapping(path string, n ast.MapNode, v reflect.Value) {
	known := fields(v.Type())
	if n != nil {
		for it := n.MapRange(); it.Next(); {
			k := it.Key()
			name := k.GetToken().Value
			sub := join(path, name)
			at := placeOf(k)
			_, twice := r.at[sub]
			i := slices.Index(known, name)
			switch {
			case k.Type() == ast.MergeKeyType:
				r.fail(at, path, "merge keys are not supported")
			case i < 0:
				r.fail(at, sub, "unknown key%s", perhaps(path, name, known))
			case twice:
				r.fail(at, sub, "is given twice, first in line %d", r.at[sub].line)
			default:
				r.at[sub] = at
				r.read(sub, it.Value(), v.FieldByIndex(fieldIndex(v.Type(), i)))
			}
		}
	}
	for i, name := range known {
		if sub := join(path, name); !r.given(sub) {
			r.read(sub, nil, v.FieldByIndex(fieldIndex(v.Type(), i)))
		}
	}
}

func (r *reader) given(path string) bool {
	_, ok := r.at[path]
	return ok
}

// word is a scalar as it stands in the file: numbers are not yet read, so that they are never
// floats.
func (r *reader) word(path string, n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		r.fail(placeOf(n), path, "anchors, aliases and tags are not supported")
	default:
		r.fail(placeOf(n), path, "a single value belongs here")
	}
	return "", false
}

// fields are the keys that a struct stands for, in its order.
func fields(t reflect.Type) []string {
	if t.Kind() != reflect.Struct {
		return nil
	}
	var names []string
	for i := range t.NumField() {
		if f := t.Field(i); f.IsExported() {
			names = append(names, keyName(f.Name))
		}
	}
	return names
}

// fieldIndex is the i-th exported field.
func fieldIndex(t reflect.Type, i int) []int {
	for j := range t.NumField() {
		if f := t.Field(j); f.IsExported() {
			if i--; i < 0 {
				return f.Index
			}
		}
	}
	return nil
}

// keyName is NodeMemory as node_memory, and DHT as dht.
func keyName(field string) string {
	var b strings.Builder
	small := false
	for _, c := range field {
		upper := c >= 'A' && c <= 'Z'
		if upper && small {
			b.WriteByte('_')
		}
		small = !upper
		b.WriteRune(c)
	}
	return strings.ToLower(b.String())
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// plain is faults[2].nodes as faults[].nodes.
func plain(path string) string {
	var b strings.Builder
	skip := false
	for _, c := range path {
		skip = skip && c != ']'
		if !skip {
			b.WriteRune(c)
		}
		skip = skip || c == '['
	}
	return b.String()
}

// perhaps says what may be meant by an unknown key.
func perhaps(path, name string, known []string) string {
	best, dist := "", 3
	for _, k := range known {
		if d := Distance(name, k); d < dist {
			best, dist = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("; perhaps %q is meant", join(path, best))
	}
	for _, k := range keys {
		if at := strings.LastIndexByte(k.path, '.'); k.path[at+1:] == name && k.path != plain(join(path, name)) {
			return fmt.Sprintf("; perhaps %q is meant", k.path)
		}
	}
	return "; these belong here: " + strings.Join(known, ", ")
}
