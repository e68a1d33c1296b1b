package config

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile bounds the configuration file; who names /dev/zero is told so.
const maxFile = 1 << 20

// readFile applies a YAML file. It is strict: a key that is no setting, a key
// given twice, a list where a value belongs are errors with the line's number.
// It walks the document rather than decoding it into a struct, so that messages
// name the key as it stands in the file and values are parsed as those of flags
// are.
func (s *Settings) readFile(c *Config, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return fmt.Errorf("configuration file %s: not a file of at most 1 MiB", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration file: %w", err)
	}
	doc, err := parser.ParseBytes(data, 0)
	if err != nil {
		if syntax := yaml.Error(nil); errors.As(err, &syntax) && syntax.GetToken() != nil {
			return fmt.Errorf("%s:%d: %s", path, syntax.GetToken().Position.Line, syntax.GetMessage())
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	f := &fileReader{path: path, config: c, byKey: map[string]*setting{}, sections: map[string]bool{}}
	for _, set := range s.all {
		if set.key != "" {
			f.byKey[set.key] = set
		}
		if section, _, ok := strings.Cut(set.key, "."); ok {
			f.sections[section] = true
		}
	}
	if len(doc.Docs) > 1 {
		return fmt.Errorf("%s: more than one YAML document", path)
	}
	for _, d := range doc.Docs {
		if d.Body != nil && d.Body.Type() != ast.NullType && d.Body.Type() != ast.CommentType {
			f.mapping("", d.Body)
		}
	}
	return errors.Join(f.errs...)
}

type fileReader struct {
	path     string
	config   *Config
	byKey    map[string]*setting
	sections map[string]bool
	errs     []error
}

func (f *fileReader) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, n.GetToken().Position.Line)
}

func (f *fileReader) fail(n ast.Node, format string, args ...any) {
	f.errs = append(f.errs, fmt.Errorf("%s: %s", f.at(n), fmt.Sprintf(format, args...)))
}

// entries calls visit for each key of a mapping, and reports keys given twice
// and nodes that are no mapping.
func (f *fileReader) entries(what string, n ast.Node, visit func(key string, k ast.MapKeyNode, value ast.Node)) {
	m, ok := n.(ast.MapNode)
	if !ok {
		f.fail(n, "%s must hold keys and values", what)
		return
	}
	seen := map[string]bool{}
	for it := m.MapRange(); it.Next(); {
		key := it.Key().GetToken().Value
		if it.Key().Type() == ast.MergeKeyType {
			f.fail(it.Key(), "merge keys are not supported")
			continue
		}
		if seen[key] {
			f.fail(it.Key(), "%q is given twice", key)
			continue
		}
		seen[key] = true
		visit(key, it.Key(), it.Value())
	}
}

func (f *fileReader) mapping(prefix string, n ast.Node) {
	what := "the file"
	if prefix != "" {
		what = strings.TrimSuffix(prefix, ".")
	}
	f.entries(what, n, func(name string, k ast.MapKeyNode, value ast.Node) {
		key := prefix + name
		set := f.byKey[key]
		switch {
		case prefix == "" && f.sections[key]:
			if value.Type() != ast.NullType {
				f.mapping(key+".", value)
			}
		case set == nil:
			f.fail(k, "unknown key %q%s", key, f.suggest(prefix, name))
		case value.Type() == ast.NullType:
			// "listen:" without a value leaves the default.
		case set.flag == "origin":
			f.origins(value)
			f.config.from[set.flag] = f.at(k) + ": " + key
		default:
			if values, ok := f.values(key, value, set.list); ok {
				if err := set.apply(f.config, values, f.at(k)+": "+key); err != nil {
					f.errs = append(f.errs, err)
				}
			}
		}
	})
}

// values reads a scalar, or where list is true a sequence of scalars.
func (f *fileReader) values(key string, n ast.Node, list bool) ([]string, bool) {
	if seq, ok := n.(*ast.SequenceNode); ok && list {
		values := []string{}
		for _, item := range seq.Values {
			v, ok := f.scalar(key, item)
			if !ok {
				return nil, false
			}
			values = append(values, v)
		}
		return values, true
	}
	v, ok := f.scalar(key, n)
	return []string{v}, ok
}

func (f *fileReader) scalar(key string, n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSpace(n.Value.Value), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	}
	f.fail(n, "%s must be a single value", key)
	return "", false
}

// origins reads origins.named: a name with a URL, or with url, mirrors, ca_file
// and plain_http.
func (f *fileReader) origins(n ast.Node) {
	f.config.Origins = nil
	f.entries("origins.named", n, func(name string, k ast.MapKeyNode, value ast.Node) {
		o := Origin{Name: name}
		if _, ok := value.(ast.MapNode); !ok {
			v, ok := f.scalar("origins.named."+name, value)
			if ok {
				o.URL = v
				f.config.Origins = append(f.config.Origins, o)
			}
			return
		}
		f.entries("origins.named."+name, value, func(field string, k ast.MapKeyNode, value ast.Node) {
			key := "origins.named." + name + "." + field
			set, known := originFields[field]
			if !known {
				f.fail(k, "unknown key %q", key)
				return
			}
			values, ok := f.values(key, value, field == "mirrors")
			if !ok {
				return
			}
			if err := set(&o, values); err != nil {
				f.fail(value, "%s: %v", key, err)
			}
		})
		f.config.Origins = append(f.config.Origins, o)
	})
}

// originFields are the keys of an origin that is more than a URL.
var originFields = map[string]func(o *Origin, values []string) error{
	"url":        func(o *Origin, v []string) error { o.URL = v[0]; return nil },
	"mirrors":    func(o *Origin, v []string) error { o.Mirrors = v; return nil },
	"ca_file":    func(o *Origin, v []string) error { o.CAFile = v[0]; return nil },
	"plain_http": func(o *Origin, v []string) (err error) { o.PlainHTTP, err = parseBool(v[0]); return err },
}

// suggest names the key that was perhaps meant: one that ends in the same word,
// or the flag's spelling of one.
func (f *fileReader) suggest(prefix, name string) string {
	var found []string
	for key, set := range f.byKey {
		_, last, ok := strings.Cut(key, ".")
		if !ok {
			last = key
		}
		if prefix+name != key && (name == last || name == set.flag || strings.ReplaceAll(name, "-", "_") == last || near(prefix+name, key)) {
			found = append(found, key)
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.Sort(found)
	return fmt.Sprintf("; perhaps %q is meant", found[0])
}

// near reports whether a becomes b by changing, adding or removing one letter.
func near(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(b)-len(a) > 1 {
		return false
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	if len(a) == len(b) {
		return i == len(a) || a[i+1:] == b[i+1:]
	}
	return a[i:] == b[i+1:]
}
