package scenario

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile bounds a file, in bytes (the YAML parser takes time with the square of the keys of a
// mapping), and maxDepth how deep brackets and indentation may nest in
// it: the parser goes down with them.
const (
	maxFile  = 64 << 10
	maxDepth = 100
)

// Parse reads a scenario and checks it. file is its name, for messages. The
// error is an [Errors]: all that is wrong, each with line, column and key, save where
// the text is no YAML at all. What Parse accepts, [Scenario.Expand] expands with
// every seed.
func Parse(file string, data []byte) (*Scenario, error) {
	r := &reader{file: file, at: map[string]place{}}
	s := &Scenario{file: file, at: r.at}
	body, err := r.document(data)
	if err != nil {
		return nil, err
	}
	if body == nil {
		r.fail(place{1, 1}, "", "the file is empty; it needs topology and images")
		return nil, r.err()
	}
	if _, ok := body.(ast.MapNode); !ok {
		r.fail(placeOf(body), "", "the file must hold keys and values, such as topology and images")
		return nil, r.err()
	}
	r.read("", body, reflect.ValueOf(s).Elem())
	if s.Name == "" {
		s.Name = nameOf(file)
	}
	(&checker{Scenario: s, r: r}).check()
	if err := r.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// nameOf is a file's name without its extension, and with a dash for what a name may
// not have.
func nameOf(file string) string {
	name := strings.Map(func(c rune) rune {
		if strings.ContainsRune("-_.", c) || c < utf8.RuneSelf && (c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z') {
			return c
		}
		return '-'
	}, strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)))
	name = strings.TrimLeft(name[:min(len(name), 100)], "-_.")
	if name == "" {
		return "scenario"
	}
	return name
}

// document is the only document of a file, nil if it is empty.
func (r *reader) document(data []byte) (body ast.Node, err error) {
	at := place{1, 1}
	refuse := func(format string, args ...any) (ast.Node, error) {
		r.fail(at, "", format, args...)
		return nil, r.err()
	}
	if len(data) > maxFile {
		return refuse("the file has more than %d KiB", maxFile>>10)
	}
	if !utf8.Valid(data) {
		return refuse("the file is not text in UTF-8")
	}
	if line, deep := tooDeep(data); deep {
		at.line = line
		return refuse("nested more than %d deep", maxDepth)
	}
	doc, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if syntax := yaml.Error(nil); errors.As(err, &syntax) {
			if t := syntax.GetToken(); t != nil && t.Position != nil {
				at = place{t.Position.Line, t.Position.Column}
			}
			text := syntax.GetMessage()
			if strings.Contains(text, "'\t'") {
				text = "a tab begins the line; YAML is indented with spaces"
			}
			return refuse("%s", text)
		}
		return refuse("%s", err)
	}
	for _, d := range doc.Docs {
		if d.Body == nil || d.Body.Type() == ast.NullType || d.Body.Type() == ast.CommentType {
			continue
		}
		if body != nil {
			at = placeOf(d.Body)
			return refuse("a second YAML document; a file holds one scenario")
		}
		body = d.Body
	}
	return body, nil
}

// tooDeep bounds how many brackets may be open, and how many dashes and the like may begin a
// line: a rough count that no file written by a person comes near.
func tooDeep(data []byte) (line int, deep bool) {
	line = 1
	open, marks, indent := 0, 0, 0
	begins, leads := true, true // nothing but blanks, and marks, came in this line
	for _, c := range data {
		blank, mark := false, false
		switch c {
		case '\n':
			line++
			marks, indent, begins, leads = 0, 0, true, true
			continue
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		case '-', '?', ':', '!', '&', '*':
			mark = true
		case ' ', '\t':
			blank = true
		}
		switch {
		case blank && begins:
			indent++
		case mark && leads:
			marks++
		}
		begins, leads = begins && blank, leads && (blank || mark)
		if open > maxDepth || marks > maxDepth || indent > 4*maxDepth {
			return line, true
		}
	}
	return line, false
}
