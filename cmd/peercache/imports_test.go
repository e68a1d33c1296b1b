package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/peercache/peercache"

// allowed says which other packages of this module those in a folder may import;
// a folder named here stands for itself, not for what the one above it may. Among
// themselves they may import what they like. Nobody imports cmd or e2e.
var allowed = map[string][]string{
	"chunkindex":           {},
	"store":                {"chunkindex"},
	"p2p":                  {"chunkindex"},
	"fetcher":              {"chunkindex", "fetcher/policy"},
	"fetcher/policy":       {"chunkindex"},
	"registryproxy":        {},
	"registryproxy/origin": {},
	"simulation":           {"chunkindex", "fetcher/policy", "simulation/scenario"},
	// The description of a run stands for itself: benchmarks take it too.
	"simulation/scenario":  {},
	"simulation/scenarios": {},
	"cmd/peercache":        {"chunkindex", "store", "p2p", "fetcher", "registryproxy", "simulation"},
	// Tests and measurements of the whole from outside.
	"e2e":   {},
	"bench": {"chunkindex", "store", "p2p", "fetcher", "registryproxy", "simulation/scenario", "simulation/scenarios"},
}

// The folders are the architecture: this test is what keeps them so. It reads the
// sources rather than asking the go command, so that files of other platforms
// and build tags count too.
func TestImportDirections(t *testing.T) {
	packages := readModule(t)
	for _, must := range []string{"chunkindex", "store", "p2p", "fetcher", "fetcher/policy", "registryproxy", "registryproxy/origin", "simulation", "cmd/peercache"} {
		if packages[must] == nil {
			t.Errorf("package %s is not there, or was not found", must)
		}
	}
	for dir, pkg := range packages {
		top := owner(dir)
		if top == "" {
			t.Errorf("%s: which packages it may import is not written down here", dir)
			continue
		}
		for imported, file := range pkg.imports {
			if owner(imported) != top && !slices.ContainsFunc(allowed[top], func(a string) bool { return within(imported, a) }) {
				t.Errorf("%s: %s must not import %s", file, dir, imported)
			}
		}
	}
}

// Every package says in its comment what it is for (style.md calls it a habit;
// a test makes it one).
func TestPackagesHaveComments(t *testing.T) {
	for dir, pkg := range readModule(t) {
		if pkg.sources == 0 {
			continue // tests only
		}
		want := "Package " + pkg.name + " "
		if pkg.name == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(pkg.comment, want) {
			t.Errorf("%s: no package comment that begins with %q", dir, want)
		}
		if len(strings.Fields(pkg.comment)) < 15 {
			t.Errorf("%s: a package comment gives role and non-goals; this one is %q", dir, pkg.comment)
		}
	}
}

type sourcePackage struct {
	name, comment string
	sources       int               // files that are no tests
	imports       map[string]string // of this module, by folder, to the file that does
}

// readModule parses every Go file of the module, tests only for their imports of
// what they must not reach through (which is nothing: a test may import anything
// but commands).
func readModule(t *testing.T) map[string]*sourcePackage {
	t.Helper()
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	packages := map[string]*sourcePackage{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "testdata" || len(n) > 2 && strings.HasPrefix(n, ".") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		pkg := packages[dir]
		if pkg == nil {
			pkg = &sourcePackage{imports: map[string]string{}}
			packages[dir] = pkg
		}
		isTest := strings.HasSuffix(file, "_test.go")
		if !isTest {
			pkg.sources++
			pkg.name = f.Name.Name
			if f.Doc != nil {
				pkg.comment += f.Doc.Text()
			}
		}
		return pkg.addImports(f, filepath.ToSlash(rel), isTest)
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

func (p *sourcePackage) addImports(f *ast.File, file string, isTest bool) error {
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		folder, ours := strings.CutPrefix(name, module+"/")
		if ours && (!isTest || strings.HasPrefix(folder, "cmd/")) {
			p.imports[folder] = file
		}
	}
	return nil
}

// owner is the longest entry of allowed that dir lies in.
func owner(dir string) string {
	longest := ""
	for folder := range allowed {
		if within(dir, folder) && len(folder) > len(longest) {
			longest = folder
		}
	}
	return longest
}

func within(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }
