package scenarios_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peercache/peercache/simulation/scenario"
	"github.com/peercache/peercache/simulation/scenarios"
)

// Each scenario of the library is sound, says what it is for, and makes a valid run at its own
// size and scaled.
func TestLibrary(t *testing.T) {
	for _, name := range scenarios.Names() {
		file, data, err := scenarios.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		s, err := scenario.Parse(file, data)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if s.Name != name {
			t.Errorf("%s names itself %q", file, s.Name)
		}
		if !strings.HasSuffix(s.Description, "?") || strings.Contains(s.Description, "\n") {
			t.Errorf("%s: the description asks no question: %q", file, s.Description)
		}
		for _, nodes := range []int{0, 1, 2, 3, 8, 50, 10_000} {
			run, err := s.Expand(1, nodes)
			if err != nil {
				t.Errorf("%s with %d nodes: %v", name, nodes, err)
				continue
			}
			if err := run.Validate(); err != nil {
				t.Errorf("%d nodes: %v", nodes, err)
			}
			if nodes == 0 && len(run.Notes) > 0 {
				t.Errorf("%s as it is written: %q", name, run.Notes)
			}
		}
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte("name: mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if file, data, err := scenarios.Open(path); err != nil || file != path || string(data) != "name: mine" {
		t.Errorf("a file: %s, %q, %v", file, data, err)
	}
	_, _, err := scenarios.Open("flash-crowd")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "flash-crowd-100") {
		t.Errorf("neither: %v", err)
	}
	if _, _, err := scenarios.Open("/dev/zero"); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a device: %v", err)
	}
}
