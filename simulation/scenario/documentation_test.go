package scenario

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/peercache/peercache/simulation/scenarios"
)

// Every key of the types is documented, every documented key exists, and every default can be
// read.
func TestKeysAreThoseOfTheTypes(t *testing.T) {
	var have []string
	kinds := map[string]string{}
	walk("", reflect.TypeFor[Scenario](), func(path, kind string) {
		have = append(have, path)
		kinds[path] = kind
	})
	var documented []string
	for _, k := range keys {
		if slices.Contains(documented, k.path) {
			t.Errorf("%s is documented twice", k.path)
		}
		documented = append(documented, k.path)
		if !slices.Contains(have, k.path) {
			t.Errorf("%s is documented, and no key", k.path)
		}
		if k.meaning == "" || !strings.HasSuffix(k.meaning, ".") {
			t.Errorf("%s: what does it mean? %q", k.path, k.meaning)
		}
	}
	for _, path := range have {
		if !slices.Contains(documented, path) {
			t.Errorf("%s is a key, and not documented", path)
		}
	}
	Defaults() // panics for one that cannot be read
	if _, err := Parse("x.yaml", []byte("topology: {nodes: 1, machines: [{share: 1}]}\nimages: [{layers: {size: 1MiB}}]\nworkload: [{}]\n"+
		"faults: [{kind: stale-dht}]\norigin: {limits: [{requests: 1, window: 1s}]}\n")); err != nil {
		t.Errorf("all defaults: %v", err)
	}
	for _, v := range valueKinds {
		for _, example := range strings.Split(v.examples, ", ") {
			if target := map[string]setter{"count": new(count), "size": new(size), "rate": new(rate), "duration": new(duration), "part": new(part),
				"ratio": new(ratio), "exponent": new(exponent), "nodes": new(selector), "amount": new(amount)}[v.kind]; target != nil {
				if err := target.set(example); err != nil {
					t.Errorf("an example of a %s: %v", v.kind, err)
				}
			}
		}
	}
	for path, kind := range kinds {
		if !slices.ContainsFunc(valueKinds, func(v valueKind) bool { return strings.HasSuffix(kind, v.kind) }) {
			t.Errorf("%s is a %s, of which nothing is said", path, kind)
		}
	}
}

// walk visits all keys below a struct, with the kind of their values.
func walk(path string, t reflect.Type, visit func(path, kind string)) {
	for i, name := range fields(t) {
		field := t.FieldByIndex(fieldIndex(t, i)).Type
		p := join(path, name)
		visit(p, kindName(field))
		for field.Kind() == reflect.Slice {
			field = field.Elem()
			p += "[]"
		}
		if field.Kind() == reflect.Struct {
			walk(p, field, visit)
		}
	}
}

func kindName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[selector]():
		return "nodes"
	case reflect.TypeFor[amount]():
		return "amount"
	case reflect.TypeFor[layers]():
		return "size, list or section"
	case reflect.TypeFor[zones]():
		return "count or list"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "flag"
	case reflect.Struct:
		return "section"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "list"
		}
		return kindName(t.Elem()) + " or list"
	}
	return t.Name()
}

// README.md holds the tables of the code, and its examples are scenarios.
func TestDocumentation(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for section, table := range map[string]string{"values": valueTable(), "keys": keyTables(), "workloads": workTable(), "faults": faultTable(), "library": libraryTable(t)} {
		section := regexp.MustCompile(`(?s)(<!-- ` + section + `: [^\n]*-->\n).*?(<!-- end -->)`)
		if !section.MatchString(text) {
			t.Fatalf("README.md has no section %v", section)
		}
		text = section.ReplaceAllString(text, "${1}"+strings.ReplaceAll(table, "$", "$$")+"${2}")
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile("README.md", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if text != string(data) {
		t.Error("the tables of README.md are not those of the code; run go test ./simulation/scenario -run Documentation -update")
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(examples) < 2 {
		t.Errorf("%d examples", len(examples))
	}
	for _, m := range examples {
		s, err := Parse("example.yaml", []byte(m[1]))
		if err != nil {
			t.Errorf("%v in\n%s", err, m[1])
			continue
		}
		if run, err := s.Expand(1, 0); err != nil || run.Validate() != nil {
			t.Errorf("%v, %v of\n%s", err, run.Validate(), m[1])
		}
	}
}

// tableOf is a table in Markdown: its head, and a row for each of some things.
func tableOf[T any](head string, things []T, row func(T) string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n%s|\n", head, strings.Repeat("|---", strings.Count(head, "|")-1))
	for _, x := range things {
		fmt.Fprintf(&b, "| %s |\n", row(x))
	}
	b.WriteString("\n")
	return b.String()
}

func libraryTable(t *testing.T) string {
	return tableOf("| name | nodes | |", scenarios.Names(), func(name string) string {
		file, data, err := scenarios.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(file, data)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("`%s` | %d | %s", name, s.Topology.Nodes, s.Description)
	})
}

func valueTable() string {
	return tableOf("| value | such as | |", valueKinds, func(v valueKind) string {
		examples := ""
		if v.examples != "" {
			examples = "`" + strings.ReplaceAll(v.examples, ", ", "`, `") + "`"
		}
		return fmt.Sprintf("%s | %s | %s", v.kind, examples, v.meaning)
	})
}

// keyTables are a table for each section of the file.
func keyTables() string {
	kinds := map[string]string{}
	walk("", reflect.TypeFor[Scenario](), func(path, kind string) { kinds[path] = kind })
	var b strings.Builder
	last := "-"
	for _, k := range keys {
		section, _, below := strings.Cut(strings.ReplaceAll(k.path, "[]", ""), ".")
		if !below && (kinds[k.path] == "text") {
			section = ""
		}
		if section != last {
			last = section
			b.WriteString("\n| key | value | default | |\n|---|---|---|---|\n")
		}
		standard := k.standard
		if standard != "" && standard[0] != '(' {
			standard = "`" + standard + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.path, kinds[k.path], standard, k.meaning)
	}
	b.WriteString("\n")
	return b.String()
}

func workTable() string {
	return tableOf("| kind | further keys | |", workKinds, func(k workKind) string {
		return fmt.Sprintf("`%s` | %s | %s", k.kind, keyList(k.keys), k.meaning)
	})
}

func faultTable() string {
	return tableOf("| kind | further keys | group | |", faultKinds, func(k faultKind) string {
		return fmt.Sprintf("`%s` | %s | %s | %s", k.kind, keyList(strings.Fields(k.keys)), k.group, k.meaning)
	})
}

func keyList(keys []string) string {
	var out []string
	for _, k := range keys {
		if name, need := strings.CutSuffix(k, "!"); need {
			k = "**`" + name + "`**"
		} else {
			k = "`" + name + "`"
		}
		out = append(out, k)
	}
	return strings.Join(out, ", ")
}

// Every kind of fault that there is can be written.
func TestFaultKinds(t *testing.T) {
	source, err := os.ReadFile("fault.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`FaultKind = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(named) != len(faultKinds) {
		t.Errorf("%d kinds in fault.go, %d of the format", len(named), len(faultKinds))
	}
	for _, m := range named {
		if kindOf(m[1]) == nil {
			t.Errorf("%s cannot be written", m[1])
		}
	}
}
