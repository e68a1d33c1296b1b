package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/peercache/peercache/simulation/scenario"
)

// maxFaultsFile bounds what --faults reads, in bytes.
const maxFaultsFile = 16 << 20

// faultFile is a list of faults for --faults: what a shrunk run has left where the
// format of scenarios cannot say it.
type faultFile struct {
	Scenario string      `json:"scenario"`
	Seed     uint64      `json:"seed"`
	Faults   []jsonFault `json:"faults"`
}

// jsonFault is a scenario.Fault; durations are as in Go.
type jsonFault struct {
	Kind    scenario.FaultKind `json:"kind"`
	At      goDuration         `json:"at"`
	For     goDuration         `json:"for,omitempty"`
	Nodes   []int              `json:"nodes,omitempty"`
	Role    scenario.Role      `json:"role,omitempty"`
	Restart goDuration         `json:"restart,omitempty"`
	Notice  goDuration         `json:"notice,omitempty"`
	Delay   goDuration         `json:"delay,omitempty"`
	Part    int                `json:"parts_in_a_million,omitempty"`
	Rate    int64              `json:"bytes_a_second,omitempty"`
	Status  int                `json:"status,omitempty"`
	OneWay  bool               `json:"one_way,omitempty"`
}

type goDuration time.Duration

// MarshalText and UnmarshalText have durations be text.
func (d goDuration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *goDuration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = goDuration(v)
	return err
}

func jsonFaults(faults []scenario.Fault) []jsonFault {
	all := make([]jsonFault, 0, len(faults))
	for _, f := range faults {
		all = append(all, jsonFault{Kind: f.Kind, At: goDuration(f.At), For: goDuration(f.For), Nodes: f.Nodes, Role: f.Role, Restart: goDuration(f.Restart),
			Notice: goDuration(f.Notice), Delay: goDuration(f.Delay), Part: f.Part, Rate: f.Rate, Status: f.Status, OneWay: f.OneWay})
	}
	return all
}

func (f *jsonFault) fault() scenario.Fault {
	return scenario.Fault{Kind: f.Kind, At: time.Duration(f.At), For: time.Duration(f.For), Nodes: f.Nodes, Role: f.Role, Restart: time.Duration(f.Restart),
		Notice: time.Duration(f.Notice), Delay: time.Duration(f.Delay), Part: f.Part, Rate: f.Rate, Status: f.Status, OneWay: f.OneWay}
}

// readFaults reads a list of faults.
func readFaults(path string) ([]scenario.Fault, error) {
	f, err := os.Open(path) //nolint:gosec // the user names it
	if err != nil {
		return nil, fmt.Errorf("--faults: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFaultsFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("--faults: %w", err)
	case len(data) > maxFaultsFile:
		return nil, fmt.Errorf("--faults: %s has more than %d MiB", path, maxFaultsFile>>20)
	}
	var file faultFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		at := dec.InputOffset()
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			at = syntax.Offset
		}
		if mistyped := (*json.UnmarshalTypeError)(nil); errors.As(err, &mistyped) {
			at = mistyped.Offset
		}
		// The decoder has read on by then.
		if name, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
			at = int64(bytes.Index(data, []byte(name)))
		}
		return nil, fmt.Errorf("%s:%d: %w", path, 1+bytes.Count(data[:min(at, int64(len(data)))], []byte("\n")), err)
	}
	faults := make([]scenario.Fault, 0, len(file.Faults))
	for i := range file.Faults {
		faults = append(faults, file.Faults[i].fault())
	}
	return faults, nil
}

// faultsFit says what is wrong with a list of faults for a run.
func faultsFit(path string, faults []scenario.Fault, run *scenario.Run) error {
	as := *run
	as.Faults = faults
	if err := as.ValidateFaults(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
