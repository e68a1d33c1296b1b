package scenario_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

// Whatever the text, Parse says what is wrong with it or gives a scenario that expands to a
// valid run with any seed and any number of nodes, the same each time.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint64(1), uint16(0))
	}
	for _, name := range scenarios.Names() {
		data, err := fs.ReadFile(scenarios.FS, name+".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint64(2), uint16(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64, nodes uint16) {
		s, err := scenario.Parse("fuzz.yaml", data)
		if err != nil {
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, "fuzz.yaml:") && !strings.HasPrefix(line, " ") && len(strings.Fields(line)) > 20 {
					t.Errorf("an error without a place: %q", line)
				}
			}
			return
		}
		for _, n := range []int{0, int(nodes % 300)} {
			run, err := s.Expand(seed, n)
			if err != nil {
				if !strings.Contains(err.Error(), "nobody pulls anything") {
					t.Fatal(err)
				}
				continue
			}
			if err := run.Validate(); err != nil {
				t.Fatal(err)
			}
			if again, err := s.Expand(seed, n); err != nil || !reflect.DeepEqual(run, again) {
				t.Fatal("twice the same seed, and two runs")
			}
		}
	})
}
